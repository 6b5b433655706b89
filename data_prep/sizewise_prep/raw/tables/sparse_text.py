"""Rows of sparse text, as libsvm and libffm have it (`--format`).

    1 3:1 17:1 42:1              # libsvm: label, then INDEX:VALUE; columns P1, P2, P3 by their place
    0 0:3:1 1:17:1 2:42:0.5      # libffm: label, then FIELD:INDEX:VALUE; columns F0, F1, F2 by their field

A column whose index is the same in all of a log's first rows is a number, of which the value is read; the others are
categories, of which the index is read and whose value must be 1. A field that comes several times in a row is a list.
The query of a row of a ranking log (`2 qid:10 3:1 ...`) is the column `qid` to a schema file that names it; else it is
skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block
from sizewise_prep.raw.files.reader import Reader
from sizewise_prep.raw.files.sources import RawFile, resolve
from sizewise_prep.raw.layout import SCORES, Layout
from sizewise_prep.raw.parsing.converter import Converter
from sizewise_prep.raw.parsing.parser import BadRow, Fault, Parsed
from sizewise_prep.raw.reading import Reading, TextRows
from sizewise_prep.raw.tables.frames import bad_value
from sizewise_prep.raw.values.sparse_lines import LIST, NUMBER, SINGLE, Split, split

FORMATS = ("libsvm", "libffm")
_FIRST_BYTES = 1 << 20
_ENTRY = {"libsvm": re.compile(r"()([0-9]+):(\S+)"), "libffm": re.compile(r"([0-9]+):([0-9]+):(\S+)")}
_QUERY = "qid"
"""The column of the queries of rows, which ranking logs have behind the label."""
_KINDS = {"token": SINGLE, "tokens": LIST, "number": NUMBER}
_OF_VALUES = ("number", "integer", "bucket", "weight", "time", "order", *SCORES)  # other kinds take the index
_MOST_PLACES = 1 << 16  # fields, or places in a line
_MOST_CHANGES = 64  # in a block, between lines that are plain and lines that are not
_LABELS = {"+1": "1", "-1": "0"}
_FORM = {"libsvm": "LABEL INDEX:VALUE ...", "libffm": "LABEL FIELD:INDEX:VALUE ..."}


@dataclass(frozen=True)
class _Entry:
    """A part of a row: its column, index and value."""

    column: str
    index: str
    value: str


def found(sources: str | Path | Sequence[str | Path], form: str) -> list[RawFile]:
    """The logs that `sources` name. Raises InputError as `resolve`, and for files that are no text."""
    files = resolve(sources)
    for raw in files:
        if raw.format != "text":
            raise InputError(
                f"{raw.path:.150}: is no text, and so not in the format {form}: leave out --format"
            )
    return [replace(raw, format=form) for raw in files]  # type: ignore[arg-type]


def layout_of(raw: RawFile) -> Layout:
    """The columns of a log, from its first rows. Raises InputError where none of them is a row."""
    rows = []
    for line in _first_lines(raw):
        entries = _entries(line, raw.format)
        if not isinstance(entries, Fault):
            rows.append(entries[1])
    indices: dict[str, set[str]] = {}
    repeated = set[str]()
    values: dict[str, set[str]] = {}
    for row in rows:
        names = [entry.column for entry in row]
        repeated |= {name for name in names if names.count(name) > 1}
        for entry in row:
            if entry.column == _QUERY:
                continue
            indices.setdefault(entry.column, set()).add(entry.index)
            values.setdefault(entry.column, set()).add(entry.value)
    if not indices:
        raise InputError(
            f"{raw.path:.150}, line 1: is no row of {raw.format}: {_FORM[raw.format]}; leave out --format"
        )
    names = sorted(indices, key=lambda name: int(name[1:]))
    numbers = [
        name for name in names if len(indices[name]) == 1 and values[name] != {"1"} and name not in repeated
    ]
    kinds = {
        name: "number" if name in numbers else "tokens" if name in repeated else "token" for name in names
    }
    if len(numbers) == len(names):
        raise InputError(
            f"{raw.path:.150}: all columns are numbers, each with one index, and a model needs categories: give a log "
            "that has some"
        )
    return Layout(columns={"label": "label", **kinds})


def _first_lines(raw: RawFile) -> list[str]:
    return next(iter(Reader(raw, block_bytes=_FIRST_BYTES)), b"").decode("utf-8", "replace").splitlines()


def names_of(raw: RawFile) -> set[str]:
    """The columns of a log's first rows, which may lack the label where they are only to be scored."""
    lines = [line for line in _first_lines(raw) if line.split()]
    first = lines[0].split(maxsplit=1)[0] if lines else ""
    labelled = bool(lines) and not first.startswith(f"{_QUERY}:") and not _ENTRY[raw.format].fullmatch(first)
    found = {"label"} if labelled else set[str]()
    for line in lines:
        entries = _entries(line, raw.format, labelled)
        found |= set() if isinstance(entries, Fault) else {entry.column for entry in entries[1]}
    return found


