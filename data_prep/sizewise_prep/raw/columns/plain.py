"""What usual columns stand for, without a look at their values one by one; None where a column is not a usual one.

column = column_of(array, nulls=["NULL"], null_numbers=[])
tokens_of("token", column), reals_of(column), labels_of(column, None), times_of(column)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sizewise_prep.raw.columns import spans
from sizewise_prep.raw.columns.spans import Spans
from sizewise_prep.raw.layout import Kind
from sizewise_prep.raw.options import LabelRule, ListForm
from sizewise_prep.raw.values import hashing
from sizewise_prep.raw.values.exactness import inexact

_WORDS = 1 << 32
_MOST_UNUSED = 4  # times as many values in a dictionary as in the column: then it does not help


class Numbers(NamedTuple):
    """Numbers, and which are missing (None: none is)."""

    values: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_] | None


Tokens = tuple[npt.NDArray[np.uint32], bool]
"""Tokens of a column, 0 where missing, and whether one is."""


class Coded(NamedTuple):
    """Values by their places among distinct ones; which are missing (None: none is)."""

    dictionary: pa.Array
    values: Spans | Numbers
    places: npt.NDArray[Any]
    missing: npt.NDArray[np.bool_] | None

    def taken(self, distinct: Tokens) -> Tokens:
        """The column's tokens, of those of the distinct values."""
        if self.missing is None:
            return distinct[0][self.places], distinct[1]
        tokens = distinct[0][np.where(self.missing, 0, self.places)]
        tokens[self.missing] = 0
        return tokens, True


class Lists(NamedTuple):
    """Lists of values, which follow one another: how many each row has."""

    values: Spans | Numbers
    lengths: npt.NDArray[np.int64]


Column = Spans | Numbers | Coded | Lists | None
"""None: of another type."""


def column_of(column: Spans | pa.Array, nulls: Sequence[str], null_numbers: Sequence[int | float]) -> Column:
    """A column of one of the forms here.

    Args:
        column: texts, or any column of Arrow that is valid.
        nulls: texts that stand for a missing value.
        null_numbers: numbers that do.
    """
    if isinstance(column, Spans):
        return column.without([text.encode() for text in nulls]) if nulls else column
    if pa.types.is_dictionary(column.type):
        if len(column.dictionary) > _MOST_UNUSED * max(1, len(column)):
            return column_of(column.dictionary_decode(), nulls, null_numbers)
        values = column_of(column.dictionary, nulls, null_numbers)
        places = _numbers(column.indices, ())
        if not isinstance(values, Spans | Numbers) or places is None or not len(column.dictionary):
            return None
        return Coded(column.dictionary, values, places.values, places.missing)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        flat = column_of(column.flatten(), nulls, null_numbers)
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        return Lists(flat, lengths) if isinstance(flat, Spans | Numbers) else None
    found = Spans.of_array(column)
    if found is not None:
        return column_of(found, nulls, ())
    return _numbers(column, null_numbers)


def has_any(column: Column, numbers: Sequence[int | float]) -> bool:
    """Whether texts of numbers have one of these, or may have."""
    if not numbers or not isinstance(column, Spans):
        return False
    reals = spans.reals(column)
    return reals is None or bool(np.isin(reals, np.array(numbers, np.float64)).any())


def _numbers(column: pa.Array, null_numbers: Sequence[int | float]) -> Numbers | None:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)):
        return None
    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return Numbers(np.empty(0, kind.to_pandas_dtype()), None) if not len(column) else None
    dtype = np.dtype(kind.to_pandas_dtype())
    values = np.frombuffer(buffer, dtype, len(column), column.offset * dtype.itemsize)
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    if pa.types.is_floating(kind):
        nan = np.isnan(values)
        if nan.any():
            missing = nan if missing is None else missing | nan
    if null_numbers:
        if any(abs(number) >= 1 << 53 for number in null_numbers):
            return None
        whole = [number for number in null_numbers if isinstance(number, int)]
        meant = np.isin(values, np.array(null_numbers, dtype) if pa.types.is_floating(kind) else whole)
        missing = meant if missing is None else missing | meant
    return Numbers(values, missing)


def series_of(column: Spans | pa.Array) -> pl.Series:
    """The same column for Polars."""
    array = column.array() if isinstance(column, Spans) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    made = pl.from_arrow(array)
    assert isinstance(made, pl.Series)
    return made


