"""Blocks of raw text to arrays, and what is wrong with a row that cannot be one.

A good row of Criteo's layout is a label (0 or 1), 13 integers of 64 bits and 26 tokens of up to eight hex
digits, tab-separated, empty where missing; other layouts name other columns. `Parser.fault` is the rule for
one line. `Parser.parse` is the same rule for a block of some ten thousand lines: `lines` reads a block of plain
numbers as a whole. Where a layout has other columns, or a number is unusual, it only takes the hexadecimal tokens out,
and Polars parses the rest (`by_polars`). A block in which something is amiss is looked at line by line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sizewise_prep import lines
from sizewise_prep.layout import CRITEO, Kind, Layout
from sizewise_prep.rows import Rows

if TYPE_CHECKING:
    from sizewise_prep.by_polars import ByPolars

_LABEL = re.compile(rb"0*[01]")
_INTEGER = re.compile(rb"(-?)0*([0-9]+)")
_HEX = re.compile(rb"[0-9a-fA-F]*")
_BOM = b"\xef\xbb\xbf"
_DECIMAL = re.compile(rb"0*([0-9]+)")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line: a reason to count by, and a sentence that names the field (from 1)."""

    reason: str
    detail: str


@dataclass(frozen=True)
class BadRow:
    """A line that is no row, as it was in the file but for its ending; `line` is counted from 1."""

    line: int
    raw: bytes
    fault: Fault


class Parser:
    """Turns text of a layout into rows."""

    def __init__(self, layout: Layout = CRITEO) -> None:
        self.layout = layout
        self._separator = layout.separator.encode()
        self._kinds: list[Kind] = list(layout.columns.values())
        self._names = list(layout.columns)
        self._free = not layout.is_numbers
        other = rb"[^\0\r%s]*" % re.escape(self._separator)
        patterns = {"label": rb"0*[01]", "integer": rb"(?:-?[0-9]{1,18})?", "hex": rb"[0-9a-fA-F]{0,8}"}
        patterns |= {"decimal": rb"[0-9]{0,9}", "string": other, "skip": other}
        self._good = re.compile(re.escape(self._separator).join(patterns[kind] for kind in self._kinds))
        self._plain = None if self._free else lines.fields_of(layout, ["label", "integer", "hex"])

    def fault(self, line: bytes) -> Fault | None:
        """What is wrong with a line (without its ending), or None when it is a good row."""
        if self._good.fullmatch(line) and not (self._free and _is_no_text(line)):
            return None
        if b"\0" in line:
            return Fault("nul_bytes", "contains NUL bytes")
        fields = line.split(self._separator)
        if len(fields) != len(self._kinds):
            by = "tab" if self._separator == b"\t" else repr(self.layout.separator)
            found = "is blank" if not line else f"has {len(fields)} {by}-separated fields"
            counts = f"label, {len(self.layout.dense)} integers, {len(self.layout.tokens)} tokens"
            return Fault("field_count", f"{found}; {len(self._kinds)} are expected ({counts})")
        for index, (kind, field) in enumerate(zip(self._kinds, fields, strict=True)):
            if wrong := _field_fault(kind, field):
                reason, detail = wrong
                return Fault(reason, f"field {index + 1} ({self._names[index]}): {_shown(field)} {detail}")
        return None

    def parse(self, block: bytes, first_line: int = 1) -> tuple[Rows, list[BadRow]]:
        """The good rows of a block of whole lines, in order, and the bad ones.

        Args:
            block: lines, each ended by LF or CRLF.
            first_line: number of the block's first line in its file.
        """
        rows = self._plain_rows(block)
        if rows is None:
            rows = self._parse_clean(block.replace(b"\r\n", b"\n"))
        if rows is not None:
            return rows, []
        good: list[bytes] = []
        bad: list[BadRow] = []
        for number, raw in enumerate(block.split(b"\n")[:-1], first_line):
            line = raw.removesuffix(b"\r")
            if wrong := self.fault(line):
                bad.append(BadRow(number, line, wrong))
            else:
                good.append(line)
        rows = self._parse_clean(b"".join(line + b"\n" for line in good))
        if rows is None:
            raise AssertionError(f"lines {first_line} and on: rows that pass the rule do not parse")
        return rows, bad

    def _parse_clean(self, block: bytes) -> Rows | None:
        """All rows of a block, or None when one of them may break the rule or an ending is not a bare LF."""
        rows = self._plain_rows(block)
        return self._by_polars.parse(block) if rows is None else rows

    def _plain_rows(self, block: bytes) -> Rows | None:
        """All rows of a block, or None when there may be something in one of them that is no plain number."""
        if self._plain is None:
            return None
        found = lines.split(
            block, self._plain, len(self.layout.dense), len(self.layout.tokens), self._separator
        )
        return None if found is None else Rows(found.labels, found.dense, found.ids)

    @cached_property
    def _by_polars(self) -> ByPolars:
        # Polars is imported when it is needed, which with Criteo's logs is hardly ever.
        from sizewise_prep.by_polars import ByPolars

        return ByPolars(self.layout)


def _is_no_text(text: bytes) -> bool:
    if b"\r" in text or text.startswith(_BOM):
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return True
    return False


def _field_fault(kind: Kind, field: bytes) -> tuple[str, str] | None:
    """Reason and detail of what is wrong with a field, or None."""
    if kind == "label":
        return None if _LABEL.fullmatch(field) else ("label", "is not 0 or 1")
    if not field:
        return None
    if kind == "integer":
        match = _INTEGER.fullmatch(field)
        if not match:
            return "not_an_integer", "is not an integer"
        sign, digits = match.groups()
        limit = (1 << 63) if sign else (1 << 63) - 1
        fits = len(digits) <= 19 and int(digits) <= limit
        return None if fits else ("integer_range", "does not fit into 64 bits")
    if kind == "hex":
        if not _HEX.fullmatch(field):
            return "not_hex", "is not a hexadecimal token"
        return None if len(field) <= 8 else ("token_length", "is longer than 8 hex digits")
    if kind == "decimal":
        number = _DECIMAL.fullmatch(field)
        if not number:
            return "not_decimal", "is not a decimal token"
        fits = len(number[1]) <= 10 and int(number[1]) < 1 << 32
        return None if fits else ("token_range", "does not fit into 32 bits")
    return ("not_text", "is not text in UTF-8") if _is_no_text(field) else None


def _shown(field: bytes) -> str:
    text = field[:40].decode("utf-8", "backslashreplace")
    return repr(text + ("..." if len(field) > 40 else ""))
