"""The last step of a preparation that keeps raw tokens: a column's distinct values, and their counts in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sizewise_core.files.atomic import write_atomic
from sizewise_prep.shards.manifest import Shard, problem_of
from sizewise_prep.shards.values import counts
from sizewise_prep.shards.values.distinct import Run


class Merged(BaseModel):
    """A column that has been merged: its distinct values in all rows, and the file of their counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: int
    values: int
    counts: Shard


@dataclass(frozen=True)
class MergeJob:
    """A token column to be merged.

    Attributes:
        folder: where the work lies.
        column: which token column.
        runs: of all shards; those of training rows are counted.
        limit: words in memory at a time.
    """

    folder: Path
    column: int
    runs: tuple[Run, ...]
    limit: int

    @property
    def record_path(self) -> Path:
        """Where the record lies that says it is done."""
        return self.folder / "work" / "merged" / f"C{self.column + 1}.json"


def check(job: MergeJob) -> Iterator[Merged | None]:
    """What an earlier run has merged, when it is as it was written."""
    found = Merged.model_validate_json(job.record_path.read_bytes())
    yield None if problem_of(job.folder, found.counts) else found


def merge(job: MergeJob) -> Iterator[Merged]:
    """Write a column's counts, and the record of them."""
    file = f"work/merged/C{job.column + 1}.counts"
    values, (rows, size, sha256) = counts.merge(job.folder / file, job.runs, job.column, job.limit)
    counted = Shard(file=file, rows=rows, bytes=size, sha256=sha256)
    merged = Merged(column=job.column, values=values, counts=counted)
    write_atomic(job.record_path, merged.model_dump_json().encode())
    yield merged
