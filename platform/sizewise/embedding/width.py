"""Narrow vectors: a few stored numbers, repeated over the model's dim at a fixed strength.

    tiles = Tiles(width=2, dim=16)
    tiles.spread(vectors)           # (batch, features, 2) -> (batch, features, 16): eight copies, each a quarter

A model's interaction wants vectors of its own length, but the rows of a small table are better spent on more values
than on more numbers a value. Repeating costs no bytes, and every number takes part in every dot product. Filling up
with zeros instead does not train: in our trials it collapsed.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sizewise.embedding import fused
from sizewise.embedding.kernels import tiles
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.storage.quantization import PACKED
from sizewise.embedding.storage.table import Table
from sizewise_core.errors import InputError

STRENGTH = 0.25
"""Factor of the copies: at dim 16 a single number then weighs in a dot product as it would alone."""


def checked_width(width: int | None, dim: int) -> int:
    """The numbers of a vector that are stored.

    Args:
        width: as the options have it; None for all of them.
        dim: of the model.

    Raises:
        InputError: the width does not divide dim.
    """
    if width is None:
        return dim
    if dim % width:
        fitting = max(w for w in range(1, min(width, dim) + 1) if dim % w == 0)
        raise InputError(f"embedding.width {width} does not divide dim {dim}: set width: {fitting}")
    return width


class Tiles(nn.Module):
    """Repeats vectors of `width` numbers over `dim`; passes those of length dim on as they are."""

    strength: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.width, self.dim = width, dim
        copies = torch.full((dim // width, 1), STRENGTH)
        self.register_buffer("strength", copies, persistent=False)

    @property
    def repeats(self) -> bool:
        """Whether there is anything to do."""
        return self.width < self.dim

    def looked_up(self, table: Table, blocks: Blocks, ids: Tensor) -> Tensor:
        """Vectors of ids over dim, by one kernel where it can.

        Args: as for `fused.vectors`.

        Returns:
            float32 (batch, features, dim).
        """
        at_once = self.repeats and blocks.shape.blocks == 1 and table.storage not in PACKED
        if at_once and table.weight.device.type not in fused.TRITON_ON:
            return fused.lookup(table, table(), blocks.repeated(self.dim // self.width, STRENGTH), ids)
        return self.spread(fused.vectors(table, blocks, ids))

    def spread(self, vectors: Tensor) -> Tensor:
        """(..., width) -> (..., dim)."""
        if not self.repeats:
            return vectors
        on_cpu = vectors.device.type == "cpu" and vectors.dtype == torch.float32
        if on_cpu and not torch.compiler.is_compiling():
            copied: Tensor = _Spread.apply(vectors, self.dim // self.width)  # type: ignore[no-untyped-call]
            return copied
        return (vectors.unsqueeze(-2) * self.strength.to(vectors.dtype)).flatten(-2)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, copies: int) -> Tensor:
        ctx.copies = copies
        return tiles.spread(vectors, copies, STRENGTH)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return tiles.fold(gradients[0], ctx.copies, STRENGTH), None
