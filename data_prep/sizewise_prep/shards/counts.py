"""How often every value occurs in the training rows, and in how many of them with a click: exact, column by column.

    counts = training_counts("data/criteo")         # one a token column
    counts[0].ids, counts[0].counts, counts[0].clicks

`sizewise prep` writes them beside the shards, named in the manifest. A folder that has none, as older versions left it,
is counted when somebody first asks, a shard in memory at a time; the result is kept in the folder, or in the cache
where the folder cannot be written, with the digest of the shards that it is of.
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
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sizewise_core.atomic import BusyError, atomic_folder, hashed_file, write_atomic
from sizewise_core.errors import InputError
from sizewise_core.storage import Place, place
from sizewise_prep.shards.arrow_files import Column, MalformedError, mapped
from sizewise_prep.shards.cache import cache_folder, fetched, local_shards
from sizewise_prep.shards.distinct import Counts, Run, Words, merged
from sizewise_prep.shards.files import column_of, read_shard
from sizewise_prep.shards.manifest import COUNTS, NAME, Manifest, Shard, problem_of

log = logging.getLogger(__name__)

RECORD = "counts.json"
_WORDS = 1 << 22  # in memory at a time, where a folder is counted afterwards: some 200 MB
_WAIT_SECONDS = 0.5  # between looks at what another process counts
_COLUMNS = [Column("id", np.uint32), Column("count", np.int64), Column("clicks", np.int64)]
_SCHEMA = pa.schema([pa.field(column.name, column.arrow, nullable=False) for column in _COLUMNS])


class ValueCounts(NamedTuple):
    """The values of one token column in the training rows, (n,) each."""

    ids: Words
    """Ascending and distinct, as shards hold them."""
    counts: Counts
    """Rows that hold each."""
    clicks: Counts
    """Those of the rows with label 1."""


class Record(BaseModel):
    """What was counted afterwards: of which shards, and the files that hold it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    of: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    files: list[Shard]


def file_of(column: int) -> str:
    """The file of a token column's counts in a folder of shards. Its name is not that of a shard, but it is Arrow's."""
    return f"C{column + 1}.counts"


def training_counts(data: str | Place) -> list[ValueCounts]:
    """The counts of a folder of shards, or of a URI; counted now if nobody has.

    Raises:
        InputError: no shards there, or the counts are damaged.
        StorageError: the storage cannot be reached.
    """
    manifest, source = Manifest.load(data), place(data)
    if isinstance(source, Path):
        there = bool(manifest.counts) and all((source / file.file).exists() for file in manifest.counts)
        return _local(source, there, (source / NAME).stat().st_mtime_ns)
    if manifest.counts:
        return _read(fetched(source, manifest.counts), manifest, manifest.counts)
    return training_counts(local_shards(data))


@lru_cache(maxsize=4)
def _local(folder: Path, prepared: bool, stamp: int) -> list[ValueCounts]:
    """Read and checked once a process; `stamp` is when the manifest was written."""
    manifest = Manifest.load(folder)
    if prepared:
        return _read(folder, manifest, manifest.counts)
    where = _counted(folder, manifest)
    return _read(where / COUNTS, manifest, _record(where, manifest).files)


