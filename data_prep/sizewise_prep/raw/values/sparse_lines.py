r"""Lines of sparse text to arrays, as far as they are written plainly: nearly all lines of nearly all files are.

found = split(b"1 0:3:1 1:17:1\n", fields=True, labelled=True, places=places, kinds=kinds)
found.plain, found.labels, found.indices, found.numbers, found.listed

A line is plain if it is ASCII, its label is 0, 1, -1 or +1, its indices are integers of up to 18 digits without leading
zeros, its numbers have up to 15 digits and no exponent, the values of categories are 1, and every column is known and
given once. What such a line stands for is what Python's own functions would make of it; other lines are for those.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sizewise_core.machine.compiled import compiled

SINGLE, LIST, NUMBER = 1, 2, 3
"""Kinds of columns: a category, a list of them, a number."""
_TENS = 10.0 ** np.arange(23)  # all of them exact


class Split(NamedTuple):
    """What lines hold.

    Attributes:
        plain: (lines,), whether each is plain; the rest is undefined for one that is not.
        labels: (lines,), 0 or 1.
        indices: (lines, columns), int64, -1 where missing; of numbers too.
        numbers: (lines, columns), NaN where missing.
        listed: (values, 3), int64: line, column and index of each value of a list, line by line.
    """

    plain: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int8]
    indices: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.float64]
    listed: npt.NDArray[np.int64]


def split(
    block: bytes, fields: bool, labelled: bool, places: npt.NDArray[np.int64], kinds: npt.NDArray[np.int64]
) -> Split:
    """Split a block of lines.

    Args:
        block: lines, each ended by a newline.
        fields: whether entries name their field (libffm); else their place in the line does (libsvm).
        labelled: whether lines begin with a label.
        places: of each field, or of each place in a line, its column, -1 where it has none.
        kinds: of each column one of `SINGLE`, `LIST` and `NUMBER`.
    """
    text = np.frombuffer(block, np.uint8)
    lines = int(np.count_nonzero(text == ord("\n")))
    entries = int(np.count_nonzero(text == ord(":"))) if (kinds == LIST).any() else 0
    found = Split(
        np.ones(lines, np.bool_),
        np.zeros(lines, np.int8),
        np.full((lines, len(kinds)), -1, np.int64),
        np.full((lines, len(kinds)), np.nan),
        np.empty((entries, 3), np.int64),
    )
    count = _split(text, fields, labelled, places, kinds, _TENS, *found)
    return found._replace(listed=found.listed[:count])


@compiled
def _split(
    text: Any,
    fields: Any,
    labelled: Any,
    places: Any,
    kinds: Any,
    tens: Any,
    plain: Any,
    labels: Any,
    indices: Any,
    numbers: Any,
    listed: Any,
) -> Any:
    """Fill the arrays of a `Split`; returns how many values of lists there are.

    Nothing is read beyond the text's end, because no word crosses a newline and the text ends with one.
    """
    newline, hash_sign, colon, zero, nine = 10, 35, 58, 48, 57
    at = count = 0
    for line in range(len(plain)):
        begun, good, position, blank = count, True, 0, True
        while text[at] != newline:
            byte = text[at]
            if byte == 32 or byte == 9 or byte == 13:
                at += 1
                continue
            if byte == hash_sign:
                while text[at] != newline:
                    good &= text[at] < 128
                    at += 1
                break
            if blank and labelled:
                blank = False
                sign = byte == 45
                at += sign or byte == 43
                labels[line] = (text[at] == 49) and not sign
                good &= text[at] == 49 or (text[at] == zero and at > 0 and text[at - 1] != 43 and not sign)
                at += text[at] != newline
                good &= text[at] == 32 or text[at] == 9 or text[at] == 13 or text[at] == newline
                if not good:
                    break
                continue
            blank = False
            column = position
            if fields:
                column = digits = 0
                while zero <= text[at] <= nine and digits < 9:
                    column = column * 10 + (text[at] - zero)
                    digits += 1
                    at += 1
                if digits == 0 or text[at] != colon:
                    good = False
                    break
                at += 1
            position += 1
            column = places[column] if column < len(places) else -1
            index = digits = 0
            first = text[at]
            while zero <= text[at] <= nine and digits < 18:
                index = index * 10 + (text[at] - zero)
                digits += 1
                at += 1
            if column < 0 or digits == 0 or (first == zero and digits > 1) or text[at] != colon:
                good = False
                break
            at += 1
            negative = text[at] == 45
            at += negative
            value = digits = after = 0
            point = False
            while (zero <= text[at] <= nine or (text[at] == 46 and not point)) and digits < 16:
                if text[at] == 46:
                    point = True
                else:
                    value = value * 10 + (text[at] - zero)
                    digits += 1
                    after += point
                at += 1
            byte = text[at]
            if digits == 0 or digits > 15 or not (byte == 32 or byte == 9 or byte == 13 or byte == newline):
                good = False
                break
            number = value / tens[after]
            kind = kinds[column]
            if kind == NUMBER:
                good &= np.isnan(numbers[line, column])
                numbers[line, column] = -number if negative else number
                indices[line, column] = index
            else:
                good &= number == 1.0 and not negative
                if kind == SINGLE:
                    good &= indices[line, column] < 0
                    indices[line, column] = index
                else:
                    listed[count, 0], listed[count, 1], listed[count, 2] = line, column, index
                    count += 1
            if not good:
                break
        while text[at] != newline:
            at += 1
        at += 1
        plain[line] = good and (not blank or not labelled) and position > -1
        if not plain[line]:
            count = begun
    return count
