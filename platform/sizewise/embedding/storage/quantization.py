"""Numbers of four and of two bits: packed codes and their scales, and how large a scale should be.

    codes, scales = quantize(pool, bits=4)                  # uint8 (size / 2,), bfloat16 (1,)
    dequantize(codes, scales, bits=4, shape=pool.shape)     # float32: what every reader of the codes gets
    rounded(pool, "int4", group=64)                         # the same in one step, with a scale for 64 numbers
    stored_bytes(1000, "int4", group=50)                    # 540: 500 of codes, 20 scales of 2

A value is its scale times a level. Levels of int8 and int4 are the whole numbers from -128 to 127 and from -8 to 7.
Those of int2 are -1.5, -0.5, 0.5 and 1.5: of four whole numbers, -2 to 1, one side would reach twice as far as the
other, though weights are as often negative as positive; without the -2 a quarter of the codes would be unused.

Codes are two's complement, the first number in the lowest bits of a byte: two numbers a byte for int4, four for int2
(whose level is the code plus a half). Numbers lie one after the other, whatever the groups; unused bits at the end
are zeros. Scales are bfloat16: two bytes, with the range of float32, so that no value is too large or too small for
one; that they are coarse costs nothing, because codes are chosen for the scale as it is stored.

The largest number does not decide on the scale: for numbers with a bell-shaped distribution a finer grid that clips
the few largest ones has a smaller error. The scale is chosen for the least sum of squared errors, over everything that
shares it (over a sample of it where that is very much).
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sizewise_core.errors import InputError

Storage = Literal["float32", "bfloat16", "int8", "int4", "int2"]

BITS: dict[Storage, int] = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4, "int2": 2}
PACKED: dict[Storage, int] = {"int4": 4, "int2": 2}
"""Storages that lie packed in bytes, with a scale for a group of numbers, and their bits."""
SCALE_BYTES: dict[Storage, int] = {"float32": 0, "bfloat16": 0, "int8": 4, "int4": 2, "int2": 2}

_SAMPLE = 2**18  # numbers that share a scale, beyond which a sample of so many proposes it
_AT_ONCE = 2**20  # numbers whose errors are computed at the same time
_COARSE, _OCTAVES = 4, 12  # scales tried an octave, and how far below the one that clips nothing
_FINE = 32  # around the best of those
_LARGEST = torch.finfo(torch.float32).max


class Grid(NamedTuple):
    """The levels of a number of bits: codes from `low` to `high`, each plus `offset`."""

    low: int
    high: int
    offset: float

    @staticmethod
    def of(bits: int) -> "Grid":
        """That of 8, 4 or 2 bits."""
        if bits not in (8, 4, 2):
            raise InputError(f"numbers of {bits} bits cannot be stored: choose 8, 4 or 2")
        return Grid(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0.5 if bits == 2 else 0.0)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return (self.high - self.low).bit_length()

    def codes(self, values: Tensor, scales: Tensor) -> Tensor:
        """The code nearest to each value, in the values' dtype; scales of zero, and all else, must broadcast."""
        steps = values / torch.where(scales > 0, scales, 1.0)
        return (steps - self.offset if self.offset else steps).round_().clamp_(self.low, self.high)

    def values(self, codes: Tensor, scales: Tensor) -> Tensor:
        """What codes stand for."""
        return (codes + self.offset if self.offset else codes) * scales


class Quantized(NamedTuple):
    """Packed numbers.

    Attributes:
        codes: uint8 (numbers * bits / 8, rounded up,).
        scales: bfloat16 (groups,).
    """

    codes: Tensor
    scales: Tensor


def quantize(values: Tensor, bits: int, group: int | None = None) -> Quantized:
    """Numbers as packed codes and the scales that give them the least sum of squared errors.

    Never worse than the scale that just reaches the largest number.

    Args:
        values: float, of any shape, on any device; all finite.
        bits: 8, 4 or 2.
        group: consecutive numbers (of the flattened values) that share a scale; None: all of them.

    Raises:
        InputError: values that are not finite; a group that does not divide their number; another number of bits.
    """
    grid = Grid.of(bits)
    groups = _grouped(values.detach().float(), group)
    if not groups.isfinite().all():
        wrong = int((~groups.isfinite()).sum())
        raise InputError(
            f"{wrong:,} of {groups.numel():,} numbers are not finite (NaN or infinite) and have no rounded form: "
            "the training has diverged; take weights from before that, or a lower learning rate"
        )
    scales = _scales(groups, grid)
    codes = grid.codes(groups, scales.float().unsqueeze(1))
    return Quantized(pack(codes.flatten().to(torch.int8), bits), scales)


