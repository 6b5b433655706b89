"""What the compiled functions for blocks share: their shapes and layout, hashes, and what is done to found blocks.

`places` holds for each block twice the position of its first element, plus its sign's bit. What is `inlined` here takes
lengths of blocks that must be constants of its callers.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import int64, uint32, uint64

from sizewise.embedding.kernels.vectors import WIDEST, adagrad_floats, add_floats, inlined, prefetch
from sizewise_core.machine.compiled import jit

CHUNK_BLOCKS = 4096  # hashed at a time, into 32 KB
AHEAD = 32  # blocks prefetched ahead: enough loads in flight to hide the latency of the last-level cache

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
def keep_within(places: Array, count: int, low: int, high: int, block_len: int) -> int:
    """Keep those blocks that reach into some elements.

    Args:
        places, count: the blocks, of which the first are replaced by those kept, and how many they are.
        low, high: the elements.
        block_len: of all blocks.

    Returns:
        How many are kept.
    """
    kept = 0
    for n in range(count):  # without a branch: it would be mispredicted half of the time
        doubled = places[n]
        places[kept] = doubled
        kept += int64(((doubled >> 1) < high) & ((doubled >> 1) + block_len > low))
    return kept


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


@inlined
def step_adagrad(
    pool: Array,
    sums: Array,
    squares: Array,
    places: Array,
    kept: int,
    bounds: tuple[int, int],
    rate: float,
    epsilon: float,
    block_len: int,
) -> None:
    """Step the elements of blocks, as far as they lie within the bounds, by their sums, and clear these.

    Args:
        pool, sums, squares: float32 (n,).
        places, kept: the blocks, and how many they are.
        bounds: low and high of the elements that may change.
        rate, epsilon: of Adagrad, float32.
        block_len: of all blocks.
    """
    low, high = bounds
    for n in range(kept):
        coming = places[min(n + AHEAD, kept - 1)] >> 1
        for end in (coming, coming + block_len - 1):
            prefetch(pool, end)
            prefetch(sums, end)
            prefetch(squares, end)
        place = places[n] >> 1
        if low <= place and place + block_len <= high:
            adagrad_floats(pool, sums, squares, place, rate, epsilon, block_len)
        else:
            for i in range(max(0, low - place), min(block_len, high - place)):
                g = sums[place + i]
                square = squares[place + i] + g * g
                squares[place + i] = square
                pool[place + i] -= rate * g / (np.sqrt(square) + epsilon)
                sums[place + i] = 0


@inlined
def round_blocks(
    bits: Array, places: Array, kept: int, bounds: tuple[int, int], block_len: int, stream: int
) -> None:
    """Round the elements of blocks, as far as they lie within the bounds, to bfloat16.

    Args:
        bits: of the elements, uint32 (n,).
        places, kept: the blocks, and how many they are.
        bounds: low and high of the elements that may change.
        block_len: of all blocks.
        stream: what the noise is drawn from.
    """
    low, high = bounds
    for n in range(kept):
        prefetch(bits, places[min(n + AHEAD, kept - 1)] >> 1)
        place = places[n] >> 1
        for i in range(max(0, low - place), min(block_len, high - place)):
            value = bits[place + i]
            noise = mixed(uint32(place + i + stream)) & uint32(0xFFFF)
            if value & uint32(0xFFFF):
                bits[place + i] = uint32(value + noise) & uint32(0xFFFF0000)


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
