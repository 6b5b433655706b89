"""Lookup, interaction and optimizer update of blocks of a flat pool on a GPU, written in Triton.

    device = DeviceBlocks(embedding, pool.device)
    vectors = device.lookup(pool, ids)               # (batch, features, dim)
    device.sgd(pool, ids, gradient, rate=0.1)        # backward and update in one launch
    top = device.interact(bottom, pool, ids)         # (batch, width): bottom, dot products; no vectors in memory

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
import triton.language as tl
from torch import Tensor

from sizewise.embedding.base import Embedding
from sizewise.embedding.kernels.cpu import Blocks
from sizewise_prep.errors import InputError

INTERPRETED = bool(triton.knobs.runtime.interpret)


@triton.jit
def _mixed(x):
    """lowbias32; uint32 arithmetic wraps as FastHash's masks do."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x


@triton.jit
def _places(
    ids,
    feature,
    block,
    known,
    a_ptr,
    b_ptr,
    slots,
    BLOCKS: tl.constexpr,
    ALIGN: tl.constexpr,
    HASHED: tl.constexpr,
    SIGNED: tl.constexpr,
):
    """(rows, blocks): position of each block's first element, int64, and its sign, float32."""
    if HASHED:
        term = feature * BLOCKS + block
        a = tl.load(a_ptr + term, mask=known, other=0).to(tl.uint32, bitcast=True)
        b = tl.load(b_ptr + term, mask=known, other=0).to(tl.uint32, bitcast=True)
        bits = _mixed(ids.to(tl.uint32) * a + b)
        # The upper word of a 32 by 32 bit product: multiply-shift range reduction without a division.
        slot = tl.umulhi(bits, tl.zeros_like(bits) + slots.to(tl.uint32))
        place = slot.to(tl.int64) * ALIGN
        if SIGNED:
            sign = 1.0 - 2.0 * (bits & 1).to(tl.float32)
        else:
            sign = tl.full(bits.shape, 1.0, tl.float32)
    else:
        row = ids.to(tl.int64) + tl.load(b_ptr + feature, mask=known, other=0)
        place = row * ALIGN
        sign = tl.full(place.shape, 1.0, tl.float32)
    return place, sign


@triton.jit(do_not_specialize=["slots", "vectors"])
def _lookup(
    pool_ptr,
    ids_ptr,
    out_ptr,
    a_ptr,
    b_ptr,
    slots,
    vectors,
    FEATURES: tl.constexpr,
    DIM: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    ALIGN: tl.constexpr,
    HASHED: tl.constexpr,
    SIGNED: tl.constexpr,
    V: tl.constexpr,
    B: tl.constexpr,
    L: tl.constexpr,
):
    """out[v, :] = vector v, for V vectors; tiles are (V, B, L), powers of two."""
    v = tl.program_id(0).to(tl.int64) * V + tl.arange(0, V)
    block, i = tl.arange(0, B), tl.arange(0, L)
    known = (v < vectors)[:, None] & (block < BLOCKS)[None, :]
    ids = tl.load(ids_ptr + v, mask=v < vectors, other=0)[:, None]
    feature = (v % FEATURES)[:, None]
    place, sign = _places(
        ids, feature, block[None, :], known, a_ptr, b_ptr, slots, BLOCKS, ALIGN, HASHED, SIGNED
    )
    column = block[:, None] * BLOCK_LEN + i[None, :]
    inside = known[:, :, None] & ((i < BLOCK_LEN)[None, :] & (column < DIM))[None, :, :]
    source = tl.multiple_of(place, [ALIGN, ALIGN])[:, :, None] + i[None, None, :]
    value = tl.load(pool_ptr + source, mask=inside, other=0.0).to(tl.float32)
    if SIGNED:
        value = value * sign[:, :, None]
    tl.store(out_ptr + v[:, None, None] * DIM + column[None, :, :], value, mask=inside)


