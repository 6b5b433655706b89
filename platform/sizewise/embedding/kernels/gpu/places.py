"""Where blocks lie: what every kernel works out for itself instead of reading it from memory.

Positions are 64 bits wide, because 96 GB of tables hold 2.4e10 numbers; ids, hashes and slots are 32 bits.
"""

import triton
import triton.language as tl


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
def starts(
    ids,
    feature,
    known,
    a_ptr,
    b_ptr,
    slots,
    FEATURES: tl.constexpr,
    BLOCKS: tl.constexpr,
    ALIGN: tl.constexpr,
    HASHED: tl.constexpr,
    SIGNED: tl.constexpr,
    B: tl.constexpr,
):
    """Tiles (vectors, B) for ids, features and a mask of shape (vectors,): where each block starts, int64; which
    blocks there are; and their signs.

    Args:
        ids: (vectors,) of any type of integers.
        feature: (vectors,), the column that each is of.
        known: (vectors,), the mask of those that exist.
        a_ptr: the hashes' multipliers, the bits of uint32 as int32 (FEATURES * BLOCKS,); read with HASHED only.
        b_ptr: their increments, the same; without HASHED int64 (FEATURES,), the row where each feature begins.
        slots: where a block may start.
        FEATURES: id columns.
        BLOCKS: of a vector.
        ALIGN: elements from one start to the next.
        HASHED: ids are hashed; otherwise every value has a row.
        SIGNED: a block is multiplied by +1 or -1, by the lowest bit of its hash.
        B: BLOCKS rounded up to a power of two.
    """
    block = tl.arange(0, B)
    there = known[:, None] & (block < BLOCKS)[None, :]
    if HASHED:
        term = feature[:, None] * BLOCKS + block[None, :]
        a = tl.load(a_ptr + term, mask=there, other=0).to(tl.uint32, bitcast=True)
        b = tl.load(b_ptr + term, mask=there, other=0).to(tl.uint32, bitcast=True)
        bits = mixed(ids.to(tl.uint32)[:, None] * a + b)
        # The upper word of a 32 by 32 bit product: multiply-shift range reduction without a division.
        slot = tl.umulhi(bits, tl.zeros_like(bits) + slots.to(tl.uint32))
        place = slot.to(tl.int64) * ALIGN
        if SIGNED:
            sign = 1.0 - 2.0 * (bits & 1).to(tl.float32)
        else:
            sign = tl.full(bits.shape, 1.0, tl.float32)
    else:
        # A row a value: b has where each feature's rows begin. What lies beyond them is read as zeros and never
        # written: an id out of range must not reach memory that is not the table's. Where the next feature begins at
        # the same row, all share one table: its end is theirs.
        value = ids.to(tl.int64)[:, None] + tl.zeros_like(there).to(tl.int64)
        begin = tl.load(b_ptr + feature, mask=known, other=0)
        row = value + begin[:, None]
        follows = known & (feature + 1 < FEATURES)
        end = tl.load(b_ptr + feature + 1, mask=follows, other=0)
        end = tl.where(follows & (end > begin), end, slots.to(tl.int64))[:, None]
        there = there & (value >= 0) & (row < end)
        place = row * ALIGN
        sign = tl.full(place.shape, 1.0, tl.float32)
    return place, there, sign


@triton.jit
def places(
    ids,
    feature,
    known,
    a_ptr,
    b_ptr,
    slots,
    FEATURES: tl.constexpr,
    DIM: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    ALIGN: tl.constexpr,
    HASHED: tl.constexpr,
    SIGNED: tl.constexpr,
    B: tl.constexpr,
    L: tl.constexpr,
):
    """Tiles (vectors, B, L) for ids, features and a mask of shape (vectors,).

    Args:
        DIM: length of a vector.
        BLOCK_LEN: elements of a block; the last of a vector may be cut short.
        L: a power of two, BLOCK_LEN or more.
        All others: as for `starts`.

    Returns:
        The position in the pool of every element, int64; the mask of those that exist; and the signs of the
        blocks, (vectors, B).
    """
    place, there, sign = starts(
        ids, feature, known, a_ptr, b_ptr, slots, FEATURES, BLOCKS, ALIGN, HASHED, SIGNED, B
    )
    i = tl.arange(0, L)
    # What lets Triton move 16 bytes an instruction: a block starts at a multiple of ALIGN elements.
    position = tl.multiple_of(place, [ALIGN, ALIGN])[:, :, None] + i[None, None, :]
    column = columns(BLOCK_LEN, B, L)
    inside = there[:, :, None] & ((i < BLOCK_LEN)[None, :] & (column < DIM))[None, :, :]
    return position, inside, sign


@triton.jit
def columns(BLOCK_LEN: tl.constexpr, B: tl.constexpr, L: tl.constexpr):
    """(B, L): the element of its vector that each element of a tile is.

    Args: as for `places`.
    """
    return tl.arange(0, B)[:, None] * BLOCK_LEN + tl.arange(0, L)[None, :]


@triton.jit
def flat_columns(DIM: tl.constexpr, BLOCK_LEN: tl.constexpr, B: tl.constexpr, L: tl.constexpr):
    """(B * L,): the same, flat; DIM where there is none.

    Args: as for `places`.
    """
    flat = tl.arange(0, B * L)
    if B * L == DIM and L == BLOCK_LEN:
        return flat
    column = flat // L * BLOCK_LEN + flat % L
    return tl.where((flat % L < BLOCK_LEN) & (column < DIM), column, DIM)


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
