"""Free strings to 32 bits, by a hash that never changes: the first four bytes of a BLAKE2b of that length.

    token("hello") == int.from_bytes(hashlib.blake2b("hello".encode(), digest_size=4).digest(), "little")

with 1 instead of 0, which means a missing token. Two strings share a token with probability 2^-32.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy import int64, uint64

from sizewise_core.machine.compiled import compiled
from sizewise_prep.raw.values.blake2b import digests

if TYPE_CHECKING:
    import polars as pl

_SIZE = 4  # bytes
_SLOT_BITS = 16
_SLOTS = 1 << _SLOT_BITS
_LONG = 0xFF << 56
_INTEGER = 0xFE << 56
_MOST_DIGITS = 20  # of 64 bits, a sign included
STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def token(text: str) -> int:
    """The 32-bit token of a string that is not empty; 1 to 4,294,967,295."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_SIZE).digest(), "little") or 1


def mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The last step of splitmix64 (Steele et al., 2014), in place: each bit depends on all of the word."""
    words ^= words >> _SHIFTS[0]
    words *= _FACTORS[0]
    words ^= words >> _SHIFTS[1]
    words *= _FACTORS[1]
    words ^= words >> _SHIFTS[2]
    return words


def of_spans(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int32],
    firsts: npt.NDArray[np.uint64],
) -> npt.NDArray[np.uint32]:
    """The tokens of texts that lie in an array of bytes.

    Args:
        data: all texts.
        starts, ends: (texts,), where each lies.
        firsts: (texts,), of `first_bytes`.

    Returns:
        (texts,), 0 where a text is empty.
    """
    first, second = np.empty((2, len(starts)), np.uint64)
    _keys_of_spans(data, starts, ends, firsts, first, second)
    return _tokens(first, second, lambda rows: digests(data, starts, ends, rows))


def first_bytes(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int32], ends: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint64]:
    """Of each text its first eight bytes as a word, the first one lowest; 0 where there are fewer.

    Args:
        data: all texts.
        starts, ends: (texts,), where each lies.
    """
    found = np.empty(len(starts), np.uint64)
    _first_bytes(data, starts, ends, found)
    return found


def of_integers(
    values: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.uint32]:
    """The tokens of integers, which are those of their digits.

    Args:
        values: (values,).
        missing: (values,), which are none.

    Returns:
        (values,), 0 where one is missing.
    """
    second = np.full(len(values), _INTEGER, np.uint64)
    if missing is not None:
        second[missing] = 0

    def digested(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        data = np.empty((len(rows), _MOST_DIGITS), np.uint8)
        starts = np.arange(0, data.size, _MOST_DIGITS, dtype=np.int32)
        ends = np.full(len(rows), _MOST_DIGITS, np.int32) + starts
        _digits(values, rows, data, starts)
        return digests(data.reshape(-1), starts, ends, np.arange(len(rows)))

    return _tokens(values.view(np.uint64), second, digested)


def tokens(texts: pl.Series) -> pl.Series:
    """The tokens of a column of strings, or of integers and truth values by their text, uint32; null where missing."""
    import polars as pl  # here, because training on shards must not need Polars

    missing = texts.is_null()
    if texts.dtype.is_integer() and texts.dtype not in (pl.UInt64, pl.Int128, pl.UInt128):
        known = texts.cast(pl.Int64).fill_null(0).to_numpy()
        found = of_integers(known, missing.to_numpy() if missing.any() else None)
    else:
        array = texts.cast(pl.String).fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset :][: len(array) + 1]
        if len(array) == 0 or offsets[-1] == offsets[0]:
            data = np.empty(0, np.uint8)
        else:
            data = np.frombuffer(array.buffers()[2], np.uint8)
        parts = []
        for low, high in _below_2_gib(offsets):
            begin = int(offsets[low])
            places = (offsets[low : high + 1] - begin).astype(np.int32)
            there = data[begin:], places[:-1], places[1:]
            parts.append(of_spans(*there, first_bytes(*there)))
        found = np.concatenate(parts) if len(parts) != 1 else parts[0]
        found[found == 0] = token("")
    made = pl.Series(texts.name, found, pl.UInt32)
    return made.set(missing, None) if missing.any() else made


def _below_2_gib(offsets: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Texts from where to where, so that those between have less than two gibibytes."""
    cuts = [0]
    while cuts[-1] < len(offsets) - 1:
        most = int(np.searchsorted(offsets, offsets[cuts[-1]] + (1 << 31), "left")) - 1
        cuts.append(max(cuts[-1] + 1, min(most, len(offsets) - 1)))
    return list(pairwise(cuts)) or [(0, 0)]


class _Seen(threading.local):
    """Tokens of values that this thread has hashed of late: most values of a log occur again and again.

    Attributes:
        keys: (slots, 2), the value that a slot has, as `_keys_of_spans` gives it.
        tokens: (slots,).
        waiting: (slots,), the number among the values to be hashed; -1 where the token is known.
    """

    def __init__(self) -> None:
        self.keys = np.zeros((_SLOTS, 2), np.uint64)
        self.tokens = np.zeros(_SLOTS, np.uint32)
        self.waiting = np.full(_SLOTS, -1, np.int32)


