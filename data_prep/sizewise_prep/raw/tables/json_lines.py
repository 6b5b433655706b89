"""Rows of JSON lines: an object a line, whose fields are columns.

Polars reads a field's value as its text, whatever stands in other rows: 7 and "7" are the same token, 1.0 is 1, and
true is `true`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block
from sizewise_prep.raw.columns.json_names import Names
from sizewise_prep.raw.columns.kinds import unusable
from sizewise_prep.raw.columns.spans import Spans
from sizewise_prep.raw.files.reader import Reader
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout, quoted
from sizewise_prep.raw.parsing.converter import Converted, Converter
from sizewise_prep.raw.parsing.parser import BadRow, Fault, Parsed
from sizewise_prep.raw.reading import Reading, TextRows
from sizewise_prep.raw.tables.arrow_types import check_names, unnamed
from sizewise_prep.raw.tables.frames import bad_value

_NESTED = r"\A(?:\[.*\]|\{.*\})\z"
_SLICE_BYTES = 256 << 10
_SAMPLE_ROWS = 1000
_FIRST_BYTES = 256 << 10
_BACKSLASH = rb"\\"  # as a string has it
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF = re.compile(rb"%s(?!%s)|(?<!%s)%s|\\\\u[dD][89a-fA-F]" % (_HIGH, _LOW, _HIGH, _LOW))
"""What may be half of a surrogate pair, of which Polars makes a NUL: after a backslash it need not be one."""
_NOT_STRICT = "holds what JSON does not have, such as NaN or Infinity, or a number beyond 1e308: write null"


@dataclass(frozen=True)
class _Block:
    """Lines (see `row_readers.Block`)."""

    text: bytes
    layout: Layout
    converter: Converter

    @property
    def lines(self) -> int:
        return self.text.count(b"\n")

    def parsed(self, first: int) -> Iterator[Parsed]:
        halves = rb"\u" in self.text and _HALF.search(self.text)
        frame = None if halves else self._frame(self.text)
        if frame is not None and frame.height == self.lines:
            quick = self._quick(frame)
            if quick is not None:
                yield Parsed(quick.rows, [], quick.inexact, quick.times, splits=quick.splits)
                return
            yield self._converted(frame, self.text.split(b"\n"), list(range(first, first + frame.height)), [])
            return
        start = 0
        while start < len(self.text):
            stop = self.text.rfind(b"\n", start, start + _SLICE_BYTES) + 1 or self.text.find(b"\n", start) + 1
            lines = self.text[start:stop].split(b"\n")[:-1]
            yield self._looked_at(lines, first)
            start, first = stop, first + len(lines)

    def _quick(self, frame: pl.DataFrame) -> Converted | None:
        """What good rows hold; None where one may be bad, or have a list or an object in place of one value."""
        found: dict[str, Spans] = {}
        for column in frame.get_columns():
            texts = Spans.of_array(column.to_arrow(compat_level=pl.CompatLevel.oldest()))
            if texts is None:
                return None
            nested = column.name not in self.layout.token_lists and texts.begin_with(b"[{")
            if nested:
                return None
            found[column.name] = texts
        return self.converter.quick(found)

    def _looked_at(self, lines: list[bytes], first: int) -> Parsed:
        """A few lines, one by one."""
        faults = [self._fault(line) for line in lines]
        frame = self._joined(lines, faults)
        if frame is None:  # what Python reads and Polars does not, such as NaN
            for place, line in enumerate(lines):
                if faults[place] is None and self._frame(line + b"\n") is None:
                    faults[place] = Fault("not_json", _NOT_STRICT)
            frame = self._joined(lines, faults)
        if frame is None:
            raise AssertionError(f"line {first} and on: rows that pass the rule do not parse")
        good = [place for place, fault in enumerate(faults) if fault is None]
        bad = [
            BadRow(first + place, lines[place].removesuffix(b"\r"), fault)
            for place, fault in enumerate(faults)
            if fault is not None
        ]
        return self._converted(
            frame, [lines[place] for place in good], [first + place for place in good], bad
        )

    def _joined(self, lines: list[bytes], faults: list[Fault | None]) -> pl.DataFrame | None:
        good = [line + b"\n" for line, fault in zip(lines, faults, strict=True) if fault is None]
        if not good:
            return pl.DataFrame(schema=dict.fromkeys(self.converter.columns, pl.String))
        frame = self._frame(b"".join(good))
        return frame if frame is not None and frame.height == len(good) else None

    def _frame(self, text: bytes) -> pl.DataFrame | None:
        """The columns as text; None where a line is no object, or has fields that the layout does not name."""
        wanted = self.converter.columns
        try:
            frame = pl.read_ndjson(text, schema=dict.fromkeys(wanted, pl.String))
        except (pl.exceptions.PolarsError, ValueError):
            return None
        return self._with_lists(frame.select(wanted), text)

    def _with_lists(self, frame: pl.DataFrame, text: bytes) -> pl.DataFrame:
        """The same, lists with a backslash written anew: Polars leaves out that it is escaped."""
        names = self.layout.token_lists
        if not names or _BACKSLASH not in text:
            return frame
        lines = text.split(b"\n")[:-1]
        rows = [row for row, line in enumerate(lines) if _BACKSLASH in line]
        if len(lines) != frame.height:
            return frame  # refused by `_joined` for its height
        found = [json.loads(lines[row], parse_int=str, object_pairs_hook=_first_ones) for row in rows]
        for name in names:
            lists = {row: one.get(name) for row, one in zip(rows, found, strict=True)}
            written = {row: json.dumps(values) for row, values in lists.items() if isinstance(values, list)}
            frame = frame.with_columns(frame[name].scatter(list(written), list(written.values())))
        return frame

    def _converted(
        self, frame: pl.DataFrame, lines: list[bytes], numbers: list[int], bad: list[BadRow]
    ) -> Parsed:
        nested = self._nested(frame, lines)
        if nested:
            bad = [
                *bad,
                *(
                    BadRow(numbers[row], lines[row].removesuffix(b"\r"), fault)
                    for row, fault in nested.items()
                ),
            ]
            kept = [row for row in range(frame.height) if row not in nested]
            frame, lines, numbers = frame[kept], [lines[row] for row in kept], [numbers[row] for row in kept]
        found = self.converter.convert(frame)
        more = [BadRow(numbers[row], lines[row].removesuffix(b"\r"), fault) for row, fault in found.faults]
        return Parsed(found.rows, sorted([*bad, *more]), found.inexact, found.times, splits=found.splits)

    def _nested(self, frame: pl.DataFrame, lines: list[bytes]) -> dict[int, Fault]:
        """Rows with a list or an object where there should be one value, which Polars gives as its text."""
        found: dict[int, Fault] = {}
        for name in self.converter.columns:
            if name in self.layout.token_lists:
                continue
            for row in frame[name].str.contains(_NESTED).fill_null(False).arg_true():
                value = json.loads(lines[row])[name]
                if isinstance(value, list | dict):
                    what = "a list" if isinstance(value, list) else "an object"
                    detail = f"column {name:.40}: {quoted(frame[name][row].encode())} is {what} instead of one value"
                    found.setdefault(row, Fault("not_a_value", detail))
        return found

    def _fault(self, line: bytes) -> Fault | None:
        if not line.strip():
            return Fault("not_json", "is blank")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return Fault("not_json", "is not a JSON object")
        if not isinstance(value, dict):
            return Fault("not_json", "is not a JSON object")
        return self._half(line) if _HALF.search(line) else None

    def _half(self, line: bytes) -> Fault | None:
        """What is wrong with a line in which half of a surrogate pair may stand; None where no column has one."""
        value = json.loads(line, object_pairs_hook=_first_ones)
        for name in self.converter.columns:
            try:
                json.dumps(value.get(name), ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                half = f"\\u{ord(error.object[error.start]):04x}"
                return Fault(
                    "not_text", f"column {name:.40}: has {half}, half of a surrogate pair, which is no text"
                )
        return None


class JsonRows(TextRows):
    """The rows of a stretch of a file of JSON lines (see `RowReader`)."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        self._converter = Converter(reading.layout, reading.split, json=True)
        checked = reading.by_schema and not reading.layout.others  # a model knows what it reads
        self._names = Names(reading.layout.columns) if checked else None

    def __iter__(self) -> Iterator[Block]:
        lines = 0
        for text in self._reader:
            found = self._names.unknown(text) if self._names else None
            if found is not None:
                line = 1 + self.lines_before() + lines + found[0]
                raise InputError(unnamed(self._raw.path, found[1], f", line {line}", self._by_schema))
            lines += text.count(b"\n")
            yield _Block(text, self._layout, self._converter)

    def explained(self, row: BadRow) -> str:
        """What is wrong with a row, and what to do."""
        if row.fault.reason in ("not_json", "not_text"):
            return f"{row.fault.detail}; fix the row, or set bad ones aside (--max-bad-fraction)"
        return bad_value(row, self._by_schema)


