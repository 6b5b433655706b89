r"""Lines of text to the numbers that their fields stand for, and the text of what stands for none.

    found = split(block, [(LABEL, 0), (INTEGER, 0), (TOKEN, 0), (REST, 0)], 1, 1, b"\t")
    found.labels, found.dense, found.ids        # (rows,) uint8, (rows, 1) float32, (rows, 1) uint32
    found.rest                                  # the lines without those fields

Fields never become strings. The eight bytes at which a hexadecimal token begins are one 64-bit word, whose digits are
looked at all at once. On the way every line's fields are counted, and whatever is not plainly what its field should
be ends the reading: what to say of it is for others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import float32, int64, uint8, uint32, uint64

from sizewise_prep.compiled import compiled
from sizewise_prep.layout import Kind, Layout

REST, LABEL, INTEGER, TOKEN = range(4)
"""What to make of a field: text of the rest, or a number in the labels, a column of `dense`, a column of `ids`."""

_KINDS: dict[Kind, int] = {"label": LABEL, "integer": INTEGER, "hex": TOKEN}
_EACH = 0x0101010101010101  # a byte's value in each of eight bytes
_NEWLINE, _ZERO, _MINUS = 0x0A, 0x30, 0x2D
_DIGITS = 18  # of decimal numbers, that surely fit into 64 bits


@dataclass(frozen=True)
class Lines:
    """Lines taken apart. What no field goes to holds anything.

    Attributes:
        labels: (rows,).
        dense: (rows, columns) of integers, NaN where missing.
        ids: (rows, columns) of tokens, 0 where missing.
        rest: the other fields of each line, by the same separator.
    """

    labels: npt.NDArray[np.uint8]
    dense: npt.NDArray[np.float32]
    ids: npt.NDArray[np.uint32]
    rest: bytes


def fields_of(layout: Layout, read: Collection[Kind]) -> list[tuple[int, int]]:
    """What `split` is to make of a layout's fields: numbers of the kinds that are to be read, text of the others."""
    places = {name: i for names in (layout.dense, layout.tokens) for i, name in enumerate(names)}
    return [
        (_KINDS[kind], places.get(name, 0)) if kind in read else (REST, 0)
        for name, kind in layout.columns.items()
    ]


def split(
    block: bytes, fields: Sequence[tuple[int, int]], dense: int, tokens: int, separator: bytes
) -> Lines | None:
    """Take a block of whole lines apart.

    Args:
        block: lines, each ended by a newline.
        fields: for each field of a line, at least one, what to make of it, and the column that it goes to.
        dense, tokens: columns of `dense` and of `ids`.
        separator: a byte between fields, neither a digit nor a letter nor a minus.

    Returns None when a line has more fields or fewer, a label is not 0 or 1, an integer is none or may not fit into
    64 bits (it has more than 18 digits), or a token is not up to eight hexadecimal digits.
    """
    text = np.frombuffer(block, np.uint8)
    if len(text) and text[-1] != _NEWLINE:
        raise ValueError("a block ends with a newline")
    rows = int(
        np.count_nonzero(text == _NEWLINE)
    )  # bytes.count takes three times as long where lines are short
    labels = np.empty(rows, np.uint8)
    numbers, ids = np.empty((rows, dense), np.float32), np.empty((rows, tokens), np.uint32)
    rest = np.empty(len(text) if any(kind == REST for kind, _ in fields) else 0, np.uint8)
    kinds, columns = np.array(fields).T.copy()
    done, size = _split(text, kinds, columns, separator[0], labels, numbers, ids, rest)
    return None if done < rows else Lines(labels, numbers, ids, rest[:size].tobytes())


@compiled
def _split(
    text: npt.NDArray[np.uint8],
    kinds: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    separator: int,
    labels: npt.NDArray[np.uint8],
    dense: npt.NDArray[np.float32],
    ids: npt.NDArray[np.uint32],
    rest: npt.NDArray[np.uint8],
) -> Any:
    """Rows before the first that is amiss, and bytes of the rest.

    Nothing is read behind the text's end, because no field goes on over a newline and the text ends with one.
    """
    one, highest = uint64(1), uint64(0x80 * _EACH)
    at = written = row = uint64(0)  # unsigned, or every index would be asked whether it counts from the end
    while at < uint64(len(text)):
        for field in range(len(kinds)):
            end = uint8(separator) if field < len(kinds) - 1 else uint8(_NEWLINE)
            kind, column = kinds[field], uint64(columns[field])
            if kind == REST:
                byte = text[at]
                while byte != uint8(separator) and byte != uint8(_NEWLINE):
                    rest[written] = byte
                    written += one
                    at += one
                    byte = text[at]
                rest[written] = uint8(separator)
                written += one
            elif kind != TOKEN:
                negative = text[at] == uint8(_MINUS)
                at += uint64(negative)
                begin, value = at, uint64(0)
                digit = text[at] - uint8(_ZERO)
                while digit <= uint8(9):
                    value = value * uint64(10) + uint64(digit)
                    at += one
                    digit = text[at] - uint8(_ZERO)
                size = at - begin
                if size > uint64(_DIGITS) or (negative and not size):
                    return row, written
                if kind == INTEGER:
                    number = -int64(value) if negative else int64(value)
                    dense[row, column] = float32(number) if size else float32(np.nan)
                elif negative or not size or value > one:
                    return row, written
                else:
                    labels[row] = value
            elif text[at] == end:
                ids[row, column] = uint32(0)
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
                ids[row, column] = uint32(value >> (uint64(32) - size * uint64(4)))
                at += size
            if text[at] != end:
                return row, written
            at += one
        if written:
            rest[written - one] = uint8(_NEWLINE)
        row += one
    return row, written
