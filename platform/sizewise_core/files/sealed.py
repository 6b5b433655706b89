"""JSON objects with a checksum: a flipped bit is an error and never another value.

A sealed object is ordinary JSON whose last field is the CRC-32 of the text before it. An object without that field is
accepted unchecked, because an older version or another tool wrote it: a single error can damage the field or the
content, never both. With the field elsewhere, or spaced otherwise, it is what another tool made of a sealed one.

    sealed('{"auc": 0.75}')                                 # '{"auc": 0.75, "crc32": "5ae3c8c5"}'
    unsealed(b'{"auc": 0.85, "crc32": "5ae3c8c5"}')          # DamagedError
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

JsonObject = dict[str, Any]
"""An object of JSON, as Python reads it."""
SEAL = b', "crc32": "'
LAST_LINE = b"# crc32: "
"""How the last line begins in a text that has its checksum there, as a study's YAML does."""
MOST_DEPTH = 30
"""How deep lists and objects may be nested; those of a record are three deep."""


class DamagedError(ValueError):
    """A file is not what was written; the message says what shows it."""


def sealed(text: str) -> str:
    """A non-empty JSON object with its checksum as the last field."""
    content = text.rstrip().removesuffix("}").rstrip()
    return f'{content}{SEAL.decode()}{zlib.crc32(content.encode()):08x}"}}'


def is_intact(text: bytes) -> bool:
    """Whether a sealed text is what was written; one without a checksum counts as intact."""
    content, seal, rest = text.rpartition(SEAL)
    return not seal or rest.rstrip() == f'{zlib.crc32(content):08x}"}}'.encode()


def unsealed(text: bytes) -> JsonObject:
    """The fields of a sealed object, without the checksum.

    Raises:
        DamagedError: not a JSON object, not the one that was sealed, or one that Sizewise never writes.
    """
    if not is_intact(text):
        raise DamagedError("its content does not match its checksum")
    try:
        fields = json.loads(text)
    except RecursionError:
        raise DamagedError("nested too deeply") from None
    except ValueError:
        raise DamagedError("not valid JSON" if text.strip() else "empty") from None
    if not isinstance(fields, dict):
        raise DamagedError("not a JSON object")
    if not _is_shallow(fields, MOST_DEPTH):
        raise DamagedError("nested too deeply")
    if b"\\u" in text and not _is_text(fields):
        raise DamagedError("its text is not Unicode")
    if fields.pop("crc32", None) is not None and not has_seal(text):
        raise DamagedError("it was written anew by another program, so that its checksum tells nothing")
    return fields


def last_line_holds(text: bytes) -> bool:
    """Whether a text with a checksum in its last line is what was written; one without counts as intact."""
    content, line, rest = text.rpartition(LAST_LINE)
    return not line or rest.strip() == b"%08x" % zlib.crc32(content)


def is_cut_short(text: bytes, other: bytes) -> bool:
    """Whether a text has lost its end, compared with another copy. A user would have removed the last line alone."""
    content = other.rpartition(LAST_LINE)[0].rstrip()
    return LAST_LINE not in text and content.startswith(text.rstrip()) and len(text.rstrip()) < len(content)


def has_seal(text: bytes) -> bool:
    """Whether a text has a checksum: then it is what some version of Sizewise wrote, unless it is damaged."""
    return SEAL in text


def _is_shallow(value: Any, most: int) -> bool:
    """Whether lists and objects are nested at most `most` deep: later steps recurse over them."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most > 0 and all(_is_shallow(v, most - 1) for v in inner if isinstance(v, dict | list))


def _is_text(fields: Mapping[str, object]) -> bool:
    """Whether all text can be written as UTF-8: JSON may spell half a surrogate pair, which cannot be printed."""
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
