r"""Where the fields of rows of text lie: quoted or not (RFC 4180), of good rows only.

    found = split(b'1,"a, b"\n2,c\n', b",", 2, quotes=True)
    found.columns[1].ends - found.columns[1].starts    # [4, 1]: of `a, b` and `c`

Eight bytes are looked at together. Two quotes within quotes become one where they stand, in a copy of the text.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import int64, uint64

from sizewise_core.machine.compiled import compiled
from sizewise_prep.raw.columns.spans import Spans

_EACH = 0x0101010101010101  # a byte's value in each of eight bytes
_NO_QUOTES = 256  # no byte
_NEWLINE, _RETURN = 0x0A, 0x0D
_ROWS = 32


class Fields(NamedTuple):
    """The fields of rows of text.

    Attributes:
        columns: column by column.
        end: where the last row ends; what follows is cut off.
    """

    columns: list[Spans]
    end: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.columns[0].starts)

    @property
    def bytes(self) -> int:
        """Memory that they take, the text aside."""
        return 16 * self.rows * len(self.columns)

    def after(self, rows: int) -> Fields:
        """The fields without those of the first rows."""
        columns = [
            Spans(data, starts[rows:], ends[rows:], firsts[rows:])
            for data, starts, ends, firsts in self.columns
        ]
        return self._replace(columns=columns)


def split(text: bytes, separator: bytes, fields: int, quotes: bool) -> Fields | None:
    """The fields of all rows.

    Args:
        text: rows, each ended by LF or CRLF, of which the last may be cut off.
        separator: the byte between fields.
        fields: how many each row must have.
        quotes: whether fields may be in quotes.

    Returns:
        None where the text is not UTF-8, a row has another number of fields, or another fault (see `records`).
    """
    if len(text) >= 1 << 31:
        return None
    data = np.zeros(len(text) + 16, np.uint8)  # so that sixteen bytes can be read at each
    data[: len(text)] = np.frombuffer(text, np.uint8)
    lines = int(np.count_nonzero(data == _NEWLINE))
    most = min(lines, len(text) // fields) + 1  # a field takes a byte at least
    starts, ends = np.empty((2, fields, most), np.int32)
    firsts = np.empty((fields, most), np.uint64)
    quote = ord('"') if quotes else _NO_QUOTES
    rows, end = _split(data, len(text), separator[0], quote, starts, ends, firsts)
    used = text if end == len(text) else memoryview(text)[:end]
    if rows < 0 or not _is_text(bytes(used)):
        return None
    columns = zip(starts[:, :rows], ends[:, :rows], firsts[:, :rows], strict=True)
    return Fields([Spans(data, *column) for column in columns], int(end))


def _is_text(used: bytes) -> bool:
    if b"\0" in used:
        return False
    if used.isascii():
        return True
    try:
        used.decode()
    except UnicodeDecodeError:
        return False
    return True


@compiled
def _split(text: Any, size: int, separator: int, quote: int, starts: Any, ends: Any, firsts: Any) -> Any:
    """Fill `starts`, `ends` and `firsts`; returns how many rows there are (-1: one is not good), and where they end.

    Some rows at a time are written row by row, and then turned: columns are far apart in memory.
    """
    highest, one = uint64(0x80 * _EACH), uint64(_EACH)
    separators, quotes = uint64(separator) * one, uint64(quote & 255) * one
    newlines, returns = uint64(_NEWLINE) * one, uint64(_RETURN) * one
    fields, most = starts.shape
    some = np.empty((_ROWS, fields, 2), np.int32)
    some_firsts = np.empty((_ROWS, fields), np.uint64)
    at = rows = begin = int64(0)
    complete = True
    while complete and at < size and rows < most:
        row = 0
        while row < _ROWS and at < size:
            begin = at
            for field in range(fields):
                quoted = int64(text[uint64(at)]) == quote
                at += quoted
                # What ends the field: a quote, or one of three bytes.
                last = quotes if quoted else separators
                second, third = last if quoted else newlines, last if quoted else returns
                start = at
                # Sixteen bytes at once, without a branch that depends on how long the field is: most are shorter.
                word, more = uint64(0), uint64(0)
                for i in range(8):  # a single load, once compiled
                    word |= uint64(text[uint64(at) + uint64(i)]) << uint64(8 * i)
                for i in range(8):
                    more |= uint64(text[uint64(at) + uint64(8 + i)]) << uint64(8 * i)
                # The highest bit of each byte that ends a field; above the first one it may be wrong.
                a, b, c = word ^ last, word ^ second, word ^ third
                found = (((a - one) & ~a) | ((b - one) & ~b) | ((c - one) & ~c)) & highest
                a, b, c = more ^ last, more ^ second, more ^ third
                then = (((a - one) & ~a) | ((b - one) & ~b) | ((c - one) & ~c)) & highest
                at += int64(0) if found else int64(8)
                then = found if found else then
                while not then:
                    at += 8
                    if at >= size:
                        break
                    more = uint64(0)
                    for i in range(8):
                        more |= uint64(text[uint64(at) + uint64(i)]) << uint64(8 * i)
                    a, b, c = more ^ last, more ^ second, more ^ third
                    then = (((a - one) & ~a) | ((b - one) & ~b) | ((c - one) & ~c)) & highest
                below = ((then & (uint64(0) - then)) >> uint64(7)) - uint64(1)
                at += int64((below & one) * one >> uint64(56)) if then else int64(0)
                written = at
                if quoted and at + 1 < size and int64(text[uint64(at + 1)]) == quote:
                    while at < size:  # from here on byte by byte, to where they go
                        byte = text[at]
                        if int64(byte) == quote:
                            if at + 1 < size and int64(text[uint64(at + 1)]) == quote:
                                at += 1
                            else:
                                break
                        text[written] = byte
                        written += 1
                        at += 1
                    word = uint64(0)
                    for i in range(8):
                        word |= uint64(text[uint64(start) + uint64(i)]) << uint64(8 * i)
                at += quoted
                if at >= size or (int64(text[uint64(at)]) == _RETURN and at + 1 >= size):
                    complete = False
                    break
                length = written - start
                if length < 8:
                    word &= (uint64(1) << uint64(8 * length)) - uint64(1)
                at_row, at_field = uint64(row), uint64(field)
                some[at_row, at_field, uint64(0)] = start
                some[at_row, at_field, uint64(1)] = written
                some_firsts[at_row, at_field] = word
                byte = int64(text[uint64(at)])
                if field < fields - 1:
                    if byte != separator:
                        return -1, 0
                else:
                    if byte == _RETURN:
                        at += 1
                        byte = int64(text[uint64(at)])
                    if byte != _NEWLINE:
                        return -1, 0
                at += 1
            if not complete:
                break
            row += 1
        for field in range(fields):
            for i in range(row):
                starts[field, rows + i] = some[i, field, 0]
                ends[field, rows + i] = some[i, field, 1]
                firsts[field, rows + i] = some_firsts[i, field]
        rows += row
    return rows, at if complete else begin
