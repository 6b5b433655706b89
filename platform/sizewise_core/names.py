"""Names that are read from a file and become paths: plain file names, or they are refused.

    plain_name("train-00000.arrow")          # itself
    plain_name("../../etc/passwd")           # ValueError

A manifest, a record or a description may come from somebody else, and a name in it must not lead out of the folder
that it was read from. Sizewise itself writes only short names of letters, digits, `.`, `-` and `_`, so nothing else is
accepted: no path separator, no `..`, no hidden file, no control character, nothing with a meaning in shells, URIs or
glob patterns.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

from sizewise_core.errors import shown

MOST_CHARACTERS = 200
"""The longest name. File systems allow 255, and the temporary files beside a file have longer names."""

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MOST_FOLDERS = 2


def is_plain_name(name: object) -> bool:
    """Whether something is the plain name of a file or folder."""
    return isinstance(name, str) and len(name) <= MOST_CHARACTERS and _PLAIN.fullmatch(name) is not None


def plain_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: not the plain name of a file or folder.
    """
    if not is_plain_name(name):
        raise ValueError(
            f"{shown(name)} is not a plain file name (letters, digits, '.', '-' and '_', at most "
            f"{MOST_CHARACTERS} of them)"
        )
    return name


def plain_path(path: str) -> str:
    """A relative path itself: plain names with `/` between them, at most two folders deep.

    Raises:
        ValueError: not such a path.
    """
    names = path.split("/", _MOST_FOLDERS + 1)
    if len(names) > _MOST_FOLDERS + 1:
        raise ValueError(f"{shown(path)} is not the path of a file in this folder")
    for name in names:
        plain_name(name)
    return path


PlainName = Annotated[str, AfterValidator(plain_name)]
"""A field that is a plain file name."""

PlainPath = Annotated[str, AfterValidator(plain_path)]
"""A field that is the path of a file within the folder of the file that names it."""
