"""Where blocks lie: what every kernel works out for itself instead of reading it from memory.

Positions are 64 bits wide, because 96 GB of tables hold 2.4e10 numbers; ids, hashes and slots are 32 bits.
"""

from typing import NamedTuple

import triton
import triton.language as tl


class Layout(NamedTuple):
    """Where the blocks of an embedding lie, known when kernels are compiled."""

    features: int
    """Id columns."""
    dim: int
    """Length of a vector."""
    blocks: int
    """Of a vector."""
    block_len: int
    """Elements of a block; the last of a vector may be cut short."""
    align: int
    """Elements from one start of a block to the next."""
    hashed: bool
    """Ids are hashed; otherwise every value has a row."""
    signed: bool
    """A block is multiplied by +1 or -1, by the lowest bit of its hash."""
    padded_blocks: int
    """`blocks` rounded up to a power of two."""
    padded_len: int
    """A power of two, `block_len` or more."""


@triton.jit
def mixed(x):
    """lowbias32; uint32 arithmetic wraps as FastHash's masks do."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x


@triton.jit
def starts(ids, feature, known, hashes, slots, LAYOUT: tl.constexpr):
    """Tiles (vectors, blocks) for ids, features and a mask of shape (vectors,): where each block starts, int64; which
    blocks there are; and their signs.

    Args:
        ids: (vectors,) of any type of integers.
        feature: (vectors,), the column that each is of.
        known: (vectors,), the mask of those that exist.
        hashes: pointers to the hashes' multipliers, the bits of uint32 as int32 (features * blocks,), read with
            `LAYOUT.hashed` only, and to their increments, the same; without it int64 (features,), the row where each
            feature begins.
        slots: where a block may start.
        LAYOUT: a `Layout`.
    """
    multipliers, increments = hashes
    block = tl.arange(0, LAYOUT.padded_blocks)
    there = known[:, None] & (block < LAYOUT.blocks)[None, :]
    if LAYOUT.hashed:
        term = feature[:, None] * LAYOUT.blocks + block[None, :]
        a = tl.load(multipliers + term, mask=there, other=0).to(tl.uint32, bitcast=True)
        b = tl.load(increments + term, mask=there, other=0).to(tl.uint32, bitcast=True)
        bits = mixed(ids.to(tl.uint32)[:, None] * a + b)
        # The upper word of a 32 by 32 bit product: multiply-shift range reduction without a division.
        slot = tl.umulhi(bits, tl.zeros_like(bits) + slots.to(tl.uint32))
        place = slot.to(tl.int64) * LAYOUT.align
        if LAYOUT.signed:
            sign = 1.0 - 2.0 * (bits & 1).to(tl.float32)
        else:
            sign = tl.full(bits.shape, 1.0, tl.float32)
    else:
        # A row a value: the increments are where each feature's rows begin. What lies beyond them is read as zeros and
        # never written: an id out of range must not reach memory that is not the table's. Where the next feature begins
        # at the same row, all share one table: its end is theirs.
        value = ids.to(tl.int64)[:, None] + tl.zeros_like(there).to(tl.int64)
        begin = tl.load(increments + feature, mask=known, other=0)
        row = value + begin[:, None]
        follows = known & (feature + 1 < LAYOUT.features)
        end = tl.load(increments + feature + 1, mask=follows, other=0)
        end = tl.where(follows & (end > begin), end, slots.to(tl.int64))[:, None]
        there = there & (value >= 0) & (row < end)
        place = row * LAYOUT.align
        sign = tl.full(place.shape, 1.0, tl.float32)
    return place, there, sign


@triton.jit
def places(ids, feature, known, hashes, slots, LAYOUT: tl.constexpr):
    """Tiles (vectors, padded_blocks, padded_len) for ids, features and a mask of shape (vectors,).

    Args: as for `starts`.

    Returns:
        The position in the pool of every element, int64; the mask of those that exist; and the signs of the
        blocks, (vectors, padded_blocks).
    """
    place, there, sign = starts(ids, feature, known, hashes, slots, LAYOUT)
    i = tl.arange(0, LAYOUT.padded_len)
    # What lets Triton move 16 bytes an instruction: a block starts at a multiple of `align` elements.
    align: tl.constexpr = LAYOUT.align
    position = tl.multiple_of(place, [align, align])[:, :, None] + i[None, None, :]
    column = columns(LAYOUT)
    inside = there[:, :, None] & ((i < LAYOUT.block_len)[None, :] & (column < LAYOUT.dim))[None, :, :]
    return position, inside, sign


@triton.jit
def batch_places(ids_ptr, hashes, slots, vectors, LAYOUT: tl.constexpr, V: tl.constexpr):
    """What `places` gives for this program's V vectors of a batch, after their numbers and which of them exist.

    Args:
        ids_ptr: int64, int32 or uint32 (batch, features).
        vectors: batch * features.
        V: vectors of a program, a power of two.
        All others: as for `starts`.
    """
    v = tl.program_id(0).to(tl.int64) * V + tl.arange(0, V)
    known = v < vectors
    ids = tl.load(ids_ptr + v, mask=known, other=0)
    position, inside, sign = places(ids, v % LAYOUT.features, known, hashes, slots, LAYOUT)
    return v, known, position, inside, sign


@triton.jit
def columns(LAYOUT: tl.constexpr):
    """(padded_blocks, padded_len): the element of its vector that each element of a tile is.

    Args:
        LAYOUT: a `Layout`.
    """
    block = tl.arange(0, LAYOUT.padded_blocks)
    return block[:, None] * LAYOUT.block_len + tl.arange(0, LAYOUT.padded_len)[None, :]


@triton.jit
def flat_columns(LAYOUT: tl.constexpr):
    """(padded_blocks * padded_len,): the same, flat; `dim` where there is none.

    Args:
        LAYOUT: a `Layout`.
    """
    length: tl.constexpr = LAYOUT.padded_len
    flat = tl.arange(0, LAYOUT.padded_blocks * length)
    if LAYOUT.padded_blocks * length == LAYOUT.dim and length == LAYOUT.block_len:
        return flat
    column = flat // length * LAYOUT.block_len + flat % length
    return tl.where((flat % length < LAYOUT.block_len) & (column < LAYOUT.dim), column, LAYOUT.dim)


@triton.jit
def rounded(value, position, stream):
    """Float32 to what bfloat16 can hold, up or down with odds that keep the mean: `Table`'s rounding, its noise.

    Args:
        value: float32, of any shape.
        position: int64, of the same shape: where each lies in the pool.
        stream: int64, what the noise is drawn from.
    """
    bits = value.to(tl.uint32, bitcast=True)
    noise = mixed((position + stream).to(tl.uint32)) & 0xFFFF
    moved = (bits & 0xFFFF) != 0
    return tl.where(moved, (bits + noise) & 0xFFFF0000, bits).to(tl.float32, bitcast=True)
