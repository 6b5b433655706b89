"""Frequency-based double hashing: frequent values have rows of their own, all others the sum of two hashed rows.

Zhang et al., "Model Size Reduction Using Frequency Based Double Hashing for Recommender Systems", RecSys 2020. Which
values are frequent is known from the counts of the training rows; a key of four bytes ships with each of their rows.
"""

import torch
from benchmarks.opponents.hashing import Hashed, Opponent, numbers
from torch import Tensor, nn

KEY_BYTES = 4


class Double(Opponent):
    """One table: rows of frequent values, then hashed ones.

    Args:
        frequent: positions of the values with rows of their own among all values, feature after feature.
        shared: hashed rows.
    """

    def __init__(
        self, cardinalities: list[int], dim: int, frequent: Tensor, shared: int, seed: int, width: int
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        rows = torch.tensor(cardinalities)
        self.register_buffer("starts", rows.cumsum(0) - rows)
        self.register_buffer("cardinality", rows)
        row_of = torch.full((int(rows.sum()),), -1, dtype=torch.int64)
        row_of[frequent] = torch.arange(len(frequent))
        self.register_buffer("row_of", row_of)
        self.own, self.shared = numbers(len(frequent), width, seed), numbers(shared, width, seed + 1)
        self.hashed = Hashed(self.features, 2, shared, seed + 2)

    starts: Tensor
    cardinality: Tensor
    row_of: Tensor

    def lookup(self, ids: Tensor) -> Tensor:
        """Vectors of ids."""
        known = ids < self.cardinality  # others occur in no training row
        row = torch.where(known, self.row_of[torch.where(known, ids + self.starts, 0)], -1)
        own = nn.functional.embedding(row.clamp(min=0), self.own)
        summed = nn.functional.embedding(self.hashed(ids), self.shared).sum(-2)
        return torch.where((row >= 0).unsqueeze(-1), own, summed)
