"""The kernels of `vectors` for rows that have lists of values beside single ones (see `sizewise.embedding.bags`).

A program takes V vectors of a batch, single or pooled, and goes through their values side by side, as many times as the
longest list of them has values: nothing of the size of all values' vectors is in memory.
"""

import triton
import triton.language as tl

from sizewise.embedding.kernels.gpu.places import columns, places, rounded


@triton.jit
def _vectors(lists, vectors, LAYOUT: tl.constexpr, V: tl.constexpr):
    """This program's vectors: their numbers and which exist, their features, whether each is of a list, where its
    values begin, and how many they are. What lies beyond the values' memory is not read.

    Args:
        lists: pointers to ids (batch, single) and values (count,), both uint32, and to offsets, int64
            (lists * batch + 1,); then `batch`, `single` and `count`.
        vectors: batch * features.
        LAYOUT: a `places.Layout`.
        V: vectors of a program, a power of two.
    """
    _, _, offsets_ptr, batch, single, count = lists
    v = tl.program_id(0).to(tl.int64) * V + tl.arange(0, V)
    known = v < vectors
    row, feature = v // LAYOUT.features, v % LAYOUT.features
    of_list = known & (feature >= single)
    bag = (feature - single) * batch + row
    start = tl.load(offsets_ptr + bag, mask=of_list, other=0)
    stop = tl.load(offsets_ptr + bag + 1, mask=of_list, other=1)
    start = tl.where(of_list, tl.minimum(tl.maximum(start, 0), count), row * single + feature)
    stop = tl.where(of_list, tl.minimum(tl.maximum(stop, 0), count), start + 1)
    return v, known, feature, of_list, start, tl.where(known, tl.maximum(stop - start, 0), 0)


@triton.jit
def _values(lists, of_list, start, size, k):
    """The value number k of each vector, and which have one.

    Args:
        lists: as for `_vectors`.
        of_list, start, size: as it gives them.
        k: from 0.
    """
    ids_ptr, values_ptr, _, _, _, _ = lists
    here = k < size
    # A comparison of its own is the mask: Triton 3.6 fails to compile where loads of several types share one.
    value = tl.load(tl.where(of_list, values_ptr + start + k, ids_ptr + start), mask=size - k > 0, other=0)
    return value, here


@triton.jit(do_not_specialize=["slots", "vectors"])
def lookup(
    pool_ptr,
    out_ptr,
    lists,
    hashes,
    slots,
    vectors,
    MEAN: tl.constexpr,
    LAYOUT: tl.constexpr,
    V: tl.constexpr,
):
    """out[v, :] = vector v, or the sum or mean of the vectors of a list; zeros for an empty one.

    Args:
        pool_ptr: float32 (size,).
        out_ptr: float32 (batch, features, dim), written.
        lists: as for `_vectors`.
        MEAN: otherwise sums.
        All others: as for `vectors.lookup`.
    """
    v, known, feature, of_list, start, size = _vectors(lists, vectors, LAYOUT, V)
    # Fields of a layout are plain integers inside a kernel, and a shape takes constants.
    BLOCKS: tl.constexpr = LAYOUT.padded_blocks
    LENGTH: tl.constexpr = LAYOUT.padded_len
    total = tl.zeros([V, BLOCKS, LENGTH], tl.float32)
    for k in range(0, tl.max(size, axis=0)):
        value, here = _values(lists, of_list, start, size, k)
        position, inside, sign = places(value, feature, here, hashes, slots, LAYOUT)
        number = tl.load(pool_ptr + position, mask=inside, other=0.0)
        if LAYOUT.signed:
            number = number * sign[:, :, None]
        total += number
    if MEAN:
        total = total / tl.maximum(size, 1).to(tl.float32)[:, None, None]
    column = columns(LAYOUT)
    i = tl.arange(0, LAYOUT.padded_len)
    written = known[:, None, None] & ((i < LAYOUT.block_len)[None, :] & (column < LAYOUT.dim))[None, :, :]
    tl.store(out_ptr + v[:, None, None] * LAYOUT.dim + column[None, :, :], total, mask=written)


