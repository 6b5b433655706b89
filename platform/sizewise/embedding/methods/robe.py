"""``robe``: blocks of ``block_len`` consecutive floats out of one pool that all features share.

Desai et al., "Random Offset Block Embedding (ROBE) for compressed embedding tables in deep learning
recommendation systems", MLSys 2022.  ``block_len`` 1 is HashedNets (Chen et al. 2015), ``block_len`` = dim
shares whole rows.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sizewise.embedding import fused
from sizewise.embedding.bags import Bags
from sizewise.embedding.base import Embedding, GroupedOptions, Options
from sizewise.embedding.ids.hashing import MAX_SLOTS, AuthorsHash, FastHash, PaperHash
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.storage.quantization import least_numbers, most_numbers, stored_bytes
from sizewise.embedding.storage.stored import Stored
from sizewise.embedding.storage.table import Table
from sizewise.embedding.width import Tiles, checked_width
from sizewise_core.errors import InputError


class RobeOptions(GroupedOptions):
    """Options of ``robe``."""

    block_len: int = Field(16, ge=1, le=512)
    """Consecutive floats that one hash fetches (Z in the papers); never a count of parts.  Left out: at most width."""
    align: int = Field(4, ge=1, le=512)
    """Blocks start on multiples of this many floats; divides block_len.  4 lets hardware move them as 16-byte
    vectors.  Left out: 2 or 1 where 4 does not divide, and 1 for ``hash: authors``."""
    sign: bool = False
    """Multiply by a hashed +1 or -1, one a block (``hash: fast``) or one an element (``hash: paper``)."""
    feature_term: bool = True
    """Hash each feature by itself; otherwise equal ids of two features share their blocks."""
    wrap: bool = False
    """Blocks may run past the end of the pool and go on at its start."""
    hash: Literal["fast", "authors", "paper"] = "fast"
    """``sizewise.embedding.ids.hashing`` writes the three out."""
    width: int | None = Field(None, ge=1, le=512)
    """Numbers in a vector, repeated over the model's dim, which they divide. Left out: dim."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        aligned = self.align if "align" in self.model_fields_set else 1
        if self.block_len % aligned:
            raise ValueError(f"align {self.align} does not divide block_len {self.block_len}: set align: 1")
        if self.hash == "authors" and (self.sign or self.wrap or aligned > 1):
            raise ValueError(
                "hash: authors has no sign, wrap-around or alignment: set sign: false, wrap: false, align: 1"
            )
        return self

    def fitted(self, dim: int) -> Self:
        """Blocks no longer than a vector, and starts that divide them."""
        given = self.model_fields_set
        block_len = self.block_len if "block_len" in given else min(self.block_len, self.width or dim)
        possible = 1 if self.hash == "authors" else math.gcd(self.align, block_len)
        align = self.align if "align" in given else possible
        return self.model_copy(update={"block_len": block_len, "align": align})


