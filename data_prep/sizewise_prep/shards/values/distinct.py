"""Distinct 32-bit values in bounded memory: exactly how many there are, and how often each occurs.

    Run.written(path, ids, labels)           # a shard's distinct values, column by column, on the disk
    for words, counts, clicks in merged(runs, 0, limit): ...

Every shard has a run, a file of each column's distinct values in ascending order; for training rows also how often each
occurs, and in how many rows with a click. Runs are merged column by column, in ranges of values that are narrow enough
for the words of all runs in a range to fit a limit. So memory does not grow with the number of distinct values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sizewise_core.files.atomic import hashed_file
from sizewise_prep.raw.parsing.rows import ListColumn
from sizewise_prep.shards.values.stored import Numbers, Stored, every_nth

Words = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]

_TOGETHER = 4  # columns that are copied at a time
_TILE = 2048  # rows, few enough to stay in the processor's cache
_STEP = 512  # every so many words, one is remembered to find others by

BYTES_PER_WORD = 48
"""Memory for each word of a range that is merged: the copy, its distinct words, counts, clicks, ids and positions."""


@dataclass(frozen=True)
class Run:
    """The distinct values of a shard's columns, in a file: all columns' words; if counted their counts, then clicks.

    Attributes:
        path: the file, little-endian uint32.
        starts: where each column's words begin, and where the last one's end.
        counted: whether it says how often words occur.
    """

    path: Path
    starts: list[int]
    counted: bool

    @staticmethod
    def written(
        path: Path, ids: Words, labels: npt.NDArray[np.uint8] | None, lists: Sequence[ListColumn] = ()
    ) -> tuple[Run, int, str]:
        """Write a run.

        Args:
            path: the file.
            ids: (rows, columns), uint32.
            labels: (rows,), by which the run is counted; None: it is not.
            lists: further columns, each of whose values counts.

        Returns:
            The run, its file's bytes and its hexadecimal SHA-256.

        Raises:
            OSError: it cannot be written.
        """
        counts, clicks, starts = [], [], [0]
        clicked: Iterator[Words] = iter(())
        if labels is not None:
            of_lists = (np.sort(column.used[np.repeat(labels != 0, column.lengths)]) for column in lists)
            clicked = chain(_sorted_columns(ids[labels != 0]), of_lists)
        with hashed_file(path, durable=False) as writer:  # needed only until the shards are made
            for ascending in chain(_sorted_columns(ids), (np.sort(column.used) for column in lists)):
                words, occurrences = _occurrences(ascending)
                writer.write(words.data)
                starts.append(starts[-1] + len(words))
                if labels is not None:
                    counts.append(occurrences)
                    clicks.append(np.zeros_like(occurrences))
                    clicked_words, clicked_occurrences = _occurrences(next(clicked))
                    clicks[-1][np.searchsorted(words, clicked_words)] = clicked_occurrences
            for part in (*counts, *clicks):
                writer.write(part.data)
        return Run(path, starts, labels is not None), writer.bytes, writer.sha256

    def column(self, column: int) -> Stored:
        """A column's distinct words, ascending."""
        return self._part(self.starts[column], self.starts[column + 1])

    def counts(self, column: int) -> Stored:
        """How often each of a column's words occurs; of a counted run only."""
        shift = self.starts[-1]
        return self._part(shift + self.starts[column], shift + self.starts[column + 1])

    def clicks(self, column: int) -> Stored:
        """In how many rows with a click each of a column's words occurs; of a counted run only."""
        shift = 2 * self.starts[-1]
        return self._part(shift + self.starts[column], shift + self.starts[column + 1])

    def _part(self, start: int, stop: int) -> Stored:
        return Stored(self.path, np.dtype(np.uint32), start, stop)


def _occurrences(ascending: Words) -> tuple[Words, Words]:
    """The distinct ones of ascending words, and how often each is there."""
    first = is_first(ascending)
    return ascending[first], np.diff(np.flatnonzero(first), append=len(ascending)).astype(np.uint32)


