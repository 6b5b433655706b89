"""How a text file is written: its separator, whether fields stand in quotes, whether the first line names columns.

form = text_form(b'id,name\n1,"a, b"\n')
form.separator, form.quotes, form.names         # ",", True, ["id", "name"]
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass

from sizewise_prep.raw.options import NULLS

_SEPARATORS = "\t,;|\x01\x1f^~ :"  # of those that fit, the first one
_LINES = 200
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class TextForm:
    """What was found.

    Attributes:
        separator: one character.
        quotes: whether fields stand in double quotes.
        header: whether the first line names the columns.
        names: of the columns, from the header, else `c1`, `c2` and so on.
        unsure: sentences about what may be otherwise.
        doubled: whether two separators stand between fields.
        width_of_first: fields of the first line.
        twice: a name that the first line has twice, if it names the columns.
    """

    separator: str
    quotes: bool
    header: bool
    names: list[str]
    unsure: list[str]
    doubled: bool = False
    width_of_first: int = 0
    twice: str | None = None


def text_form(start: bytes) -> TextForm | None:
    """The form of a text that begins so (whole lines); None where no separator fits.

    Args:
        start: some first lines.
    """
    text = start.decode("utf-8", "replace")
    fitting: list[tuple[float, int, str, bool, list[list[str]]]] = []
    for place, separator in enumerate(_SEPARATORS):
        for quotes in (False, True) if '"' in text else (False,):
            rows = _rows(text, separator, quotes)
            widths = Counter(map(len, rows))
            width, count = widths.most_common(1)[0] if widths else (0, 0)
            if width > 1 and count >= 0.9 * len(rows):
                # Fields in quotes are whole ones; a quote left at a field's end says that they were not taken off.
                kept = any(field[:1] == '"' for row in rows for field in row)
                fitting.append((count / len(rows) - kept, -place, separator, quotes, rows))
    if not fitting:
        return None
    _, _, separator, quotes, rows = max(fitting, key=lambda one: (one[0], len(one[4][0]) > 2, one[1], one[3]))
    quotes = quotes and any(f'"{separator}' in line or f'{separator}"' in line for line in text.splitlines())
    unsure = []
    width = Counter(map(len, rows)).most_common(1)[0][0]
    first, rest = rows[0], [row for row in rows[1:] if len(row) == width]
    # One name may be empty: that of pandas' index, or of what is behind a separator at the end of each line.
    first = first if len(first) == width else [""] * width
    named = first.count("") <= 1 and _is_of_names(first, rest)
    # A header is text above numbers; where everything is text, names that never come again.
    header = named and (
        any(_NUMBER.fullmatch(row[place]) for row in rest[:20] for place in range(len(row)))
        or not any(field in {row[place] for row in rest} for place, field in enumerate(first))
    )
    if header and not any(_NUMBER.fullmatch(field) for row in rest[:20] for field in row):
        unsure.append("whether the first line names the columns")
    names = first if header else [f"c{place}" for place in range(1, len(first) + 1)]
    twice = next((name for name, count in Counter(first).items() if count > 1 and name), None)
    doubled = width > 2 and width % 2 == 1 and not any(any(row[1::2]) for row in rows if len(row) == width)
    return TextForm(
        separator, quotes, header, names, unsure, doubled, len(rows[0]), twice if header else None
    )


def _is_of_names(first: list[str], rest: list[list[str]]) -> bool:
    """Whether a first row may be names: none is a number, or fewer than there are columns of numbers below texts."""
    numbers = sum(_NUMBER.fullmatch(field.strip()) is not None for field in first)
    if not numbers or len(set(first)) < len(first):
        return not numbers
    texts = [
        place
        for place, field in enumerate(first)
        if not _NUMBER.fullmatch(field.strip()) and field not in ("", *NULLS)
    ]
    below = [[row[place] for row in rest if row[place]] for place in texts]
    return numbers < sum(bool(fields) and all(map(_NUMBER.fullmatch, fields)) for fields in below)


def _rows(text: str, separator: str, quotes: bool) -> list[list[str]]:
    lines = text.split("\n")[:_LINES]
    lines = [line.removesuffix("\r") for line in (lines[:-1] if len(lines) > 1 else lines)]
    if not quotes:
        return [line.split(separator) for line in lines if line]
    try:
        return [row for row in csv.reader(lines, delimiter=separator) if row]
    except csv.Error:
        return []
