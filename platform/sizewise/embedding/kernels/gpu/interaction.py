"""Lookup fused with DLRM's dot interaction: vectors live in registers and shared memory, never in device memory.

One program takes one sample: R rows of D columns, the bottom MLP's output first, then the embeddings, then zeros.
The forward writes the top MLP's input as it wants it (bottom, then the lower triangle row by row, then zeros up to a
multiple of 16), so that nothing indexes a matrix of dot products afterwards. The backward looks the embeddings up
again, which costs reading the pool once more, where keeping them would cost writing and reading all vectors.

At dim 128 and 26 features a sample is 32 x 128 numbers. In bfloat16 that takes 10 to 16 KB of shared memory and 42 to
72 registers a thread of 128, so seven to twelve samples are in flight on a multiprocessor and hide each other's loads;
tf32x3, three products for one, takes 64 KB and 238 registers, so two. D counts a vector's blocks rounded up to powers
of two; columns that do not exist are zeros, which add nothing to a dot product.

The backward must not write the pool: other programs of its launch still read it. Gradients go to sums beside it, or
to a tensor of their own.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from sizewise.embedding.kernels.gpu.places import columns, flat_columns, places


class Tile(NamedTuple):
    """How a program computes the interaction, known when it is compiled."""

    width: int
    """Of a row of the result: dim and the pairs, rounded up to a multiple of 16."""
    rows: int
    """Of the tile: features + 1 rounded up to a power of two, at least 16."""
    precision: str
    """Of dot products: "ieee", "tf32x3", "tf32" or "bf16"; their sums are float32."""
    interpreted: bool
    """Triton's interpreter runs it."""


@triton.jit
def _dot(a, b, TILE: tl.constexpr):
    """Matrix product, float32; "bf16" rounds the factors. The interpreter cannot multiply bfloat16 itself."""
    precision: tl.constexpr = TILE.precision
    if precision == "bf16":
        a, b = a.to(tl.bfloat16), b.to(tl.bfloat16)
        if TILE.interpreted:
            product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
        else:
            product = tl.dot(a, b)
    else:
        product = tl.dot(a, b, input_precision=precision)
    return product


@triton.jit
def _vectors(
    sample,
    bottom_ptr,
    pool_ptr,
    ids_ptr,
    hashes,
    slots,
    LAYOUT: tl.constexpr,
    TILE: tl.constexpr,
):
    """One sample's vectors as rows of a tile; where their elements lie in the pool, which do, and blocks' signs."""
    rows: tl.constexpr = TILE.rows
    row = tl.arange(0, rows)
    embedded = (row >= 1) & (row <= LAYOUT.features)
    feature = tl.where(embedded, row - 1, 0)
    ids = tl.load(ids_ptr + sample * LAYOUT.features + feature, mask=embedded, other=0)
    position, inside, sign = places(ids, feature, embedded, hashes, slots, LAYOUT)
    x = tl.load(pool_ptr + position, mask=inside, other=0.0).to(tl.float32)
    if LAYOUT.signed:
        x = x * sign[:, :, None]
    # Put in as rows, not as tiles: Triton then keeps x in shared memory, where tensor cores read it, and not in
    # registers, of which it would take three times as many (tests/sizewise/embedding/kernels/gpu/test_gpu_code.py).
    column = flat_columns(LAYOUT)
    bottom = tl.load(bottom_ptr + sample * LAYOUT.dim + column, mask=column < LAYOUT.dim, other=0.0).to(
        tl.float32
    )
    x = tl.where(
        (row == 0)[:, None], bottom[None, :], tl.reshape(x, (rows, LAYOUT.padded_blocks * LAYOUT.padded_len))
    )
    return x, position, inside, sign


