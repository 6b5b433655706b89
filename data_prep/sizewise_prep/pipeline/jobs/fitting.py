"""What the training rows say of columns of numbers, before shards are written: edges of buckets, means, deviations.

Every training shard leaves behind the distinct values of each column that is cut by quantiles, sorted and counted, and
the moments of each one that is standardized. The values of all are merged in bounded memory (see `distinct`), so edges
are exact: of n values in ascending order, bucket k of q begins with that at position floor(k n / q), counted from 0. An
edge that is no more than the one before, or the smallest value, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sizewise_core.files.atomic import write_atomic
from sizewise_core.names import PlainName
from sizewise_prep.pipeline.jobs.assembly import Cut
from sizewise_prep.pipeline.jobs.row_files import gather
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.options import Moments
from sizewise_prep.shards.manifest import Shard, problem_of
from sizewise_prep.shards.values.distinct import Run, merged

_SIGN = np.uint32(1 << 31)
_ABOVE = np.uint32(0xFF800001)  # words from here on stand for NaN
_LEAST_DEVIATION = 1e-30


@dataclass(frozen=True)
class FitJob:
    """A training shard's rows to be looked at.

    Attributes:
        folder: the working folder.
        name: of the shard, without a suffix.
        cuts: the parts' rows that it is made of.
        layout: of the log, not fitted yet.
    """

    folder: Path
    name: str
    cuts: tuple[Cut, ...]
    layout: Layout

    @property
    def record_path(self) -> Path:
        """The path of the record that says it is done."""
        return self.folder / "work" / "fitted" / f"{self.name}.json"


class Found(BaseModel):
    """What a shard's rows hold.

    Attributes:
        name: of the shard.
        run: the file of its distinct values and their counts; None where no column is cut by quantiles.
        run_starts: where the columns begin in it.
        known: of each of these columns, how many rows have a value.
        moments: of each column to be standardized, how many rows have a value, their mean and the sum of the squares of
            what differs from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    run: Shard | None
    run_starts: list[int]
    known: list[int]
    moments: list[tuple[int, float, float]]

    def run_in(self, folder: Path) -> Run:
        """The run, with its path in the working folder."""
        assert self.run is not None
        return Run(folder / self.run.file, self.run_starts, counted=True)


@dataclass(frozen=True)
class EdgesJob:
    """A column to be cut by quantiles.

    Attributes:
        name: of the bucket.
        column: of the runs.
        quantiles: how many.
        known: how many values the column has.
        runs: of all training shards.
        limit: values in memory at a time.
    """

    name: str
    column: int
    quantiles: int
    known: int
    runs: tuple[Run, ...]
    limit: int


def cut_columns(layout: Layout) -> list[str]:
    """The columns of numbers that are cut by quantiles."""
    return sorted({layout.bucketed[name].of for name in layout.to_fit[0]})


def check(job: FitJob) -> Iterator[Found | None]:
    """What an earlier run has found, when it is as it was written."""
    found = Found.model_validate_json(job.record_path.read_bytes())
    yield None if found.run and problem_of(job.folder, found.run) else found


def fit(job: FitJob) -> Iterator[Found]:
    """Write a shard's distinct values, and the record of what it holds."""
    numbers = gather(job.folder, [(cut.part, cut.start, cut.stop) for cut in job.cuts], "dense")
    columns, names = job.layout.numbers, cut_columns(job.layout)
    cut = numbers[:, [columns.index(name) for name in names]]
    run, starts = None, [0]
    if names:
        path = job.folder / "work" / "fitted" / f"{job.name}.u32"
        written, size, sha256 = Run.written(path, words_of(cut), np.zeros(len(cut), np.uint8))
        starts = written.starts
        run = Shard(file=str(path.relative_to(job.folder)), rows=starts[-1], bytes=size, sha256=sha256)
    found = Found(
        name=job.name,
        run=run,
        run_starts=starts,
        known=np.count_nonzero(~np.isnan(cut), axis=0).tolist(),
        moments=[_moments(numbers[:, columns.index(name)]) for name in job.layout.to_fit[1]],
    )
    write_atomic(job.record_path, found.model_dump_json().encode())
    yield found


def edges(job: EdgesJob) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Where a column's buckets begin."""
    wanted = np.array([k * job.known // job.quantiles for k in range(job.quantiles)])
    found, before = list[float](), 0
    for part in merged(job.runs, job.column, job.limit):
        ends = before + np.cumsum(part.counts)
        here = wanted[(wanted >= before) & (wanted < ends[-1])]
        words = part.words[np.searchsorted(ends, here, "right")]
        found += numbers_of(words[words < _ABOVE]).tolist()
        before = int(ends[-1])
    least, *rest = found or [0.0]
    ascending = sorted({value for value in rest if value > least})
    yield job.name, tuple(ascending)


def moments(found: Sequence[Found], column: int) -> Moments:
    """Mean and deviation of a column of all shards.

    Args:
        found: in the order of the shards.
        column: which of those to be standardized.
    """
    parts = [one.moments[column] for one in found if one.moments[column][0]]
    rows = sum(count for count, _, _ in parts)
    if not rows:
        return Moments(mean=0, deviation=1)
    mean = math.fsum(count * mean for count, mean, _ in parts) / rows
    squares = math.fsum(left + count * (own - mean) ** 2 for count, own, left in parts)
    deviation = math.sqrt(squares / rows)
    return Moments(mean=mean, deviation=deviation if deviation > _LEAST_DEVIATION else 1)


def words_of(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Numbers as words of the same order, NaN above all; 0 and -0 are one."""
    bits = (numbers + np.float32(0)).view(np.uint32)
    words = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    words[np.isnan(numbers)] = np.uint32(0xFFFFFFFF)
    return words


def numbers_of(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """The numbers of words that `words_of` gave."""
    return np.where(words & _SIGN, words ^ _SIGN, ~words).view(np.float32)


def _moments(values: npt.NDArray[np.float32]) -> tuple[int, float, float]:
    """Count, mean and squared differences of the values that are there; the same to the last bit on every machine."""
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return 0, 0.0, 0.0
    mean = math.fsum(known) / len(known)
    return len(known), mean, math.fsum((known - mean) ** 2)
