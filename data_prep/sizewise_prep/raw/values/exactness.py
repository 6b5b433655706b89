"""How many integers become another number in float32, which holds every one only up to 16,777,216."""

from __future__ import annotations

import polars as pl

_EXACT = 1 << 24


def inexact(values: pl.Series) -> int:
    """Of a column of 64-bit integers, missing ones aside, how many float32 does not hold exactly."""
    highest, lowest = values.max(), values.min()
    if highest is None or (highest <= _EXACT and lowest >= -_EXACT):  # type: ignore[operator]
        return 0
    known = values.drop_nulls()
    # Null beyond 64 bits.
    back = known.cast(pl.Float32).cast(pl.Float64).cast(pl.Int64, strict=False)
    return int(known.ne_missing(back).sum())


def texts_of_decimals(decimals: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Ids that are decimals, which may have more digits than any other number, as their texts.

    Returns:
        The texts, null where a decimal is not whole; and which are not.
    """
    texts = decimals.cast(pl.String).str.replace(r"\.0*\z", "")
    fractions = texts.str.contains(".", literal=True).fill_null(False)
    return texts.set(fractions, None), fractions
