"""Chunks of a planted world as files: text in Criteo's layout, text with a header where columns were added, or Parquet.

with log_file(folder / "day_0.parquet", "parquet") as log:
    log.write(chunk)
log.sha256
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sizewise_core.files.atomic import HashingWriter, hashed_file
from sizewise_prep.planted.columns.added import Values
from sizewise_prep.planted.output import BETWEEN, Format
from sizewise_prep.planted.text import digits
from sizewise_prep.planted.world import Chunk

_GROUP_ROWS = 1 << 17  # of Parquet, at least: rows that one worker of `prep` takes at a time


class Log(Protocol):
    """A file that is being written."""

    def write(self, chunk: Chunk) -> None:
        """Append rows."""


@contextmanager
def log_file(path: Path, kind: Format, compress: bool = False) -> Iterator[tuple[Log, HashingWriter]]:
    """A raw file to write chunks to, and what knows its size and digest once the block has ended.

    Args:
        path: of the file, which appears when it is complete.
        kind: what it holds.
        compress: text by gzip; Parquet is compressed always.
    """
    with hashed_file(path) as writer:
        if kind == "parquet":
            with closing(_Parquet(writer)) as log:
                yield log, writer
        else:
            with closing(_compressed(writer) if compress else writer) as stream:
                yield _Text(stream), writer


def _compressed(stream: HashingWriter) -> gzip.GzipFile:
    # No name and no time in the header: the same rows give the same bytes. Level 1 halves the size at a
    # quarter of the time of level 6.
    return gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=stream, mtime=0)


class _Text:
    def __init__(self, stream: HashingWriter | gzip.GzipFile) -> None:
        self._stream, self._begun = stream, False

    def write(self, chunk: Chunk) -> None:
        """Append lines, after one with the columns' names where columns were added."""
        if chunk.added:
            self._stream.write(_lines(chunk, header=not self._begun))
        else:
            self._stream.write(chunk.text())
        self._begun = True


class _Parquet:
    def __init__(self, stream: HashingWriter) -> None:
        self._stream = stream
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, chunk: Chunk) -> None:
        """Append rows, in groups of at least `_GROUP_ROWS` but for the last."""
        table = frame(chunk).to_arrow(compat_level=pl.CompatLevel.oldest())
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._stream, table.schema, compression="zstd", store_schema=False
            )
        self._writer.write_table(table.combine_chunks(), row_group_size=table.num_rows)
        self._waiting, self._rows = [], 0

    def close(self) -> None:
        """Write what is left."""
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()


def frame(chunk: Chunk) -> pl.DataFrame:
    """All columns of rows: tokens as numbers, null where missing."""
    columns = [pl.Series("label", chunk.labels)]
    for number, (values, observed) in enumerate(zip(chunk.integers, chunk.observed, strict=True), 1):
        columns.append(pl.Series(f"I{number}", pa.array(values, mask=~observed)))
    for number, words in enumerate(chunk.tokens, 1):
        columns.append(pl.Series(f"C{number}", pa.array(words, mask=words == 0)))
    return pl.DataFrame([*columns, *(_series(name, values) for name, values in chunk.added.items())])


def _series(name: str, column: Values) -> pl.Series:
    missing = None if column.observed is None else ~column.observed
    values = pa.array(column.values, mask=missing)
    if column.offsets is not None:
        values = pa.LargeListArray.from_arrays(pa.array(column.offsets), values)
    return pl.Series(name, values)


def _lines(chunk: Chunk, header: bool) -> bytes:
    """All columns of rows as text: tokens as eight hexadecimal digits, lists of them with `BETWEEN` between them."""
    rows = frame(chunk)
    written = [_hex(column) for column in rows.get_columns() if column.dtype in (pl.UInt32, pl.List)]
    text = rows.with_columns(written).write_csv(
        separator="\t", include_header=header, quote_style="never", float_precision=4
    )
    return text.encode()


def _hex(column: pl.Series) -> pl.Series:
    """A column of tokens, or of lists of them, as texts, which are empty where there is no token."""
    if column.dtype != pl.List:
        words = column.fill_null(0).to_numpy()
        kept = words != 0
        return _texts(column.name, digits(words[kept]).reshape(-1), 8 * kept)
    lengths = column.list.len().to_numpy().astype(np.int64)
    words = column.explode(empty_as_null=False).to_numpy()
    text = np.full((len(words), 9), ord(BETWEEN), np.uint8)
    text[:, :8] = digits(words)
    keep = np.ones(text.shape, np.bool_)
    keep[(np.cumsum(lengths) - 1)[lengths > 0], 8] = False
    return _texts(column.name, text[keep], np.maximum(9 * lengths - 1, 0))


def _texts(name: str, text: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> pl.Series:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    buffers = pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text))
    return pl.Series(name, pa.LargeStringArray.from_buffers(len(lengths), *buffers))