def _indices_of(raw: RawFile, kinds: Mapping[str, Any]) -> dict[str, str]:
    """The index of each column of which values are read, where all of a log's first rows have the same."""
    read = {name for name, kind in kinds.items() if kind in _OF_VALUES}
    found: dict[str, set[str]] = {}
    for line in _first_lines(raw) if read else ():
        entries = _entries(line, raw.format, "label" in kinds)
        for entry in () if isinstance(entries, Fault) else entries[1]:
            if entry.column in read:
                found.setdefault(entry.column, set()).add(entry.index)
    return {name: min(indices) for name, indices in found.items() if len(indices) == 1}


def _entries(line: str, form: str, labelled: bool = True) -> tuple[str, list[_Entry]] | Fault:
    """The label, if there should be one, and the entries of a line, or what is wrong with it."""
    label, *rest = (("" if labelled else "0 ") + line.partition("#")[0]).split() or [""]
    if not label and line.strip():
        return Fault("field_count", "is a comment and no row: remove it, such as with `grep -v '^#'`")
    if not label:
        return Fault("field_count", f"is blank; {_FORM[form]} is expected")
    entries = []
    if rest and rest[0].startswith(f"{_QUERY}:"):
        query = rest.pop(0).removeprefix(f"{_QUERY}:")
        if not (query.isascii() and query.isdigit()):
            return Fault("field_count", f"has {f'qid:{query}'[:40]!r}: a query is a number, such as qid:7")
        entries.append(_Entry(_QUERY, query, query))
    for place, text in enumerate(rest, 1):
        if text.startswith(f"{_QUERY}:"):
            return Fault(
                "field_count",
                f"has {text[:40]!r} as entry {place}: a query is given once, right behind the label",
            )
        parts = _ENTRY[form].fullmatch(text)
        if not parts:
            return Fault(
                "field_count", f"has {text[:40]!r}, which is not of the form {_FORM[form].split()[1]}"
            )
        name = f"P{place}" if form == "libsvm" else f"F{int(parts[1])}"
        entries.append(_Entry(name, parts[2], parts[3]))
    return _LABELS.get(label, label), entries


