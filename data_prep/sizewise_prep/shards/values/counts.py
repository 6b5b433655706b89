"""How often every value occurs in the training rows, and in how many of them with a click: exact, column by column.

    counts = training_counts("data/criteo")         # one a feature: token columns, then columns of lists
    counts[0].ids, counts[0].counts, counts[0].clicks

`sizewise prep` writes them to a file beside the shards, named in the manifest. A folder of an older version, which has
none, is counted at first use, with one shard in memory at a time. The result is kept in the folder, or in the cache
where the folder cannot be written, with a digest of its shards.

The file holds little-endian numbers: how many values each column has (int64), then column by column their counts
(int64), their clicks (int64) and the values themselves (uint32, and zeros up to a multiple of eight bytes).
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import CACHED, BusyError, atomic_folder, hashed_file, write_atomic
from sizewise_core.stores.storage import Place, place
from sizewise_prep.shards.cache import cache_folder, fetched, local_shards
from sizewise_prep.shards.files import read_shard
from sizewise_prep.shards.manifest import COUNTS, NAME, Manifest, Shard, problem_of
from sizewise_prep.shards.values.distinct import Counts, Run, Words, merged

log = logging.getLogger(__name__)

FILE = "values.counts"
RECORD = "counts.json"
_WORDS = 1 << 22  # in memory at a time, where a folder is counted afterwards: some 200 MB
_WAIT_SECONDS = 0.5  # between looks at what another process counts
_KINDS: list[np.dtype[Any]] = [np.dtype("<i8"), np.dtype("<i8"), np.dtype("<u4")]  # counts, clicks, values
_ROUNDED = 8  # bytes of a column are a multiple of


class ValueCounts(NamedTuple):
    """The values of one feature in the training rows, (n,) each."""

    ids: Words
    """Ascending and distinct, as shards hold them."""
    counts: Counts
    """Rows that hold each; of lists, how often they do."""
    clicks: Counts
    """In rows with label 1."""


class Record(BaseModel):
    """What was counted afterwards: of which shards, and the file that holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    of: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    file: Shard


def training_counts(data: str | Place) -> list[ValueCounts]:
    """The counts of a folder of shards, or of a URI; counted now if they have not been.

    Raises:
        InputError: no shards there, or the counts are damaged.
        StorageError: the storage cannot be reached.
    """
    manifest, source = Manifest.load(data), place(data)
    if isinstance(source, Path):
        there = manifest.counts is not None and (source / manifest.counts.file).exists()
        return _local(source, there, (source / NAME).stat().st_mtime_ns)
    if manifest.counts:
        return _read(fetched(source, [manifest.counts]), manifest, manifest.counts)
    return training_counts(local_shards(data))


@lru_cache(maxsize=4)
def _local(folder: Path, prepared: bool, stamp: int) -> list[ValueCounts]:
    """Read and checked once a process; `stamp` is when the manifest was written."""
    manifest = Manifest.load(folder)
    if prepared and manifest.counts:
        return _read(folder, manifest, manifest.counts)
    where = _counted(folder, manifest)
    return _read(where / COUNTS, manifest, _record(where, manifest).file)


