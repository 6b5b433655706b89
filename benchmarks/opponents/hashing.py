"""What the opponents share: rows of hashed values, and parameters that start as the library's tables do."""

import torch
from torch import Tensor, nn

from sizewise.embedding.base import Embedding, Options
from sizewise.embedding.ids.hashing import FastHash
from sizewise.embedding.storage.table import INIT_BOUND


class Opponent(Embedding):
    """An embedding in plain PyTorch, trained by gradients of its whole tables."""

    fused = False

    @classmethod
    def smallest_budget(cls, cardinalities: object, dim: int, options: Options) -> int:
        """Of no use: sizes are computed by `arms`."""
        raise NotImplementedError


def numbers(rows: int, width: int, seed: int, center: float = 0.0) -> nn.Parameter:
    """A table of rows, drawn as the library draws its own."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(rows, width).uniform_(-INIT_BOUND, INIT_BOUND, generator=generator)
    return nn.Parameter(values + center)


class Hashed(nn.Module):
    """Rows of a table that ids of all features hash to, `ways` of them each: (batch, features, ways)."""

    def __init__(self, features: int, ways: int, rows: int, seed: int) -> None:
        super().__init__()
        self.hash, self.rows = FastHash(features, ways, seed), rows

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of ids, int64."""
        rows: Tensor = self.hash(ids, self.rows)[0]
        return rows