@dataclass(frozen=True)
class _Block:
    """Lines (see `row_readers.Block`)."""

    text: bytes
    form: str
    converter: Converter
    kinds: dict[str, Any]
    others: bool = False  # there may be columns that the layout does not name
    indices: Mapping[str, str] = field(default_factory=dict)  # of columns whose values are read

    @property
    def lines(self) -> int:
        return self.text.count(b"\n")

    def parsed(self, first: int) -> Iterator[Parsed]:
        """Plain lines at once, others one by one; all of them one by one where both alternate too often."""
        found = self._split()
        if found is None:
            yield self._one_by_one(self.text, first)
            return
        changes = np.flatnonzero(np.diff(found.plain)) + 1
        if len(changes) > _MOST_CHANGES:
            yield self._one_by_one(self.text, first)
            return
        ends = np.flatnonzero(np.frombuffer(self.text, np.uint8) == ord("\n")) + 1
        for low, high in pairwise([0, *changes.tolist(), len(found.plain)]):
            text = self.text[int(ends[low - 1]) if low else 0 : int(ends[high - 1])]
            yield (
                self._at_once(found, text, low, high, first)
                if found.plain[low]
                else self._one_by_one(text, first + low)
            )

    def _split(self) -> Split | None:
        """The plain lines of the block; None where its columns are too many to tell them apart by arrays."""
        names = [name for name in self.kinds if name != "label"]
        known = all(self.kinds[name] in _KINDS and name[1:].isdecimal() for name in names)
        if not names or not known or self.kinds.get("label", "label") != "label":
            return None
        numbers = [int(name[1:]) - (self.form == "libsvm") for name in names]
        if max(numbers) > _MOST_PLACES:
            return None
        places = np.full(max(numbers) + 1, -1, np.int64)
        places[numbers] = np.arange(len(names))
        kinds = np.array([_KINDS[self.kinds[name]] for name in names])
        found = split(self.text, self.form == "libffm", "label" in self.kinds, places, kinds)
        for place, name in enumerate(names):
            if self.kinds[name] == "number" and name in self.indices:
                index = found.indices[:, place]
                found.plain[(index >= 0) & (index != int(self.indices[name]))] = False
        return found

    def _at_once(self, found: Split, text: bytes, low: int, high: int, first: int) -> Parsed:
        """Lines `low` to `high`, all of them plain."""
        columns: dict[str, pl.Series] = {}
        if "label" in self.kinds:
            columns["label"] = pl.Series(found.labels[low:high])
        listed = found.listed[
            np.searchsorted(found.listed[:, 0], low) : np.searchsorted(found.listed[:, 0], high)
        ]
        for place, name in enumerate(name for name in self.kinds if name != "label"):
            if self.kinds[name] == "tokens":
                of = listed[listed[:, 1] == place]
                offsets = np.searchsorted(of[:, 0], np.arange(low, high + 1))
                lists = pa.LargeListArray.from_arrays(offsets, np.ascontiguousarray(of[:, 2]))
                columns[name] = pl.Series(name, lists)
            elif self.kinds[name] == "number":
                columns[name] = pl.Series(found.numbers[low:high, place])
            else:
                values = pl.Series(found.indices[low:high, place])
                columns[name] = values.set(values < 0, None)
        frame = pl.DataFrame({name: columns[name] for name in self.converter.columns})
        converted = self.converter.convert(frame)
        lines = text.split(b"\n") if converted.faults else []
        bad = [
            BadRow(first + low + row, lines[row].removesuffix(b"\r"), fault)
            for row, fault in converted.faults
        ]
        return Parsed(converted.rows, bad, converted.inexact, converted.times, splits=converted.splits)

    def _one_by_one(self, text: bytes, first: int) -> Parsed:
        """Lines, of which the first has that number."""
        columns: dict[str, list[Any]] = {name: [] for name in self.converter.columns}
        lines = text.split(b"\n")[:-1]
        good: list[int] = []
        bad: list[BadRow] = []
        for place, raw in enumerate(lines):
            row = self._row(raw)
            if isinstance(row, Fault):
                bad.append(BadRow(first + place, raw.removesuffix(b"\r"), row))
                continue
            good.append(place)
            for name, values in columns.items():
                values.append(row.get(name))
        types = {name: pl.List(pl.String) if self.kinds[name] == "tokens" else pl.String for name in columns}
        found = self.converter.convert(pl.DataFrame(columns, schema=types))
        more = [
            BadRow(first + good[row], lines[good[row]].removesuffix(b"\r"), fault)
            for row, fault in found.faults
        ]
        return Parsed(found.rows, sorted([*bad, *more]), found.inexact, found.times, splits=found.splits)

    def _row(self, raw: bytes) -> dict[str, Any] | Fault:
        """The values of a line by column, or what is wrong with it."""
        try:
            entries = _entries(raw.decode(), self.form, "label" in self.kinds)
        except UnicodeDecodeError:
            return Fault("not_text", "is not text in UTF-8")
        if isinstance(entries, Fault):
            return entries
        row: dict[str, Any] = {"label": entries[0]}
        for entry in entries[1]:
            kind = self.kinds.get(entry.column)
            if kind == "skip" or (kind is None and (self.others or entry.column == _QUERY)):
                continue
            if kind is None:
                return Fault(
                    "field_count", f"has a column {entry.column:.20}, which the log's first rows have not"
                )
            if kind in ("token", "tokens") and entry.column != _QUERY and not _is_one(entry.value):
                return Fault(
                    "not_a_token",
                    f"column {entry.column:.20}: has the value {entry.value[:20]!r}; categories have 1",
                )
            index = self.indices.get(entry.column, entry.index)
            if kind in _OF_VALUES and entry.column != _QUERY and int(index) != int(entry.index):
                return Fault(
                    "not_a_number",
                    f"column {entry.column:.20}: has index {entry.index:.20}, and {index:.20} in the log's first rows: "
                    "write numbers of 0 too",
                )
            if kind == "tokens":
                row.setdefault(entry.column, []).append(entry.index)
            elif entry.column in row:
                return Fault(
                    "field_count", f"has column {entry.column:.20} twice, which the log's first rows have not"
                )
            else:
                row[entry.column] = entry.value if kind in _OF_VALUES else entry.index
        return row


def _is_one(value: str) -> bool:
    try:
        return value == "1" or float(value) == 1
    except ValueError:
        return False


class SparseRows(TextRows):
    """The rows of a stretch of a file of sparse text (see `RowReader`)."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        self._converter, self._kinds = Converter(reading.layout, reading.split), dict(reading.layout.kinds)
        self._indices = _indices_of(reading.raw, self._kinds)

    def __iter__(self) -> Iterator[Block]:
        for text in self._reader:
            yield _Block(
                text,
                self._raw.format,
                self._converter,
                self._kinds,
                self._layout.others is not None,
                self._indices,
            )

    def explained(self, row: BadRow) -> str:
        """What is wrong with a row, and what to do."""
        return bad_value(row, self._by_schema)
