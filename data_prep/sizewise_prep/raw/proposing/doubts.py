"""What texts of a column would be if they were written otherwise: numbers, dates; for the comments of a proposal.

doubt_of(pl.Series(["1,234", "12,045"]))     # "number, once written without its signs, as 1234.5"
"""

from __future__ import annotations

import polars as pl

_REAL = r"\A[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\z"
_DECORATED = r"\A\s*[-+(]?\s?[$€£¥]?\s?-?[0-9]{1,3}([,.' _]?[0-9]{3})*([.,][0-9]+)?\s?[%$€£¥)]?\s*\z"
"""A number with separators between thousands, a comma for the point, a currency or a percent sign, or blanks."""
_DATES = (
    r"\A\s*[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{2,4}([ T,].*)?\z",
    r"\A\s*([A-Z][a-z]{2,8},? )?([0-9]{1,2}[ -][A-Z][a-z]{2,8}|[A-Z][a-z]{2,8} [0-9]{1,2}),?[ -].*[0-9]{4}.*\z",
    r"\A\s*[0-9]{4}/[0-9]{1,2}/[0-9]{1,2}([ T].*)?\z",
)
MOSTLY = 0.9
"""Of values that are numbers, from which on the others are more likely faults than categories."""


def doubt_of(texts: pl.Series) -> str:
    """What a column of texts may be instead of categories, and what it takes; empty where nothing is seen.

    Args:
        texts: its values, without missing ones.
    """
    if any(bool(texts.str.contains(form).all()) for form in _DATES):
        return "time, once written as 2024-05-01 12:00:00"
    if is_decorated(texts):
        return "number, once written as 1234.5, without other signs"
    if bool(texts.str.contains(r"\A\s|\s\z").any()):
        return "some values begin or end with blanks, which make other values of them"
    return ""


def is_decorated(texts: pl.Series) -> bool:
    """Whether all texts are numbers with signs that programs do not read, such as 1,234 or $ 5."""
    return bool(texts.str.contains(_DECORATED).all())


def mostly_numbers(texts: pl.Series) -> str | None:
    """Of a column of which nearly all texts are numbers, one that is none; else None.

    Args:
        texts: its values, without missing ones.
    """
    real = texts.str.contains(_REAL)
    if not MOSTLY <= float(real.mean() or 0) < 1:  # type: ignore[arg-type]
        return None
    return str(texts.filter(~real)[0])