@triton.jit(do_not_specialize=["slots", "vectors", "factor"])
def _scatter(
    sums_ptr,
    ids_ptr,
    gradient_ptr,
    a_ptr,
    b_ptr,
    slots,
    vectors,
    factor,
    FEATURES: tl.constexpr,
    DIM: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    ALIGN: tl.constexpr,
    HASHED: tl.constexpr,
    SIGNED: tl.constexpr,
    V: tl.constexpr,
    B: tl.constexpr,
    L: tl.constexpr,
):
    """sums += factor * gradient, element by element of each vector's blocks: SGD's step, or sums for Adagrad."""
    v = tl.program_id(0).to(tl.int64) * V + tl.arange(0, V)
    block, i = tl.arange(0, B), tl.arange(0, L)
    known = (v < vectors)[:, None] & (block < BLOCKS)[None, :]
    ids = tl.load(ids_ptr + v, mask=v < vectors, other=0)[:, None]
    feature = (v % FEATURES)[:, None]
    place, sign = _places(
        ids, feature, block[None, :], known, a_ptr, b_ptr, slots, BLOCKS, ALIGN, HASHED, SIGNED
    )
    column = block[:, None] * BLOCK_LEN + i[None, :]
    inside = known[:, :, None] & ((i < BLOCK_LEN)[None, :] & (column < DIM))[None, :, :]
    gradient = tl.load(gradient_ptr + v[:, None, None] * DIM + column[None, :, :], mask=inside, other=0.0).to(
        tl.float32
    )
    target = tl.multiple_of(place, [ALIGN, ALIGN])[:, :, None] + i[None, None, :]
    tl.atomic_add(sums_ptr + target, gradient * sign[:, :, None] * factor, mask=inside, sem="relaxed")


@triton.jit(do_not_specialize=["slots", "vectors", "rate", "epsilon"])
def _step(
    pool_ptr,
    sums_ptr,
    squares_ptr,
    ids_ptr,
    a_ptr,
    b_ptr,
    slots,
    vectors,
    rate,
    epsilon,
    FEATURES: tl.constexpr,
    DIM: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    ALIGN: tl.constexpr,
    HASHED: tl.constexpr,
    SIGNED: tl.constexpr,
    V: tl.constexpr,
    B: tl.constexpr,
    L: tl.constexpr,
    ADAGRAD: tl.constexpr,
):
    """Step by the sums, with SGD or Adagrad, and clear them.

    Blocks come more than once and overlap. Whoever exchanges a sum for zero first owns its element; all others
    get the zero and leave the element alone.
    """
    v = tl.program_id(0).to(tl.int64) * V + tl.arange(0, V)
    block, i = tl.arange(0, B), tl.arange(0, L)
    known = (v < vectors)[:, None] & (block < BLOCKS)[None, :]
    ids = tl.load(ids_ptr + v, mask=v < vectors, other=0)[:, None]
    feature = (v % FEATURES)[:, None]
    place, _ = _places(
        ids, feature, block[None, :], known, a_ptr, b_ptr, slots, BLOCKS, ALIGN, HASHED, SIGNED
    )
    column = block[:, None] * BLOCK_LEN + i[None, :]
    inside = known[:, :, None] & ((i < BLOCK_LEN)[None, :] & (column < DIM))[None, :, :]
    target = tl.multiple_of(place, [ALIGN, ALIGN])[:, :, None] + i[None, None, :]
    # A plain look first: most repeated blocks are done by now, and an exchange costs more than a load.
    waiting = inside & (tl.load(sums_ptr + target, mask=inside, other=0.0) != 0.0)
    # As integers: the same 32 bits, and what every version of Triton can exchange.
    words = sums_ptr.to(tl.pointer_type(tl.int32), bitcast=True) + target
    word = tl.atomic_xchg(words, tl.zeros([V, B, L], tl.int32), mask=waiting, sem="relaxed")
    g = tl.where(waiting, word.to(tl.float32, bitcast=True), 0.0)
    mine = waiting & (g != 0.0)
    if ADAGRAD:
        square = tl.load(squares_ptr + target, mask=mine, other=0.0) + g * g
        tl.store(squares_ptr + target, square, mask=mine)
        g = g / (tl.sqrt(square) + epsilon)
    value = tl.load(pool_ptr + target, mask=mine, other=0.0)
    tl.store(pool_ptr + target, value - rate * g, mask=mine)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr):
    """Matrix product, float32; "bf16" rounds the factors. The interpreter cannot multiply bfloat16 itself."""
    if PRECISION == "bf16":
        a, b = a.to(tl.bfloat16), b.to(tl.bfloat16)
        if INTERPRETED:
            product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
        else:
            product = tl.dot(a, b)
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