@triton.jit(do_not_specialize=["slots"])
def interact(
    bottom_ptr,
    pool_ptr,
    ids_ptr,
    out_ptr,
    hashes,
    slots,
    LAYOUT: tl.constexpr,
    TILE: tl.constexpr,
):
    """out[sample] = bottom, the lower triangle of the dot products, zeros up to the width; a program a sample.

    Args:
        bottom_ptr: (batch, dim) of any float type.
        pool_ptr: float32 (size,).
        ids_ptr: int64, int32 or uint32 (batch, features).
        out_ptr: float32 or bfloat16 (batch, width), written.
        TILE: a `Tile`.
        hashes, slots, LAYOUT: as for `places.starts`.
    """
    sample = tl.program_id(0).to(tl.int64)
    x, _, _, _ = _vectors(sample, bottom_ptr, pool_ptr, ids_ptr, hashes, slots, LAYOUT, TILE)
    start = out_ptr + sample * TILE.width
    kind = out_ptr.dtype.element_ty
    column = flat_columns(LAYOUT)
    bottom = tl.load(bottom_ptr + sample * LAYOUT.dim + column, mask=column < LAYOUT.dim, other=0.0)
    tl.store(start + column, bottom.to(kind), mask=column < LAYOUT.dim)
    dots = _dot(x, tl.trans(x), TILE)
    r, c = tl.arange(0, TILE.rows)[:, None], tl.arange(0, TILE.rows)[None, :]
    pair = r * (r - 1) // 2 + c
    tl.store(start + LAYOUT.dim + pair, dots.to(kind), mask=(c < r) & (r <= LAYOUT.features))
    used: tl.constexpr = LAYOUT.dim + LAYOUT.features * (LAYOUT.features + 1) // 2
    rest = used + tl.arange(0, 16)
    tl.store(start + rest, tl.zeros([16], kind), mask=rest < TILE.width)


@triton.jit(do_not_specialize=["slots"])
def interact_backward(
    bottom_ptr,
    pool_ptr,
    to_ptr,
    ids_ptr,
    gradient_ptr,
    bottom_gradient_ptr,
    hashes,
    slots,
    LAYOUT: tl.constexpr,
    TILE: tl.constexpr,
    SUM: tl.constexpr,
):
    """The gradient of bottom is written; those of the embeddings are added to sums of the pool's size (SUM), or
    written as vectors, (batch, features, dim), for `vectors.scatter` to carry on.

    Args:
        to_ptr: with SUM float32 (size,), not the pool itself; else (batch, features, dim) of any float type.
        gradient_ptr: (batch, width), of what `interact` wrote.
        bottom_gradient_ptr: (batch, dim), written.
        SUM: which of the two.
        All others: as for `interact`.
    """
    sample = tl.program_id(0).to(tl.int64)
    x, target, inside, sign = _vectors(sample, bottom_ptr, pool_ptr, ids_ptr, hashes, slots, LAYOUT, TILE)
    r, c = tl.arange(0, TILE.rows)[:, None], tl.arange(0, TILE.rows)[None, :]
    high, low = tl.maximum(r, c), tl.minimum(r, c)
    pair = high * (high - 1) // 2 + low
    start = gradient_ptr + sample * TILE.width
    # d(x x^T) by x: the triangle's gradient, mirrored, times x.
    s = tl.load(start + LAYOUT.dim + pair, mask=(high > low) & (high <= LAYOUT.features), other=0.0).to(
        tl.float32
    )
    dx = _dot(s, x, TILE)
    column = flat_columns(LAYOUT)
    passed = tl.load(start + column, mask=column < LAYOUT.dim, other=0.0).to(tl.float32)
    first = tl.sum(tl.where(r == 0, dx, 0.0), axis=0) + passed
    kind = bottom_gradient_ptr.dtype.element_ty
    tl.store(bottom_gradient_ptr + sample * LAYOUT.dim + column, first.to(kind), mask=column < LAYOUT.dim)
    dx = tl.reshape(dx, (TILE.rows, LAYOUT.padded_blocks, LAYOUT.padded_len))
    if SUM:
        tl.atomic_add(to_ptr + target, dx * sign[:, :, None], mask=inside, sem="relaxed")
    else:
        row, tile = tl.arange(0, TILE.rows)[:, None, None], columns(LAYOUT)[None, :, :]
        there = (tl.arange(0, LAYOUT.padded_len) < LAYOUT.block_len)[None, None, :] & (tile < LAYOUT.dim)
        vector = sample * LAYOUT.features + row - 1
        embedded = (row >= 1) & (row <= LAYOUT.features) & there
        tl.store(to_ptr + vector * LAYOUT.dim + tile, dx.to(to_ptr.dtype.element_ty), mask=embedded)
