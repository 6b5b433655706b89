r"""Lines of text to the values of their hexadecimal tokens, and the text of all other fields.

    found = split(block, columns, 26, b"\t")    # columns: of each field, the column of `ids` that it goes to, or -1
    found.ids, found.rest                       # (rows, 26) uint32, and the lines without those fields

Tokens are most of a click log's text. Here they never become strings: the eight bytes at which one begins are read as
one 64-bit word, and its digits are decoded together. What is left is an eighth of the text, which Polars parses. The
fields of every line are counted at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import uint8, uint32, uint64

from sizewise_core.machine.compiled import compiled

_EACH = 0x0101010101010101  # a byte's value in each of eight bytes
_NEWLINE = 0x0A


@dataclass(frozen=True)
class Lines:
    """Tokens and the remaining text of some lines.

    Attributes:
        ids: (rows, columns) of tokens, 0 where missing; columns that no field goes to are undefined.
        rest: the other fields of each line, by the same separator.
    """

    ids: npt.NDArray[np.uint32]
    rest: bytes


def split(block: bytes, columns: Sequence[int], count: int, separator: bytes) -> Lines | None:
    """Split a block of complete lines into tokens and other fields.

    Args:
        block: lines, each ended by a newline.
        columns: for each field of a line, the column of `ids` that it goes to as a hexadecimal token of up to eight
            digits, or -1 where it goes to `rest`, as at least one does.
        count: columns of `ids`.
        separator: a byte between fields.

    Returns:
        None when a line has another number of fields, or one of its hexadecimal fields is not a token.
    """
    text = np.frombuffer(block, np.uint8)
    if len(text) and text[-1] != _NEWLINE:
        raise ValueError("a block ends with a newline")
    # bytes.count takes three times as long where lines are short.
    lines = np.count_nonzero(text == _NEWLINE)
    if lines * len(columns) > len(text):  # some line lacks separators; do not allocate memory for all
        return None
    ids = np.empty((lines, count), np.uint32)
    rest = np.empty(len(text), np.uint8)
    rows, size = _split(text, np.array(columns), separator[0], ids, rest)
    return None if rows < len(ids) else Lines(ids, rest[:size].tobytes())


@compiled
def _split(
    text: npt.NDArray[np.uint8],
    columns: npt.NDArray[np.int64],
    separator: int,
    ids: npt.NDArray[np.uint32],
    rest: npt.NDArray[np.uint8],
) -> Any:
    """The number of good rows before the first bad one, and of bytes written to `rest`.

    Nothing is read beyond the text's end, because no field crosses a newline and the text ends with one.
    """
    one, highest = uint64(1), uint64(0x80 * _EACH)
    at = written = row = uint64(0)  # unsigned, so that no index is checked for counting from the end
    while at < uint64(len(text)):
        for field in range(len(columns)):
            end = uint8(separator) if field < len(columns) - 1 else uint8(_NEWLINE)
            column = columns[field]
            if column < 0:
                byte = text[at]
                while byte != uint8(separator) and byte != uint8(_NEWLINE):
                    rest[written] = byte
                    written += one
                    at += one
                    byte = text[at]
                rest[written] = uint8(separator)
                written += one
            elif text[at] == end:
                ids[row, uint64(column)] = uint32(0)
            else:
                word, left = uint64(0), uint64(len(text)) - at
                if left >= uint64(8):
                    for i in range(8):  # a single load, once compiled
                        word |= uint64(text[at + uint64(i)]) << uint64(8 * i)
                else:
                    for i in range(left):
                        word |= uint64(text[at + uint64(i)]) << uint64(8 * i)
                # In each byte's highest bit: whether it is a digit; then, in `other`, whether it is not.
                low = word & ~highest
                lower = low | uint64(0x20 * _EACH)
                decimal = (low + uint64(0x50 * _EACH)) & ~(low + uint64(0x46 * _EACH))
                letter = (lower + uint64(0x1F * _EACH)) & ~(lower + uint64(0x19 * _EACH))
                other = (~(decimal | letter) | word) & highest
                size = uint64(8)
                if other:  # rare, so the processor continues with the next field before this is known
                    digits = ((other & (uint64(0) - other)) >> uint64(7)) - one  # bits below the first other
                    size = (digits & uint64(_EACH)) * uint64(_EACH) >> uint64(56)
                    word &= digits
                # Digits to numbers, then two, four and eight of them to one; the first is the lowest byte.
                value = (word & uint64(0x0F * _EACH)) + uint64(9) * (word >> uint64(6) & uint64(_EACH))
                value = value * uint64(0x1001) >> uint64(8) & uint64(0x00FF00FF00FF00FF)
                value = value * uint64(0x1000001) >> uint64(16) & uint64(0x0000FFFF0000FFFF)
                value = value * uint64(0x1000000000001) >> uint64(32)
                ids[row, uint64(column)] = uint32(value >> (uint64(32) - size * uint64(4)))
                at += size
            if text[at] != end:
                return row, written
            at += one
        rest[written - one] = uint8(_NEWLINE)
        row += one
    return row, written