def dequantize(
    codes: Tensor, scales: Tensor, bits: int, shape: torch.Size | tuple[int, ...], group: int | None = None
) -> Tensor:
    """The float32 values of packed codes.

    Args:
        codes: uint8, as `quantize` packs them.
        scales: (groups,), of any float type.
        bits: 8, 4 or 2.
        shape: of the values.
        group: as `quantize` had it.
    """
    numbers = unpack(codes, bits, math.prod(shape)).float()
    return Grid.of(bits).values(_grouped(numbers, group), scales.float().unsqueeze(1)).view(shape)


def rounded(values: Tensor, storage: Storage, group: int | None = None) -> Tensor:
    """Float32 values as they would be read from a storage, of the same shape.

    Args:
        values: float, of any shape.
        storage: `bfloat16` rounds to nearest, `int8`, `int4` and `int2` as `quantize` does, `float32` not at all.
        group: numbers that share a scale, for `int4` and `int2`.

    Raises:
        InputError: as `quantize`; a group for a storage that has none.
    """
    _check_group(storage, group)
    if storage == "float32":
        return values.detach().float().clone()
    if storage == "bfloat16":
        return values.detach().to(torch.bfloat16).float()
    bits = BITS[storage]
    return dequantize(*quantize(values, bits, group), bits, values.shape, group)