class Writer:
    """Writes the counts of a column, which may come a range of values after another.

    Args:
        path: of the column's file, which `joined` makes a part of the file of all.
        numbered: whether ids are contiguous: then the first is 0, and its counts come last.
    """

    def __init__(self, path: Path, numbered: bool = False) -> None:
        self._path, self._numbered = path, numbered
        self._spilled = [path.with_suffix(f".{part}") for part in ("count", "clicks", "id")]
        self._open = ExitStack()
        self._size = 0

    def __enter__(self) -> Self:
        self._streams = [self._open.enter_context(path.open("w+b")) for path in self._spilled]
        if self._numbered:
            self._write([np.zeros(1, np.int64)] * 3)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        for path in self._spilled:
            path.unlink(missing_ok=True)

    def add(self, ids: Words, counts: Counts, clicks: Counts) -> None:
        """Write values of a range; those that occur in no training row are left out.

        Args:
            ids: (n,), ascending.
            counts, clicks: (n,), rows with each, and those with a click.
        """
        there = counts > 0
        self._write([counts[there], clicks[there], ids[there]])

    def written(self, zero: tuple[int, int] = (0, 0)) -> tuple[int, int, str]:
        """Make the column's file of what was written; its values, bytes and SHA-256.

        `zero` is how often id 0 of numbered ids occurs, and in how many rows with a click.
        """
        first = int(self._numbered and not zero[0])
        if self._numbered:
            for stream, value in zip(self._streams, zero, strict=False):
                stream.seek(0)
                stream.write(np.int64(value).tobytes())
        with hashed_file(self._path, durable=False) as writer:
            for stream, kind in zip(self._streams, _KINDS, strict=True):
                stream.seek(first * kind.itemsize)
                while block := stream.read(CACHED):
                    writer.write(block)
            writer.write(bytes(-writer.bytes % _ROUNDED))
        return self._size - first, writer.bytes, writer.sha256

    def _write(self, columns: list[npt.NDArray[Any]]) -> None:
        for stream, values, kind in zip(self._streams, columns, _KINDS, strict=True):
            stream.write(values.astype(kind, copy=False).tobytes())
        self._size += len(columns[0])


def merge(path: Path, runs: Sequence[Run], column: int, limit: int) -> tuple[int, tuple[int, int, str]]:
    """Count a column's values.

    Args:
        path: of the column's file of counts.
        runs: of all shards; those that are counted are of training rows.
        column: which token column.
        limit: words in memory at a time.

    Returns:
        How many distinct values the column has in all runs, and what `Writer.written` returns for the counted ones.
    """
    values = 0
    with Writer(path) as writer:
        for part in merged(runs, column, limit):
            values += len(part.words)
            writer.add(part.words, part.counts, part.clicks)
        return values, writer.written()


def joined(folder: Path, columns: Sequence[tuple[Path, int]]) -> Shard:
    """The file of all columns, made in a folder of each one's file and number of values."""
    sizes = [values for _, values in columns]
    with hashed_file(folder / FILE) as writer:
        writer.write(np.array(sizes, "<i8").tobytes())
        for path, _ in columns:
            with path.open("rb") as stream:
                while block := stream.read(CACHED):
                    writer.write(block)
    return Shard(file=FILE, rows=sum(sizes), bytes=writer.bytes, sha256=writer.sha256)


def _counted(folder: Path, manifest: Manifest) -> Path:
    """The folder that holds what was counted of a folder of shards; counts them if need be."""
    kept = cache_folder() / "counts" / _digest(manifest)[:16]
    for where in (folder, kept):
        if (where / COUNTS / RECORD).exists():
            return where
    if os.access(folder, os.W_OK):
        return _count(folder, manifest, folder)
    kept.mkdir(parents=True, exist_ok=True)
    return _count(folder, manifest, kept)


def _count(folder: Path, manifest: Manifest, where: Path) -> Path:
    """Count the training shards in `folder`; what comes of it appears in `where` when it is complete."""
    while True:
        try:
            with atomic_folder(where / COUNTS) as working:
                _make(folder, manifest, working)
            return where
        except BusyError:  # another process counts them
            time.sleep(_WAIT_SECONDS)
        except OSError as error:
            if (where / COUNTS / RECORD).exists():  # another process was quicker
                return where
            what = f"{where / COUNTS}: cannot be written ({error.strerror or error})"
            raise InputError(f"{what}: make room for the counts of the training rows' values") from None
        if (where / COUNTS / RECORD).exists():
            return where