def _sorted_columns(ids: Words) -> Iterator[Words]:
    """Each column's values, ascending.

    A column's values are far apart in memory, so reading one column would load all of them. Hence several columns are
    copied at a time, tile by tile of rows.
    """
    rows, columns = ids.shape
    for first in range(0, columns, _TOGETHER):
        together = np.empty((min(_TOGETHER, columns - first), rows), np.uint32)
        for start in range(0, rows, _TILE):
            together[:, start : start + _TILE] = ids[start : start + _TILE, first : first + _TOGETHER].T
        for column in together:
            column.sort()
            yield column


class Piece(NamedTuple):
    """Words of a run that belong to a range of values: where they begin in the run, and the words, ascending."""

    start: int
    words: Words


def ranges(runs: Sequence[Numbers[np.uint32]], limit: int) -> Iterator[list[Piece]]:
    """Cut ascending runs into ranges of values, the same for all runs, each as wide as the limit allows.

    Where a range may end is read off every 512th word of each run, so that of files only the range itself and the ends
    of its pieces are read, a run at a time.

    Yields for each range the piece of each run. A range holds at most `limit` words (or one value, if that alone is in
    more runs); up to 512 more of each run are in memory while its end is found.
    """
    samples = [every_nth(run, _STEP) for run in runs]
    every = np.sort(np.concatenate(samples)) if samples else np.empty(0, np.uint32)
    starts, left = [0] * len(runs), sum(map(len, runs))
    while left:
        # Words that are in no run's last, incomplete step: so many of them cannot all be in the range.
        beyond = (sum(starts) + limit) // _STEP
        pieces = []
        for run, sample, start in zip(runs, samples, starts, strict=True):
            stop = len(run)
            if beyond < len(every):
                stop = min(stop, _STEP * (int(np.searchsorted(sample, every[beyond])) + 1))
            pieces.append(run[start:stop])
        read = sum(map(len, pieces))
        if read > limit:
            together = np.concatenate(pieces)
            together.partition((0, limit))
            last = max(int(together[limit]) - 1, int(together[0]))
            del together
            pieces = [piece[: np.searchsorted(piece, np.uint32(last), "right")] for piece in pieces]
        yield [Piece(start, piece) for start, piece in zip(starts, pieces, strict=True)]
        starts = [start + len(piece) for start, piece in zip(starts, pieces, strict=True)]
        left -= sum(map(len, pieces))


class Merged(NamedTuple):
    """A range of values in all runs.

    Attributes:
        words: distinct, ascending.
        counts, clicks: how often each occurs in the counted runs, and in how many of those rows with a click.
        starts: where the range begins in each run.
        positions: where the words of each run in this range are among `words`.
    """

    words: Words
    counts: Counts
    clicks: Counts
    starts: list[int]
    positions: list[npt.NDArray[np.int64]]


def merged(runs: Sequence[Run], column: int, limit: int) -> Iterator[Merged]:
    """The words of a column of all runs, range by range.

    Args:
        runs: of all shards.
        column: which token column.
        limit: words in memory at a time.
    """
    counts = [run.counts(column) if run.counted else None for run in runs]
    clicks = [run.clicks(column) if run.counted else None for run in runs]
    for pieces in ranges([run.column(column) for run in runs], limit):
        words = union([piece.words for piece in pieces])
        positions = [np.searchsorted(words, piece.words) for piece in pieces]
        totals = np.zeros(len(words), np.int64), np.zeros(len(words), np.int64)
        for total, counted in zip(totals, (counts, clicks), strict=True):
            for position, count, piece in zip(positions, counted, pieces, strict=True):
                if count is not None:
                    total[position] += count[piece.start : piece.start + len(piece.words)]
        yield Merged(words, *totals, [piece.start for piece in pieces], positions)


def union(runs: Sequence[Words]) -> Words:
    """The distinct words of all runs, ascending."""
    words = np.concatenate(runs)
    words.sort()
    return words[is_first(words)]


def is_first(ascending: Words) -> npt.NDArray[np.bool_]:
    """Which of ascending words are the first of their kind."""
    first = np.ones(len(ascending), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return first