_seen = _Seen()


def _tokens(
    first: npt.NDArray[np.uint64],
    second: npt.NDArray[np.uint64],
    digested: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint32]],
) -> npt.NDArray[np.uint32]:
    """The tokens of values by their keys; of the values whose numbers it is given, `digested` knows the digests."""
    count = len(first)
    found = np.zeros(count, np.uint32)
    work = np.empty((3, count), np.int32)
    unknown = _find(first, second, _seen.keys, _seen.tokens, _seen.waiting, found, work)
    places, rows, slots = work
    if unknown:
        try:
            hashed = np.maximum(digested(rows[:unknown].astype(np.int64)), np.uint32(1))
        except BaseException:  # nothing may wait for tokens that do not come
            _seen.__init__()  # type: ignore[misc]
            raise
        _fill(hashed, slots, places, _seen.tokens, _seen.waiting, found)
    return found


@compiled
def _first_bytes(data: Any, starts: Any, ends: Any, found: Any) -> None:
    for row in range(len(starts)):
        at = int64(starts[row])
        size = int64(ends[row]) - at
        word = uint64(0)
        if at + 8 <= len(data):
            for i in range(8):  # a single load, once compiled
                word |= uint64(data[uint64(at) + uint64(i)]) << uint64(8 * i)
            if size < 8:
                word &= (uint64(1) << uint64(8 * size)) - uint64(1)
        else:
            for i in range(int64(min(size, int64(8)))):
                word |= uint64(data[uint64(at) + uint64(i)]) << uint64(8 * i)
        found[row] = word


@compiled
def _keys_of_spans(data: Any, starts: Any, ends: Any, firsts: Any, first: Any, second: Any) -> None:
    """Two words that stand for a text alone: its bytes, and in the highest byte how many; of long ones `_LONG`."""
    for row in range(len(starts)):
        at = int64(starts[row])
        size = int64(ends[row]) - at
        if size > 15:
            first[row], second[row] = uint64(0), uint64(_LONG)
            continue
        high = uint64(0)
        for i in range(8, size):
            high |= uint64(data[uint64(at) + uint64(i)]) << uint64(8 * (i - 8))
        first[row] = firsts[row] if size > 0 else uint64(0)
        second[row] = high | uint64(size) << uint64(56)


@compiled
def _find(first: Any, second: Any, keys: Any, known: Any, waiting: Any, found: Any, work: Any) -> Any:
    """Write the tokens that are known; returns how many distinct values are to be hashed.

    In `work` are then of each value that is not known its number among these (-1 of others); of each of these the
    number of its row; and where its token is to be kept (-1: nowhere).
    """
    places, rows, slots = work[0], work[1], work[2]
    unknown = 0
    for row in range(len(first)):
        low, high = first[row], second[row]
        places[row] = -1
        if high == uint64(0):
            continue
        if high == uint64(_LONG):
            places[row], rows[unknown], slots[unknown] = unknown, row, -1
            unknown += 1
            continue
        mixed = (low ^ (high * uint64(0x9E3779B97F4A7C15))) * uint64(0xBF58476D1CE4E5B9)
        slot = (mixed ^ (mixed >> uint64(32))) * uint64(0x94D049BB133111EB) >> uint64(64 - _SLOT_BITS)
        if keys[slot, 0] == low and keys[slot, 1] == high:
            if waiting[slot] < 0:
                found[row] = known[slot]
            else:
                places[row] = waiting[slot]
        else:
            keys[slot, 0], keys[slot, 1], waiting[slot] = low, high, unknown
            places[row], rows[unknown], slots[unknown] = unknown, row, slot
            unknown += 1
    return unknown


@compiled
def _fill(hashed: Any, slots: Any, places: Any, known: Any, waiting: Any, found: Any) -> None:
    """Write the tokens that `_find` did not know, and keep them."""
    for number in range(len(hashed)):
        slot = slots[number]
        if slot >= 0 and waiting[slot] == number:
            known[slot] = hashed[number]
            waiting[slot] = -1
    for row in range(len(places)):
        if places[row] >= 0:
            found[row] = hashed[places[row]]


@compiled
def _digits(values: Any, rows: Any, data: Any, starts: Any) -> None:
    """Write integers as texts, each at the end of its row of `data`, and move where it starts."""
    for number in range(len(rows)):
        value = values[rows[number]]
        left = uint64(value) if value >= 0 else ~uint64(value) + uint64(1)
        at = _MOST_DIGITS
        while True:
            at -= 1
            data[number, at] = 48 + left % uint64(10)
            left //= uint64(10)
            if left == uint64(0):
                break
        if value < 0:
            at -= 1
            data[number, at] = 45
        starts[number] += at
