"""What the compiled functions for blocks share: their shapes and layout, hashes, and what is done to found blocks.

`places` holds for each block twice the position of its first element, plus its sign's bit. What is `inlined` here takes
lengths of blocks that must be constants of its callers.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import int64, uint32, uint64
from torch import Tensor

from sizewise.embedding.kernels.vectors import WIDEST, add_floats, inlined
from sizewise_core.machine.compiled import jit

CHUNK_BLOCKS = 4096  # hashed at a time, into 32 KB
AHEAD = 32  # blocks prefetched ahead: enough loads in flight to hide the latency of the last-level cache

# So many vectors have left the caches before they are read. Written past them, they take half of the time, as what they
# overwrite is not fetched.
STREAMED_BYTES = 2**24

Array = npt.NDArray[Any]


class Layout(NamedTuple):
    """Where blocks lie in a pool.

    Attributes:
        multiplier, increment: uint32 (features * blocks,), the terms of the hashes; where ids are not hashed, int64
            (features,), of which the second says where each feature's rows begin.
        slots: where a block may start.
        align: elements from one such start to the next.
    """

    multiplier: Array
    increment: Array
    slots: int
    align: int


class Shape(NamedTuple):
    """What functions are compiled for; the blocks of a vector are as many as `dim` takes, the last may be cut."""

    dim: int
    block_len: int
    signed: bool
    hashed: bool

    @property
    def blocks(self) -> int:
        """Blocks of a vector."""
        return -(-self.dim // self.block_len)

    @property
    def last(self) -> int:
        """Elements of a vector's last block."""
        return self.dim - (self.blocks - 1) * self.block_len

    @property
    def of_lines(self) -> bool:
        """Whether every block fills complete cache lines of the vectors."""
        return self.dim % WIDEST == self.block_len % WIDEST == 0


def past_caches(vectors: Tensor) -> bool:
    """Whether to write vectors past the caches."""
    return vectors.nbytes > STREAMED_BYTES and vectors.data_ptr() % (4 * WIDEST) == 0


@jit
def mixed(x: Any) -> Any:
    """`lowbias32` of a uint32."""
    x ^= x >> uint32(16)
    x = uint32(x * uint32(0x7FEB352D))
    x ^= x >> uint32(15)
    x = uint32(x * uint32(0x846CA68B))
    return x ^ (x >> uint32(16))


@inlined
def place_of(x: Any, multiplier: Any, increment: Any, slots: int, align: int) -> Any:
    """Where the block of an id lies, by its hash.

    Args:
        x: the id, uint32.
        multiplier, increment: terms of the block's hash, uint32.
        slots, align: as in `Layout`.
    """
    h = mixed(uint32(uint32(x * multiplier) + increment))
    slot = (uint64(h) * uint64(slots)) >> uint64(32)
    return int64(slot) * align * 2 + int64(h & uint32(1))


@inlined
def add_block(
    sums: Array,
    place: int,
    bounds: tuple[int, int],
    gradient: Array,
    at: int,
    scale: float,
    length: int,
    lengths: tuple[int, int],
) -> None:
    """Add a block's gradient times `scale` to those of its elements that lie within the bounds.

    Args:
        sums, place: float32 (n,) to add to, and the block's first element.
        bounds: low and high of the elements that may change.
        gradient, at: float32 (m,), and where in it the block's begins.
        scale: float32.
        length: of this block, one of the `lengths` that blocks have.
        lengths: of blocks, and of a vector's last one.
    """
    low, high = bounds
    block_len, last = lengths
    if low > place or place + length > high:
        for i in range(max(0, low - place), min(length, high - place)):
            sums[place + i] += scale * gradient[at + i]
    elif last != block_len and length == last:
        add_floats(sums, place, gradient, at, scale, last)
    else:
        add_floats(sums, place, gradient, at, scale, block_len)


@jit
def unpack_slowly(
    out: Array,
    at: int,
    codes: Array,
    place: int,
    length: int,
    bits: int,
    scales: Array,
    group: int,
    sign: float,
) -> None:
    """Write a block that need not begin or end on a byte, number by number.

    Args:
        out, at: float32 (n,) to write to, and the first element of it.
        codes: uint8 (bytes,), packed as `quantization.pack` does.
        place, length: the first number of the block, and how many it has.
        bits: of a code.
        scales, group: float32, one for so many numbers.
        sign: factor of all.
    """
    each, half = 8 // bits, 1 << (bits - 1)
    offset = np.float32(0.5 if bits == 2 else 0.0)
    for i in range(place, place + length):
        code = (int64(codes[i // each]) >> (i % each * bits)) & (2 * half - 1)
        out[at + i - place] = (np.float32((code ^ half) - half) + offset) * (scales[i // group] * sign)