def _first_ones(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object, with the first of the values of each name, as Polars reads it."""
    return dict(reversed(pairs))


def first_fields(raw: RawFile) -> pl.DataFrame:
    """The first rows of a file, as far as they are objects, in the types that Polars finds."""
    text = next(iter(Reader(raw, block_bytes=_FIRST_BYTES)), b"")
    lines = [line for line in islice(text.split(b"\n"), _SAMPLE_ROWS) if line.strip()]
    found = _read(lines)
    if found is None:
        found = _read([line for line in lines if _read([line]) is not None])
    return pl.DataFrame() if found is None else found


def _read(lines: list[bytes]) -> pl.DataFrame | None:
    """Objects, in the types that Polars finds; None where a line is none."""
    try:
        return pl.read_ndjson(b"\n".join(lines), infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError):
        return None


def no_objects(raw: RawFile) -> str:
    """Why none of the first lines is an object that can be read."""
    text = next(iter(Reader(raw, block_bytes=_FIRST_BYTES)), b"")
    try:
        strict = not isinstance(json.loads(text.partition(b"\n")[0]), dict)
    except (ValueError, RecursionError):
        strict = True
    return "its first lines are no JSON objects, one a line; fix them" if strict else f"line 1: {_NOT_STRICT}"


def check(files: Sequence[RawFile], layout: Layout, by_schema: bool) -> None:
    """Check the fields of the first rows of a log's files.

    Args:
        files: those of JSON lines.
        layout: the columns that they should have; each in one of them at least.
        by_schema: whether messages may advise to write a schema file.

    Raises:
        InputError: a column of the layout is missing, or is not of its kind.
    """
    schemas = [(raw, first_fields(raw).schema) for raw in files]
    known = {name for _, schema in schemas for name in schema}
    for raw in files:
        wanted = [name for name, kind in layout.kinds.items() if kind != "skip" and name not in known]
        known.update(_found_later(raw, wanted))
    for raw, schema in schemas:
        if not schema:
            continue  # reading the rows says why
        elsewhere = [name for name in layout.columns if name in known and name not in schema]
        check_names(raw.path, [*schema, *elsewhere], layout, "JSON, an object a line", by_schema)
        for name, kind in layout.kinds.items():
            if kind == "skip" or name not in schema:
                continue
            if wrong := unusable(kind, schema[name], layout.list_form(name)):
                raise InputError(f"{raw.path:.120}: field {quoted(name.encode())} {wrong} in the schema file")


def _found_later(raw: RawFile, names: list[str]) -> list[str]:
    """Those of the names that fields have in any row: many programs leave out fields without a value."""
    forms = {
        name: {json.dumps(name, ensure_ascii=ascii_).encode() for ascii_ in (True, False)} for name in names
    }
    written = {
        name: re.compile(b"(?:" + b"|".join(map(re.escape, forms[name])) + rb")\s*:") for name in names
    }
    found: list[str] = []
    for text in Reader(raw) if names else ():
        found += [name for name in names if name not in found and written[name].search(text)]
        if len(found) == len(names):
            break
    return found
