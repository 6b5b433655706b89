"""Lookup in a pool of packed numbers, 8, 4 or 2 bits each, as `sizewise.embedding.storage.quantization` packs them.

For models that are only read: 4 bits take an eighth of the bytes, so that a pool stays in the L2 cache which would not
fit there as float32. Vectors come out as float32: code (plus a half for 2 bits) times the pool's one scale.

Blocks that begin and end on bytes are read as bytes, several numbers of each; others number by number, so that a block
can begin at any number, in the upper half of a byte too.
"""

import triton
import triton.language as tl

from sizewise.embedding.kernels.gpu.places import columns, starts


@triton.jit
def _field(byte, shift, BITS: tl.constexpr):
    """The BITS bits above `shift`, two's complement, as float32."""
    half: tl.constexpr = 1 << (BITS - 1)
    bits = (byte.to(tl.int32) >> shift) & ((1 << BITS) - 1)
    return ((bits ^ half) - half).to(tl.float32)


@triton.jit(do_not_specialize=["slots", "vectors"])
def lookup(
    codes_ptr,
    scale_ptr,
    ids_ptr,
    out_ptr,
    hashes,
    slots,
    vectors,
    BITS: tl.constexpr,
    LAYOUT: tl.constexpr,
    V: tl.constexpr,
):
    """out[v, :] = vector v.

    Args:
        codes_ptr: uint8 (numbers * BITS / 8, rounded up,).
        scale_ptr: (1,) of any float type.
        BITS: of a code: 8, 4 or 2.
        All others: as for `vectors.lookup`.
    """
    v = tl.program_id(0).to(tl.int64) * V + tl.arange(0, V)
    known = v < vectors
    ids = tl.load(ids_ptr + v, mask=known, other=0)
    place, there, sign = starts(ids, v % LAYOUT.features, known, hashes, slots, LAYOUT)
    column = columns(LAYOUT)
    i = tl.arange(0, LAYOUT.padded_len)
    written = ((i < LAYOUT.block_len)[None, :] & (column < LAYOUT.dim))[None, :, :]
    inside = there[:, :, None] & written
    each: tl.constexpr = 8 // BITS  # numbers of a byte
    if LAYOUT.align % each == 0 and LAYOUT.block_len % each == 0 and LAYOUT.padded_len == LAYOUT.block_len:
        step: tl.constexpr = LAYOUT.align // each
        first = tl.multiple_of(place // each, [step, step])[:, :, None]
        of_block = tl.arange(0, LAYOUT.padded_len // each)[None, None, :]
        byte = tl.load(codes_ptr + first + of_block, mask=there[:, :, None] & (of_block >= 0), other=0)
        if BITS == 8:
            code = _field(byte, 0, 8)
        elif BITS == 4:
            code = tl.interleave(_field(byte, 0, 4), _field(byte, 4, 4))
        else:
            even = tl.interleave(_field(byte, 0, 2), _field(byte, 4, 2))
            code = tl.interleave(even, tl.interleave(_field(byte, 2, 2), _field(byte, 6, 2)))
    else:
        position = place[:, :, None] + i[None, None, :]
        byte = tl.load(codes_ptr + position // each, mask=inside, other=0)
        code = _field(byte, ((position % each) * BITS).to(tl.int32), BITS)
    if BITS == 2:
        code += 0.5
    value = code * tl.load(scale_ptr).to(tl.float32)
    if LAYOUT.signed:
        value = value * sign[:, :, None]
    # Not `inside`: a vector whose id is out of range is zeros.
    value = tl.where(inside, value, 0.0)
    target = v[:, None, None] * LAYOUT.dim + column[None, :, :]
    tl.store(out_ptr + target, value, mask=known[:, None, None] & written)
