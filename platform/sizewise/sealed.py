"""JSON objects that know when they are damaged: a flipped bit is an error and never another value.

A sealed object is ordinary JSON whose last field is the CRC-32 of the text before it. One without a seal is read
as it is (an older version or another tool wrote it): a single damage can take the seal or the content, never both.

    sealed('{"auc": 0.75}')                                 # '{"auc": 0.75, "crc32": "5ae3c8c5"}'
    unsealed(b'{"auc": 0.85, "crc32": "5ae3c8c5"}')          # DamagedError
"""

import json
import zlib
from typing import Any

SEAL = b', "crc32": "'


class DamagedError(ValueError):
    """A file is not what was written; the message says what gave it away."""


def sealed(text: str) -> str:
    """A non-empty JSON object with its seal."""
    content = text.rstrip().removesuffix("}").rstrip()
    return f'{content}{SEAL.decode()}{zlib.crc32(content.encode()):08x}"}}'


def whole(text: bytes) -> bool:
    """Whether a sealed text holds what was written; one without a seal counts as whole."""
    content, seal, rest = text.rpartition(SEAL)
    return not seal or rest.rstrip() == f'{zlib.crc32(content):08x}"}}'.encode()


def unsealed(text: bytes) -> dict[str, Any]:
    """The fields of a sealed object, without the seal.

    Raises:
        DamagedError: not an object of JSON, or not the one that was sealed.
    """
    if not whole(text):
        raise DamagedError("its content does not match its checksum")
    try:
        fields = json.loads(text)
    except ValueError:
        raise DamagedError("not valid JSON" if text.strip() else "empty") from None
    if not isinstance(fields, dict):
        raise DamagedError("not a JSON object")
    fields.pop("crc32", None)
    return fields
