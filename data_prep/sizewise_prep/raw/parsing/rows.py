"""Rows of a click log as arrays, and their integers as models take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


class ListColumn(NamedTuple):
    """A column of lists: those of row r are `values[offsets[r] : offsets[r + 1]]`.

    Attributes:
        offsets: (rows + 1,), int64, or int32 where mapped from a file; ascending.
        values: uint32, tokens or ids; at least `offsets[-1]` of them.
    """

    offsets: npt.NDArray[Any]
    values: npt.NDArray[np.uint32]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(rows,), int64: how many values each row has."""
        return np.diff(self.offsets).astype(np.int64, copy=False)

    @property
    def used(self) -> npt.NDArray[np.uint32]:
        """The values of all rows, one row after another."""
        return self.values[int(self.offsets[0]) : int(self.offsets[-1])]

    def taken(self, rows: npt.NDArray[Any]) -> ListColumn:
        """The lists of some rows, by their numbers, in that order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # A value's place is its place in its list, from where its row's list begins.
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return ListColumn(offsets, self.values[places])

    def part(self, low: int, high: int) -> ListColumn:
        """The lists of rows `low` to `high`; nothing is copied."""
        return ListColumn(self.offsets[low : high + 1], self.values)

    def last(self, most: int) -> ListColumn:
        """The lists with at most so many values each: their last ones."""
        lengths = self.lengths
        if not len(lengths) or lengths.max() <= most:
            return self
        kept = np.minimum(lengths, most)
        offsets = np.concatenate([[0], np.cumsum(kept)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[1:] - offsets[1:], kept)
        return ListColumn(offsets, self.values[places])

    @staticmethod
    def of_lengths(lengths: npt.NDArray[Any], values: npt.NDArray[np.uint32]) -> ListColumn:
        """Lists of so many values each, which follow one another."""
        return ListColumn(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), values)

    @staticmethod
    def concatenated(parts: Sequence[ListColumn]) -> ListColumn:
        """The lists of all parts, one after another."""
        return ListColumn.of_lengths(
            np.concatenate([part.lengths for part in parts]), np.concatenate([part.used for part in parts])
        )


@dataclass(frozen=True)
class Rows:
    """Parsed rows.

    Attributes:
        labels: (rows,), uint8, 0 or 1.
        dense: (rows, columns of numbers), float32, the number's value; NaN = missing.
        ids: (rows, token columns), uint32, the token's value; 0 = missing.
        lists: of each column with several tokens a row, in the order of the columns.
        weights: (rows,), float32, how much each row counts; None where all count the same. Readers give them as
            a column of `dense`, behind all others but the scores.
        scores: (rows,), float32, another model's log-odds; None where there are none. Readers give them as the last
            column of `dense`.
    """

    labels: npt.NDArray[np.uint8]
    dense: npt.NDArray[np.float32]
    ids: npt.NDArray[np.uint32]
    lists: tuple[ListColumn, ...] = ()
    weights: npt.NDArray[np.float32] | None = None
    scores: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def taken(self, rows: npt.NDArray[Any]) -> Rows:
        """Some rows, by their numbers, in that order."""
        lists = tuple(column.taken(rows) for column in self.lists)
        weights = None if self.weights is None else self.weights[rows]
        scores = None if self.scores is None else self.scores[rows]
        return Rows(self.labels[rows], self.dense[rows], self.ids[rows], lists, weights, scores)

    def shortened(self, most: int | None) -> Rows:
        """The rows with at most so many values in each list: the last ones; None: all."""
        if most is None or not self.lists:
            return self
        return replace(self, lists=tuple(column.last(most) for column in self.lists))

    @staticmethod
    def concatenated(parts: list[Rows]) -> Rows:
        """All rows of the parts, one after another; at least one part."""
        if len(parts) == 1:
            return parts[0]
        weights = [part.weights for part in parts if part.weights is not None]
        scores = [part.scores for part in parts if part.scores is not None]
        return Rows(
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.dense for part in parts]),
            np.concatenate([part.ids for part in parts]),
            tuple(map(ListColumn.concatenated, zip(*(part.lists for part in parts), strict=True))),
            np.concatenate(weights) if len(weights) == len(parts) else None,
            np.concatenate(scores) if len(scores) == len(parts) else None,
        )


def log_dense(
    dense: npt.NDArray[np.float32], fill: bool, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """log(x + 1) of max(x, 0): what the reference DLRM of MLPerf does to Criteo's integers.

    Args:
        dense: of any shape, float32; NaN where missing.
        fill: whether a missing value becomes 0; else it stays NaN.
        out: where to write it, of the same shape, which may be `dense` itself; None: a new array.

    Returns:
        The logarithms, of the same shape, float32.
    """
    # `fmax` takes the number where the other is none; `maximum` does not.
    values = (np.fmax if fill else np.maximum)(dense, np.float32(0), out=out)
    return np.log1p(values, out=values)


def log_dense_tensor(dense: Tensor) -> Tensor:
    """`log_dense` of a tensor, missing values as 0, in operators that `torch.export` keeps as they are."""
    import torch

    return torch.log1p(torch.nan_to_num(dense, nan=0.0).clamp(min=0.0))
