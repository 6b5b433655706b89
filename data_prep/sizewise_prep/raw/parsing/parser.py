"""Blocks of raw text to arrays, and what is wrong with lines that are not valid rows.

A good row of Criteo's layout is a label (0 or 1), 13 integers of 64 bits and 26 tokens of up to eight hex
digits, tab-separated, empty where missing; other layouts name other columns. `Parser.fault` is the rule for
one line. `Parser.parse` applies the same rule to a block of some ten thousand lines: `lines` decodes all hexadecimal
tokens at once, Polars parses the rest, and only where something is wrong are lines checked one by one: in slices, so
that few bad lines are in memory at a time, however many there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise_prep.raw.layout import CRITEO, Kind, Layout, quoted
from sizewise_prep.raw.parsing import lines
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.raw.values import hashing
from sizewise_prep.raw.values.exactness import inexact
from sizewise_prep.raw.values.time_order import instant, instants

_LABEL = re.compile(rb"0*[01]")
_INTEGER = re.compile(rb"(-?)0*([0-9]+)")
_HEX = re.compile(rb"[0-9a-fA-F]*")
_BOM = b"\xef\xbb\xbf"
_OTHER_LABELS = re.compile(rb"(?i:0+(\.0*)?|false)"), re.compile(rb"(?i:0*1(\.0*)?|true)")
_LIKE_COMPRESSED = (b"x", b"\x1f", b"(")  # zlib, gzip, Zstandard
_DECIMAL = re.compile(rb"0*([0-9]+)")
_SLICE_BYTES = 64 << 10  # of text that is checked line by line at a time


class Fault(NamedTuple):
    """What is wrong with a line: a reason for the statistics, and a sentence that names the field (from 1)."""

    reason: str
    detail: str


class BadRow(NamedTuple):
    """A line that is not a valid row, without its ending; `line` is counted from 1."""

    line: int
    raw: bytes
    fault: Fault


@dataclass(frozen=True)
class Parsed:
    """The content of some lines.

    Attributes:
        rows: the good ones.
        bad: the others.
        inexact: (integer columns,), int64: values of good rows that float32 does not hold exactly.
        times: (rows with a time,), int64: of good rows, in the column that the parser was given.
        lines: (good rows,), int64: where each begins; None where every row takes one line.
        splits: (good rows,), uint8: which split each is in, where a column says it (see `row_splits`).
    """

    rows: Rows
    bad: list[BadRow]
    inexact: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64] | None = None
    splits: npt.NDArray[np.uint8] | None = None


class Parser:
    """Turns text of a layout into rows.

    Args:
        layout: of the text.
        time: the name of a column whose times are wanted (see `time_order`); the declared one where it is left out.
    """

    def __init__(self, layout: Layout = CRITEO, time: str | None = None) -> None:
        self.layout = layout
        self._time = time or layout.time
        self._separator = layout.separator.encode()
        self._kinds: list[Kind] = list(layout.kinds.values())
        self._names = list(layout.columns)
        self._blank = Fault(
            "field_count", f"is blank; {len(self._kinds)} fields are expected ({layout.shape})"
        )
        assert layout.label is not None
        self._label = layout.label
        # Free text may hold any byte; then numbers are read as text first, and checked column by column.
        self._free = any(kind in ("string", "decimal", "time", "skip") for kind in self._kinds)
        # Bytes that Polars would silently skip or take for a part of a number.
        self._suspicious = (b"\0", b"\r") if self._free else (b"\r", b"+", b" ")
        other = rb"[^\0\r%s]*" % re.escape(self._separator)
        patterns = {"label": rb"0*[01]", "integer": rb"(?:-?[0-9]{1,18})?", "hex": rb"[0-9a-fA-F]{0,8}"}
        patterns |= {"decimal": rb"[0-9]{0,9}", "string": other, "skip": other, "time": patterns["integer"]}
        self._good = re.compile(re.escape(self._separator).join(patterns[kind] for kind in self._kinds))
        # The column of `ids` for each hexadecimal field, and the types of the others for Polars.
        self._token_columns = [
            layout.read_tokens.index(name) if kind == "hex" else -1 for name, kind in layout.kinds.items()
        ]
        numbers = {"label": pl.UInt8(), "integer": pl.Int64()}
        self._schema = {
            name: pl.String() if self._free else numbers[kind]
            for name, kind in layout.kinds.items()
            if kind != "hex"
        }

    def fault(self, line: bytes) -> Fault | None:
        """What is wrong with a line (without its ending), or None when it is a good row."""
        if not line:
            return self._blank
        if self._good.fullmatch(line) and not (self._free and _is_no_text(line)):
            return None
        if b"\0" in line:
            return Fault("nul_bytes", "contains NUL bytes")
        fields = line.split(self._separator)
        if len(fields) != len(self._kinds):
            by = "tab" if self._separator == b"\t" else repr(self.layout.separator)
            found = f"has {len(fields):,} {by}-separated fields"
            return Fault("field_count", f"{found}; {len(self._kinds)} are expected ({self.layout.shape})")
        for index, (kind, field) in enumerate(zip(self._kinds, fields, strict=True)):
            if wrong := _field_fault(kind, field):
                reason, detail = wrong
                return Fault(
                    reason, f"field {index + 1} ({self._names[index]:.40}): {quoted(field)} {detail}"
                )
        return None

    def clean(self, block: bytes) -> Parsed | None:
        """The rows of a block of complete lines; None where one may be bad."""
        return self._parse_clean(block.replace(b"\r\n", b"\n") if b"\r" in block else block)

    def parse(self, block: bytes, first_line: int = 1) -> tuple[Rows, list[BadRow]]:
        """The good rows of a block of complete lines, in order, and the bad ones.

        Args:
            block: lines, each ended by LF or CRLF.
            first_line: number of the block's first line in its file.
        """
        found = list(self.parts(block, first_line))
        return Rows.concatenated([part.rows for part in found]), [row for part in found for row in part.bad]

    def parts(self, block: bytes, first_line: int = 1) -> Iterator[Parsed]:
        """As `parse`, in one part where every line is good, else in slices of the block, in order.

        So a caller that allows no bad row can stop at the first, and one that keeps them can write them slice by slice.
        """
        found = self.clean(block)
        if found is not None:
            yield found
            return
        start = 0
        while start < len(block):
            stop = block.rfind(b"\n", start, start + _SLICE_BYTES) + 1 or block.find(b"\n", start) + 1
            part = self._slice(block[start:stop], first_line)
            yield part
            start, first_line = stop, first_line + len(part.rows) + len(part.bad)

    def _slice(self, block: bytes, first_line: int) -> Parsed:
        """A few lines, checked one by one if need be."""
        found = self._parse_clean(block.replace(b"\r\n", b"\n"))
        if found is not None:
            return found
        good: list[bytes] = []
        bad: list[BadRow] = []
        for number, raw in enumerate(block.split(b"\n")[:-1], first_line):
            line = raw.removesuffix(b"\r")
            wrong, usual = self.fault(line), line
            if wrong and wrong.reason == "label":
                usual = self._usual(line)
                wrong = self.fault(usual)
            if wrong:
                bad.append(BadRow(number, line, wrong))
            else:
                good.append(usual)
        found = self._parse_clean(b"".join(line + b"\n" for line in good))
        if found is None:
            raise AssertionError(f"lines {first_line} and on: rows that pass the rule do not parse")
        return replace(found, bad=bad)

    def _usual(self, line: bytes) -> bytes:
        """A line of a schema file's layout with 0 or 1 in place of `true`, 1.0 or another form of its label."""
        fields, at = line.split(self._separator), self._kinds.index("label")
        for digit, form in enumerate(_OTHER_LABELS if self.layout != CRITEO else ()):
            if form.fullmatch(fields[at]):
                fields[at] = b"%d" % digit
        return self._separator.join(fields)

    def _parse_clean(self, block: bytes) -> Parsed | None:
        """All rows of a block, or None when one of them may be bad or a line does not end with LF alone.

        Polars alone would accept some faults (short rows, "+5", " 5", a carriage return), hence the checks around it:
        of the number of fields and of tokens in `lines.split`, of suspicious bytes, and of labels.
        """
        found = lines.split(block, self._token_columns, len(self.layout.read_tokens), self._separator)
        if found is None:
            return None
        rest, ids = found.rest, found.ids
        if not rest:
            none = Rows(np.empty(0, np.uint8), np.empty((0, len(self.layout.dense)), np.float32), ids)
            return Parsed(none, [], np.zeros(len(self.layout.dense), np.int64), np.empty(0, np.int64))
        if any(byte in rest for byte in self._suspicious) or rest.startswith(_BOM):
            return None
        # Polars would take a text that begins like a compressed file ("x^" does) for one, so a newline precedes it.
        disguised = rest.startswith(_LIKE_COMPRESSED)
        try:
            frame = pl.read_csv(
                b"\n" + rest if disguised else rest,
                separator=self.layout.separator,
                has_header=False,
                skip_lines=int(disguised),
                schema=self._schema,
                quote_char=None,
            )
        except (pl.exceptions.ComputeError, pl.exceptions.SchemaError):
            return None
        if self._free:
            numbers = self._numbers(frame)
            if numbers is None:
                return None
            frame = numbers
        labels = frame[self._label]
        if frame.height != len(ids) or labels.null_count() or int(labels.max() or 0) > 1:  # type: ignore[arg-type]
            return None
        if not self._tokens(frame, ids):
            return None
        times = np.empty(0, np.int64)
        if self._time is not None:
            found_times = instants(frame[self._time])
            declared = self.layout.kinds[self._time] == "time"
            if declared and found_times.null_count() != frame[self._time].null_count():
                return None
            times = found_times.drop_nulls().to_numpy()
        dense = np.empty((len(ids), 0), np.float32)
        if self.layout.dense:
            numbers = frame.select(pl.col(self.layout.dense).cast(pl.Float32).fill_null(float("nan")))
            dense = numbers.to_numpy(order="c")
        rows = Rows(labels.to_numpy(), dense, ids)
        return Parsed(rows, [], self._inexact(frame), times)

    def _inexact(self, frame: pl.DataFrame) -> npt.NDArray[np.int64]:
        """How many values of each integer column float32 cannot hold exactly."""
        return np.array([inexact(frame[name]) for name in self.layout.dense], np.int64)

    def _numbers(self, frame: pl.DataFrame) -> pl.DataFrame | None:
        """The frame with labels and integers, which were read as text, as numbers; None when one is not a number."""
        rules = {self._label: r"\A0*[01]\z"} | dict.fromkeys(self.layout.dense, r"\A-?[0-9]+\z")
        good = pl.all_horizontal(pl.col(name).str.contains(rule).all() for name, rule in rules.items())
        if not frame.select(good).item():
            return None
        numbers = frame.with_columns(
            pl.col(self._label).cast(pl.UInt8), pl.col(self.layout.dense).cast(pl.Int64, strict=False)
        )
        return numbers if numbers.null_count().equals(frame.null_count()) else None

    def _tokens(self, frame: pl.DataFrame, ids: npt.NDArray[np.uint32]) -> bool:
        """Write the tokens that are not hexadecimal to `ids`; False when one of them is not a token."""
        for column, name in enumerate(self.layout.read_tokens):
            kind = self.layout.kinds[name]
            if kind == "hex":
                continue
            texts = frame[name]
            if kind == "string":
                words = hashing.tokens(texts)
            else:
                words = texts.str.to_integer(base=10, dtype=pl.UInt32, strict=False)
                if words.null_count() != texts.null_count() or texts.str.contains(r"[^0-9]").any():
                    return False
            ids[:, column] = words.fill_null(0).to_numpy()
        return True


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
    if kind == "time":
        good = instant(field.decode("utf-8", "replace")) is not None
        return None if good else ("not_a_time", "is no time: digits (at most 19), or an ISO date and time")
    return ("not_text", "is not text in UTF-8") if _is_no_text(field) else None
