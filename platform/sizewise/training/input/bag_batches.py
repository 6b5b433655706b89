"""Lists of a shard's rows as the bags of batches.

    bags = group_bags(lists, rows, groups, starts)     # rows grouped by batches (see `sizewise.embedding.kernels.rows`)
    bags.of(3)                                         # the Bags of the fourth batch, a view

A batch's bags lie feature after feature, and a block's batch after batch, so that what a batch has is one stretch of
the block's values and one of its offsets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from sizewise.embedding.bags import Bags
from sizewise.embedding.kernels.rows import Array, add_up_lengths, group_lengths, group_values
from sizewise_prep.raw.parsing.rows import ListColumn


class BlockBags(NamedTuple):
    """The bags of several batches, one batch after another.

    Attributes:
        bags: the values of all; the offsets of each batch, which begin with 0.
        value_starts, offset_starts: where each batch's values and offsets begin, and the last one's end.
    """

    bags: Bags
    value_starts: list[int]
    offset_starts: list[int]

    def of(self, number: int) -> Bags:
        """Those of one batch: views."""
        low, high = self.value_starts[number : number + 2]
        first, last = self.offset_starts[number : number + 2]
        return Bags(self.bags.values[low:high], self.bags.offsets[first:last])


def group_bags(
    lists: Sequence[ListColumn], rows: Array, groups: Array, starts: Array, pinned: bool = False
) -> BlockBags:
    """The lists of some rows, copied group by group.

    Args:
        lists: of each feature, of a block's rows.
        rows: the numbers of the rows to copy, ascending, uint32.
        groups: of each of them, uint32.
        starts: of the groups among the copied rows, and the end of the last one, int64.
        pinned: in page-locked memory.
    """
    features = len(lists)
    offset_starts = starts * features + np.arange(len(starts))
    offsets = torch.empty(int(offset_starts[-1]), dtype=torch.int64, pin_memory=pinned)
    for feature, column in enumerate(lists):
        group_lengths(column.offsets, rows, groups, starts, feature, features, offsets.numpy())
    value_starts = add_up_lengths(offset_starts, offsets.numpy())
    values = torch.empty(int(value_starts[-1]), dtype=torch.uint32, pin_memory=pinned)
    for feature, column in enumerate(lists):
        group_values(
            column.offsets,
            column.values,
            rows,
            groups,
            starts,
            feature,
            features,
            offsets.numpy(),
            value_starts,
            values.numpy(),
        )
    return BlockBags(Bags(values, offsets), value_starts.tolist(), offset_starts.tolist())


def join_bags(parts: Sequence[Bags], rows: Sequence[int], pinned: bool = False) -> Bags:
    """The bags of one batch, of which several blocks have a part each.

    Args:
        parts: the bags of each part, of the same features.
        rows: of each part.
        pinned: in page-locked memory.
    """
    if not sum(rows):
        return parts[0]
    features = next(
        (len(part.offsets) - 1) // count for part, count in zip(parts, rows, strict=True) if count
    )
    values, lengths = [], [torch.zeros(1, dtype=torch.int64)]
    for feature in range(features):
        for part, count in zip(parts, rows, strict=True):
            offsets = part.offsets[feature * count : (feature + 1) * count + 1]
            values.append(part.values[int(offsets[0]) : int(offsets[-1])])
            lengths.append(offsets.diff())
    offsets = joined_columns(lengths, pinned)
    np.cumsum(offsets.numpy(), out=offsets.numpy())
    return Bags(joined_columns(values, pinned), offsets)


def joined_columns(columns: Sequence[torch.Tensor], pinned: bool) -> torch.Tensor:
    """One after another, along the rows."""
    shape = (sum(map(len, columns)), *columns[0].shape[1:])
    joined = torch.empty(shape, dtype=columns[0].dtype, pin_memory=pinned)
    np.concatenate([column.numpy() for column in columns], out=joined.numpy())
    return joined
