"""Rows of Parquet files, a row group after another, a few pages in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block, Stretch
from sizewise_prep.raw.columns.usual_types import checked
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.reading import Reading
from sizewise_prep.raw.tables.arrow_types import reason_of
from sizewise_prep.raw.tables.frames import TableBlock, TableRows, block_rows, cut

_BUFFER_BYTES = 1 << 20  # read of a column at a time
_MISSING_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_REPETITIVE = 4
"""Bytes that a value of a column of texts takes on average, where it pays to keep its dictionary."""


@contextmanager
def opened(raw: RawFile, repetitive: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """The file, for the block; `repetitive`: columns of texts to be read as dictionaries.

    Raises InputError where it is damaged, then or in the block.
    """
    with raw.open() as stream:
        try:
            yield pq.ParquetFile(
                pa.PythonFile(stream, "r"),
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
                read_dictionary=list(repetitive),
            )
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{raw.path}: is a Parquet file that cannot be read ({reason_of(error)}); fetch or write it again"
            ) from None


def batches_of(
    file: pq.ParquetFile, rows: int, groups: list[int] | None = None, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a file.

    Args:
        file: an open one.
        rows: of a batch at most.
        groups: numbers of the row groups that are read; None: all.
        columns: the columns that are read; None: all.

    Raises:
        pyarrow.ArrowInvalid: rows are lost: Arrow gives none of some row groups of lists of dictionaries.
    """
    groups = list(range(file.num_row_groups)) if groups is None else groups
    # Of lists of dictionaries Arrow reads no batch that goes over two row groups.
    alone = any(
        pa.types.is_nested(field.type) and "dictionary<" in str(field.type) for field in file.schema_arrow
    )
    for some in [[group] for group in groups] if alone else [groups]:
        held = sum(file.metadata.row_group(group).num_rows for group in some)
        read = 0
        for batch in file.iter_batches(rows, row_groups=some, columns=columns, use_threads=False):
            read += batch.num_rows
            yield batch
        if read != held:
            where = f"row group {some[0] + 1}" if alone else "its row groups"
            raise pa.ArrowInvalid(f"{read:,} of {held:,} rows of {where} come out")


def schema_of(raw: RawFile, layout: Layout | None = None) -> pa.Schema:
    """Its columns, and those that its folders' names give, as far as a layout names them.

    Raises InputError where it is damaged.
    """
    with opened(raw) as file:
        schema = file.schema_arrow
    for name in partitions(raw.path):
        if layout and name in layout.columns and name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    return schema


def partitions(path: str) -> dict[str, str | None]:
    """The columns that the names of a file's folders give, as Hive and Spark write tables: `day=2024-05-01/hour=7`.

    Args:
        path: of the file.

    Returns:
        The value of each, as text; None for what stands for a missing one.
    """
    folders = reversed(path.split("/")[:-1])
    named = [folder.split("=", 1) for folder in takewhile(lambda folder: "=" in folder[1:], folders)]
    values = {unquote(name): unquote(value) for name, value in reversed(named)}
    return {name: None if value == _MISSING_PARTITION else value for name, value in values.items()}


