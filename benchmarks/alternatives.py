"""What users would pick instead of Sizewise's embeddings on a CPU, for `benchmarks.cpu` to measure beside them."""

from typing import Any

import torch
from torch import Tensor, nn

from sizewise.embedding.ids.hashing import AUTHORS_PRIME, AuthorsHash
from sizewise.models.dlrm import DLRM

BLOCK_LEN = 16  # elements that one hash fetches


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pool: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = pool.numel()
        return pool[index]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        dense = torch.zeros(ctx.size)
        dense.scatter_add_(0, index.view(-1), gradients[0].reshape(-1))
        return dense, None


class AuthorsRobe(nn.Module):
    """((v*R3 + (i // Z)*R2 + R1) mod P) mod (m - Z + 1) + i mod Z for every element i of every vector."""

    def __init__(self, cardinalities: list[int], dim: int, pool_bytes: int) -> None:
        super().__init__()
        self.hash = AuthorsHash(cardinalities, 1)
        self.pool = nn.Parameter(torch.empty(pool_bytes // 4).uniform_(-0.01, 0.01))
        self.element = torch.arange(dim)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of ids, (batch, features, dim)."""
        v = (ids + self.hash.offsets).unsqueeze(-1)
        block = self.element // BLOCK_LEN
        h = (v * self.hash.r3 + block * self.hash.r2 + self.hash.r1) % AUTHORS_PRIME
        index = h % (self.pool.numel() - BLOCK_LEN + 1) + self.element % BLOCK_LEN
        vectors: Tensor = _Gather.apply(self.pool, index)  # type: ignore[no-untyped-call]
        return vectors


class Bags(nn.Module):
    """The reference DLRM's 26 tables."""

    def __init__(self, cardinalities: list[int], dim: int, batch: int) -> None:
        super().__init__()
        self.bags = nn.ModuleList(
            nn.EmbeddingBag(rows, dim, mode="sum", sparse=True) for rows in cardinalities
        )
        self.offsets = torch.arange(batch)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of ids, (batch, features, dim)."""
        return torch.stack(
            [bag(column, self.offsets) for bag, column in zip(self.bags, ids.T.contiguous(), strict=True)], 1
        )


class Reference(nn.Module):
    """The reference DLRM: 26 tables, and the interaction as PyTorch has it."""

    def __init__(self, like: DLRM, bags: Bags) -> None:
        super().__init__()
        self.bottom, self.top, self.bags = like.bottom, like.top, bags
        self.pairs = like.pairs

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        """Logits, (batch,)."""
        bottom = self.bottom(dense)
        vectors = torch.cat([bottom.unsqueeze(1), self.bags(ids)], 1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)[:, self.pairs]
        logits: Tensor = self.top(torch.cat([bottom, dots], 1)).squeeze(1)
        return logits
