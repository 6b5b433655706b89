"""The fused CPU kernels as an operation of PyTorch: looked up forward, scattered or put off backward."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.table import Table


class Pending(NamedTuple):
    """A gradient of vectors that an optimizer will carry into their table without making the table's."""

    blocks: Blocks
    ids: Tensor
    gradient: Tensor


def valid(pool: Tensor, ids: Tensor) -> bool:
    """Whether the kernels can take these: float32 in one piece, on a CPU."""
    return pool.dtype == torch.float32 and pool.device.type == ids.device.type == "cpu"


def lookup(table: Table, pool: Tensor, blocks: Blocks, ids: Tensor) -> Tensor:
    """Vectors of ids, (batch, features, dim).

    Args:
        table: where gradients are left (`table.pending`), if its optimizer wants them so.
        pool: the table's values.
        blocks: where vectors lie.
        ids: int64 or uint32 (batch, features).
    """
    vectors: Tensor = _Lookup.apply(pool, ids.contiguous(), blocks, table)  # type: ignore[no-untyped-call]
    return vectors


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pool: Tensor, ids: Tensor, blocks: Blocks, table: Table) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.blocks, ctx.table, ctx.shape = blocks, table, pool.shape
        return blocks.lookup(pool, ids)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        (ids,), (gradient,) = ctx.saved_tensors, gradients
        if ctx.table.pending is not None:
            ctx.table.pending.append(Pending(ctx.blocks, ids, gradient))
            return None, None, None, None
        dense = gradient.new_zeros(ctx.shape)
        ctx.blocks.scatter(dense, ids, gradient)
        return dense, None, None, None
