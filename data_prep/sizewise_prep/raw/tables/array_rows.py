"""Rows of NumPy arrays (see `files.arrays`), some thousand at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sizewise_prep.raw.blocks import Block
from sizewise_prep.raw.files.arrays import Array, opened, token_columns
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.tables.frames import TableBlock, TableRows


def schema_of(raw: RawFile) -> pa.Schema:
    """Its columns. Raises InputError where it is damaged."""
    with opened(raw) as found:
        table = _frame(found, 0, 0).to_arrow()
        schema: pa.Schema = table.schema
        return schema


class ArrayRows(TableRows):
    """The rows of a log of NumPy arrays (see `RowReader`)."""

    def __iter__(self) -> Iterator[Block]:
        with opened(self._raw) as found:
            count = next(iter(found.values())).shape[0]
            of_row = sum(array.columns * array.kind.itemsize for array in found.values())
            at_once = max(1, min(self._block_rows, self._block_bytes // max(1, of_row)))
            for start in range(0, count, at_once):
                stop = min(start + at_once, count)
                rows = _frame(found, start, stop).select(self._converter.columns)
                yield TableBlock(rows.to_arrow().combine_chunks().to_batches()[0], self._converter)
                self.bytes_read = self._stretch.stop * stop // count
        self.bytes_read = self._stretch.stop


def _frame(found: dict[str, Array], start: int, stop: int) -> pl.DataFrame:
    """Rows as columns; ids are words of 32 bits, which some programs write as signed ones."""
    read = {name: array.rows(start, stop) for name, array in found.items()}
    columns: dict[str, Any] = {"label": pl.Series(read["label"].reshape(-1))} if "label" in read else {}
    columns |= {f"I{place}": pl.Series(values) for place, values in enumerate(_columns(read["dense"]), 1)}
    for place, (name, (array, width)) in enumerate(token_columns(found).items()):
        ids = _words(read[array])
        if width is None:
            columns[name] = pl.Series(np.ascontiguousarray(ids[:, place if array == "ids" else 0]))
        else:
            columns[name] = pl.Series(np.ascontiguousarray(ids), dtype=pl.Array(_kind(ids), width))
    return pl.DataFrame(columns)


def _columns(rows: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return [np.ascontiguousarray(rows[:, column]) for column in range(rows.shape[1])]


def _words(ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return ids.view(np.uint32) if ids.dtype == np.int32 else ids


def _kind(ids: npt.NDArray[Any]) -> pl.DataType:
    kind: pl.DataType = pl.Series(ids[:0, 0]).dtype
    return kind
