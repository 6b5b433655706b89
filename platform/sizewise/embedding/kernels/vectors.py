"""What numba lacks for kernels that move short runs of floats: prefetches, and vectors of a fixed length.

A loop of sixteen steps is a loop to the compiler, which guards it against overlapping arrays and odd lengths.
These write the vector instructions out instead. What copies and updates rounds as the loops would; sums of products are
made of several, added last, and contracted (a multiplication and an addition round once) where the processor can.
"""

from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import alloca_once_value, for_range, get_or_insert_function
from numba.extending import intrinsic

WIDEST = 16  # floats in a vector register of AVX-512; where registers are narrower, LLVM splits them
SUMS = 4  # that a weighted sum is made of: an addition waits for the one before it, but not for three others


def inlined(function: Callable[..., Any]) -> Any:
    """Compile into each caller, whose constants become constants here."""
    return njit(inline="always", error_model="numpy")(function)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of array[index], which need not lie within the array.

    Args: the array and the index; the context, here and below, is numba's own and no argument of calls.
    """
    return types.void(array, index), _prefetch(write=0, locality=3)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch_far(typing_context: Any, array: Any, index: Any) -> Any:
    """The same for what is needed only later: into the second cache, where it displaces nothing needed now.

    Args: as for `prefetch`.
    """
    return types.void(array, index), _prefetch(write=0, locality=2)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch_to_write(typing_context: Any, array: Any, index: Any) -> Any:
    """The same for what will be written, which no other core may keep then.

    Args: as for `prefetch`.
    """
    return types.void(array, index), _prefetch(write=1, locality=3)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def copy_floats(
    typing_context: Any, to: Any, at: Any, source: Any, place: Any, scale: Any, length: Any
) -> Any:
    """to[at + i] = source[place + i] * scale for i < length, a constant.

    Args:
        to, at: float32 (n,) to write to, and the first element of it, int64.
        source, place: the same of what is read.
        scale: float32.
        length: elements; compiled in.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        here, there = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2))
        for kind, out, values in _pieces(b, length, here, there):
            b.store(b.fmul(b.load(values, align=4), splat(b, arguments[4], kind)), out, align=4)
        return context.get_dummy_value()

    return types.void(to, at, source, place, scale, length), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def stream_floats(
    typing_context: Any, to: Any, at: Any, source: Any, place: Any, scale: Any, length: Any
) -> Any:
    """`copy_floats` past the caches, which need not read what is overwritten; `drained` when all is written.

    Args: as for `copy_floats`; the length is a multiple of `WIDEST`, and to[at] begins a cache line.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        here, there = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2))
        for kind, out, values in _pieces(b, length, here, there):
            scaled = b.fmul(b.load(values, align=4), splat(b, arguments[4], kind))
            store = b.store(scaled, out, align=4 * WIDEST)
            store.set_metadata("nontemporal", b.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(to, at, source, place, scale, length), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def unpack_floats(
    typing_context: Any,
    to: Any,
    at: Any,
    codes: Any,
    byte: Any,
    scale: Any,
    other: Any,
    rest: Any,
    bits: Any,
    length: Any,
) -> Any:
    """to[at + i] = the level of code i, from codes[byte] on, times its scale, for i < length.

    Args:
        to, at: as for `copy_floats`.
        codes, byte: uint8 (bytes,), packed as `quantization.pack` does, and the first byte that is read, int64.
        scale, other: float32, of the first `rest` codes, and of those after them.
        rest: int64; may be more than the length.
        bits: of a code; a constant: 8, 4 or 2.
        length: a constant; the codes end on a byte.
    """
    return types.void(to, at, codes, byte, scale, other, rest, bits, length), _unpack(
        bits, length, streamed=False
    )


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def unpack_stream(
    typing_context: Any,
    to: Any,
    at: Any,
    codes: Any,
    byte: Any,
    scale: Any,
    other: Any,
    rest: Any,
    bits: Any,
    length: Any,
) -> Any:
    """`unpack_floats` past the caches, as `stream_floats` does.

    Args: as for `unpack_floats`, with the length and to[at] of `stream_floats`.
    """
    return types.void(to, at, codes, byte, scale, other, rest, bits, length), _unpack(
        bits, length, streamed=True
    )


@intrinsic  # type: ignore[untyped-decorator]
def drained(typing_context: Any) -> Any:
    """Let other threads see what was streamed before they see what is written from here on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def add_floats(
    typing_context: Any, to: Any, place: Any, source: Any, at: Any, scale: Any, length: Any
) -> Any:
    """to[place + i] += scale * source[at + i] for i < length, a constant.

    Args: as for `copy_floats`, but `place` is of `to`, and `at` of the source.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        here, there = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2))
        for kind, out, values in _pieces(b, length, here, there):
            scaled = b.fmul(splat(b, arguments[4], kind), b.load(values, align=4))
            b.store(b.fadd(b.load(out, align=4), scaled), out, align=4)
        return context.get_dummy_value()

    return types.void(to, place, source, at, scale, length), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def move_bits(typing_context: Any, to: Any, at: Any, source: Any, place: Any, length: Any) -> Any:
    """to[at + i] = source[place + i] for i < length, a constant.

    Args: as for `copy_floats`, without a scale and for any elements of 32 bits.
    """
    return types.void(to, at, source, place, length), _move(length, ir.IntType(32), lambda b, x: x)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def move_numbers(typing_context: Any, to: Any, at: Any, source: Any, place: Any, length: Any) -> Any:
    """The same for floats, of which those that are NaN become 0.

    Args: as for `copy_floats`, without a scale.
    """

    def cleaned(b: Any, x: Any) -> Any:
        return b.select(b.fcmp_ordered("ord", x, x), x, ir.Constant(x.type, None))

    return types.void(to, at, source, place, length), _move(length, ir.FloatType(), cleaned)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def dot(typing_context: Any, one: Any, place: Any, other: Any, at: Any, length: Any) -> Any:
    """Sum of one[place + i] * other[at + i] over i < length, as float32.

    Args:
        one, place: float32 (n,), and the first element that is read, int64.
        other, at: the same.
        length: elements; compiled in.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        addresses = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2))
        sums: dict[int, Any] = {}
        for kind, left, right in _pieces(b, length, *addresses):
            product = b.fmul(b.load(left, align=4), b.load(right, align=4), flags=["contract"])
            before = sums.get(kind.count)
            sums[kind.count] = b.fadd(before, product, flags=["contract"]) if before else product
        total = ir.FloatType()(0)
        for count, summed in sums.items():
            name = f"llvm.vector.reduce.fadd.v{count}f32"
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), summed.type])
            total = b.call(
                get_or_insert_function(b.module, kind, name), [total, summed], fastmath=["reassoc"]
            )
        return total

    return types.float32(one, place, other, at, length), generate


