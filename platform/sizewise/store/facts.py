"""`study.json`: what readers need to know of a study beside its trials. Sealed, and written by the driver alone."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from sizewise.metrics.registry import Direction
from sizewise.store.records import VERSION
from sizewise.store.study_folder import MOST_BYTES, MOST_YAML_BYTES, StudyFolder
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError, sealed, unsealed
from sizewise_core.stores.storage import Place, StorageError, read, write


class DataFacts(TypedDict, total=False):
    """The data set of a study."""

    path: str
    fingerprint: str
    rows: Mapping[str, int]
    full_bytes: int
    features: int
    click_rate: float | None
    validation_click_rate: float | None


class Facts(TypedDict, total=False):
    """What the file says; `records.StudyRecord` is what readers take of it."""

    schema_version: int
    name: str
    created: float
    trials: int
    objectives: Mapping[str, Direction]
    prices: Mapping[str, Any] | None
    constraints: Mapping[str, Any]
    data: DataFacts
    teacher: Sequence[Mapping[str, Any]]
    baseline: Mapping[str, Any]


def save(folder: Place, facts: Facts) -> None:
    """Write the facts. Raises OSError."""
    write(StudyFolder(folder).facts, sealed(json.dumps(facts, indent=1)).encode())


def load(folder: Place) -> Facts | None:
    """The facts; None where they are gone or damaged, and can be worked out anew.

    Raises:
        InputError: a newer version wrote them.
        OSError: they cannot be read.
    """
    path = StudyFolder(folder).facts
    try:
        facts = unsealed(read(path, MOST_BYTES))
    except (FileNotFoundError, DamagedError):
        return None
    version = facts.get("schema_version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{path}: a newer version of Sizewise wrote this study (schema_version {version}): use that one"
        )
    return cast(Facts, facts)


def save_trials(folder: Place, trials: int) -> None:
    """Bring up to date how many trials the study asks for. Raises OSError."""
    known = load(folder)
    if known and known.get("trials") != trials:
        save(folder, {**known, "trials": trials})


def data_fingerprint(folder: Place) -> str | None:
    """The fingerprint of the data when the study began; None where an older version kept none, or it is gone."""
    try:
        return str((load(folder) or Facts())["data"]["fingerprint"])
    except (KeyError, TypeError):
        return None


def yaml_before(folder: Place) -> bytes:
    """The other copy of `study.yaml`; nothing where that cannot be read."""
    try:
        return read(StudyFolder(folder).study_before, MOST_YAML_BYTES)
    except StorageError:
        raise
    except OSError:
        return b""