@triton.jit
def _vectors(
    sample,
    bottom_ptr,
    pool_ptr,
    ids_ptr,
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
    R: tl.constexpr,
):
    """One sample's (R, DIM) float32: the bottom MLP's output, the embeddings, zeros; places and signs with it."""
    row, block, i = tl.arange(0, R), tl.arange(0, BLOCKS), tl.arange(0, BLOCK_LEN)
    embedded = (row >= 1) & (row <= FEATURES)
    known = embedded[:, None] & (block >= 0)[None, :]
    feature = tl.where(embedded, row - 1, 0)
    ids = tl.load(ids_ptr + sample * FEATURES + feature, mask=embedded, other=0)[:, None]
    place, sign = _places(
        ids, feature[:, None], block[None, :], known, a_ptr, b_ptr, slots, BLOCKS, ALIGN, HASHED, SIGNED
    )
    source = tl.multiple_of(place, [ALIGN, ALIGN])[:, :, None] + i[None, None, :]
    inside = known[:, :, None] & (i >= 0)[None, None, :]
    value = tl.load(pool_ptr + source, mask=inside, other=0.0).to(tl.float32)
    if SIGNED:
        value = value * sign[:, :, None]
    x = tl.reshape(value, (R, DIM))
    first = tl.load(bottom_ptr + sample * DIM + tl.arange(0, DIM)).to(tl.float32)
    x = tl.where((row == 0)[:, None], first[None, :], x)
    return x, source, inside, sign


