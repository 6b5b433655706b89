"""Training for a storage of few levels: the step between two levels is learnt beside the numbers.

A table keeps its numbers in float32. What is looked up is the nearest level times the step, as the storage will hold
it. Rounding has no derivative, so numbers get the gradient of their rounded values as if they were those (straight
through), except beyond the lowest and the highest level, where they get none. The gradient of the step follows from
the same rule; Esser et al., "Learned step size quantization", ICLR 2020, derive both and scale the second one by the
root of numbers times levels, so that a step moves about as fast as a number. It is learnt as its logarithm: a step
stays above zero, and moves by a share of itself.

    values = trained_levels(weight, log_steps, grid, center)    # differentiable in both
    codes, scales = coded(weight, log_steps, grid, center)      # what is stored of it
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sizewise.embedding.kernels.levels import through_levels, to_levels
from sizewise.embedding.storage.quantization import (
    PACKED,
    Grid,
    Quantized,
    Storage,
    dequantize,
    pack,
    quantize,
)

STARTING_STEP: dict[Storage, float] = {"int4": 0.0625, "int2": 0.125}


def steps_of(log_steps: Tensor) -> Tensor:
    """The steps as they are stored, in the dtype of their logarithms."""
    return log_steps.exp().bfloat16().to(log_steps.dtype)


def levels(weight: Tensor, log_steps: Tensor, grid: Grid, center: float) -> Tensor:
    """Values as they are stored, without a gradient of their own.

    Args:
        weight: float32 numbers, of any shape.
        log_steps: float32 (groups,), the logarithm of the step of each of as many equal runs of consecutive numbers.
        grid: the levels of the storage.
        center: what the levels lie around.

    Returns:
        Like the weight: (code + offset) * step + center, with the code nearest to each number.
    """
    steps, groups = steps_of(log_steps), weight.view(len(log_steps), -1)
    if _compiles(weight):
        out = torch.empty_like(groups)
        to_levels(groups.detach().numpy(), steps.detach().numpy(), *_numbers(grid, center), out.numpy())
        return out.view(weight.shape)
    codes = grid.codes(groups - center, steps.unsqueeze(1))
    return (grid.values(codes, steps.unsqueeze(1)) + center).view(weight.shape)


def coded(weight: Tensor, log_steps: Tensor, grid: Grid, center: float) -> Quantized:
    """The packed form of a weight and its steps; numbers that are NaN become code 0.

    Args: as for `levels`.
    """
    steps = steps_of(log_steps)
    codes = grid.codes(weight.view(len(log_steps), -1) - center, steps.unsqueeze(1)).nan_to_num()
    return Quantized(pack(codes.flatten().to(torch.int8), grid.bits), steps.bfloat16())


def decoded(stored: Quantized, storage: Storage, shape: torch.Size, center: float) -> tuple[Tensor, Tensor]:
    """A weight and logarithms of steps of which `coded` makes this packed form again.

    Args:
        stored: codes and scales.
        storage: `int4` or `int2`.
        shape: of the weight.
        center: what the levels lie around.

    Returns:
        float32 of that shape, and float32 (groups,).
    """
    numbers = math.prod(shape)
    group = numbers // len(stored.scales) if len(stored.scales) != 1 else None
    weight = dequantize(stored.codes, stored.scales, PACKED[storage], shape, group) + center
    return weight, stored.scales.float().log()


def fitted(weight: Tensor, storage: Storage, groups: int, center: float) -> tuple[Tensor, Tensor]:
    """The same for a weight in float32, rounded with the scales of the least squared error.

    Args:
        weight: float32, of any shape; all finite.
        storage: `int4` or `int2`.
        groups: equal runs of consecutive numbers, each with a step of its own.
        center: what the levels lie around.

    Returns:
        As `decoded`.

    Raises:
        InputError: as `quantize`.
    """
    group = weight.numel() // groups if groups != 1 else None
    return decoded(quantize(weight - center, PACKED[storage], group), storage, weight.shape, center)


@torch.no_grad()
def fit_steps(weight: Tensor, log_steps: Tensor, storage: Storage, center: float) -> None:
    """Set steps, in place, to those of the least squared error; they stay while a number is not finite.

    Args:
        weight: float32, of any shape.
        log_steps: (groups,), the logarithms that are set.
        storage, center: as for `fitted`.
    """
    if weight.isfinite().all():
        log_steps.copy_(fitted(weight, storage, len(log_steps), center)[1])


def trained_levels(
    weight: Tensor, log_steps: Tensor, grid: Grid, center: float, numbers: int | None = None
) -> Tensor:
    """The same, with gradients of the weight and of the logarithms of the steps.

    Args:
        weight: a table's, or what was looked up of it, where there is one step.
        log_steps, grid, center: of the table.
        numbers: of the table; left out: as many as the weight has.
    """
    numbers = weight.numel() if numbers is None else numbers
    values: Tensor = _Levels.apply(weight, log_steps, grid, center, numbers)  # type: ignore[no-untyped-call]
    return values


def unrounded(weight: Tensor, log_steps: Tensor) -> Tensor:
    """The weight itself, of which steps learn nothing: their gradient is zero; several workers need one.

    Args:
        weight: a table's, or what was looked up of it.
        log_steps: of the table.
    """
    values: Tensor = _Unrounded.apply(weight, log_steps)  # type: ignore[no-untyped-call]
    return values


class _Unrounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, log_steps: Tensor) -> Tensor:
        ctx.steps = log_steps.shape
        return weight.view_as(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        return gradient, gradient.new_zeros(ctx.steps)


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, log_steps: Tensor, grid: Grid, center: float, numbers: int
    ) -> Tensor:
        ctx.save_for_backward(weight, log_steps)
        ctx.grid, ctx.center, ctx.numbers = grid, center, numbers
        return levels(weight, log_steps, grid, center)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (weight, log_steps), (gradient,) = ctx.saved_tensors, gradients
        grid, center = ctx.grid, ctx.center
        steps, groups = steps_of(log_steps), weight.view(len(log_steps), -1)
        gradient = gradient.contiguous().view_as(groups)
        if _compiles(weight):
            out, of_steps = torch.empty_like(groups), torch.empty(len(steps), dtype=torch.float64)
            arrays = (tensor.detach().numpy() for tensor in (groups, steps, gradient))
            through_levels(*arrays, *_numbers(grid, center), out.numpy(), of_steps.numpy())
        else:
            x = (groups - center) / torch.where(steps > 0, steps, 1.0).unsqueeze(1) - grid.offset
            inside = (x >= grid.low) & (x <= grid.high)
            level = x.clamp(grid.low, grid.high).round() + grid.offset
            out = gradient * inside
            passed = gradient * (level - (x + grid.offset) * inside)
            of_steps = passed.sum(1, dtype=torch.float64) * steps
        slower = 1 / math.sqrt(ctx.numbers / len(steps) * max(grid.high, 1))
        return out.view(weight.shape), (of_steps * slower).to(log_steps.dtype), None, None, None


def _compiles(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.is_contiguous()


def _numbers(grid: Grid, center: float) -> tuple[Any, ...]:
    return tuple(np.float32(value) for value in (grid.low, grid.high, grid.offset, center))
