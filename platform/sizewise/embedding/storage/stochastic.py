"""Stochastic rounding: up or down with odds that keep the mean, with noise that follows from a number's position.

    round_bfloat16(flat, stream)
    round_int8(flat, stream, scale)

The same bits on every device: on CPUs by a kernel in one pass, elsewhere by operations of PyTorch.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from sizewise.embedding.ids.hashing import MASK32, lowbias32
from sizewise.embedding.kernels.blocks.passes import Adagrad, all_of


def round_bfloat16(flat: Tensor, stream: int) -> None:
    """Round to bfloat16, in place.

    bfloat16 is the upper half of a float32: adding noise to the lower half and cutting that off rounds up with the odds
    that the lower half says.

    Args:
        flat: float32 (n,).
        stream: what the noise is drawn from.
    """
    if flat.device.type == "cpu" and flat.dtype == torch.float32:
        all_of(flat.numel()).round_bfloat16(flat, stream)
        return
    bits = flat.view(torch.int32)
    # The rest is storable as it is: most of a large pool.
    moved = (bits & 0xFFFF).nonzero().squeeze(1)
    bits[moved] = (bits[moved] + (_noise(moved, stream) & 0xFFFF).to(torch.int32)) & -0x10000


def round_int8(flat: Tensor, stream: int, scale: Tensor) -> None:
    """Round to multiples of a scale, in place.

    Args:
        flat: float32 (n,).
        stream: what the noise is drawn from.
        scale: float32 (), a power of two from 2^-126 on.
    """
    if flat.device.type == "cpu" and flat.dtype == torch.float32:
        all_of(flat.numel()).round_int8(flat, stream, float(scale))
        return
    steps = flat / scale
    moved = (steps != steps.floor()).nonzero().squeeze(1)
    up = _noise(moved, stream).double() / 2.0**32
    flat[moved] = ((steps[moved] + up).floor() * scale).to(flat.dtype)


def needed_scale(flat: Tensor) -> float:
    """The scale with which int8 reaches all numbers: a power of two; 0 where they are not finite, or all zero.

    Args:
        flat: float32 (n,).
    """
    top = max(abs(float(bound)) for bound in torch.aminmax(flat))
    return 2.0 ** math.ceil(math.log2(top / 127)) if 0 < top < math.inf else 0.0


@lru_cache(maxsize=1)
def kernels_step_as_torch() -> bool:
    """Whether kernels step to the bits of `torch.optim` here: they round once where PyTorch does it if it can."""
    generator = torch.Generator().manual_seed(1)
    weight, gradient, state = (torch.randn(1_013, generator=generator) for _ in range(3))
    read, squares = all_of(len(weight)), state.square()
    by_sgd = weight.add(gradient, alpha=-0.1)
    added = squares.addcmul(gradient, gradient)
    by_adagrad = by_sgd.addcdiv(gradient, added.sqrt().add_(1e-3), value=-0.1)
    read.step_as_torch(weight, gradient.clone(), 0.1, math.inf)
    same = torch.equal(weight, by_sgd)
    read.step_as_torch(weight, gradient, 0.1, math.inf, Adagrad(squares, 1e-3))
    return same and torch.equal(squares, added) and torch.equal(weight, by_adagrad)


def _noise(positions: Tensor, stream: int) -> Tensor:
    """32 random bits for each position, others for each stream."""
    return lowbias32((positions + stream) & MASK32)