@triton.jit(do_not_specialize=["slots"])
def _interact(
    bottom_ptr,
    pool_ptr,
    ids_ptr,
    out_ptr,
    a_ptr,
    b_ptr,
    slots,
    WIDTH: tl.constexpr,
    FEATURES: tl.constexpr,
    DIM: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    ALIGN: tl.constexpr,
    HASHED: tl.constexpr,
    SIGNED: tl.constexpr,
    R: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """out[sample] = bottom, the lower triangle of the dot products, zeros up to WIDTH. One sample a program."""
    sample = tl.program_id(0).to(tl.int64)
    x, _, _, _ = _vectors(
        sample,
        bottom_ptr,
        pool_ptr,
        ids_ptr,
        a_ptr,
        b_ptr,
        slots,
        FEATURES,
        DIM,
        BLOCKS,
        BLOCK_LEN,
        ALIGN,
        HASHED,
        SIGNED,
        R,
    )
    dots = _dot(x, tl.trans(x), PRECISION, INTERPRETED)
    r, c = tl.arange(0, R)[:, None], tl.arange(0, R)[None, :]
    pair = r * (r - 1) // 2 + c
    start = out_ptr + sample * WIDTH
    kind = out_ptr.dtype.element_ty
    tl.store(start + DIM + pair, dots.to(kind), mask=(c < r) & (r <= FEATURES))
    column = tl.arange(0, DIM)
    tl.store(start + column, tl.load(bottom_ptr + sample * DIM + column).to(kind))
    used: tl.constexpr = DIM + FEATURES * (FEATURES + 1) // 2
    rest = used + tl.arange(0, 16)
    tl.store(start + rest, tl.zeros([16], kind), mask=rest < WIDTH)


@triton.jit(do_not_specialize=["slots", "factor"])
def _interact_backward(
    bottom_ptr,
    pool_ptr,
    sums_ptr,
    ids_ptr,
    gradient_ptr,
    bottom_gradient_ptr,
    a_ptr,
    b_ptr,
    slots,
    factor,
    WIDTH: tl.constexpr,
    FEATURES: tl.constexpr,
    DIM: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    ALIGN: tl.constexpr,
    HASHED: tl.constexpr,
    SIGNED: tl.constexpr,
    R: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """Embeddings are looked up again; their gradients go to `sums` by atomic addition, times `factor`.

    `sums` must not be the pool, which other programs still read: `_step` takes the sums to it.
    """
    sample = tl.program_id(0).to(tl.int64)
    x, target, inside, sign = _vectors(
        sample,
        bottom_ptr,
        pool_ptr,
        ids_ptr,
        a_ptr,
        b_ptr,
        slots,
        FEATURES,
        DIM,
        BLOCKS,
        BLOCK_LEN,
        ALIGN,
        HASHED,
        SIGNED,
        R,
    )
    r, c = tl.arange(0, R)[:, None], tl.arange(0, R)[None, :]
    high, low = tl.maximum(r, c), tl.minimum(r, c)
    pair = high * (high - 1) // 2 + low
    start = gradient_ptr + sample * WIDTH
    # d(x x^T) by x: the triangle's gradient, mirrored, times x.
    s = tl.load(start + DIM + pair, mask=(high > low) & (high <= FEATURES), other=0.0).to(tl.float32)
    dx = _dot(s, x, PRECISION, INTERPRETED)
    column = tl.arange(0, DIM)
    passed = tl.load(start + column).to(tl.float32)
    first = tl.sum(tl.where((r == 0), dx, 0.0), axis=0) + passed
    tl.store(bottom_gradient_ptr + sample * DIM + column, first.to(bottom_gradient_ptr.dtype.element_ty))
    value = tl.reshape(dx, (R, BLOCKS, BLOCK_LEN)) * sign[:, :, None] * factor
    tl.atomic_add(sums_ptr + target, value, mask=inside, sem="relaxed")


@dataclass(frozen=True)
class Launch:
    """How kernels are launched; `benchmarks/gpu.py --sweep` times others. Elements: of a tile of `lookup`."""

    elements: int = 2048
    warps: int = 4
    precision: str = "tf32"  # of the dot products: "ieee" (float32), "tf32" or "bf16", summed in float32


class DeviceBlocks:
    """Where an embedding's vectors lie in its pool, on a device, and what its kernels can do with them.

    Args:
        embedding: `robe` (`hash: fast`, no `wrap`), `hash` or `full`.
        device: of all tensors given later: pool float32 (size,) or its view; ids int64, int32 or uint32
            (batch, features), contiguous.
        launch: tile sizes and precision.

    Raises:
        InputError: an embedding whose vectors no kernel finds.
    """

    def __init__(self, embedding: Embedding, device: torch.device, launch: Launch | None = None) -> None:
        blocks = getattr(embedding, "blocks", None)
        if not isinstance(blocks, Blocks):
            raise InputError(
                "the GPU kernels take robe (hash: fast, wrap: false), hash and full: use another "
                "embedding.method or option, or the plain path"
            )
        dim, block_len, signed, hashed = blocks.shape
        self.launch = launch or Launch()
        self.features, self.dim = embedding.features, dim
        self.blocks, self.block_len, self.align = -(-dim // block_len), block_len, blocks.align
        self.multiplier, self.increment = (
            torch.from_numpy(term.view("int32") if hashed else term).to(device)
            for term in (blocks.multiplier, blocks.increment)
        )
        self.constants = {
            "FEATURES": self.features,
            "DIM": dim,
            "BLOCKS": self.blocks,
            "BLOCK_LEN": block_len,
            "ALIGN": self.align,
            "HASHED": hashed,
            "SIGNED": signed,
        }
        self.width = -(-(dim + self.features * (self.features + 1) // 2) // 16) * 16

    def lookup(self, pool: Tensor, ids: Tensor) -> Tensor:
        """Vectors of ids, float32 (batch, features, dim)."""
        vectors = torch.empty(*ids.shape, self.dim, device=ids.device)
        self._run(_lookup, ids, pool, ids, vectors, *self._hash(pool), ids.numel())
        return vectors

    def scatter(self, sums: Tensor, ids: Tensor, gradient: Tensor, factor: float = 1.0) -> None:
        """Add factor times the gradient (batch, features, dim) to the elements that ids are looked up from."""
        gradient = gradient.contiguous()
        self._run(_scatter, ids, sums, ids, gradient, *self._hash(sums), ids.numel(), float(factor))

    def sgd(self, pool: Tensor, ids: Tensor, gradient: Tensor, rate: float) -> None:
        """Backward of `lookup` and the step of SGD in one launch."""
        self.scatter(pool, ids, gradient, -rate)

    def sgd_from_sums(self, pool: Tensor, sums: Tensor, ids: Tensor, rate: float) -> None:
        """Step by the sums that `interact_backward` left, which are zero afterwards.

        Costs what the batch read or the pool has, whichever is less.
        """
        if pool.numel() <= ids.numel() * self.dim:
            pool.view(-1).sub_(sums.view(-1), alpha=rate)
            sums.zero_()
        else:
            self._run(
                _step, ids, pool, sums, sums, ids, *self._hash(pool), ids.numel(), rate, 0.0, ADAGRAD=False
            )

    def adagrad(
        self, pool: Tensor, sums: Tensor, squares: Tensor, ids: Tensor, rate: float, epsilon: float = 1e-10
    ) -> None:
        """Step by the sums that `scatter` or `interact_backward` left, which are zero afterwards."""
        tensors = pool, sums, squares, ids, *self._hash(pool)
        self._run(_step, ids, *tensors, ids.numel(), float(rate), float(epsilon), ADAGRAD=True)

    def interact(
        self, bottom: Tensor, pool: Tensor, ids: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The top MLP's input without embeddings in memory.

        Returns:
            (batch, width): bottom (dim), the dot products of all pairs, in the order of `DLRM.pairs`, and
            zeros up to a multiple of 16, because matrix multiplications want aligned rows.

        Raises:
            InputError: dim and block_len are not powers of two, or dim is below 16.
        """
        out = torch.empty(len(ids), self.width, dtype=dtype, device=ids.device)
        arguments = bottom.contiguous(), pool, ids, out, *self._hash(pool)
        _interact[(len(ids),)](*arguments, WIDTH=self.width, **self._interaction())
        return out

    def interact_backward(
        self,
        bottom: Tensor,
        pool: Tensor,
        sums: Tensor,
        ids: Tensor,
        gradient: Tensor,
        factor: float = 1.0,
    ) -> Tensor:
        """The gradient of bottom; factor times those of the embeddings are added to sums, which is not pool."""
        out = torch.empty_like(bottom)
        arguments = bottom.contiguous(), pool, sums, ids, gradient.contiguous(), out, *self._hash(pool)
        _interact_backward[(len(ids),)](*arguments, float(factor), WIDTH=self.width, **self._interaction())
        return out

    def _run(self, kernel: Any, ids: Tensor, *arguments: Any, **flags: bool) -> None:
        block, length = triton.next_power_of_2(self.blocks), triton.next_power_of_2(self.block_len)
        vectors = max(1, self.launch.elements // (block * length))
        kernel[(triton.cdiv(ids.numel(), vectors),)](
            *arguments, **self.constants, **flags, V=vectors, B=block, L=length, num_warps=self.launch.warps
        )

    def _hash(self, pool: Tensor) -> tuple[Tensor, Tensor, int]:
        return self.multiplier, self.increment, (pool.numel() - self.block_len) // self.align + 1

    def _interaction(self) -> dict[str, Any]:
        powers = (self.dim & (self.dim - 1)) == 0 and (self.block_len & (self.block_len - 1)) == 0
        if not powers or self.dim < 16:
            raise InputError(
                f"the fused interaction takes dim and block_len that are powers of two, dim at least 16, not "
                f"dim {self.dim} and block_len {self.block_len}: choose such, or look vectors up first"
            )
        rows = max(16, triton.next_power_of_2(self.features + 1))
        return {
            **self.constants,
            "R": rows,
            "PRECISION": self.launch.precision,
            "INTERPRETED": INTERPRETED,
            "num_warps": self.launch.warps,
        }
