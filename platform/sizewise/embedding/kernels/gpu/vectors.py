"""Kernels that look vectors up, and those that carry their gradients into the pool.

Tiles are (V, B, L): V vectors, their blocks, a block's elements. All features of a batch are one launch: programs
take V vectors each, in the order of (row, feature), so that neighbours write neighbouring memory.

What makes them fast is what they leave out: ids are the only input beside the numbers themselves (hashes are
computed, 20 integer operations a block), and where blocks start at multiples of four elements every load, store and
atomic addition moves 16 bytes an instruction (`ld.global.v4`, `st.global.v4`, `red.global.add.v4.f32`). Unaligned
blocks take four atomic additions for one, and the units that carry these out in the L2 cache are the limit.

No launch here reads what another program of the same launch writes, but for `adagrad`, which says how it may.
"""

import triton
import triton.language as tl

from sizewise.embedding.kernels.gpu.places import batch_places, columns, rounded


@triton.jit(do_not_specialize=["slots", "vectors"])
def lookup(
    pool_ptr,
    ids_ptr,
    out_ptr,
    hashes,
    slots,
    vectors,
    LAYOUT: tl.constexpr,
    V: tl.constexpr,
):
    """out[v, :] = vector v.

    Args:
        pool_ptr: float32 (size,).
        ids_ptr: int64, int32 or uint32 (batch, features).
        out_ptr: float32 (batch, features, dim), written.
        vectors: batch * features.
        V: vectors of a program, a power of two.
        hashes, slots, LAYOUT: as for `places.starts`.
    """
    v, known, source, inside, sign = batch_places(ids_ptr, hashes, slots, vectors, LAYOUT, V)
    value = tl.load(pool_ptr + source, mask=inside, other=0.0).to(tl.float32)
    if LAYOUT.signed:
        value = value * sign[:, :, None]
    column = columns(LAYOUT)
    i = tl.arange(0, LAYOUT.padded_len)
    # Not `inside`: a vector whose id is out of range is zeros.
    written = known[:, None, None] & ((i < LAYOUT.block_len)[None, :] & (column < LAYOUT.dim))[None, :, :]
    tl.store(out_ptr + v[:, None, None] * LAYOUT.dim + column[None, :, :], value, mask=written)


@triton.jit(do_not_specialize=["slots", "vectors", "factor"])
def scatter(
    sums_ptr,
    ids_ptr,
    gradient_ptr,
    hashes,
    slots,
    vectors,
    factor,
    LAYOUT: tl.constexpr,
    V: tl.constexpr,
):
    """sums += factor * gradient: SGD's step with minus its rate, or sums for Adagrad.

    Args:
        sums_ptr: float32 (size,), added to.
        gradient_ptr: (batch, features, dim) of any float type.
        factor: float32.
        All others: as for `lookup`.
    """
    v, _, target, inside, sign = batch_places(ids_ptr, hashes, slots, vectors, LAYOUT, V)
    source = v[:, None, None] * LAYOUT.dim + columns(LAYOUT)[None, :, :]
    gradient = tl.load(gradient_ptr + source, mask=inside, other=0.0).to(tl.float32)
    tl.atomic_add(sums_ptr + target, gradient * sign[:, :, None] * factor, mask=inside, sem="relaxed")