@triton.jit(do_not_specialize=["slots", "vectors", "factor"])
def scatter(
    sums_ptr,
    gradient_ptr,
    lists,
    hashes,
    slots,
    vectors,
    factor,
    MEAN: tl.constexpr,
    LAYOUT: tl.constexpr,
    V: tl.constexpr,
):
    """sums += factor * gradient, for every value of a list.

    Args:
        sums_ptr: float32 (size,), added to.
        gradient_ptr: (batch, features, dim) of any float type.
        factor: float32.
        All others: as for `lookup`.
    """
    v, known, feature, of_list, start, size = _vectors(lists, vectors, LAYOUT, V)
    column = columns(LAYOUT)
    i = tl.arange(0, LAYOUT.padded_len)
    read = known[:, None, None] & ((i < LAYOUT.block_len)[None, :] & (column < LAYOUT.dim))[None, :, :]
    source = v[:, None, None] * LAYOUT.dim + column[None, :, :]
    gradient = tl.load(gradient_ptr + source, mask=read, other=0.0).to(tl.float32) * factor
    if MEAN:
        gradient = gradient / tl.maximum(size, 1).to(tl.float32)[:, None, None]
    for k in range(0, tl.max(size, axis=0)):
        value, here = _values(lists, of_list, start, size, k)
        target, inside, sign = places(value, feature, here, hashes, slots, LAYOUT)
        tl.atomic_add(sums_ptr + target, gradient * sign[:, :, None], mask=inside, sem="relaxed")


@triton.jit(do_not_specialize=["slots", "vectors", "rate", "epsilon"])
def adagrad(
    pool_ptr,
    sums_ptr,
    squares_ptr,
    lists,
    hashes,
    slots,
    vectors,
    rate,
    epsilon,
    LAYOUT: tl.constexpr,
    V: tl.constexpr,
):
    """Step the elements that a batch has read by their sums, and clear these; see `vectors.adagrad`.

    Args:
        pool_ptr, sums_ptr, squares_ptr, rate, epsilon: as there.
        All others: as for `lookup`.
    """
    _v, _known, feature, of_list, start, size = _vectors(lists, vectors, LAYOUT, V)
    for k in range(0, tl.max(size, axis=0)):
        value, here = _values(lists, of_list, start, size, k)
        target, inside, _sign = places(value, feature, here, hashes, slots, LAYOUT)
        waiting = inside & (tl.load(sums_ptr + target, mask=inside, other=0.0) != 0.0)
        words = sums_ptr.to(tl.pointer_type(tl.int32), bitcast=True) + target
        word = tl.atomic_xchg(words, tl.zeros(waiting.shape, tl.int32), mask=waiting, sem="relaxed")
        g = tl.where(waiting, word.to(tl.float32, bitcast=True), 0.0)
        mine = waiting & (g != 0.0)
        square = tl.load(squares_ptr + target, mask=mine, other=0.0) + g * g
        number = tl.load(pool_ptr + target, mask=mine, other=0.0)
        tl.store(squares_ptr + target, square, mask=mine)
        tl.store(pool_ptr + target, number - rate * (g / (tl.sqrt(square) + epsilon)), mask=mine)


@triton.jit(do_not_specialize=["slots", "vectors"])
def round_bfloat16(
    pool_ptr, stream_ptr, lists, hashes, slots, vectors, LAYOUT: tl.constexpr, V: tl.constexpr
):
    """Round the elements that a batch has read; what is rounded stays.

    Args:
        pool_ptr, stream_ptr: as for `vectors.round_bfloat16`.
        All others: as for `lookup`.
    """
    _v, _known, feature, of_list, start, size = _vectors(lists, vectors, LAYOUT, V)
    stream = tl.load(stream_ptr)
    for k in range(0, tl.max(size, axis=0)):
        value, here = _values(lists, of_list, start, size, k)
        target, inside, _sign = places(value, feature, here, hashes, slots, LAYOUT)
        number = tl.load(pool_ptr + target, mask=inside, other=0.0)
        tl.store(pool_ptr + target, rounded(number, target, stream), mask=inside)