def _make(folder: Path, manifest: Manifest, working: Path) -> None:
    shards = manifest.splits["train"].shards
    log.info("%s: counts the values of the training rows, once for all trials", folder)
    runs: list[Run] = []
    for shard in shards:
        rows = read_shard(folder / shard.file, manifest.shape(shard))
        runs.append(Run.written(working / f"{len(runs)}.u32", rows.ids, rows.labels, rows.lists)[0])
    columns = []
    for column in range(len(manifest.cardinalities)):
        path = working / f"C{column + 1}.counts"
        columns.append((path, merge(path, runs, column, max(_WORDS, len(runs)))[1][0]))
    file = joined(working, columns)
    for path in (*(run.path for run in runs), *(path for path, _ in columns)):
        path.unlink()
    record = Record(of=_digest(manifest), file=file)
    write_atomic(working / RECORD, record.model_dump_json(indent=2).encode() + b"\n")


def _record(where: Path, manifest: Manifest) -> Record:
    path = where / COUNTS / RECORD
    fix = f"remove {where / COUNTS}, and the rows are counted anew"
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise InputError(f"{path}: cannot be read: {fix}") from None
    if record.of != _digest(manifest) or record.file.file != FILE:
        raise InputError(f"{path}: counts other rows than those of the shards here: {fix}")
    return record


def _digest(manifest: Manifest) -> str:
    """Of the training rows."""
    shards = [shard.sha256 for shard in manifest.splits["train"].shards]
    return hashlib.sha256(repr(shards).encode()).hexdigest()


def _read(folder: Path, manifest: Manifest, file: Shard) -> list[ValueCounts]:
    """The counts in a folder, as far as they are those of its training rows."""
    path, train = folder / file.file, manifest.splits["train"]
    where = folder if folder.name == COUNTS else "that file"
    fix = f"remove {where}, and the rows are counted anew"
    if problem := problem_of(folder, file):
        raise InputError(f"{folder}/{problem}: {fix}")
    columns = len(manifest.cardinalities)
    content = np.memmap(path, np.uint8, "r")
    sizes = content[: 8 * columns].view(_KINDS[0]).tolist() if len(content) >= 8 * columns else [-1]
    lengths = [_bytes_of(size) for size in sizes]
    if min(sizes) < 0 or sum(sizes) != file.rows or 8 * columns + sum(lengths) != len(content):
        raise InputError(f"{path}: does not hold the counts of {columns} columns: {fix}")
    found, at = [], 8 * columns
    clicks = round((train.click_rate or 0) * train.rows)
    tokens = columns - len(manifest.lists)
    for column, (size, length) in enumerate(zip(sizes, lengths, strict=True)):
        counts = _column(content[at : at + length], size)
        totals = int(counts.counts.sum()), int(counts.clicks.sum())
        fit = totals == (train.rows, clicks)
        if column >= tokens:
            fit = totals[1] <= totals[0] <= manifest.lists[column - tokens].values
        if not fit or not _is_consistent(counts, manifest.cardinalities[column]):
            raise InputError(f"{path}: does not count the training rows: {fix}")
        found.append(counts)
        at += length
    return found


def _bytes_of(values: int) -> int:
    """Bytes of a column with so many values."""
    return -(-values * sum(kind.itemsize for kind in _KINDS) // _ROUNDED) * _ROUNDED


def _column(content: npt.NDArray[np.uint8], values: int) -> ValueCounts:
    counts, clicks = (content[8 * values * n : 8 * values * (n + 1)].view(_KINDS[n]) for n in range(2))
    return ValueCounts(content[16 * values : 20 * values].view(_KINDS[2]), counts, clicks)


def _is_consistent(counts: ValueCounts, cardinality: int) -> bool:
    return (
        len(counts.ids) <= cardinality
        and bool((counts.ids[1:] > counts.ids[:-1]).all())
        and bool((counts.counts > 0).all())
        and bool(((counts.clicks >= 0) & (counts.clicks <= counts.counts)).all())
    )
