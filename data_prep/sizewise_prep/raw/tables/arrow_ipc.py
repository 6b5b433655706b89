"""Rows of Arrow IPC files and streams, a record batch after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block
from sizewise_prep.raw.columns.usual_types import checked
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.tables.arrow_types import reason_of
from sizewise_prep.raw.tables.frames import TableBlock, TableRows, cut


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


class ArrowRows(TableRows):
    """The rows of an Arrow file or stream (see `RowReader`)."""

    def __iter__(self) -> Iterator[Block]:
        for rows in cut(self._record_batches(), self._block_rows):
            yield TableBlock(rows, self._converter)
        self.bytes_read = self._stretch.stop

    def _record_batches(self) -> Iterator[pa.RecordBatch]:
        with _opened(self._raw) as file:
            for batch in _batches(file):
                for start in range(0, batch.num_rows, self._block_rows):
                    part = batch.slice(start, self._block_rows).select(self._converter.columns)
                    yield checked(part)


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
