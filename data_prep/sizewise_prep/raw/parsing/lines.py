r"""Lines of text to the numbers that their hexadecimal tokens stand for, and the text of all other fields.

    found = split(block, places, 26, b"\t")     # places: of each field, the column of `ids` it goes to, or -1
    found.ids, found.rest                       # (rows, 26) uint32, and the lines without those fields

Tokens are most of a click log's text. Here they never become strings: the eight bytes at which one begins are one
64-bit word, whose digits are looked at all at once. What is left of the text is an eighth, which Polars parses. On
the way every line's fields are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import uint8, uint32, uint64

from sizewise_core.compiled import compiled

_EACH = 0x0101010101010101  # a byte's value in each of eight bytes
_NEWLINE = 0x0A


@dataclass(frozen=True)
class Lines:
    """Lines taken apart.

    Attributes:
        ids: (rows, columns) of tokens, 0 where missing; columns that no field goes to hold anything.
        rest: the other fields of each line, by the same separator.
    """

    ids: npt.NDArray[np.uint32]
    rest: bytes


def split(block: bytes, places: Sequence[int], columns: int, separator: bytes) -> Lines | None:
    """Take a block of whole lines apart.

    Args:
        block: lines, each ended by a newline.
        places: for each field of a line, the column of `ids` that it goes to as a hexadecimal token of up to eight
            digits, or -1 where it goes to `rest`, as at least one does.
        columns: of `ids`.
        separator: a byte between fields.

    Returns None when a line has more fields or fewer, or one of its hexadecimal fields is no token.
    """
    text = np.frombuffer(block, np.uint8)
    if len(text) and text[-1] != _NEWLINE:
        raise ValueError("a block ends with a newline")
    # bytes.count takes three times as long where lines are short.
    count = np.count_nonzero(text == _NEWLINE)
    if count * len(places) > len(text):  # some line has not even its separators: no memory for all of them
        return None
    ids = np.empty((count, columns), np.uint32)
    rest = np.empty(len(text), np.uint8)
    rows, size = _split(text, np.array(places), separator[0], ids, rest)
    return None if rows < len(ids) else Lines(ids, rest[:size].tobytes())


@compiled
def _split(
    text: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int64],
    separator: int,
    ids: npt.NDArray[np.uint32],
    rest: npt.NDArray[np.uint8],
) -> Any:
    """Rows before the first that is amiss, and bytes of the rest.

    Nothing is read behind the text's end, because no field goes on over a newline and the text ends with one.
    """
    one, highest = uint64(1), uint64(0x80 * _EACH)
    at = written = row = uint64(0)  # unsigned, or every index would be asked whether it counts from the end
    while at < uint64(len(text)):
        for field in range(len(places)):
            end = uint8(separator) if field < len(places) - 1 else uint8(_NEWLINE)
            place = places[field]
            if place < 0:
                byte = text[at]
                while byte != uint8(separator) and byte != uint8(_NEWLINE):
                    rest[written] = byte
                    written += one
                    at += one
                    byte = text[at]
                rest[written] = uint8(separator)
                written += one
            elif text[at] == end:
                ids[row, uint64(place)] = uint32(0)
            else:
                word, left = uint64(0), uint64(len(text)) - at
                if left >= uint64(8):
                    for i in range(8):  # a single load, once compiled
                        word |= uint64(text[at + uint64(i)]) << uint64(8 * i)
                else:
                    for i in range(left):
                        word |= uint64(text[at + uint64(i)]) << uint64(8 * i)
                # In each byte's highest bit: whether it is a digit; and then, whether it is none.
                low = word & ~highest
                lower = low | uint64(0x20 * _EACH)
                decimal = (low + uint64(0x50 * _EACH)) & ~(low + uint64(0x46 * _EACH))
                letter = (lower + uint64(0x1F * _EACH)) & ~(lower + uint64(0x19 * _EACH))
                other = (~(decimal | letter) | word) & highest
                size = uint64(8)
                if other:  # seldom, so that the next field is begun with before this is known
                    digits = ((other & (uint64(0) - other)) >> uint64(7)) - one  # bits below the first other
                    size = (digits & uint64(_EACH)) * uint64(_EACH) >> uint64(56)
                    word &= digits
                # Digits to numbers, then two, four and eight of them to one; the first is the lowest byte.
                value = (word & uint64(0x0F * _EACH)) + uint64(9) * (word >> uint64(6) & uint64(_EACH))
                value = value * uint64(0x1001) >> uint64(8) & uint64(0x00FF00FF00FF00FF)
                value = value * uint64(0x1000001) >> uint64(16) & uint64(0x0000FFFF0000FFFF)
                value = value * uint64(0x1000000000001) >> uint64(32)
                ids[row, uint64(place)] = uint32(value >> (uint64(32) - size * uint64(4)))
                at += size
            if text[at] != end:
                return row, written
            at += one
        rest[written - one] = uint8(_NEWLINE)
        row += one
    return row, written
