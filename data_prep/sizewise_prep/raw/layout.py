"""Which column of a raw log is what.

    layout = Layout.load(Path("avazu.yaml"))
    layout.dense, layout.tokens             # the names of the shards' columns

Criteo's layout is the default. Any other comes from a small YAML file (docs/data_prep.md shows Avazu's):

    separator: ","
    header: true
    columns: {id: skip, click: label, site_id: hex, app_category: string, C15: integer}
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sizewise_core.errors import InputError, first_problem
from sizewise_core.yaml_files import line_of, load_yaml

Kind = Literal["label", "integer", "hex", "decimal", "string", "time", "skip"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TOKEN_KINDS = ("hex", "decimal", "string")


class Layout(BaseModel):
    """The columns of a raw log, in the order of the file.

    Attributes:
        separator: one character between fields; there is no quoting.
        header: whether each file's first line names the columns.
        columns: what each column holds: `label` 0 or 1; `integer` a signed number of 64 bits, which becomes a
            dense column; a token as `hex` (up to 8 digits), `decimal` (up to 4,294,967,295) or free `string`
            (hashed, see `hashing`); `time`, one column at most, by which the order of rows is checked, and which
            is not kept (see `time_order`); or `skip`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    separator: str = "\t"
    header: bool = False
    columns: dict[str, Kind]

    @model_validator(mode="after")
    def _usable(self) -> Layout:
        kinds = list(self.columns.values())
        if len(self.separator) != 1 or self.separator in '-"\0\r\n' or not self.separator.isascii():
            raise ValueError(
                f"separator {self.separator[:20]!r}: give one character, such as a tab or a comma"
            )
        if self.separator.isalnum():
            raise ValueError(f"separator {self.separator!r}: letters and digits stand in the fields")
        if kinds.count("label") != 1:
            raise ValueError(f"{kinds.count('label')} columns are the label; name one")
        if kinds.count("time") > 1:
            raise ValueError(f"{kinds.count('time')} columns are the time; name one, and `skip` the others")
        if "integer" not in kinds or not self.tokens:
            raise ValueError("name at least one integer column and one token column (hex, decimal, string)")
        return self

    @property
    def dense(self) -> list[str]:
        """The integer columns' names."""
        return [name for name, kind in self.columns.items() if kind == "integer"]

    @property
    def tokens(self) -> list[str]:
        """The token columns' names."""
        return [name for name, kind in self.columns.items() if kind in TOKEN_KINDS]

    @property
    def shape(self) -> str:
        """What a line holds, in words."""
        return f"label, {len(self.dense)} integers, {len(self.tokens)} tokens"

    def header_fault(self, line: bytes) -> str:
        """What is wrong with a file's first line (without its ending) as a header; empty where nothing is."""
        names = line.decode("utf-8", "backslashreplace").split(self.separator)
        expected = list(self.columns)
        if names == expected:
            return ""
        differ = (i for i, pair in enumerate(zip(names, expected, strict=False)) if pair[0] != pair[1])
        at = next(differ, None)
        if at is None:
            return f"has {len(names):,} columns instead of {len(expected):,}"
        return (
            f"names column {at + 1} {quoted(names[at].encode())} instead of {quoted(expected[at].encode())}"
        )

    @staticmethod
    def load(path: str | Path) -> Layout:
        """Read a schema file. Raises InputError that names the file, the line and the field."""
        document = load_yaml(Path(path))
        if not isinstance(document, dict) or "columns" not in document:
            raise InputError(
                f"{path}: a schema file is a mapping with `columns:`, one `name: kind` a line; this one is not"
            )
        if (found := _unusable(document)) is not None:
            steps, what = found
            field = ".".join(f"{step}"[:40] for step in steps)
            raise InputError(f"{path}{line_of(document, steps)}: {field}: {what}")
        try:
            return Layout.model_validate(_plain(document))
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}") from None


def quoted(field: bytes, most: int = 40) -> str:
    """A field as a message quotes it: shortened, and only described where it is not text."""
    try:
        text = field[: most + 3].decode("utf-8", "strict" if len(field) <= most + 3 else "ignore")
    except UnicodeDecodeError:
        return f"({len(field):,} bytes that are not text)"
    if not text.isprintable():
        return f"({len(field):,} bytes that are not text)"
    return repr(text[:most] + ("..." if len(text) > most else ""))


def _unusable(document: dict[Any, Any]) -> tuple[list[Any], str] | None:
    """Where a schema file says what it cannot, and what is wrong there; None when it can be a layout."""
    known = list(Layout.model_fields)
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            maybe = f" (did you mean {near[0]}?)" if near else ""
            return [key], f"unknown key{maybe}; known keys: {', '.join(known)}"
    separator, header, columns = (
        document.get("separator", "\t"),
        document.get("header", False),
        document["columns"],
    )
    if separator in ("\\t", "/t"):
        return [
            "separator"
        ], 'is a backslash and a t in single quotes or none: write "\\t" in double quotes for a tab'
    if not isinstance(separator, str) or not separator:
        return ["separator"], 'write one character in double quotes, such as "," or "\\t"'
    if not isinstance(header, bool):
        return ["header"], f"write true or false, not {header!r:.40}"
    if not isinstance(columns, dict):
        return ["columns"], "write one `name: kind` a line, in the order of the file"
    for name, kind in columns.items():
        if not isinstance(name, str):
            written = str(name).lower() if isinstance(name, bool) else "null" if name is None else str(name)
            return [
                "columns",
                name,
            ], f"quote the key, for it is not text as it is: '{written:.40}': {kind!s:.20}"
        if kind not in KINDS:
            near = difflib.get_close_matches(str(kind), KINDS, 1)
            maybe = f" (did you mean {near[0]}?)" if near else ""
            what = "has no kind" if kind is None else f"{kind!s:.40} is not a kind{maybe}"
            return ["columns", name], f"{what}; the kinds are {', '.join(KINDS)}"
    return None


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """The same without what remembers lines."""
    return {**document, "separator": str(document.get("separator", "\t")), "columns": {**document["columns"]}}


CRITEO = Layout(
    columns={"label": "label"}
    | {f"I{column}": "integer" for column in range(1, 14)}
    | {f"C{column}": "hex" for column in range(1, 27)}
)
