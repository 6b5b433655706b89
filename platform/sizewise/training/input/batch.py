"""Rows that are trained or scored together (see `batches`, which makes them of shards)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from sizewise.embedding.bags import Bags
from sizewise.training.input.bag_batches import join_bags, joined_columns


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows that are trained or scored together.

    Attributes:
        dense: (rows, dense columns) float32, transformed.
        ids: (rows, token columns) uint32, as in shards.
        label: (rows,) float32.
        teacher: (rows,) float32, a teacher's log-odds; None without a teacher.
        weight: (rows,) float32, how much each row counts; None where all count the same.
        bags: of the columns of lists; None where the data has none.
    """

    dense: torch.Tensor
    ids: torch.Tensor
    label: torch.Tensor
    teacher: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    bags: Bags | None = None

    def inputs(self) -> tuple[Any, ...]:
        """What a model is called with: dense values, ids, and bags where the data has lists."""
        return (self.dense, self.ids) if self.bags is None else (self.dense, self.ids, self.bags)

    def tensors(self) -> list[torch.Tensor]:
        """Those that it has: each with a number, or numbers, a row, then what the bags consist of."""
        columns = (self.dense, self.ids, self.label, self.teacher, self.weight, *(self.bags or ()))
        return [column for column in columns if column is not None]

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        """One of the same kind, each of whose tensors is what `change` makes of this one's."""
        return Batch(
            change(self.dense),
            change(self.ids),
            change(self.label),
            None if self.teacher is None else change(self.teacher),
            None if self.weight is None else change(self.weight),
            None if self.bags is None else Bags(*map(change, self.bags)),
        )


def joined(parts: list[Batch], pinned: bool) -> Batch:
    """One batch of rows that several blocks have."""
    bags = [part.bags for part in parts if part.bags is not None]
    columns = zip(*(replace(part, bags=None).tensors() for part in parts), strict=True)
    columns_of_all = iter([joined_columns(column, pinned) for column in columns])
    rows = replace(parts[0], bags=None).changed(lambda _: next(columns_of_all))
    if not bags:
        return rows
    return replace(rows, bags=join_bags(bags, [len(part.label) for part in parts], pinned))


def in_parts(batch: Batch, parts: int) -> list[Batch]:
    """A batch as so many batches of about equal size, fewer where it has fewer rows, but at least one."""
    rows = len(batch.label)
    ends = [rows * number // parts for number in range(parts + 1)]
    return [_of_rows(batch, first, end) for first, end in pairwise(ends) if end > first] or [batch]


def _of_rows(batch: Batch, first: int, end: int) -> Batch:
    part = replace(batch, bags=None).changed(lambda column: column[first:end])
    if batch.bags is None:
        return part
    row = batch.bags.owners() % len(batch.label)
    lengths = batch.bags.lengths().view(-1, len(batch.label))[:, first:end].flatten()
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return replace(part, bags=Bags(batch.bags.values[(row >= first) & (row < end)], offsets))
