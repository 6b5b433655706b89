"""`study.json`: what readers need to know of a study beside its trials. Sealed, and written by the driver alone."""

import json
from typing import Any

from sizewise.store.ledger import MOST_BYTES
from sizewise_core.errors import InputError
from sizewise_core.sealed import DamagedError, sealed, unsealed
from sizewise_core.storage import Place, StorageError, read, write

FILE = "study.json"
VERSION = 1
MOST_YAML_BYTES = 1 << 20
"""Of `study.yaml`, which has one or two thousand; reading YAML is slow."""


def save(folder: Place, facts: dict[str, Any]) -> None:
    """Write the facts. Raises OSError."""
    write(folder / FILE, sealed(json.dumps(facts, indent=1)).encode())


def load(folder: Place) -> dict[str, Any] | None:
    """The facts; None where they are gone or damaged, and can be worked out anew.

    Raises:
        InputError: a newer version wrote them.
        OSError: they cannot be read.
    """
    try:
        facts = unsealed(read(folder / FILE, MOST_BYTES))
    except (FileNotFoundError, DamagedError):
        return None
    version = facts.get("schema_version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{folder / FILE}: a newer version of Sizewise wrote this study (schema_version {version}): use that one"
        )
    return facts


def yaml_before(folder: Place) -> bytes:
    """The other copy of `study.yaml`; nothing where that cannot be read."""
    try:
        return read(folder / "study.before", MOST_YAML_BYTES)
    except StorageError:
        raise
    except OSError:
        return b""
