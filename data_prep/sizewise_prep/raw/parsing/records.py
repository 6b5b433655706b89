r"""Where the rows of quoted text begin and end (RFC 4180): a line break within quotes ends none.

    found = records(b'1,"a\nb"\n2,c\n', b",", quotes=True)
    found.ends, found.fields                   # [8, 12], [2, 2]

A quote opens only at the beginning of a field, and two of them within quotes stand for one; elsewhere a quote is a
character like any other. What lies between is left to Arrow, which reads by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import int32, int64

from sizewise_core.machine.compiled import compiled

STRAY = -1
"""In place of a count of fields: more than a separator or a line break follows a closing quote."""
CARRIAGE_RETURN = -2
"""The same: a carriage return stands alone."""
_NO_QUOTES = 256  # no byte


@dataclass(frozen=True)
class Records:
    """Rows of text.

    Attributes:
        ends: (rows,), int64: where each ends, behind its line break.
        fields: (rows,), int32: how many fields it has, or `STRAY` or `CARRIAGE_RETURN`.
        open_at: where the row begins that the text's end cuts off; its length where none is.
    """

    ends: npt.NDArray[np.int64]
    fields: npt.NDArray[np.int32]
    open_at: int


def records(text: bytes, separator: bytes, quotes: bool) -> Records:
    """Find the rows of a text that begins with one.

    Args:
        text: any number of rows, of which the last may be cut off.
        separator: the byte between fields.
        quotes: whether fields may be in quotes, which may hold separators and line breaks.
    """
    data = np.frombuffer(text, np.uint8)
    lines = int(np.count_nonzero(data == ord("\n")))
    ends, fields = np.empty(lines, np.int64), np.empty(lines, np.int32)
    rows = int(_records(data, separator[0], ord('"') if quotes else _NO_QUOTES, ends, fields))
    return Records(ends[:rows], fields[:rows], int(ends[rows - 1]) if rows else 0)


@compiled
def _records(
    text: npt.NDArray[np.uint8],
    separator: int,
    quote: int,
    ends: npt.NDArray[np.int64],
    fields: npt.NDArray[np.int32],
) -> Any:
    row, count, stray, lone = 0, int32(1), False, False
    at, size = 0, len(text)
    starts = True  # of a field
    while at < size:
        byte = int64(text[at])
        if starts and byte == quote:
            at += 1
            while at < size:
                if int64(text[at]) == quote:
                    if at + 1 < size and int64(text[at + 1]) == quote:
                        at += 1
                    else:
                        break
                at += 1
            at += 1
            if at < size:
                after = int64(text[at])
                ends_line = after == 10 or (after == 13 and (at + 1 == size or text[at + 1] == 10))
                stray |= after != separator and not ends_line
            starts = False
            continue
        starts = False
        if byte == separator:
            count += int32(1)
            starts = True
        elif byte == 13:
            lone |= at + 1 < size and text[at + 1] != 10
        elif byte == 10:
            ends[row] = at + 1
            fields[row] = int32(-1) if stray else int32(-2) if lone else count
            row, count, stray, lone, starts = row + 1, int32(1), False, False, True
        at += 1
    return row
