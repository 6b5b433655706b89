"""Rows of text by columns: quoted or not (RFC 4180), columns in any order, of any kind.

Arrow takes the fields out of a block of rows; where a row is none, `records` knows where it lies, and rows are looked
at in slices of the block, so that what is kept of bad ones stays small.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block
from sizewise_prep.raw.columns.fields import Fields, split
from sizewise_prep.raw.columns.spans import Spans
from sizewise_prep.raw.explain import NO_NEWLINES, bad_header
from sizewise_prep.raw.files.reader import MAX_LINE_BYTES, Reader
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.converter import Converter
from sizewise_prep.raw.parsing.parser import BadRow, Fault, Parsed
from sizewise_prep.raw.parsing.records import CARRIAGE_RETURN, STRAY, Records, records
from sizewise_prep.raw.plain_text import ByKey
from sizewise_prep.raw.reading import Reading, TextRows
from sizewise_prep.raw.tables.arrow_types import check_names
from sizewise_prep.raw.tables.frames import bad_value

_FIRST_BYTES = 64 << 10
_SLICE_ROWS = 2048
_MOST_BYTES = 48 << 20  # of the places of a block's fields, kept while the block before is worked on
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class _Text:
    """What every block of a file has in common.

    Attributes:
        layout: of the file.
        names: of its columns, in their order.
        converter: of the layout.
        by_key: reads the text faster where it can.
    """

    layout: Layout
    names: list[str]
    converter: Converter
    by_key: ByKey | None = None

    @property
    def separator(self) -> bytes:
        return self.layout.separator.encode()

    def frame(self, text: bytes) -> pl.DataFrame | None:
        """The columns of rows that have as many fields as there are names; None where they are not UTF-8."""
        names = [str(place) for place in range(len(self.names))]
        wanted = {str(self.names.index(name)): name for name in self.converter.columns}
        if text.startswith(_BOM):
            text = _BOM + text  # Arrow leaves out one, and the first field has one of its own
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(text),
                pa_csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
                pa_csv.ParseOptions(
                    delimiter=self.layout.separator,
                    quote_char='"' if self.layout.quotes else False,
                    newlines_in_values=self.layout.quotes,
                    ignore_empty_lines=False,
                ),
                pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(wanted, pa.string()), include_columns=list(wanted)
                ),
            )
        except pa.ArrowInvalid:
            return None
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frame.columns = list(wanted.values())
        return frame


@dataclass(frozen=True)
class _Block:
    """Rows of text, complete ones but for an open quote at the file's end (see `row_readers.Block`).

    Attributes:
        text: the rows.
        of: what all blocks have in common.
        found: what the reader found out about it, if it looked for rows.
    """

    text: bytes
    of: _Text
    found: _Found | None = None

    @property
    def lines(self) -> int:
        return self.text.count(b"\n")

    def parsed(self, first: int) -> Iterator[Parsed]:
        by_key = self.of.by_key.rows(self.text) if self.of.by_key else None
        if by_key is not None:
            yield by_key
            return
        fields = self._fields()
        if fields is not None:
            lines = first + np.arange(fields.rows)
            if self.lines != fields.rows:
                ends = records(self.text, self.of.separator, self.of.layout.quotes).ends
                lines = first + _breaks_before(self.text, np.concatenate([[0], ends[:-1]]), len(ends))
            quick = self._quick(fields.columns, lines)
            if quick is not None:
                yield quick
                return
        found = records(self.text, self.of.separator, self.of.layout.quotes)
        starts = np.concatenate([[0], found.ends])  # the last one where none begins any more
        lines = first + _breaks_before(self.text, starts, len(found.ends))
        good = (found.fields == len(self.of.names)).all() and found.open_at == len(self.text)
        if good and b"\0" not in self.text:
            parsed = self._rows(self.text, starts, lines)
            if parsed is not None:
                yield parsed
                return
        for low in range(0, len(found.ends), _SLICE_ROWS):
            high = min(low + _SLICE_ROWS, len(found.ends))
            yield self._looked_at(found, starts[low : high + 1], lines[low : high + 1], low)
        if found.open_at < len(self.text):
            raw = self.text[found.open_at :]
            fault = Fault("quotes", "has a quote that is not closed until the file ends")
            yield self._none_but([BadRow(int(lines[-1]), _in_a_line(raw), fault)])

    def _none_but(self, bad: list[BadRow]) -> Parsed:
        """No rows but bad ones."""
        none = pl.DataFrame(schema=dict.fromkeys(self.of.converter.columns, pl.String))
        empty = self.of.converter.convert(none)
        return Parsed(empty.rows, bad, empty.inexact, empty.times, np.empty(0, np.int64), empty.splits)

    def _fields(self) -> Fields | None:
        """Where the fields lie; None where a row is not good."""
        if self.found is None or self.found.forgotten:
            found = split(self.text, self.of.separator, len(self.of.names), self.of.layout.quotes)
            return found if found is not None and found.end == len(self.text) else None
        return self.found.fields

    def _at_once(self, text: bytes, lines: npt.NDArray[np.int64]) -> Parsed | None:
        """Some rows, if they are all good and plainly written; `lines`: (rows,), where each begins."""
        found = split(text, self.of.separator, len(self.of.names), self.of.layout.quotes)
        if found is None or found.end < len(text):
            return None
        return self._quick(found.columns, lines)

    def _quick(self, columns: list[Spans], lines: npt.NDArray[np.int64]) -> Parsed | None:
        names, converter = self.of.names, self.of.converter
        found = converter.quick({name: columns[names.index(name)] for name in converter.columns})
        if found is None:
            return None
        return Parsed(found.rows, [], found.inexact, found.times, lines, found.splits)

    def _rows(
        self, text: bytes, starts: npt.NDArray[np.int64], lines: npt.NDArray[np.int64]
    ) -> Parsed | None:
        """Rows that lie in `text`, each with as many fields as it must; None where one is not UTF-8."""
        quick = self._at_once(text, lines[: len(starts) - 1])
        if quick is not None:
            return quick
        frame = self.of.frame(text)
        if frame is None or frame.height != len(starts) - 1:
            return None
        found = self.of.converter.convert(frame)
        bad = [
            BadRow(int(lines[row]), _in_a_line(text[starts[row] : starts[row + 1]]), fault)
            for row, fault in found.faults
        ]
        good = np.delete(lines[: frame.height], [row for row, _ in found.faults])
        return Parsed(found.rows, bad, found.inexact, found.times, good, found.splits)

    def _looked_at(
        self, found: Records, starts: npt.NDArray[np.int64], lines: npt.NDArray[np.int64], low: int
    ) -> Parsed:
        """A few rows, one by one."""
        bad: list[BadRow] = []
        good: list[bytes] = []
        good_lines: list[int] = []
        for row in range(len(starts) - 1):
            raw = self.text[starts[row] : starts[row + 1]]
            if fault := self._fault(raw, int(found.fields[low + row])):
                bad.append(BadRow(int(lines[row]), _in_a_line(raw), fault))
            else:
                good.append(raw)
                good_lines.append(int(lines[row]))
        ends = np.cumsum([0, *map(len, good)], dtype=np.int64)
        if not good:
            return self._none_but(sorted(bad))
        parsed = self._rows(b"".join(good), ends, np.array(good_lines, np.int64))
        if parsed is None:
            raise AssertionError(f"line {lines[0]} and on: rows that pass the rule do not parse")
        return replace(parsed, bad=sorted([*bad, *parsed.bad]))

    def _fault(self, raw: bytes, fields: int) -> Fault | None:
        if b"\0" in raw:
            return Fault("nul_bytes", "contains NUL bytes")
        if fields == STRAY:
            return Fault("quotes", "has text between a closing quote and the end of its field")
        if fields == CARRIAGE_RETURN:
            return Fault("not_text", "has a carriage return within the line")
        wanted = len(self.of.names)
        if fields != wanted:
            by = "tab" if self.of.layout.separator == "\t" else repr(self.of.layout.separator)
            has = "is blank" if not raw.strip(b"\r\n") else f"has {fields:,} {by}-separated fields"
            return Fault("field_count", f"{has}; {wanted} are expected")
        try:
            raw.decode()
        except UnicodeDecodeError:
            return Fault("not_text", "is not text in UTF-8")
        return None


class CsvRows(TextRows):
    """The rows of a stretch of a text file (see `RowReader`)."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading, _RecordReader if reading.layout.quotes else Reader)
        raw, layout, by_schema = reading.raw, reading.layout, reading.by_schema
        if isinstance(self._reader, _RecordReader):
            self._reader.separator = layout.separator.encode()
        names, header = list(layout.columns), b""
        if layout.header:
            header, names = header_of(raw, layout)
            if not layout.quotes and any(name[:1] == name[-1:] == '"' for name in names):
                what = "names of columns are in quotes"
                fix = "write `quotes: true` in the schema file" if by_schema else "write them without"
                raise InputError(f"{raw.path:.120}, line 1: {what}: {fix}")
            try:
                check_names(raw.path, names, layout, "text", by_schema, ", line 1")
            except InputError as error:
                if not by_schema or header.count(layout.separator.encode()):
                    raise
                raise InputError(
                    bad_header(raw.path, layout, header.rstrip(b"\r\n"), "names other columns", by_schema)
                ) from error
        elif layout.others:
            raise InputError(
                f"{raw.path:.120}: `others: skip` needs files that name their columns (`header: true`)"
            )
        if isinstance(self._reader, _RecordReader):
            self._reader.fields = len(names)
        by_key = ByKey.of(layout, reading.split) if names == list(layout.columns) else None
        self._text = _Text(layout, names, Converter(layout, reading.split), by_key)
        self._header = header if reading.stretch.start == 0 else b""
        self.header_lines = self._header.count(b"\n")

    def __iter__(self) -> Iterator[Block]:
        for number, text in enumerate(self._reader):
            found = self._reader.found.popleft() if isinstance(self._reader, _RecordReader) else None
            if number or not self._header:
                yield _Block(text, self._text, found)
                continue
            if found is not None and found.fields is not None:
                found = replace(found, fields=found.fields.after(1))
            yield _Block(text.removeprefix(self._header), self._text, found)

    def explained(self, row: BadRow) -> str:
        """What is wrong with a row, and what to do."""
        if (
            row.fault.reason == "field_count"
            and not self._layout.quotes
            and b'"' in row.raw
            and self._by_schema
        ):
            return (
                f"{row.fault.detail}; where fields stand in quotes, write `quotes: true` in the schema file"
            )
        if row.fault.reason == "not_text" and self._by_schema:
            return (
                f"{row.fault.detail}; fix the row, set bad ones aside (--max-bad-fraction), or convert the file, such "
                "as with `iconv -f LATIN1 -t UTF-8`"
            )
        if row.fault.reason in ("field_count", "quotes", "nul_bytes", "not_text"):
            return f"{row.fault.detail}; fix the row, or set bad ones aside (--max-bad-fraction)"
        return bad_value(row, self._by_schema)