def stored_bytes(numbers: int, storage: Storage, group: int | None = None) -> int:
    """Bytes that so many numbers take, their scales included.

    Args:
        numbers: how many there are.
        storage: what they are stored as.
        group: numbers that share a scale, for `int4` and `int2`; None: all of them.

    Raises:
        InputError: a group that does not divide the numbers, or for a storage that has none.
    """
    _check_group(storage, group)
    return -(-numbers * BITS[storage] // 8) + SCALE_BYTES[storage] * group_count(numbers, group)


def most_numbers(
    budget: int, storage: Storage, group: int | None = None, multiple: int = 1, tables: int = 1
) -> int:
    """The most numbers that a budget of bytes has room for, a multiple of `multiple` and of the group.

    Args:
        budget: bytes.
        storage, group: as elsewhere here.
        multiple: such as the numbers of a row.
        tables: that share the budget; each may begin with any row, on a byte of its own.
    """
    _check_group(storage, group)
    bits = BITS[storage]
    if multiple * bits % 8:
        budget -= tables - 1
    if group is None:
        return max(0, budget - tables * SCALE_BYTES[storage]) * 8 // bits // multiple * multiple
    unit = math.lcm(multiple, group)
    return max(0, 8 * budget) // (unit * bits + unit // group * SCALE_BYTES[storage] * 8) * unit


def least_bytes(
    numbers: int, storage: Storage, group: int | None = None, multiple: int = 1, tables: int = 1
) -> int:
    """The least budget, in bytes, in which `most_numbers` finds room for so many.

    Args:
        numbers: of all tables together.
        storage, group: as for `stored_bytes`.
        multiple, tables: as for `most_numbers`.

    Raises:
        InputError: a group for a storage that has none.
    """
    numbers = least_numbers(numbers, group, multiple)
    more = (tables - 1) * (
        (SCALE_BYTES[storage] if group is None else 0) + bool(multiple * BITS[storage] % 8)
    )
    return stored_bytes(numbers, storage, group) + more


def least_numbers(needed: int, group: int | None = None, multiple: int = 1) -> int:
    """The least multiple of `multiple` and of the group that is not below `needed`.

    Args:
        needed: numbers to find room for.
        group: numbers that share a scale; None: all of them.
        multiple: such as the numbers of a row.
    """
    unit = math.lcm(multiple, group or 1)
    return -(-needed // unit) * unit


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (n,) of any integer type as bytes: uint8 (n * bits / 8, rounded up,)."""
    each = 8 // bits
    padded = torch.nn.functional.pad(codes.to(torch.uint8), (0, -len(codes) % each)).view(-1, each)
    packed: Tensor = padded[:, 0] & (2**bits - 1)
    for n in range(1, each):
        packed |= (padded[:, n] & (2**bits - 1)) << (n * bits)
    return packed


def unpack(codes: Tensor, bits: int, numbers: int) -> Tensor:
    """The first codes of packed bytes.

    Args:
        codes: uint8 (bytes,), as `pack` makes them.
        bits: of a code: 8, 4 or 2.
        numbers: how many codes to return.

    Returns:
        int8 (numbers,).
    """
    return unpack_bytes(codes, bits)[:numbers]


def unpack_bytes(codes: Tensor, bits: int) -> Tensor:
    """All codes of packed bytes: uint8 (..., bytes) -> int8 (..., codes)."""
    if bits == 8:
        return codes.view(torch.int8)
    shifts = torch.arange(8 // bits, device=codes.device, dtype=torch.uint8) * bits
    fields = (codes.unsqueeze(-1) >> shifts).flatten(-2) & (2**bits - 1)
    half = 2 ** (bits - 1)
    signed: Tensor = (fields ^ half).to(torch.int8) - half
    return signed


def group_count(numbers: int, group: int | None) -> int:
    """Scales of so many numbers; InputError where the group does not divide them."""
    if group is None:
        return 1
    if group < 1 or numbers % group:
        raise InputError(
            f"embedding.group {group} does not divide {numbers:,} numbers: choose a divisor, or one scale for all"
        )
    return numbers // group


def _check_group(storage: Storage, group: int | None) -> None:
    if group is not None and storage not in PACKED:
        raise InputError(
            f"embedding.group {group} is for storage int4 and int2: leave it out with storage {storage}"
        )


def _grouped(values: Tensor, group: int | None) -> Tensor:
    """Values as (groups, numbers of a group)."""
    return values.reshape(group_count(values.numel(), group), group or values.numel())


def _scales(groups: Tensor, grid: Grid) -> Tensor:
    """The scale of each group, bfloat16 (groups,)."""
    if not groups.numel():
        return torch.zeros(len(groups), dtype=torch.bfloat16, device=groups.device)
    spacing = max(1, groups.shape[1] // _SAMPLE)
    rows = max(1, _AT_ONCE // groups.shape[1])
    return torch.cat([_searched(part, grid, spacing) for part in torch.split(groups, rows)])


def _searched(groups: Tensor, grid: Grid, spacing: int) -> Tensor:
    """The best of some dozens of scales: coarse steps, fine ones around the best, then what suits its codes best."""
    low, high = groups.amin(1), groups.amax(1)
    plain = torch.maximum(high / (grid.high + grid.offset), -low / -(grid.low + grid.offset)).double()
    search = _Search(groups[:, ::spacing].double(), grid, _stored(plain, grid))
    for n in range(1, _COARSE * _OCTAVES + 1):
        search.consider(plain * 2 ** (-n / _COARSE))
    middle = search.scales
    for n in range(1, _FINE // _COARSE // 2 + 1):
        search.consider(middle * 2 ** (n / _FINE))
        search.consider(middle * 2 ** (-n / _FINE))
    for _ in range(3):
        search.consider(search.suiting())
    if spacing == 1:
        return search.scales.bfloat16()
    everything = _Search(groups.double(), grid, _stored(plain, grid))
    everything.consider(search.scales)
    return everything.scales.bfloat16()


class _Search:
    """The best scales so far, as float64 that bfloat16 holds exactly, and their errors."""

    def __init__(self, values: Tensor, grid: Grid, scales: Tensor) -> None:
        self.values, self.grid = values, grid
        self.scales, self.errors = scales, self._errors(scales)

    def consider(self, scales: Tensor) -> None:
        """Take these for the groups that they suit better."""
        scales = _stored(scales, self.grid)
        errors = self._errors(scales)
        better = errors < self.errors
        self.scales = torch.where(better, scales, self.scales)
        self.errors = torch.where(better, errors, self.errors)

    def suiting(self) -> Tensor:
        """The scales of least squares, if the codes stayed those of the best ones."""
        levels = self.grid.codes(self.values, self.scales.unsqueeze(1)) + self.grid.offset
        squares = levels.square().sum(1)
        return (levels * self.values).sum(1).clamp(min=0) / torch.where(squares > 0, squares, 1.0)

    def _errors(self, scales: Tensor) -> Tensor:
        read = self.grid.values(self.grid.codes(self.values, scales.unsqueeze(1)), scales.unsqueeze(1))
        errors = (read - self.values).square().sum(1)
        if bool((scales > -_LARGEST / self.grid.low).any()):  # what is read back must be a float32, too
            errors = torch.where(read.abs().amax(1) > _LARGEST, math.inf, errors)
        return errors


def _stored(scales: Tensor, grid: Grid) -> Tensor:
    """Scales as bfloat16 holds them, the highest level within what float32 holds."""
    nearest = scales.float().bfloat16()
    too_high = (nearest.double() > _LARGEST / (grid.high + grid.offset)).to(torch.int16)
    return (nearest.view(torch.int16) - too_high).view(torch.bfloat16).double()