class Writer:
    """Writes the counts of a column, which may come a range of values after another.

    Args:
        path: of the file.
        column: which token column.
        numbered: whether ids are contiguous: then the first is 0, and its counts come last.
    """

    def __init__(self, path: Path, column: int, numbered: bool = False) -> None:
        self._path, self._file, self._numbered = path, file_of(column), numbered
        self._spilled = [self._path.with_suffix(f".{column.name}") for column in _COLUMNS]
        self._open = ExitStack()
        self._size = 0

    def __enter__(self) -> Self:
        self._streams = [self._open.enter_context(path.open("w+b")) for path in self._spilled]
        if self._numbered:
            for stream, column in zip(self._streams, _COLUMNS, strict=True):
                stream.write(np.zeros(1, column.kind).tobytes())
            self._size = 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        for path in self._spilled:
            path.unlink(missing_ok=True)

    def add(self, ids: Words, counts: Counts, clicks: Counts) -> None:
        """Write values of a range, ascending; those that occur in no training row are left out."""
        there, columns = counts > 0, list[npt.NDArray[Any]]([ids, counts, clicks])
        for stream, values in zip(self._streams, columns, strict=True):
            stream.write(values[there].tobytes())
        self._size += int(there.sum())

    def written(self, zero: tuple[int, int] = (0, 0)) -> Shard:
        """Make the file of what was written; `zero` is how often id 0 of numbered ids occurs, and with a click."""
        first = int(self._numbered and not zero[0])
        for stream, value in zip(self._streams[1:], zero, strict=True):
            if self._numbered:
                stream.seek(0)
                stream.write(np.int64(value).tobytes())
            stream.flush()
        self._streams[0].flush()
        arrays = [
            np.memmap(path, column.kind, "r", shape=(self._size,))[first:]
            if self._size
            else np.empty(0, column.kind)
            for path, column in zip(self._spilled, _COLUMNS, strict=True)
        ]
        batch = [column_of(column.arrow, array) for column, array in zip(_COLUMNS, arrays, strict=True)]
        with hashed_file(self._path) as writer, pa.ipc.new_file(pa.PythonFile(writer, "w"), _SCHEMA) as file:
            file.write_batch(pa.record_batch(batch, schema=_SCHEMA))
        return Shard(file=self._file, rows=self._size - first, bytes=writer.bytes, sha256=writer.sha256)


def merge(path: Path, runs: Sequence[Run], column: int, limit: int) -> tuple[int, Shard]:
    """How many distinct values a column has in all runs; and the file, at `path`, of the counts in counted ones."""
    values = 0
    with Writer(path, column) as writer:
        for part in merged(runs, column, limit):
            values += len(part.words)
            writer.add(part.words, part.counts, part.clicks)
        return values, writer.written()


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
        runs.append(Run.written(working / f"{len(runs)}.u32", rows.ids, rows.labels)[0])
    files = []
    for column in range(len(manifest.cardinalities)):
        files.append(merge(working / file_of(column), runs, column, max(_WORDS, len(runs)))[1])
    for run in runs:
        run.path.unlink()
    record = Record(of=_digest(manifest), files=files)
    write_atomic(working / RECORD, record.model_dump_json(indent=2).encode() + b"\n")


def _record(where: Path, manifest: Manifest) -> Record:
    path = where / COUNTS / RECORD
    fix = f"remove {where / COUNTS}, and the rows are counted anew"
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise InputError(f"{path}: cannot be read: {fix}") from None
    expected = [file_of(column) for column in range(len(manifest.cardinalities))]
    if record.of != _digest(manifest) or [file.file for file in record.files] != expected:
        raise InputError(f"{path}: counts other rows than those of the shards here: {fix}")
    return record


def _digest(manifest: Manifest) -> str:
    """Of the training rows."""
    shards = [shard.sha256 for shard in manifest.splits["train"].shards]
    return hashlib.sha256(repr(shards).encode()).hexdigest()


def _read(folder: Path, manifest: Manifest, files: list[Shard]) -> list[ValueCounts]:
    """The counts in a folder, as far as they are those of its training rows."""
    train, found = manifest.splits["train"], []
    clicks = round((train.click_rate or 0) * train.rows)
    for file, cardinality in zip(files, manifest.cardinalities, strict=True):
        path = folder / file.file
        if problem := problem_of(folder, file):
            raise InputError(f"{folder}/{problem}: {_fix(folder)}")
        try:
            counts = ValueCounts(*mapped(path, _COLUMNS, file.rows))
        except MalformedError as error:
            raise InputError(f"{path}: {error}: {_fix(folder)}") from None
        if not _of_these_rows(counts, train.rows, clicks, cardinality):
            raise InputError(f"{path}: does not count the training rows: {_fix(folder)}")
        found.append(counts)
    return found


def _of_these_rows(counts: ValueCounts, rows: int, clicks: int, cardinality: int) -> bool:
    return (
        len(counts.ids) <= cardinality
        and bool((counts.ids[1:] > counts.ids[:-1]).all())
        and bool((counts.counts > 0).all())
        and bool(((counts.clicks >= 0) & (counts.clicks <= counts.counts)).all())
        and int(counts.counts.sum()) == rows
        and int(counts.clicks.sum()) == clicks
    )


def _fix(folder: Path) -> str:
    return f"remove {folder if folder.name == COUNTS else 'that file'}, and the rows are counted anew"