def stretches(raw: RawFile, layout: Layout, piece_bytes: int, block_bytes: int) -> list[Stretch]:
    """Consecutive row groups that can be read independently.

    Args:
        raw: the file.
        layout: its columns.
        piece_bytes: about the size of a stretch.
        block_bytes: about as much is read at a time.

    Returns:
        The stretches, the last of which ends with the file.
    """
    with opened(raw) as file:
        starts = _starts(file.metadata)
        rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    in_block = block_rows(layout, block_bytes)
    in_piece = in_block * max(1, piece_bytes // block_bytes)
    found: list[Stretch] = []
    start, held = 0, 0
    for group, (begin, end) in enumerate(pairwise([*starts, raw.bytes])):
        held += rows[group]
        last = group == len(rows) - 1
        if last or end - start >= piece_bytes or (held >= in_piece and end > begin):
            piece = found[-1].piece + (found[-1].pieces or 0) if found else 0
            stop = raw.bytes if last else end
            found.append(Stretch(start, stop, piece, max(1, -(-held // in_piece))))
            start, held = stop, 0
    return found or [Stretch(0, raw.bytes, 0, 1)]


def _starts(metadata: pq.FileMetaData) -> list[int]:
    """Where each row group begins in the file; all 0 where they are not in order."""
    starts = []
    for group in range(metadata.num_row_groups):
        columns = [metadata.row_group(group).column(place) for place in range(metadata.num_columns)]
        starts.append(
            min(
                column.data_page_offset
                if column.dictionary_page_offset is None
                else min(column.data_page_offset, column.dictionary_page_offset)
                for column in columns
            )
            if columns
            else 0
        )
    in_order = all(low < high for low, high in pairwise(starts)) and (not starts or starts[0] > 0)
    return starts if in_order else [0] * len(starts)


def _repetitive(metadata: pq.FileMetaData, names: Collection[str], groups: list[int]) -> list[str]:
    """The columns of texts, among those, that are mostly places in a dictionary."""
    if not groups or not names:
        return []
    first = metadata.row_group(groups[0])
    places = {first.column(place).path_in_schema: place for place in range(metadata.num_columns)}
    found = []
    for name in names:
        columns = [metadata.row_group(group).column(places[name]) for group in groups]
        values = sum(column.num_values for column in columns)
        if sum(column.total_uncompressed_size for column in columns) < _REPETITIVE * values:
            found.append(name)
    return found


class ParquetRows(TableRows):
    """The rows of a stretch of a Parquet file (see `RowReader`)."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        with opened(reading.raw) as file:
            metadata = file.metadata
            starts = _starts(metadata)
            rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            schema = file.schema_arrow
        # Of a file of which no column is used, one is read to know its rows.
        there = schema.names
        self._columns = [name for name in self._converter.columns if name in there] or there[:1]
        of_folders = partitions(reading.raw.path)
        self._of_folders = {
            name: pa.array([of_folders[name]], pa.string())
            for name in self._converter.columns
            if name not in there and name in of_folders
        }
        first = reading.stretch.start or -1  # the first stretch begins before the first group
        self._groups = [group for group, at in enumerate(starts) if first <= at < reading.stretch.stop]
        self._rows, self._total = rows, sum(rows[group] for group in self._groups)
        texts = [field.name for field in schema if field.type in (pa.string(), pa.large_string())]
        wanted = [name for name in reading.layout.read_tokens if name in texts]
        self._repetitive = _repetitive(metadata, wanted, self._groups)

    def __iter__(self) -> Iterator[Block]:
        size, done = self._stretch.stop - self._stretch.start, 0
        for rows in cut(self._batches(), self._block_rows):
            done += rows.num_rows
            self.bytes_read = size * done // max(1, self._total)
            yield TableBlock(rows, self._converter)
        self.bytes_read = size

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with opened(self._raw, self._repetitive) as file:
            for batch in batches_of(file, self._block_rows, self._groups, self._columns):
                yield self._with_folders(checked(batch))

    def _with_folders(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns that are used, those that folders' names give among them."""
        first = np.zeros(batch.num_rows, np.int32)  # of one value
        columns = [
            pa.DictionaryArray.from_arrays(first, self._of_folders[name])
            if name in self._of_folders
            else batch.column(name)
            for name in self._converter.columns
        ]
        return pa.RecordBatch.from_arrays(columns, names=self._converter.columns)

    def lines_before(self) -> int:
        """Rows before the stretch."""
        return sum(self._rows[: self._groups[0]]) if self._groups else 0

    def position(self, line: int) -> str:
        """The row, in the file and in its row group, counted from 1."""
        before = 0
        for group, rows in enumerate(self._rows):
            if before < line <= before + rows and len(self._rows) > 1:
                return f"row {line} (row group {group + 1}, row {line - before})"
            before += rows
        return f"row {line}"