@intrinsic  # type: ignore[untyped-decorator]
def weighted_sum(
    typing_context: Any,
    to: Any,
    at: Any,
    weights: Any,
    place: Any,
    columns: Any,
    start: Any,
    stride: Any,
    count: Any,
    length: Any,
) -> Any:
    """to[at + i] = sum of weights[place + k] * columns[start + k * stride + i] over k < count, for i < length.

    Args:
        to, at: float32 (n,) to write to, and the first element of it, int64.
        weights, place: the same of the weights.
        columns, start: the same of what they multiply, which can be read to a width of `WIDEST`.
        stride: elements from what one weight multiplies to what the next does.
        count: of the weights.
        length: at most `WIDEST`; need not be a constant.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        kind, word = ir.VectorType(ir.FloatType(), WIDEST), ir.IntType(32)
        out, weight, column = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2, 4))
        stride, count, length = arguments[6:]
        totals = [alloca_once_value(b, ir.Constant(kind, None)) for _ in range(SUMS)]

        def add(total: Any, k: Any) -> None:
            factor = splat(b, b.load(b.gep(weight, [k])), kind)
            values = b.bitcast(b.gep(column, [b.mul(k, stride)]), kind.as_pointer())
            product = b.fmul(factor, b.load(values, align=4), flags=["contract"])
            b.store(b.fadd(b.load(total), product, flags=["contract"]), total)

        rounds = b.sdiv(count, count.type(SUMS))
        with for_range(b, rounds) as loop:
            for n, total in enumerate(totals):
                add(total, b.add(b.mul(loop.index, count.type(SUMS)), count.type(n)))
        with for_range(b, count, start=b.mul(rounds, count.type(SUMS))) as loop:
            add(totals[0], loop.index)
        sums = [b.load(total) for total in totals]
        while len(sums) > 1:
            sums = [b.fadd(one, other) for one, other in zip(sums[::2], sums[1::2], strict=True)]
        lanes = ir.Constant(ir.VectorType(word, WIDEST), list(range(WIDEST)))
        mask = b.icmp_signed("<", lanes, splat(b, b.trunc(length, word), lanes.type))
        pointer = b.bitcast(out, kind.as_pointer())
        store = ir.FunctionType(ir.VoidType(), [kind, pointer.type, word, mask.type])
        name = f"llvm.masked.store.v{WIDEST}f32.p0v{WIDEST}f32"
        b.call(get_or_insert_function(b.module, store, name), [sums[0], pointer, word(4), mask])
        return context.get_dummy_value()

    return types.void(to, at, weights, place, columns, start, stride, count, length), generate


def _prefetch(write: int, locality: int) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(address_of(context, builder, signature, arguments, 0, 1), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [address, word(write), word(locality), word(1)])
        return context.get_dummy_value()

    return generate


def _move(length: Any, element: Any, change: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        here, there = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2))
        for _, out, values in _pieces(b, length, here, there, element=element):
            b.store(change(b, b.load(values, align=4)), out, align=4)
        return context.get_dummy_value()

    return generate


def _unpack(bits: Any, length: Any, streamed: bool) -> Callable[..., Any]:
    """Each byte goes to as many lanes of 32 bits; shifted up, and down again with its sign, a lane is a code."""
    word, width = ir.IntType(32), bits.literal_value
    each = 8 // width

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        here, codes = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2))
        rest = b.trunc(arguments[6], word)
        for at, (kind, out) in zip(
            range(0, length.literal_value, WIDEST), _pieces(b, length, here), strict=True
        ):
            lanes = range(kind.count)
            whole = ir.VectorType(ir.IntType(8), kind.count // each)
            start = b.bitcast(b.gep(codes, [ir.IntType(64)(at // each)]), whole.as_pointer())
            spread = ir.Constant(ir.VectorType(word, kind.count), [i // each for i in lanes])
            read = b.load(start, align=1)
            lane = b.zext(b.shuffle_vector(read, read, spread), spread.type)
            up = ir.Constant(spread.type, [32 - width * (i % each + 1) for i in lanes])
            down = ir.Constant(spread.type, [32 - width] * kind.count)
            level = b.sitofp(b.ashr(b.shl(lane, up), down), kind)
            if width == 2:
                level = b.fadd(level, ir.Constant(kind, [0.5] * kind.count))
            numbers = ir.Constant(spread.type, [at + i for i in lanes])
            first = b.icmp_signed("<", numbers, splat(b, rest, spread.type))
            scale = b.select(first, splat(b, arguments[4], kind), splat(b, arguments[5], kind))
            value = b.fmul(level, scale)
            store = b.store(value, out, align=4 * WIDEST if streamed else 4)
            if streamed:
                store.set_metadata("nontemporal", b.module.add_metadata([word(1)]))
        return context.get_dummy_value()

    return generate


def address_of(context: Any, builder: Any, signature: Any, arguments: Any, array: int, index: int) -> Any:
    """The pointer to the element that one argument's array has at another argument's index.

    Args: those of an intrinsic's generator, and the numbers of both arguments.
    """
    data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
    return builder.gep(data, [arguments[index]])


def _pieces(builder: Any, length: Any, *addresses: Any, element: Any = None) -> Iterator[tuple[Any, ...]]:
    """Vector types that are `length` floats together, and where each lies from each of the addresses on."""
    for at in range(0, length.literal_value, WIDEST):
        kind = ir.VectorType(element or ir.FloatType(), min(WIDEST, length.literal_value - at))
        moved = (builder.gep(address, [ir.IntType(64)(at)]) for address in addresses)
        yield kind, *(builder.bitcast(address, kind.as_pointer()) for address in moved)


def splat(builder: Any, value: Any, kind: Any) -> Any:
    """A vector that holds one value everywhere.

    Args: the generator's builder, the value, and the vector's type.
    """
    word = ir.IntType(32)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, word(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(word, kind.count), [0] * kind.count))