def tokens_of(kind: Kind, column: Column) -> Tokens | None:
    """The tokens of a column, 0 where missing, and whether one is.

    Args:
        kind: `hex`, `decimal`, `string` or `token`.
        column: of `column_of`.
    """
    if isinstance(column, Coded):
        distinct = tokens_of(kind, column.values)
        return None if distinct is None else column.taken(distinct)
    if isinstance(column, Spans):
        if kind in ("hex", "decimal"):
            words = spans.words(column, 16 if kind == "hex" else 10)
            return None if words is None else (words, bool(column.missing.any()))
        return hashing.of_spans(*column), bool(column.missing.any())
    if not isinstance(column, Numbers):
        return None
    integers = _integers(column)
    if integers is None:
        return None
    missing = column.missing if column.missing is not None and column.missing.any() else None
    if kind in ("string", "token"):
        return hashing.of_integers(integers, missing), missing is not None
    if missing is not None:
        integers = np.where(missing, 0, integers)
    if len(integers) and (integers.min() < 0 or integers.max() >= _WORDS):
        return None
    return integers.astype(np.uint32), missing is not None


def _integers(column: Numbers) -> npt.NDArray[np.int64] | None:
    """Integers of 64 bits; None where they are none, or too large."""
    values = column.values
    if values.dtype.kind == "f":
        return None
    if values.dtype == np.uint64 and len(values) and values.max() >= 1 << 63:
        return None
    return values.astype(np.int64, copy=False)


def labels_of(column: Column, rule: LabelRule | None) -> npt.NDArray[np.uint8] | None:
    """0 or 1 of each row, by a rule where there is one."""
    if isinstance(column, Numbers):
        values = column.values
        if column.missing is not None and column.missing.any():
            return None
    elif isinstance(column, Spans):
        found = spans.reals(column) if rule else spans.words(column, 10)
        if found is None or column.missing.any():
            return None
        values = found
    else:
        return None
    if rule is None:
        return values.astype(np.uint8) if ((values == 0) | (values == 1)).all() else None
    if isinstance(rule.operand, str):
        return None
    numbers, operand = values.astype(np.float64, copy=False), rule.operand
    compared = {
        ">=": np.greater_equal,
        "<=": np.less_equal,
        ">": np.greater,
        "<": np.less,
        "==": np.equal,
        "!=": np.not_equal,
    }
    return compared[rule.sign](numbers, operand).astype(np.uint8)


def times_of(column: Column) -> tuple[npt.NDArray[np.int64], bool] | None:
    """The times that are there, and whether some are missing; None where they are not given as digits."""
    if isinstance(column, Spans):
        found = spans.integers(column)
        if found is None:
            return None
        values, missing = found
    elif isinstance(column, Numbers):
        integers = _integers(column)
        if integers is None:
            return None
        values, missing = integers, np.zeros(len(integers), np.bool_)
        missing = missing if column.missing is None else column.missing
    else:
        return None
    some = bool(missing.any())
    return values[~missing] if some else values, some


def integers_of(column: Column) -> tuple[npt.NDArray[np.float32], int] | None:
    """Integers as float32, NaN where missing, and how many it does not hold exactly."""
    if isinstance(column, Spans):
        found = spans.integers(column)
    elif isinstance(column, Numbers):
        integers = _integers(column)
        none = np.zeros(len(column.values), np.bool_) if column.missing is None else column.missing
        found = None if integers is None else (integers, none)
    else:
        return None
    if found is None:
        return None
    values, missing = found
    some = bool(missing.any())
    known = values[~missing] if some else values
    made = values.astype(np.float32)
    if some:
        made[missing] = np.nan
    return made, inexact(pl.Series(known))


def reals_of(column: Column) -> npt.NDArray[np.float32] | None:
    """Numbers as float32, NaN where missing; None where one is not finite."""
    if isinstance(column, Spans):
        texts = spans.reals(column)
        if texts is None:
            return None
        reals, missing = texts, np.isnan(texts)
    elif isinstance(column, Numbers):
        reals = column.values.astype(np.float64, copy=False)
        missing = np.zeros(len(reals), np.bool_) if column.missing is None else column.missing
    else:
        return None
    with np.errstate(over="ignore"):
        made = reals.astype(np.float32)
    made[missing] = np.nan
    return made if (np.isfinite(made) | missing).all() else None


def lists_of(
    form: ListForm, column: Column, nulls: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]] | None:
    """How many tokens each row has, and the tokens, row after row.

    Args:
        form: how lists are written.
        column: of `column_of`.
        nulls: texts that stand for a missing value.
    """
    if isinstance(column, Spans):
        parted = spans.parted(column, form.separator)
        if parted is None:
            return None
        values = column_of(parted[0], nulls, ())
        assert isinstance(values, Spans)
        column = Lists(values, parted[1])
    if not isinstance(column, Lists):
        return None
    found = tokens_of(form.of, column.values)
    return None if found is None or found[1] else (column.lengths, found[0])
