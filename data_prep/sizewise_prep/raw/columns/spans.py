"""Columns of texts that lie in an array of bytes, as numbers, compiled.

    words(column, base=16), integers(column), reals(column)

Each returns None where a text is not plainly written: digits alone (a sign and a point where there may be any), few
enough that the number is exact. An empty text is a missing value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy import int64, uint32, uint64

from sizewise_core.machine.compiled import compiled
from sizewise_prep.raw.values.hashing import first_bytes

_EACH = 0x0101010101010101  # a byte's value in each of eight bytes
_TENS = 10.0 ** np.arange(23)  # all of them exact


class Spans(NamedTuple):
    """Texts in UTF-8.

    Attributes:
        data: all bytes, and maybe others.
        starts, ends: (texts,), int32, where each lies.
        firsts: (texts,), uint64, the first eight bytes of each that is not empty (see `first_bytes`): all that most
            values have, without a look into `data`, which would have to come from far for each.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    firsts: npt.NDArray[np.uint64]

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """(texts,), which are empty."""
        empty: npt.NDArray[np.bool_] = self.starts == self.ends
        return empty

    def begin_with(self, letters: bytes) -> bool:
        """Whether a text begins with one of these bytes."""
        begin = self.firsts.astype(np.uint8)
        return any(bool(((begin == letter) & ~self.missing).any()) for letter in letters)

    def without(self, texts: list[bytes]) -> Spans:
        """The same, those of `texts` empty."""
        ends = self.ends.copy()
        lengths = np.cumsum([len(text) for text in texts])
        _blank(
            self.data, self.starts, ends, np.frombuffer(b"".join(texts), np.uint8), lengths.astype(np.int64)
        )
        return self._replace(ends=ends)

    def array(self) -> pa.Array:
        """The texts as a column of Arrow, null where they are empty."""
        offsets = np.concatenate([[0], np.cumsum(self.ends - self.starts, dtype=np.int64)])
        data = np.empty(offsets[-1], np.uint8)
        _gather(self.data, self.starts, offsets, data)
        there = np.packbits(~self.missing, bitorder="little")
        buffers = [pa.py_buffer(there), pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.LargeStringArray.from_buffers(len(self.starts), buffers[1], buffers[2], buffers[0])

    @staticmethod
    def of_array(column: pa.Array) -> Spans | None:
        """A column of strings, without a copy; None where it has another type, or too many bytes."""
        kinds = {pa.string(): np.int32, pa.large_string(): np.int64}
        if column.type not in kinds:
            return None
        validity, places, content = column.buffers()
        kind = np.dtype(kinds[column.type])
        count = len(column)
        if not count or places is None or places.size < kind.itemsize:
            none = np.zeros(count, np.int32)
            return Spans(np.empty(0, np.uint8), none, none, none.astype(np.uint64))
        offsets = np.frombuffer(places, kind, count + 1, column.offset * kind.itemsize)
        base = int(offsets[0]) if kind.itemsize == 8 else 0
        if int(offsets[-1]) - base >= 1 << 31:
            return None
        data = np.frombuffer(content, np.uint8)[base:] if content is not None else np.empty(0, np.uint8)
        if kind.itemsize == 8:
            offsets = (offsets - base).astype(np.int32)
        starts, ends = offsets[:-1], offsets[1:]
        if validity is not None and column.null_count:
            ends = np.where(column.is_valid().to_numpy(zero_copy_only=False), ends, starts)
        return Spans(data, starts, ends, first_bytes(data, starts, ends))


def words(column: Spans, base: int) -> npt.NDArray[np.uint32] | None:
    """Numbers of 32 bits by their digits, 0 where missing; `base` is 10 or 16."""
    found = np.empty(len(column.starts), np.uint32)
    of = column if base == 10 else column[1:]
    good = (_hex if base == 16 else _decimal)(*of, found)
    return found if good else None


def integers(column: Spans) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None:
    """Integers of up to 18 digits with a minus sign or none, and which are missing."""
    found = np.zeros(len(column.starts), np.int64)
    return (found, column.missing) if _integers(*column, found) else None


def reals(column: Spans) -> npt.NDArray[np.float64] | None:
    """Numbers of up to 15 digits with a minus sign or none, without an exponent; NaN where missing."""
    found = np.full(len(column.starts), np.nan)
    return found if _reals(*column, _TENS, found) else None


def parted(column: Spans, separator: str | None) -> tuple[Spans, npt.NDArray[np.int64]] | None:
    """Texts cut at a separator of one byte, row after row, empty ones left out, and how many each row has."""
    if separator is None or len(separator) != 1 or not separator.isascii():
        return None
    count = int((column.ends - column.starts).sum()) + len(column.starts)
    starts, ends = places = np.empty((2, count), np.int32)
    lengths = np.empty(len(column.starts), np.int64)
    found = int(_parted(*column[:3], ord(separator), separator == ",", places, lengths))
    if found < 0:
        return None
    firsts = first_bytes(column.data, starts[:found], ends[:found])
    return Spans(column.data, starts[:found], ends[:found], firsts), lengths


@compiled
def _parted(
    data: Any, starts: Any, ends: Any, separator: int, bracketed: bool, places: Any, lengths: Any
) -> Any:
    """How many values there are; -1 where texts may be `bracketed`, and one has a bracket."""
    found = int64(0)
    for row in range(len(starts)):
        begin: Any = int64(starts[row])
        before = found
        for at in range(int64(starts[row]), int64(ends[row]) + 1):
            if at == ends[row] or int64(data[at]) == separator:
                if at > begin:
                    places[0, found], places[1, found] = begin, at
                    found += 1
                begin = at + 1
            elif bracketed and (data[at] == 91 or data[at] == 40):
                return -1
        lengths[row] = found - before
    return found


@compiled
def _hex(starts: Any, ends: Any, firsts: Any, found: Any) -> Any:
    highest = uint64(0x80 * _EACH)
    for row in range(len(starts)):
        size = int64(ends[row]) - int64(starts[row])
        if size == 0:
            found[row] = uint32(0)
            continue
        if size > 8:
            return False
        word = firsts[row]
        # See `parsing.lines`: the highest bit of each byte that is a digit, then the value of all digits.
        low = word & ~highest
        lower = low | uint64(0x20 * _EACH)
        decimal = (low + uint64(0x50 * _EACH)) & ~(low + uint64(0x46 * _EACH))
        letter = (lower + uint64(0x1F * _EACH)) & ~(lower + uint64(0x19 * _EACH))
        wanted = highest if size == 8 else highest & ((uint64(1) << uint64(8 * size)) - uint64(1))
        if ((decimal | letter) & ~word & highest) & wanted != wanted:
            return False
        value = (word & uint64(0x0F * _EACH)) + uint64(9) * (word >> uint64(6) & uint64(_EACH))
        value = value * uint64(0x1001) >> uint64(8) & uint64(0x00FF00FF00FF00FF)
        value = value * uint64(0x1000001) >> uint64(16) & uint64(0x0000FFFF0000FFFF)
        value = value * uint64(0x1000000000001) >> uint64(32)
        found[row] = uint32((value & uint64(0xFFFFFFFF)) >> (uint64(32) - uint64(size) * uint64(4)))
    return True


@compiled
def _decimal(data: Any, starts: Any, ends: Any, firsts: Any, found: Any) -> Any:
    for row in range(len(starts)):
        value, word = int64(0), firsts[row]
        size = int64(ends[row]) - int64(starts[row])
        if size > 10:
            return False
        for place in range(size):
            if place == 8:
                word = uint64(data[int64(starts[row]) + 8])
                word |= uint64(data[int64(ends[row]) - 1]) << uint64(8)
            digit = int64(word & uint64(255)) - 48
            if digit < 0 or digit > 9:
                return False
            value = value * 10 + digit
            word >>= uint64(8)
        if value > 0xFFFFFFFF:
            return False
        found[row] = uint32(value)
    return True


@compiled
def _integers(data: Any, starts: Any, ends: Any, firsts: Any, found: Any) -> Any:
    for row in range(len(starts)):
        start, size = int64(starts[row]), int64(ends[row]) - int64(starts[row])
        if size == 0:
            continue
        value, word = int64(0), firsts[row]
        negative = word & uint64(255) == uint64(45)
        if size - negative > 18 or size == negative:
            return False
        for place in range(size):
            digit = int64(word & uint64(255)) - 48 if place < 8 else int64(data[start + place]) - 48
            if place > 0 or not negative:
                if digit < 0 or digit > 9:
                    return False
                value = value * 10 + digit
            word >>= uint64(8)
        found[row] = -value if negative else value
    return True


@compiled
def _reals(data: Any, starts: Any, ends: Any, firsts: Any, tens: Any, found: Any) -> Any:
    for row in range(len(starts)):
        start, size = int64(starts[row]), int64(ends[row]) - int64(starts[row])
        if size == 0:
            continue
        word = firsts[row]
        negative = word & uint64(255) == uint64(45)
        value = digits = after = int64(0)
        point = False
        for place in range(size):
            byte = int64(word & uint64(255)) if place < 8 else int64(data[start + place])
            word >>= uint64(8)
            if place == 0 and negative:
                continue
            if byte == 46 and not point:
                point = True
            elif 48 <= byte <= 57 and digits < 15:
                value = value * 10 + (byte - 48)
                digits += 1
                after += point
            else:
                return False
        if digits == 0:
            return False
        number = value / tens[after]
        found[row] = -number if negative else number
    return True


@compiled
def _blank(data: Any, starts: Any, ends: Any, texts: Any, until: Any) -> None:
    """Make those fields empty that equal one of the texts, of which each goes `until` there."""
    for row in range(len(starts)):
        size = int64(ends[row]) - int64(starts[row])
        begin = int64(0)
        for text in range(len(until)):
            if until[text] - begin == size:
                same = True
                for i in range(size):
                    same &= data[int64(starts[row]) + i] == texts[begin + i]
                if same:
                    ends[row] = starts[row]
                    break
            begin = until[text]


@compiled
def _gather(data: Any, starts: Any, offsets: Any, gathered: Any) -> None:
    for row in range(len(starts)):
        at, to = int64(starts[row]), offsets[row]
        for i in range(offsets[row + 1] - to):
            gathered[to + i] = data[at + i]
