"""The fused kernels as operations of PyTorch: looked up forward; backward summed, or put off to the end of the pass.

On CPUs numba's kernels (`kernels.cpu`), on CUDA devices Triton's (`kernels.gpu`), which also have the lookup fused with
the dot interaction. Methods and options that no kernel covers never come here.
"""

from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sizewise.embedding.bags import Bags, Pooling, Ragged
from sizewise.embedding.in_backward import InBackward, Pending
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.kernels.dots import interact, interact_backward
from sizewise.embedding.storage.quantization import PACKED
from sizewise.embedding.storage.table import Table

if TYPE_CHECKING:
    from sizewise.embedding.base import Embedding
    from sizewise.embedding.kernels.gpu import DeviceBlocks

TRITON_ON = {"cuda"}
"""Device types whose tensors Triton's kernels take. Tests add `cpu`, which the interpreter serves."""

AMPERE = (8, 0)  # the first generation whose tensor cores multiply what the interaction's kernels ask for

_on_devices: WeakKeyDictionary[Blocks, dict[tuple[torch.device, str], "DeviceBlocks"]] = WeakKeyDictionary()


def valid(pool: Tensor, ids: Tensor) -> bool:
    """Whether kernels can take these: float32, on one device that there are kernels for; not in traced code."""
    if torch.compiler.is_compiling():
        return False
    return pool.dtype == torch.float32 and pool.device == ids.device and served(pool.device)


def served(device: torch.device) -> bool:
    """Whether there are kernels for a device: always on CPUs, with Triton installed on GPUs."""
    return device.type == "cpu" or (device.type in TRITON_ON and _triton_is_there())


def takes_bags(pool: Tensor, ids: Tensor, bags: Bags) -> bool:
    """Whether kernels can take lists of values: as `valid`.

    Args:
        pool: that they are looked up in.
        ids: (batch, columns) of the first features.
        bags: of all other features.
    """
    return valid(pool, ids) and bags.values.device == ids.device and len(ids) > 0


def ragged(ids: Tensor, bags: Bags, pooling: Pooling) -> Ragged:
    """What kernels take for ids and bags.

    Args:
        ids: int64 or uint32 (batch, columns) of the first features.
        bags: of all other features.
        pooling: what becomes of a bag's vectors.
    """
    # In one type, so that kernels are compiled once: ids have 32 bits.
    ids, values = (part.to(torch.uint32).contiguous() for part in (ids, bags.values))
    return Ragged(ids, values, bags.offsets.contiguous(), pooling == "mean")


def takes_each(pool: Tensor, ids: Tensor, bags: Bags) -> bool:
    """Whether kernels can look the values of lists up one by one: on a GPU those of one list, as the host knows where.

    Args: as for `takes_bags`.
    """
    return takes_bags(pool, ids, bags) and (pool.device.type == "cpu" or len(bags.offsets) == len(ids) + 1)


