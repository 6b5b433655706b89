"""What the values of a column stand for, as Polars series, in any type: null where they stand for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from sizewise_prep.raw.layout import Kind
from sizewise_prep.raw.options import LabelRule
from sizewise_prep.raw.values import hashing
from sizewise_prep.raw.values.time_order import instants, of_dates

_CLICK = r"\A(?i:0*1(\.0*)?|true)\z"
_NO_CLICK = r"\A(?i:0+(\.0*)?|false)\z"
_REAL = r"\A[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\z"

_HEX_DIGITS = 8
_BEYOND = float(1 << 63)


def hashed(values: pl.Series) -> pl.Series:
    """The tokens of values by their texts."""
    return hashing.tokens(integers(values) if values.dtype.is_float() else values)


def texts_of(values: pl.Series) -> pl.Series:
    """Bytes as text; null where they are not UTF-8."""
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:  # even where it is asked not to be strict
        return pl.Series(values.name, [_decoded(value) for value in values], pl.String)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def is_number(kind: Kind, values: pl.Series) -> pl.Series:
    """Whether a value that was refused is a number of the right form."""
    if values.dtype == pl.String:
        if kind == "integer":
            return values.str.contains(r"\A-?[0-9]+\z").fill_null(False)
        return values.str.contains(_REAL).fill_null(False)
    if values.dtype.is_float() and kind == "integer":
        return (values == values.floor()).fill_null(False)
    return values.is_not_null()


def numbers_among(texts: Sequence[str]) -> list[int | float]:
    """The texts that are numbers: whole ones as integers, however they are written."""
    reals = pl.Series(texts, dtype=pl.String).str.extract(rf"({_REAL})", 1).drop_nulls()
    whole = {text: int(text) for text in reals if text.removeprefix("-").isdecimal()}
    found = [whole.get(text, float(text)) for text in reals]
    return [int(number) if float(number).is_integer() else number for number in found]


def among(values: pl.Series, numbers: Sequence[int | float]) -> pl.Series:
    """Which numbers are among those, whatever their type is."""
    if values.dtype.is_float():
        possible = pl.Series([float(number) for number in numbers], dtype=pl.Float64).cast(values.dtype)
    else:
        whole = [number for number in numbers if isinstance(number, int) and abs(number) < 1 << 64]
        possible = pl.Series(whole, dtype=pl.Int128).cast(values.dtype, strict=False).drop_nulls()
    return values.is_in(possible.implode())


def labels(values: pl.Series) -> pl.Series:
    """Whether each is a click, as 0 or 1."""
    if values.dtype == pl.Boolean:
        return values.cast(pl.UInt8)
    if values.dtype == pl.String:
        quick = values.str.len_bytes() == 1
        if quick.all() and values.is_in(["0", "1"]).all():
            return values.cast(pl.UInt8)
        click, none = values.str.contains(_CLICK), values.str.contains(_NO_CLICK)
        return click.cast(pl.UInt8).set(~(click | none), None)
    return values.set(~among(values, [0, 1]), None).cast(pl.UInt8)


def ruled(values: pl.Series, rule: LabelRule) -> pl.Series:
    """Whether the rule holds for each value, as 0 or 1; null where it cannot be said."""
    if isinstance(rule.operand, str):
        texts = _texts(values)
        equal = texts == rule.operand
        return (equal if rule.sign == "==" else ~equal).cast(pl.UInt8)
    numbers = reals_64(values)
    holds = {
        ">=": numbers >= rule.operand,
        "<=": numbers <= rule.operand,
        ">": numbers > rule.operand,
        "<": numbers < rule.operand,
        "==": numbers == rule.operand,
        "!=": numbers != rule.operand,
    }
    return holds[rule.sign].cast(pl.UInt8)


def integers(values: pl.Series) -> pl.Series:
    """As integers of 64 bits."""
    if values.dtype == pl.String:
        return values.set(~values.str.contains(r"\A-?[0-9]+\z"), None).cast(pl.Int64, strict=False)
    if values.dtype.is_float():
        fits = (values == values.floor()) & (values >= -_BEYOND) & (values < _BEYOND)
        return values.set(~fits, None).cast(pl.Int64)
    return values.cast(pl.Int64, strict=False)


def reals_64(values: pl.Series) -> pl.Series:
    """As float64."""
    if values.dtype == pl.String:
        return values.set(~values.str.contains(_REAL), None).cast(pl.Float64, strict=False)
    return values.cast(pl.Float64)


def reals(values: pl.Series) -> pl.Series:
    """As float32, by way of float64, so that a number and its text become the same."""
    numbers = reals_64(values).cast(pl.Float32)
    return numbers.set(~numbers.is_finite(), None)


def times(values: pl.Series) -> pl.Series:
    """As `time_order` counts times."""
    if values.dtype == pl.String:
        return instants(values)
    if values.dtype in (pl.Date, pl.Datetime):
        return of_dates(values)
    return integers(values)


def are_dates(values: pl.Series) -> pl.Series:
    """Which times are given as dates, and not in digits."""
    if values.dtype == pl.String:
        return ~values.str.contains(r"\A-?[0-9]+\z").fill_null(False)
    return pl.Series([values.dtype in (pl.Date, pl.Datetime)]).new_from_index(0, len(values))


def _texts(values: pl.Series) -> pl.Series:
    """What is hashed for each value."""
    if values.dtype == pl.String:
        return values
    if values.dtype.is_float():
        values = integers(values)
    return values.cast(pl.String)  # of truth values: true and false


def words(values: pl.Series, base: int) -> pl.Series:
    """Numbers of 32 bits, as they are or from their digits."""
    if values.dtype == pl.String:
        words = values.str.to_integer(base=base, dtype=pl.UInt32, strict=False)
        # It takes a plus sign and more than eight digits, which no token has; a pattern would cost more.
        odd = values.str.starts_with("+")
        if base == 16:
            odd |= values.str.len_bytes() > _HEX_DIGITS
        return words.set(odd, None) if odd.any() else words
    return integers(values).cast(pl.UInt32, strict=False)
