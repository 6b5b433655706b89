"""Lookup, interaction and optimizer update of blocks of a flat pool on a GPU, written in Triton.

    device = DeviceBlocks(embedding.blocks, pool.device)
    vectors = device.lookup(pool, ids)                          # (batch, features, dim)
    device.scatter(pool, ids, gradient, factor=-0.1)            # backward and step of SGD in one launch
    top = device.interact(bottom, pool, ids)                    # (batch, width), no vectors in memory
    device.interact_backward(bottom, pool, ids, gradient, sums) # their gradients, summed; then
    device.dense_step(pool, sums, rate=0.1)                     # into the pool

All features in one launch, hashes inside, blocks of a multiple of 16 bytes on boundaries of 16 bytes as vector loads
and vector atomic additions. Nothing waits for the host and nothing is allocated but results, so all of it can be
captured in a CUDA graph. Without a GPU the kernels run in Triton's interpreter (`TRITON_INTERPRET=1` before this
module is imported); it runs programs one after another, so it shows neither races nor alignment faults.

Sums on a GPU depend on the order in which programs come to their atomic additions: two runs agree within float32
rounding, not to the last bit.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from sizewise.embedding.bags import Ragged
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.kernels.gpu import bags, interaction, packed, vectors
from sizewise.embedding.kernels.gpu.interaction import Tile
from sizewise.embedding.kernels.gpu.places import Layout
from sizewise_core.errors import InputError

INTERPRETED = bool(triton.knobs.runtime.interpret)
MOST_NUMBERS = 8_192  # of the interaction's largest tile: tf32x3 has 16 bytes of shared memory for each


@dataclass(frozen=True)
class Launch:
    """How kernels are launched; `python -m benchmarks.gpu --sweep` times others."""

    elements: int = 2048  # of a tile of vectors
    warps: int = 4
    dense_elements: int = 1024  # of a tile of the whole pool
    thread_elements: int = 32  # of the interaction's tile, for each thread: what sets its warps
    precision: str = (
        "tf32x3"  # of dot products: "ieee" (float32), "tf32x3" (as good), "tf32" or "bf16"; float32 sums
    )


class DeviceBlocks:
    """Where an embedding's vectors lie in its pool, on a device, and what kernels can do with them.

    Args:
        blocks: `embedding.blocks` of `robe` (`hash: fast`, no `wrap`), `hash` or `full`.
        device: of all tensors given later: pools, sums and squares float32 (size,) or a view of that; ids int64, int32
            or uint32 (batch, features), contiguous, or `Ragged` where features are lists of values.
        launch: tile sizes and precision.
    """

    def __init__(self, blocks: Blocks, device: torch.device, launch: Launch | None = None) -> None:
        dim, block_len, signed, hashed = blocks.shape
        self.launch = launch or Launch()
        self.blocks, self.block_len, self.align = -(-dim // block_len), block_len, blocks.align
        self.features, self.dim = blocks.multiplier.size // self.blocks, dim
        self.multiplier, self.increment = (
            torch.from_numpy(term.view("int32") if hashed else term.copy()).to(device)
            for term in (blocks.multiplier, blocks.increment)
        )
        self.layout = Layout(
            features=self.features,
            dim=dim,
            blocks=self.blocks,
            block_len=block_len,
            align=self.align,
            hashed=bool(hashed),
            signed=bool(signed),
            padded_blocks=triton.next_power_of_2(self.blocks),
            padded_len=triton.next_power_of_2(block_len),
        )
        self.width = -(-(dim + self.features * (self.features + 1) // 2) // 16) * 16

    def lookup(self, pool: Tensor, ids: Tensor | Ragged) -> Tensor:
        """Vectors of ids, float32 (batch, features, dim); zeros for an id that `full` has no row for."""
        if isinstance(ids, Ragged):
            out = torch.empty(ids.rows, ids.features, self.dim, device=pool.device)
            self._run_bags(bags.lookup, ids, (pool, out), pool.numel(), MEAN=ids.mean)
            return out
        out = torch.empty(*ids.shape, self.dim, device=ids.device)
        self._run(vectors.lookup, ids, pool, ids, out, *self._hash(pool.numel()), ids.numel())
        return out

    def lookup_packed(self, codes: Tensor, scale: Tensor, ids: Tensor, bits: int, numbers: int) -> Tensor:
        """Vectors of ids from packed numbers, float32 (batch, features, dim); zeros as for `lookup`.

        Args:
            codes: uint8 (numbers * bits / 8, rounded up,), as `quantization.pack` makes them.
            scale: (1,), of any float type.
            ids: as elsewhere here.
            bits: 8, 4 or 2.
            numbers: of the pool.
        """
        out = torch.empty(*ids.shape, self.dim, device=ids.device)
        arguments = codes, scale, ids, out, *self._hash(numbers), ids.numel()
        self._run(packed.lookup, ids, *arguments, BITS=bits)
        return out

    def scatter(self, sums: Tensor, ids: Tensor | Ragged, gradient: Tensor, factor: float = 1.0) -> None:
        """Add factor times the gradient to the elements that ids are looked up from.

        With the pool for sums and minus the rate for a factor it is backward and step of SGD in one launch.

        Args:
            sums: float32 (size,), or a view of that, added to in place.
            ids: as elsewhere here.
            gradient: float32 or bfloat16 (batch, features, dim).
            factor: of the gradient.
        """
        gradient = gradient.contiguous()
        if isinstance(ids, Ragged):
            self._run_bags(bags.scatter, ids, (sums, gradient), sums.numel(), float(factor), MEAN=ids.mean)
            return
        self._run(
            vectors.scatter, ids, sums, ids, gradient, *self._hash(sums.numel()), ids.numel(), float(factor)
        )

    def adagrad(
        self,
        pool: Tensor,
        sums: Tensor,
        squares: Tensor,
        ids: Tensor | Ragged,
        rate: float,
        epsilon: float = 1e-10,
    ) -> None:
        """Step the elements of ids by the sums that `scatter` left, which are zero afterwards.

        Args: as for `kernels.cpu.Blocks.adagrad`, on the device.
        """
        if isinstance(ids, Ragged):
            state = pool, sums, squares
            self._run_bags(bags.adagrad, ids, state, pool.numel(), float(rate), float(epsilon))
            return
        tensors = pool, sums, squares, ids, *self._hash(pool.numel())
        self._run(vectors.adagrad, ids, *tensors, ids.numel(), float(rate), float(epsilon))

    def dense_step(
        self,
        pool: Tensor,
        sums: Tensor,
        rate: float,
        squares: Tensor | None = None,
        epsilon: float = 1e-10,
        stream: Tensor | int | None = None,
    ) -> None:
        """Step the whole pool by the sums, which are zero afterwards, in one pass.

        Args:
            pool: stepped in place.
            sums: of gradients.
            rate: learning rate.
            squares: Adagrad's state; None for SGD.
            epsilon: of Adagrad.
            stream: int64 (), what noise is drawn from to round the pool to bfloat16; None to leave it float32.
        """
        size, tile = pool.numel(), self.launch.dense_elements
        noise = sums if stream is None else _on(stream, pool.device)
        _launch(
            vectors.dense_step,
            triton.cdiv(size, tile),
            pool,
            sums,
            sums if squares is None else squares,
            noise,
            size,
            float(rate),
            float(epsilon),
            ADAGRAD=squares is not None,
            ROUND=stream is not None,
            N=tile,
        )

    def round_bfloat16(self, pool: Tensor, ids: Tensor | Ragged, stream: Tensor | int) -> None:
        """Round the elements of ids stochastically to bfloat16.

        Args: as for `kernels.cpu.Blocks.round_bfloat16`, on the device; `stream` may be an int64 () tensor.
        """
        noise = _on(stream, pool.device)
        if isinstance(ids, Ragged):
            self._run_bags(bags.round_bfloat16, ids, (pool, noise), pool.numel())
            return
        self._run(vectors.round_bfloat16, ids, pool, ids, noise, *self._hash(pool.numel()), ids.numel())

    @property
    def interacts(self) -> bool:
        """Whether the interaction's kernels take this many features of this length."""
        rows, layout = self._tile()
        return rows * max(rows, layout.padded_blocks * layout.padded_len) <= MOST_NUMBERS

    def interact(
        self, bottom: Tensor, pool: Tensor, ids: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The top MLP's input without embeddings in memory.

        Args:
            bottom: (batch, dim), the bottom MLP's output.
            pool, ids: as elsewhere here.
            dtype: of the result, float32 or bfloat16.

        Returns:
            (batch, width): bottom (dim), the dot products of all pairs, in the order of `DLRM.pairs`, and
            zeros up to a multiple of 16, because matrix multiplications want aligned rows.

        Raises:
            InputError: features and dim make more than a multiprocessor holds (`interacts`).
        """
        out = torch.empty(len(ids), self.width, dtype=dtype, device=ids.device)
        arguments = bottom.contiguous(), pool, ids, out, *self._hash(pool.numel())
        _launch(interaction.interact, len(ids), *arguments, **self.interaction_constants())
        return out

    def interact_backward(
        self, bottom: Tensor, pool: Tensor, ids: Tensor, gradient: Tensor, sums: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of bottom, and that of the vectors where there are no sums to add it to.

        Args:
            bottom, pool, ids: as `interact` had them.
            gradient: of its result.
            sums: (size,), not the pool itself; None to get the gradient of the vectors, (batch, features, dim) in the
                dtype of `gradient`, for `scatter`: what costs less where the pool is larger than what a batch reads.
        """
        out = torch.empty_like(bottom, memory_format=torch.contiguous_format)
        to = (
            torch.empty(*ids.shape, self.dim, dtype=gradient.dtype, device=ids.device)
            if sums is None
            else sums
        )
        arguments = bottom.contiguous(), pool, to, ids, gradient.contiguous(), out, *self._hash(pool.numel())
        constants = {**self.interaction_constants(), "SUM": sums is not None}
        _launch(interaction.interact_backward, len(ids), *arguments, **constants)
        return out, to if sums is None else None

    def _run(self, kernel: Any, ids: Tensor, *arguments: Any, **constants: Any) -> None:
        count = self.vectors_a_program
        programs = triton.cdiv(ids.numel(), count)
        constants = {"LAYOUT": self.layout, **constants, "V": count, "num_warps": self.launch.warps}
        _launch(kernel, programs, *arguments, **constants)

    def _run_bags(
        self,
        kernel: Any,
        ids: Ragged,
        tensors: tuple[Tensor, ...],
        numbers: int,
        *others: float,
        **constants: Any,
    ) -> None:
        vectors, count = ids.rows * ids.features, self.vectors_a_program
        lists = ids.ids, ids.values, ids.offsets, ids.rows, ids.ids.shape[1], ids.values.numel()
        constants = {"LAYOUT": self.layout, **constants, "V": count, "num_warps": self.launch.warps}
        arguments = lists, *self._hash(numbers), vectors, *others
        _launch(kernel, triton.cdiv(vectors, count), *tensors, *arguments, **constants)

    @property
    def vectors_a_program(self) -> int:
        """How many vectors a program takes: a power of two."""
        return max(1, self.launch.elements // (self.layout.padded_blocks * self.layout.padded_len))

    def _hash(self, numbers: int) -> tuple[tuple[Tensor, Tensor], int]:
        """Of a pool of so many numbers: the hashes, and where a block may start."""
        return (self.multiplier, self.increment), (numbers - self.block_len) // self.align + 1

    def _tile(self) -> tuple[int, Layout]:
        """Rows, and the layout with as many columns as tensor cores take at least: 16."""
        blocks, length = self.layout.padded_blocks, self.layout.padded_len
        rows = max(16, triton.next_power_of_2(self.features + 1))
        return rows, self.layout._replace(padded_len=max(length, 16 // blocks))

    def interaction_constants(self) -> dict[str, Any]:
        """What the interaction's kernels are compiled for. InputError as `interact` raises it."""
        if not self.interacts:
            raise InputError(
                f"the fused interaction does not take {self.features} features of dim {self.dim}: look vectors up first"
            )
        rows, layout = self._tile()
        elements = rows * layout.padded_blocks * layout.padded_len
        return {
            "LAYOUT": layout,
            "TILE": Tile(self.width, rows, self.launch.precision, INTERPRETED),
            "num_warps": min(max(elements // (32 * self.launch.thread_elements), 1), 8),
        }


def _launch(kernel: Any, programs: int, tensor: Tensor, *arguments: Any, **constants: Any) -> None:
    with torch.cuda.device_of(tensor):  # Triton launches on the current device, wherever its tensors are
        kernel[(programs,)](tensor, *arguments, **constants)


def _on(stream: Tensor | int, device: torch.device) -> Tensor:
    return torch.as_tensor(stream, dtype=torch.int64, device=device)