def each(table: Table, blocks: Blocks, ids: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
    """Vectors of ids, and of every value of lists by itself, where kernels can: `takes_each`.

    Args:
        table, blocks: as for `vectors`.
        ids: int64 or uint32 (batch, columns) of the first features.
        bags: of all other features.

    Returns:
        (batch, columns, blocks.dim), and (n, blocks.dim).
    """
    (batch, columns), lists = ids.shape, (len(bags.offsets) - 1) // len(ids)
    ids, values = (part.to(torch.uint32).contiguous() for part in (ids, bags.values))
    ends = [0, len(values)] if lists == 1 else bags.offsets[::batch].tolist()
    none = torch.zeros(0, blocks.dim, device=values.device)
    several = [
        vectors(table, blocks.of(columns + number, 1), values[low:high].unsqueeze(1)).squeeze(1)
        for number, (low, high) in enumerate(pairwise(ends))
        if high > low
    ]
    single = vectors(table, blocks.of(0, columns), ids) if columns else none.new_zeros(batch, 0, blocks.dim)
    return single, torch.cat(several) if several else none


def vectors(table: Table, blocks: Blocks, ids: Tensor | Ragged) -> Tensor:
    """Vectors of ids, of the values as they are stored, where kernels are `valid`.

    Args:
        table: whose values are looked up, and which may be stepped in the backward pass.
        blocks: where vectors lie in the table.
        ids: int64 or uint32 (batch, features), or with lists of values what `ragged` makes.

    Returns:
        float32 (batch, features, blocks.dim).
    """
    if table.storage in PACKED and not torch.is_grad_enabled() and _reads_codes(table, ids):
        return _from_codes(table, blocks, ids)
    if table.storage in PACKED and _rounds_vectors(table, blocks, ids):
        return table.levels_of(lookup(table, table.working_copy(), blocks, ids))
    return lookup(table, table(), blocks, ids)


def _reads_codes(table: Table, ids: Tensor | Ragged) -> bool:
    """Whether packed numbers are read as they are; Triton's kernel knows one scale a table, and no lists."""
    on_cpu = table.weight.device.type not in TRITON_ON
    return on_cpu or (len(table.log_steps) == 1 and not isinstance(ids, Ragged))


def _rounds_vectors(table: Table, blocks: Blocks, ids: Tensor | Ragged) -> bool:
    """Whether to round the numbers that were looked up, because they are fewer than those of the table.

    It gives the same values: one step serves all numbers, and none changes its sign on the way. Then the table can be
    stepped where the batch has read it, as one in float32. On GPUs tables are rounded completely: what kernels there
    do with a rounded table they cannot yet do with one that is to be rounded.
    """
    if table.weight.device.type in TRITON_ON or blocks.shape.signed or len(table.log_steps) != 1:
        return False
    if isinstance(ids, Ragged):  # a sum of rounded numbers is not a rounded sum
        return False
    return table.weight.numel() > ids.numel() * blocks.dim


def _from_codes(table: Table, blocks: Blocks, ids: Tensor | Ragged) -> Tensor:
    """Vectors of ids, (batch, features, dim), out of packed numbers."""
    stored, device = table.packed(), table.weight.device
    assert stored is not None
    kernels: Any = blocks if device.type not in TRITON_ON else _on_device(blocks, device)
    ids = ids if isinstance(ids, Ragged) else ids.contiguous()
    found: Tensor = kernels.lookup_packed(*stored, ids, PACKED[table.storage], table.weight.numel())
    return found


def lookup(table: Table, pool: Tensor, blocks: Blocks, ids: Tensor | Ragged) -> Tensor:
    """Vectors of ids, (batch, features, dim).

    Args:
        table: whose values are looked up, and which may be stepped in the backward pass.
        pool: the table's values.
        blocks: where vectors lie.
        ids: as for `vectors`.
    """
    kernels = blocks if pool.device.type not in TRITON_ON else _on_device(blocks, pool.device)
    read = ids if isinstance(ids, Ragged) else (ids.contiguous(),)
    vectors: Tensor = _Lookup.apply(pool, kernels, table, *read)  # type: ignore[no-untyped-call]
    return vectors


def interaction(embedding: "Embedding", bottom: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What DLRM's top MLP takes, without the vectors in memory; None where no kernel does it.

    Args:
        embedding: whose vectors of ids interact.
        bottom: (batch, dim), the bottom MLP's output.
        ids: (batch, features).
        dtype: of the result; with bfloat16 the factors of dot products are rounded to it too.

    Returns:
        (batch, dim + pairs, rounded up to a multiple of 16): bottom, dot products, zeros.
    """
    pooled = embedding.pooled()
    if (
        torch.compiler.is_compiling()
        or not embedding.fused
        or pooled is None
        or bottom.device.type not in TRITON_ON
    ):
        return None
    (table, blocks), ids = pooled, embedding.checked(ids)
    if blocks.dim != embedding.dim:  # narrow vectors are repeated after they were looked up
        return None
    ids, pool = embedding.addresses(ids), table()
    if not valid(pool, ids) or (pool.is_cuda and torch.cuda.get_device_capability(pool.device) < AMPERE):
        return None
    kernels = _on_device(blocks, pool.device, "bf16" if dtype == torch.bfloat16 else "tf32x3")
    if not kernels.interacts:
        return None
    joined: Tensor = _Interaction.apply(bottom, pool, ids.contiguous(), kernels, table, dtype)  # type: ignore[no-untyped-call]
    return joined


def dots(bottom: Tensor, vectors: Tensor) -> Tensor | None:
    """The same of vectors that were looked up already: (batch, dim + pairs); None where no kernel does it.

    Args:
        bottom: (batch, dim).
        vectors: (batch, features, dim).
    """
    if torch.compiler.is_compiling():
        return None
    if not all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in (bottom, vectors)):
        return None
    joined: Tensor = _Dots.apply(bottom.contiguous(), vectors.contiguous())  # type: ignore[no-untyped-call]
    return joined


@lru_cache(maxsize=1)
def _triton_is_there() -> bool:
    return find_spec("triton") is not None


def _on_device(blocks: Blocks, device: torch.device, precision: str = "tf32x3") -> "DeviceBlocks":
    """The same blocks for Triton, whose terms lie on the device; made once."""
    from sizewise.embedding.kernels.gpu import DeviceBlocks, Launch

    made = _on_devices.setdefault(blocks, {})
    if (device, precision) not in made:
        made[device, precision] = DeviceBlocks(blocks, device, Launch(precision=precision))
    return made[device, precision]


def _summed_at_once(kernels: "Blocks | DeviceBlocks", pool: Tensor, ids: Tensor | Ragged) -> bool:
    """Whether to sum over the whole pool, because it is smaller than what the batch reads of it.

    On a GPU only: CPU kernels sum in the optimizer, where each thread owns a part of the pool.
    """
    return not isinstance(kernels, Blocks) and pool.numel() <= ids.numel() * kernels.dim


def _stepper(table: Table, pool: Tensor, edge: tuple[Any, int]) -> InBackward | None:
    """What steps the table in this backward pass by gradients of its vectors, if that is wanted and possible.

    Args:
        table: that was looked up in.
        pool: its values.
        edge: of the graph, along which a gradient of the values would go.
    """
    stepper = table.stepper
    if stepper is None or not stepper.takes(table, edge[0]):
        return None
    # Elsewhere with torch.func.functional_call, which lends the table other values.
    return stepper if pool.data_ptr() == table.weight.data_ptr() else None


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pool: Tensor, kernels: "Blocks | DeviceBlocks", table: Table, ids: Tensor, *of_bags: Any
    ) -> Tensor:
        ctx.save_for_backward(ids, *of_bags[:2])
        ctx.kernels, ctx.table, ctx.pool, ctx.mean = kernels, table, pool.detach(), of_bags[2:]
        return kernels.lookup(pool, Ragged(ids, *of_bags) if of_bags else ids)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (ids, *of_bags), (gradient,) = ctx.saved_tensors, gradients
        kernels, table = ctx.kernels, ctx.table
        none = (None,) * (len(ctx.needs_input_grad) - 1)
        if of_bags:
            ids = Ragged(ids, *of_bags, *ctx.mean)
        stepper = _stepper(table, ctx.pool, ctx.next_functions[0])
        if stepper is None:
            dense = torch.zeros_like(ctx.pool)
            kernels.scatter(dense, ids, gradient)
            return dense, *none
        if _summed_at_once(kernels, ctx.pool, ids):
            kernels.scatter(table.sums(), ids, gradient)
            stepper.put_off(table, Pending(kernels, ids, None))
        else:
            stepper.put_off(table, Pending(kernels, ids, gradient))
        return None, *none


class _Interaction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        bottom: Tensor,
        pool: Tensor,
        ids: Tensor,
        kernels: "DeviceBlocks",
        table: Table,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(bottom, pool, ids)
        ctx.kernels, ctx.table = kernels, table
        return kernels.interact(bottom, pool, ids, dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (bottom, pool, ids), (gradient,) = ctx.saved_tensors, gradients
        kernels, table = ctx.kernels, ctx.table
        dense, stepper = None, _stepper(table, pool, ctx.next_functions[1])
        if stepper is None:
            dense = torch.zeros_like(pool)
            passed, _ = kernels.interact_backward(bottom, pool, ids, gradient, dense)
        else:
            sums = table.sums() if _summed_at_once(kernels, pool, ids) else None
            passed, vectors = kernels.interact_backward(bottom, pool, ids, gradient, sums)
            stepper.put_off(table, Pending(kernels, ids, vectors))
        return passed, dense, None, None, None, None


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bottom: Tensor, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(bottom, vectors)
        return interact(bottom, vectors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        bottom, vectors = ctx.saved_tensors
        return interact_backward(bottom, vectors, gradients[0])
