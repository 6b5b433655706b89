"""Rows of Parquet files, a row group after another, a few pages in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block, Stretch
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.reading import Reading
from sizewise_prep.raw.tables.arrow_types import checked, frame, reason_of
from sizewise_prep.raw.tables.frames import TableBlock, TableRows, block_rows, cut

_BUFFER_BYTES = 1 << 20  # read of a column at a time
_BATCH_ROWS = 16_384


@contextmanager
def opened(raw: RawFile) -> Iterator[pq.ParquetFile]:
    """The file, for the block. Raises InputError where it is damaged, then or in the block."""
    with raw.open() as stream:
        try:
            yield pq.ParquetFile(pa.PythonFile(stream, "r"), buffer_size=_BUFFER_BYTES, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{raw.path}: is a Parquet file that cannot be read ({reason_of(error)}); fetch or write it again"
            ) from None


def schema_of(raw: RawFile) -> pa.Schema:
    """Its columns. Raises InputError where it is damaged."""
    with opened(raw) as file:
        return file.schema_arrow


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


class ParquetRows(TableRows):
    """The rows of a stretch of a Parquet file (see `RowReader`)."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        with opened(reading.raw) as file:
            metadata = file.metadata
            starts = _starts(metadata)
            rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        first = reading.stretch.start or -1  # the first stretch begins before the first group
        self._groups = [group for group, at in enumerate(starts) if first <= at < reading.stretch.stop]
        self._rows, self._total = rows, sum(rows[group] for group in self._groups)

    def __iter__(self) -> Iterator[Block]:
        size, done = self._stretch.stop - self._stretch.start, 0
        for rows in cut(self._frames(), self._block_rows):
            done += rows.height
            self.bytes_read = size * done // max(1, self._total)
            yield TableBlock(rows, self._converter)
        self.bytes_read = size

    def _frames(self) -> Iterator[pl.DataFrame]:
        with opened(self._raw) as file:
            batches = file.iter_batches(
                batch_size=min(self._block_rows, _BATCH_ROWS),
                row_groups=self._groups,
                columns=self._converter.columns,
                use_threads=False,
            )
            for batch in batches:
                yield frame(checked(batch)).select(self._converter.columns)

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
