"""MEM-REC: values hash to several tokens of one small table, weighted by numbers of a second, smaller table.

Jha et al., "MEM-REC: Memory Efficient Recommendation System using Alternative Representation", 2023, as far as its
abstract goes: Bloom filters and hashing encode values for two tables, one of raw vectors and one of weights that scale
these, "to provide better discriminative capability to each data point".
"""

import torch
from benchmarks.opponents.hashing import Hashed, Opponent, numbers
from torch import Tensor, nn


class MemRec(Opponent):
    """A sum of hashed rows, each times a hashed weight."""

    def __init__(
        self, cardinalities: list[int], dim: int, rows: int, weights: int, ways: int, seed: int
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        self.tokens, self.weights = numbers(rows, dim, seed), numbers(weights, 1, seed + 1, center=1.0)
        self.of_tokens = Hashed(self.features, ways, rows, seed + 2)
        self.of_weights = Hashed(self.features, ways, weights, seed + 3)

    def lookup(self, ids: Tensor) -> Tensor:
        """Vectors of ids."""
        vectors = nn.functional.embedding(self.of_tokens(ids), self.tokens)
        weights = nn.functional.embedding(self.of_weights(ids), self.weights)
        return torch.einsum("bfwd,bfwo->bfd", vectors, weights)