@triton.jit(do_not_specialize=["slots", "vectors", "rate", "epsilon"])
def adagrad(
    pool_ptr,
    sums_ptr,
    squares_ptr,
    ids_ptr,
    hashes,
    slots,
    vectors,
    rate,
    epsilon,
    LAYOUT: tl.constexpr,
    V: tl.constexpr,
):
    """Step the elements of the batch's blocks by their sums, and clear these.

    Blocks come more than once and overlap. Whoever exchanges a sum for zero first owns its element: nobody else
    writes it in this launch, and what others read of it they do not use. All others get the zero and leave it alone.

    Args:
        pool_ptr: float32 (size,), stepped.
        sums_ptr: float32 (size,), the gradients of what is stepped.
        squares_ptr: float32 (size,), the sums of squared gradients so far; added to.
        rate, epsilon: float32, as in `torch.optim.Adagrad`.
        All others: as for `lookup`.
    """
    _, _, target, inside, _ = batch_places(ids_ptr, hashes, slots, vectors, LAYOUT, V)
    # A plain look first: most repeated blocks are done by now, and an exchange costs more than a load.
    waiting = inside & (tl.load(sums_ptr + target, mask=inside, other=0.0) != 0.0)
    # As integers: the same 32 bits, and what every version of Triton can exchange.
    words = sums_ptr.to(tl.pointer_type(tl.int32), bitcast=True) + target
    word = tl.atomic_xchg(words, tl.zeros(waiting.shape, tl.int32), mask=waiting, sem="relaxed")
    g = tl.where(waiting, word.to(tl.float32, bitcast=True), 0.0)
    mine = waiting & (g != 0.0)
    # Whole blocks where anything waits, so that these loads are vectors.
    wanted = inside & (tl.max(waiting.to(tl.int32), axis=2) > 0)[:, :, None]
    square = tl.load(squares_ptr + target, mask=wanted, other=0.0) + g * g
    value = tl.load(pool_ptr + target, mask=wanted, other=0.0)
    tl.store(squares_ptr + target, square, mask=mine)
    tl.store(pool_ptr + target, value - rate * (g / (tl.sqrt(square) + epsilon)), mask=mine)


@triton.jit(do_not_specialize=["rate", "epsilon"])
def dense_step(
    pool_ptr,
    sums_ptr,
    squares_ptr,
    stream_ptr,
    size,
    rate,
    epsilon,
    ADAGRAD: tl.constexpr,
    ROUND: tl.constexpr,
    N: tl.constexpr,
):
    """Step the whole pool by the sums, and clear them: one pass, for pools that a batch reads more than once.

    Args:
        pool_ptr, sums_ptr, squares_ptr, rate, epsilon: as for `adagrad`; SGD reads neither squares nor epsilon.
        stream_ptr: int64 (), what the noise of ROUND is drawn from.
        size: elements of the pool.
        ADAGRAD: otherwise SGD.
        ROUND: to bfloat16, as `places.rounded` does.
        N: elements of a program, a power of two.
    """
    position = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    inside = position < size
    g = tl.load(sums_ptr + position, mask=inside, other=0.0)
    value = tl.load(pool_ptr + position, mask=inside, other=0.0)
    if ADAGRAD:
        square = tl.load(squares_ptr + position, mask=inside, other=0.0) + g * g
        tl.store(squares_ptr + position, square, mask=inside)
        g = g / (tl.sqrt(square) + epsilon)
    value = value - rate * g
    if ROUND:
        value = rounded(value, position, tl.load(stream_ptr))
    tl.store(pool_ptr + position, value, mask=inside)
    tl.store(sums_ptr + position, tl.zeros([N], tl.float32), mask=inside)


@triton.jit(do_not_specialize=["slots", "vectors"])
def round_bfloat16(
    pool_ptr,
    ids_ptr,
    stream_ptr,
    hashes,
    slots,
    vectors,
    LAYOUT: tl.constexpr,
    V: tl.constexpr,
):
    """Round the elements of the batch's blocks. Blocks that come twice do no harm: what is rounded stays.

    Args:
        pool_ptr: float32 (size,), rounded in place.
        stream_ptr: int64 (), what the noise is drawn from.
        All others: as for `lookup`.
    """
    _, _, target, inside, _ = batch_places(ids_ptr, hashes, slots, vectors, LAYOUT, V)
    value = tl.load(pool_ptr + target, mask=inside, other=0.0)
    tl.store(pool_ptr + target, rounded(value, target, tl.load(stream_ptr)), mask=inside)
