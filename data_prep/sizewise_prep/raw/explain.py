"""Why a line of a raw log is not a valid row, in one sentence: what the file seems to be, and what to do.

    explained(layout, BadRow(1, b"label,I1", fault), by_schema=True)

The first line tells most: a header that no schema file mentions, another separator, another kind of file. Commands that
take no schema file (`score` and `evaluate`, whose model has its layout) never suggest one.
"""

from __future__ import annotations

import re

from sizewise_prep.raw.files.formats import text_format
from sizewise_prep.raw.layout import CRITEO, Layout, quoted
from sizewise_prep.raw.parsing.parser import BadRow

_SEPARATORS = {
    b"\t": "tabs",
    b",": "commas",
    b";": "semicolons",
    b"|": "bars (|)",
    b" ": "spaces",
    b":": "colons",
}
_WRITTEN = {b"\t": r'"\t"'}
_NAME = re.compile(rb'\s*"?[A-Za-z_][\w .:/()-]*"?\s*', re.ASCII)
_LOOSE = b"\t,;|"  # separators even where the number of fields is wrong
_BY_KIND = ("not_an_integer", "integer_range", "not_decimal", "token_range", "not_hex", "token_length")
"""Faults that another kind of column would not have."""
_PROPOSED = "`sizewise schema` proposes one"
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")


NO_NEWLINES = "lines end with a carriage return alone: convert them, such as with `tr '\\r' '\\n'`"


def explained(layout: Layout, row: BadRow, by_schema: bool) -> str:
    """What is wrong with a row, and what to do.

    Args:
        layout: that it should have.
        row: as the parser found it, counted from its file's first line.
        by_schema: whether a schema file can be given.
    """
    first = row.line == 1
    cause = _cause(layout, row.raw, by_schema, first)
    if cause:
        return cause
    detail = row.fault.detail
    if by_schema and row.fault.reason in _BY_KIND:
        more = (
            ", which takes signs and more than 32 bits"
            if row.fault.reason in ("not_decimal", "token_range")
            else ""
        )
        return (
            f"{detail}; fix the row, set bad ones aside (--max-bad-fraction), or make the column a `string` "
            f"(--schema){more}"
        )
    if by_schema and first and layout == CRITEO and row.fault.reason in ("field_count", "label"):
        return f"{detail}; logs in another layout than Criteo's need a schema file (--schema; {_PROPOSED})"
    return f"{detail}; fix the row, or leave bad rows out with --max-bad-fraction"


def bad_header(path: str, layout: Layout, line: bytes, wrong: str, by_schema: bool) -> str:
    """A message about a first line that does not name the columns as the schema file does.

    Args:
        path: of the file.
        layout: the columns that it should name.
        line: the line, without its ending.
        wrong: how it differs, from `Layout.header_fault`.
        by_schema: whether the user can give a schema file.
    """
    cause = text_format(line) or _other_separator(layout, line, by_schema, first=True)
    if cause:
        return f"{path}, line 1: {cause}"
    what = (
        "fix the schema file, or write `header: false` there if files have none"
        if by_schema
        else "the model reads files whose first line names the columns of its study: convert the files to that layout"
    )
    return f"{path}, line 1: {wrong}; {what}"


def _cause(layout: Layout, line: bytes, by_schema: bool, first: bool) -> str | None:
    """What a file with such a line seems to be; None where only the row is bad."""
    if first and (found := text_format(line)):
        return found
    if first and line.strip(b"\r").count(b"\r") > 1:
        return NO_NEWLINES
    if first and line.count(layout.separator.encode()) != len(layout.columns) - 1 and _is_binary(line):
        return "is not text: give a log, which is text with one row a line"
    if found := _other_separator(layout, line, by_schema, first):
        return found
    fields = line.split(layout.separator.encode())
    if first and not layout.header and _is_header(fields, layout):
        names = f"names columns ({', '.join(quoted(field, 20) for field in fields[:2])}, ...), and is no row"
        if not by_schema:
            return f"{names}: remove it, for the model's study had logs without a header"
        return f"{names}: write `header: true` and these names in a schema file (--schema; {_PROPOSED}), or remove it"
    in_quotes = [
        field for field in fields if len(field) > 1 and field[:1] == field[-1:] and field[:1] in b"\"'"
    ]
    if in_quotes:
        what = (
            f"fields are in quotes ({quoted(in_quotes[0])}), which raw logs do not have: write them without"
        )
        return (
            f"{what}, or write `quotes: true` in a schema file (--schema; {_PROPOSED})" if by_schema else what
        )
    return None


def _other_separator(layout: Layout, line: bytes, by_schema: bool, first: bool) -> str | None:
    """A message that another character separates the fields; None where none does."""
    own, wanted = layout.separator.encode(), len(layout.columns)
    if line.count(own) == wanted - 1:
        return None
    counts = {other: line.count(other) for other in _SEPARATORS if other != own}
    fitting = [other for other, count in counts.items() if count == wanted - 1]
    some = [other for other, count in counts.items() if count > 1 and own not in line and other in _LOOSE]
    others = fitting or (some if first else [])
    if not others:
        return None
    found = max(others, key=lambda other: counts[other])
    what = (
        f"fields are separated by {_SEPARATORS[found]}, not by {_SEPARATORS.get(own, repr(layout.separator))}"
    )
    if by_schema:
        sign = _WRITTEN.get(found, f'"{found.decode()}"')
        named = first and not layout.header and _is_header(line.split(found), layout)
        header = ", `header: true`" if named else ""
        fix = (
            f"write `separator: {sign}`{header} and name the columns in a schema file (--schema; {_PROPOSED})"
        )
        return f"{what}: {fix}"
    return f"{what}: write the logs as those that the model's study was prepared from"


def _is_binary(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return _CONTROL.search(line) is not None


def _is_header(fields: list[bytes], layout: Layout) -> bool:
    """Whether fields are names: those of the layout, or texts where numbers must be."""
    names = {name.encode() for name in layout.columns}
    if len(fields) > 1 and sum(field.strip(b'" ') in names for field in fields) > len(fields) / 2:
        return True
    if len(fields) != len(layout.columns):
        return len(fields) > 2 and all(_NAME.fullmatch(field) for field in fields)
    numbers = [
        field
        for field, kind in zip(fields, layout.kinds.values(), strict=True)
        if kind in ("label", "integer", "decimal")
    ]
    return all(_NAME.fullmatch(field) for field in numbers)