class Robe(Embedding):
    """A flat pool of floats; element i of a vector is element i mod block_len of its block i // block_len."""

    options = RobeOptions

    def __init__(
        self, cardinalities: Sequence[int], dim: int, memory_budget: int, seed: int, options: RobeOptions
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        self.block_len, self.align, self.wrap = options.block_len, options.align, options.wrap
        self.signed = options.sign
        self.tiles = Tiles(width := checked_width(options.width, dim), dim)
        group = options.numbers_a_scale(width)
        size = most_numbers(memory_budget, options.storage, group, multiple=self.align)
        self.slots = size // self.align if self.wrap else (size - self.block_len) // self.align + 1
        if self.slots > MAX_SLOTS:
            wider = [a for a in range(-(-size // MAX_SLOTS), self.block_len + 1) if self.block_len % a == 0]
            fix = f"align: {wider[0]} or more" if wider else "a smaller memory_budget"
            raise InputError(
                f"embedding.align {self.align} gives {memory_budget} bytes {self.slots} starts, more than "
                f"32 bits reach; set {fix}"
            )
        blocks = -(-width // self.block_len)
        self.hash: FastHash | AuthorsHash | PaperHash
        if options.hash == "fast":
            self.hash = FastHash(self.features, blocks, seed, options.feature_term)
        elif options.hash == "authors":
            self.hash = AuthorsHash(self.cardinalities, blocks, options.feature_term)
        else:
            self.hash = PaperHash(self.features, blocks, width, seed, options.feature_term)
        self.pool = Table((size,), seed, options.storage, group=group)
        self.blocks: Blocks | None = None
        if isinstance(self.hash, FastHash) and not self.wrap:
            terms = self.hash.multiplier, self.hash.increment
            self.blocks = Blocks(self.features, width, self.block_len, self.align, *terms, self.signed)

    @classmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """One block, or as many numbers as share their scales.

        Args: as for `Embedding.smallest_budget`.

        Raises:
            InputError: the width does not divide dim, or a block is longer than the width.
        """
        assert isinstance(options, RobeOptions)
        width = checked_width(options.width, dim)
        if options.block_len > width:
            what = "dim" if options.width is None else "width"
            raise InputError(
                f"embedding.block_len {options.block_len} exceeds {what} {width}: set block_len: {width} or less"
            )
        group = options.numbers_a_scale(width)
        return stored_bytes(least_numbers(options.block_len, group, options.align), options.storage, group)

    def takes_uint32(self, ids: Tensor) -> bool:
        """Where the fused kernels look them up."""
        return self.fused and self.blocks is not None and fused.valid(self.pool.weight, ids)

    def pooled(self) -> tuple[Table, Blocks] | None:
        """The pool, for `hash: fast` without `wrap`."""
        return (self.pool, self.blocks) if self.blocks else None

    def lookup(self, ids: Tensor) -> Tensor:
        """Blocks of the pool, side by side."""
        if self.fused and self.blocks and fused.valid(self.pool.weight, ids):
            return self.tiles.looked_up(self.pool, self.blocks, ids)
        return self._vectors(ids)

    def lookup_flat(self, values: Tensor, features: Tensor) -> Tensor:
        """Blocks of the pool, side by side.

        Args: as for `Embedding.lookup_flat`.
        """
        return self._vectors(values, features)

    def lookup_bags(self, ids: Tensor, bags: Bags) -> Tensor:
        """Blocks of the pool, pooled by the kernels where they can.

        Args: as for `Embedding.lookup_bags`.
        """
        if not (self.fused and self.blocks and fused.takes_bags(self.pool.weight, ids, bags)):
            return super().lookup_bags(ids, bags)
        read = fused.ragged(ids, bags, self.pooling)
        return self.tiles.spread(fused.vectors(self.pool, self.blocks, read))

    def lookup_each(self, ids: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """Blocks of the pool, by the kernels where they can.

        Args: as for `Embedding.lookup_each`.
        """
        if not (self.fused and self.blocks and fused.takes_each(self.pool.weight, ids, bags)):
            return super().lookup_each(ids, bags)
        single, several = fused.each(self.pool, self.blocks, ids, bags)
        return self.tiles.spread(single), self.tiles.spread(several)

    def _vectors(self, ids: Tensor, features: Tensor | None = None) -> Tensor:
        slots, bits = self.hash(ids, self.slots, features)
        vectors = self._read(slots.flatten()).view(-1, *ids.shape[1:], slots.shape[-1] * self.block_len)
        vectors = vectors[..., : self.tiles.width]
        if self.signed and not isinstance(self.hash, AuthorsHash):
            sign = self.hash.sign(ids, bits, self.block_len, features)
            vectors = vectors * sign[..., : self.tiles.width]
        return self.tiles.spread(vectors)

    def _read(self, slots: Tensor) -> Tensor:
        """Blocks (n, block_len) of slots (n,)."""
        pool: Table | Stored = self.pool
        if isinstance(pool, Stored) and not self.wrap and pool.reads_blocks(self.block_len, self.align):
            return pool.blocks(slots, self.block_len, self.align)
        out: Tensor = _Blocks.apply(pool(), slots, self.block_len, self.align, self.wrap)  # type: ignore[no-untyped-call]
        return out


class _Blocks(torch.autograd.Function):
    """Pool (size,), slots (n,) -> blocks (n, block_len); the gradient is dense, like the pool.

    One index a block on the way out, over a view whose rows overlap: twice as fast on a CPU as one index an
    element.  On the way back overlapping blocks must be summed, and a flat scatter does that faster than any
    form by rows (13,312 blocks of 16 on one core: 0.15 ms, against 0.43 ms for index_add on rows of 4).
    """

    @staticmethod
    def forward(ctx: Any, pool: Tensor, slots: Tensor, block_len: int, align: int, wrap: bool) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.shape = pool.numel(), block_len, align, wrap
        if wrap:
            return pool.index_select(0, _elements(slots, *ctx.shape)).view(-1, block_len)
        rows = (pool.numel() - block_len) // align + 1
        return pool.as_strided((rows, block_len), (align, 1)).index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slots,) = ctx.saved_tensors
        (gradient,) = gradients
        pool_gradient = gradient.new_zeros(ctx.shape[0])
        pool_gradient.scatter_add_(0, _elements(slots, *ctx.shape), gradient.reshape(-1))
        return pool_gradient, None, None, None, None


def _elements(slots: Tensor, size: int, block_len: int, align: int, wrap: bool) -> Tensor:
    """Positions in the pool of every element of every block, flat."""
    positions = ((slots * align).unsqueeze(-1) + torch.arange(block_len, device=slots.device)).view(-1)
    return torch.where(positions >= size, positions - size, positions) if wrap else positions
