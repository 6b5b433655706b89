"""Hexadecimal tokens, as Polars has parsed them, to the 32-bit numbers they stand for.

    decode(frame, ids, [0, 1])      # columns of text -> columns 0 and 1 of (rows, columns) uint32

Arrow keeps a string of up to twelve bytes within sixteen: four of length, then the text, zeros behind it. So a
token is one 64-bit load, its eight digits are looked at all at once, and what is not a token is told on the way.
Polars' own `str.to_integer` takes several times as long, and lets "000000001" and "+1" pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from numba import njit, uint32, uint64

_EACH = 0x0101010101010101  # a byte's value in each of eight bytes
_TILE = 512  # rows at a time, whose ids stay in the processor's cache while column after column is written


def decode(frame: pl.DataFrame, ids: npt.NDArray[np.uint32], places: Sequence[int]) -> bool:
    """Write the tokens of a frame's string columns into columns of `ids`, 0 where missing.

    Args:
        frame: of strings, up to eight hexadecimal digits each.
        ids: (rows, columns) of which those at `places` are written.
        places: one for each column of the frame.

    Returns False, with anything in `ids`, when one of the strings is no token.
    """
    start = wrong = empty = missing = 0
    for batch in frame.to_arrow(compat_level=pl.CompatLevel.newest()).to_batches():
        columns = [_words(column) for column in batch.columns]
        missing += sum(column.null_count for column in batch.columns)
        for first in range(0, batch.num_rows, _TILE):
            part = ids[start + first : start + min(first + _TILE, batch.num_rows)]
            for place, words in zip(places, columns, strict=True):
                found = _decode(words[first : first + _TILE], part, place)
                wrong, empty = wrong | found[0], empty + found[1]
        start += batch.num_rows
    if empty < missing:  # Polars leaves zeros where a string is missing, but nobody promises it
        return decode(frame.select(pl.all().fill_null("")), ids, places)
    return not wrong


def _words(column: pa.Array) -> npt.NDArray[np.uint32]:
    """The strings of a column of Arrow's string views, (rows, 4): length, and up to twelve bytes."""
    words = np.frombuffer(column.buffers()[1], np.uint32).reshape(-1, 4)
    return words[column.offset : column.offset + len(column)]


def _jit(function: Callable[..., Any]) -> Any:
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no folder to cache in can be written to
        return njit(nogil=True, error_model="numpy")(function)


@_jit
def _decode(words: npt.NDArray[np.uint32], ids: npt.NDArray[np.uint32], place: int) -> Any:
    """Tokens of one column: not 0 when one of them is none, and how many are empty."""
    wrong, empty = uint64(0), 0
    for row in range(words.shape[0]):
        size = uint64(words[row, 0] & uint32(15))
        text = uint64(words[row, 1]) | uint64(words[row, 2]) << uint64(32)
        wrong |= uint64(words[row, 0] > uint32(8))
        empty += size == uint64(0)
        lacking = uint64(32) - size * uint64(4)  # bits that shorter tokens do without
        # In each byte's highest bit: whether it is a digit, and whether it should be one.
        lower = text | uint64(0x20 * _EACH)
        decimal = (text + uint64(0x50 * _EACH)) & ~(text + uint64(0x46 * _EACH))
        letter = (lower + uint64(0x1F * _EACH)) & ~(lower + uint64(0x19 * _EACH))
        highest = uint64(0x80 * _EACH)
        wrong |= (decimal | letter) & highest ^ highest >> lacking >> lacking
        wrong |= text & highest
        # Digits to numbers, then two, four and eight of them to one; the first is the lowest byte.
        value = (text & uint64(0x0F * _EACH)) + uint64(9) * (text >> uint64(6) & uint64(_EACH))
        value = value * uint64(0x1001) >> uint64(8) & uint64(0x00FF00FF00FF00FF)
        value = value * uint64(0x1000001) >> uint64(16) & uint64(0x0000FFFF0000FFFF)
        value = value * uint64(0x1000000000001) >> uint64(32)
        ids[row, place] = value >> lacking
    return wrong, empty
