"""Blocks of a table's rows, as every format of tables gives them.

for batch in cut(batches, rows=10_000):    # record batches of exactly so many rows, the last one aside
    yield TableBlock(batch, converter)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sizewise_prep.raw.columns.usual_types import frame, usual, usual_batch
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.options import NULLS
from sizewise_prep.raw.parsing.converter import Converter
from sizewise_prep.raw.parsing.parser import BadRow, Parsed
from sizewise_prep.raw.reading import Reading

_VALUE_BYTES = 8  # of a block, roughly, for each value
_MOST_VALUES = 1 << 19  # in lists, of rows that are worked on at a time
_LIST_VALUES = 100  # of a list, by which blocks are cut; longer ones take more memory
_MOST_ROWS = 1 << 15  # of a block: texts may take far more than that


@dataclass(frozen=True)
class TableBlock:
    """Rows of a table (see `row_readers.Block`); a row's number is that of its line."""

    rows: pa.RecordBatch
    converter: Converter

    @property
    def lines(self) -> int:
        """Rows."""
        return int(self.rows.num_rows)

    def parsed(self, first: int) -> Iterator[Parsed]:
        """The rows, at once, or some at a time where they have long lists."""
        for low, high in pairwise(self._ends()):
            part = self.rows.slice(low, high - low)
            found = self.converter.quick({name: usual(part.column(name)) for name in self.converter.columns})
            if found is None:
                rows = frame(part)
                found = self.converter.convert(rows)
                bad = [BadRow(first + low + row, _written(rows, row), fault) for row, fault in found.faults]
            else:
                bad = []
            yield Parsed(found.rows, bad, found.inexact, found.times, splits=found.splits)

    def _ends(self) -> list[int]:
        """Where to cut the rows, so that those between have about `_MOST_VALUES` values in lists at most."""
        lists = [column for column in self.rows.columns if _is_list(column.type)]
        if not lists or not self.lines:
            return [0, self.lines]
        lengths = (pc.fill_null(pc.list_value_length(column), 0).to_numpy() for column in lists)
        values = np.cumsum(sum(length.astype(np.int64) for length in lengths))
        cuts = np.searchsorted(values, np.arange(_MOST_VALUES, int(values[-1]), _MOST_VALUES), "right")
        return [0, *sorted({int(cut) for cut in cuts if 0 < cut < self.lines}), self.lines]


def _is_list(kind: pa.DataType) -> bool:
    views = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return bool(views or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _written(frame: pl.DataFrame, row: int) -> bytes:
    """A row as the quarantine keeps it: a JSON object of the columns that are read."""
    values = frame.row(row, named=True)
    return json.dumps(values, default=_text, ensure_ascii=False).encode("utf-8", "replace")


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def block_rows(layout: Layout, block_bytes: int) -> int:
    """Rows of a block that holds about so many bytes."""
    values = len(layout.columns) + _LIST_VALUES * len(layout.token_lists)
    return max(1, min(block_bytes // (_VALUE_BYTES * values), _MOST_ROWS))


def cut(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `rows` each, but for the last."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(usual_batch(batch))
        count += batch.num_rows
        while count >= rows:
            joined = _joined(held)
            yield joined.slice(0, rows)
            held, count = [joined.slice(rows)], count - rows
    if count:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    some = [batch for batch in batches if batch.num_rows]
    if len(some) < 2:
        return some[0] if some else batches[0]
    table = pa.Table.from_batches(some).unify_dictionaries().combine_chunks()
    return pa.RecordBatch.from_arrays([column.chunk(0) for column in table.columns], schema=table.schema)


def bad_value(row: BadRow, by_schema: bool = True) -> str:
    """What is wrong with a row of a table, and what to do."""
    other = ", or give the column another kind (--schema)" if by_schema else ""
    if by_schema and any(f": {text!r} " in row.fault.detail for text in NULLS):
        other = ", or name the text among the `nulls` where it stands for no value (--schema)"
    if row.fault.reason == "label" and by_schema:
        other = ", or state what a click is, such as `label >= 4` (--schema)"
    if row.fault.reason == "not_a_list" and by_schema:
        other = ', or give the column a separator, such as {kind: tokens, separator: "|"} (--schema)'
    return f"{row.fault.detail}; fix the row, set bad ones aside (--max-bad-fraction){other}"


def digest_range(raw: RawFile, start: int, stop: int, block_bytes: int = 8 << 20) -> str:
    """Hexadecimal SHA-256 of a range of a file.

    Args:
        raw: the file.
        start, stop: its bytes, `stop` exclusive.
        block_bytes: read at a time.
    """
    digest, left = hashlib.sha256(), stop - start
    with raw.open() as stream:
        stream.seek(start)
        while left and (piece := stream.read(min(block_bytes, left))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


class TableRows:
    """What the readers of all formats of tables do alike (see `RowReader`); each gives its blocks.

    Args:
        reading: what is to be read; a stretch that is all of the file, where a format cannot be read in parts.
    """

    header_lines = 0

    def __init__(self, reading: Reading) -> None:
        self._raw, self._stretch, self._by_schema = reading.raw, reading.stretch, reading.by_schema
        self._converter = Converter(reading.layout, reading.split)
        self._block_bytes = reading.block_bytes
        self._block_rows = block_rows(reading.layout, reading.block_bytes)
        self.bytes_read = 0

    @property
    def sha256(self) -> str:
        """Of the stretch's bytes."""
        return digest_range(self._raw, self._stretch.start, self._stretch.stop)

    def lines_before(self) -> int:
        """Rows before the stretch."""
        return 0

    def position(self, line: int) -> str:
        """The row."""
        return f"row {line}"

    def explained(self, row: BadRow) -> str:
        """What is wrong with a row, and what to do."""
        return bad_value(row, self._by_schema)