@dataclass(frozen=True)
class _Found:
    """What is known of a block when it has been cut between rows.

    Attributes:
        fields: where its fields lie; None where a row is not good.
        forgotten: whether they took too much memory to be kept until the block's turn.
    """

    fields: Fields | None
    forgotten: bool = False


class _RecordReader(Reader):
    """Blocks of complete rows, in which line breaks may stand within quotes.

    Attributes:
        separator, fields: of each row.
        found: of each block that was given and not taken yet.
    """

    separator = b","
    fields = 1

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.found = deque[_Found]()

    def _cut(self, text: bytes) -> int:
        """Where the last complete row ends; notes where the fields of all rows lie."""
        fields = split(text, self.separator, self.fields, quotes=True)
        if fields is None:
            self.found.append(_Found(None))
            return records(text, self.separator, quotes=True).open_at
        many = fields.bytes > _MOST_BYTES
        self.found.append(_Found(None if many else fields, many))
        return fields.end

    def _lines(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        carry, first, lines = b"", True, 0
        for piece in pieces:
            if first:
                piece, first = piece.removeprefix(_BOM), False
            text = carry + piece
            end = self._cut(text)
            if len(text) - end > MAX_LINE_BYTES:
                line = 1 + lines + text.count(b"\n", 0, end)
                what = f"the row that begins there is longer than {MAX_LINE_BYTES:,} bytes"
                raise InputError(f"{self.raw.path}, line {line}: {what}; is a quote not closed?")
            if end:
                lines += text.count(b"\n", 0, end)
                yield text[:end]
            else:
                self.found.pop()
            carry = text[end:]
        if carry:
            text = carry + b"\n"
            if self._cut(text) < len(text):
                self.found[-1] = _Found(None)
            yield text


def header_of(raw: RawFile, layout: Layout) -> tuple[bytes, list[str]]:
    """A file's first row, and the names in it."""
    text = next(iter(Reader(raw, block_bytes=_FIRST_BYTES)), b"")
    if layout.quotes and (ends := records(text, layout.separator.encode(), quotes=True).ends[:1]).size:
        line = text[: int(ends[0])]
    else:
        line = text.partition(b"\n")[0] + b"\n"
    words = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    try:
        if layout.quotes:
            return line, next(csv.reader([words], delimiter=layout.separator), [])
    except csv.Error:  # a carriage return outside of quotes
        raise InputError(f"{raw.path:.120}, line 1: {NO_NEWLINES}") from None
    if words.count("\r") > 1:
        raise InputError(f"{raw.path:.120}, line 1: {NO_NEWLINES}")
    return line, words.split(layout.separator)


def _breaks_before(text: bytes, starts: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """How many line breaks come before each of the rows' beginnings."""
    breaks = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    if len(breaks) == rows:
        return np.arange(len(starts))
    return np.searchsorted(breaks, starts)


def _in_a_line(raw: bytes) -> bytes:
    r"""A row as the quarantine keeps it: without its ending, and line breaks within it as \n."""
    return raw.removesuffix(b"\n").removesuffix(b"\r").replace(b"\r\n", b"\\n").replace(b"\n", b"\\n")
