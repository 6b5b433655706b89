"""Rows of Arrow IPC files and streams, a record batch after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pyarrow as pa

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block, Stretch
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.converter import Converter
from sizewise_prep.raw.parsing.parser import BadRow
from sizewise_prep.raw.tables.arrow_types import checked, frame, reason_of
from sizewise_prep.raw.tables.frames import TableBlock, bad_value, block_rows, cut, digest_range
from sizewise_prep.raw.values.row_splits import RowSplit


@contextmanager
def _opened(raw: RawFile) -> Iterator[pa.RecordBatchFileReader | pa.RecordBatchStreamReader]:
    with raw.open() as stream:
        try:
            source = pa.PythonFile(stream, "r")
            yield pa.ipc.open_file(source) if raw.format == "arrow" else pa.ipc.open_stream(source)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{raw.path}: is an Arrow file that cannot be read ({reason_of(error)}); fetch or write it again"
            ) from None


def _batches(file: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    if isinstance(file, pa.RecordBatchFileReader):
        return (file.get_batch(number) for number in range(file.num_record_batches))
    return iter(file)


def schema_of(raw: RawFile) -> pa.Schema:
    """Its columns. Raises InputError where it is damaged."""
    with _opened(raw) as file:
        return file.schema


class ArrowRows:
    """The rows of an Arrow file or stream (see `RowReader`)."""

    header_lines = 0

    def __init__(
        self,
        raw: RawFile,
        layout: Layout,
        stretch: Stretch,
        block_bytes: int,
        by_schema: bool = True,
        split: RowSplit | None = None,
    ) -> None:
        self._by_schema = by_schema
        self._raw, self._stretch = raw, stretch
        self._converter = Converter(layout, split)
        self._block_rows = block_rows(layout, block_bytes)
        self.bytes_read = 0

    @property
    def sha256(self) -> str:
        """Of the file's bytes."""
        return digest_range(self._raw, 0, self._stretch.stop)

    def __iter__(self) -> Iterator[Block]:
        for rows in cut(self._frames(), self._block_rows):
            yield TableBlock(rows, self._converter)
        self.bytes_read = self._stretch.stop

    def _frames(self) -> Iterator[pl.DataFrame]:
        with _opened(self._raw) as file:
            for batch in _batches(file):
                for start in range(0, batch.num_rows, self._block_rows):
                    part = batch.slice(start, self._block_rows).select(self._converter.columns)
                    yield frame(checked(part))

    def lines_before(self) -> int:
        """Rows before the stretch, which is all of the file."""
        return 0

    def position(self, line: int) -> str:
        """The row."""
        return f"row {line}"

    def explained(self, row: BadRow) -> str:
        """What is wrong with a row, and what to do."""
        return bad_value(row, self._by_schema)


def first_batches(raw: RawFile, rows: int) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Its columns and about so many first rows. Raises InputError where it is damaged."""
    found: list[pa.RecordBatch] = []
    with _opened(raw) as file:
        for batch in _batches(file):
            found.append(checked(batch.slice(0, rows)))
            rows -= found[-1].num_rows
            if rows <= 0:
                break
        return file.schema, found
