"""Columns of values to rows, and what is wrong with a row that cannot be one: for tables and for text by columns.

    found = Converter(layout).convert(frame)      # frame: a Polars data frame with the layout's columns by name
    found.rows, found.faults

A value may come as text or as a number, a truth value, a date: what it stands for is the same. So a log that was
written as CSV and as Parquet gives the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise_prep.raw.layout import SCORES, Kind, Layout, quoted
from sizewise_prep.raw.options import LabelRule, ListForm
from sizewise_prep.raw.parsing import list_values
from sizewise_prep.raw.parsing.parser import Fault
from sizewise_prep.raw.parsing.rows import ListColumn, Rows
from sizewise_prep.raw.values import hashing
from sizewise_prep.raw.values.exactness import inexact, texts_of_decimals
from sizewise_prep.raw.values.row_splits import RowSplit
from sizewise_prep.raw.values.scores import log_odds
from sizewise_prep.raw.values.time_order import instants

_CLICK = r"\A(?i:0*1(\.0*)?|true)\z"
_NO_CLICK = r"\A(?i:0+(\.0*)?|false)\z"
_REAL = r"\A[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\z"
_HEX_DIGITS = 8
_BEYOND = float(1 << 63)
_LABEL = "label", "is not 0 or 1"
_NO_LIST = "not_a_list", "is not a list, such as [1, 2]"
_NO_RULE = "label", "cannot be compared with the label's rule"
_WRONG: dict[Kind, tuple[str, str]] = {
    "label": _LABEL,
    "integer": ("not_an_integer", "is not an integer"),
    "number": ("not_a_number", "is not a number"),
    "bucket": ("not_a_number", "is not a number"),
    "weight": ("weight", "is no weight: a number from 0 on, finite in 32 bits"),
    "score": ("score", "is no score: finite log-odds"),
    "probability": ("score", "is no probability between 0 and 1"),
    "hex": ("not_hex", "is not a hexadecimal token of up to 8 digits"),
    "decimal": ("token_range", "is not a decimal token of 32 bits"),
    "string": ("not_a_token", "is neither a string nor an integer"),
    "token": ("not_a_token", "is neither a string nor an integer"),
    "time": ("not_a_time", "is no time: digits (at most 18), or an ISO date and time"),
    "order": ("not_a_time", "is no time: digits (at most 18), or an ISO date and time"),
}
_NEEDED: dict[Kind, tuple[str, str]] = {
    "label": _LABEL,
    **{kind: _WRONG[kind] for kind in ("weight", *SCORES)},
    "order": ("not_a_time", "is no time to sort by"),
}
_RANGE = {
    "integer": ("integer_range", "does not fit into 64 bits"),
    "number": ("number_range", "is not finite in 32 bits"),
    "bucket": ("number_range", "is not finite in 32 bits"),
}


@dataclass(frozen=True)
class Converted:
    """What some rows hold.

    Attributes:
        rows: the good ones.
        faults: of the others: which, in ascending order, and what is wrong with each.
        inexact: (columns of numbers,), int64: integers of good rows that float32 does not hold exactly.
        times: (good rows with a time,), int64.
        splits: (good rows,), uint8: which split each is in, where a column says it.
    """

    rows: Rows
    faults: list[tuple[int, Fault]]
    inexact: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    splits: npt.NDArray[np.uint8] | None = None


class _Column(NamedTuple):
    """A column's values, null where missing, and rows that have none: with what is wrong, by what it is."""

    values: pl.Series
    wrong: list[tuple[pl.Series, tuple[str, str]]]


class _Lists(NamedTuple):
    """A column's lists, and rows that have none: with what is wrong, and the first value that is wrong in each."""

    values: ListColumn
    wrong: list[tuple[pl.Series, tuple[str, str]]]
    culprits: dict[int, object]


class Converter:
    """Turns columns of a layout into rows.

    Args:
        layout: of the log. Frames must have all its columns but those to be skipped.
        split: the column that says in which split a row is, if one does.
        json: whether a list may be the text of a JSON array.
    """

    def __init__(self, layout: Layout, split: RowSplit | None = None, json: bool = False) -> None:
        self._json = json
        self._layout = layout
        self._split = split
        self._rule = layout.label_rule
        self.columns = [name for name, kind in layout.kinds.items() if kind != "skip"]
        integers = [text for text in layout.nulls if text.removeprefix("-").isdecimal()]
        self._nulls = ["", *layout.nulls]
        self._null_numbers = [int(text) for text in integers]

    def convert(self, frame: pl.DataFrame) -> Converted:
        """The rows of a frame; what its columns hold must be of types that `unusable` has nothing against."""
        lists = {name: self._lists(name, frame[name]) for name in self._layout.token_lists}
        found = {name: self._column(name, frame[name]) for name in self.columns if name not in lists}
        columns: dict[str, _Column | _Lists] = {**found, **lists}
        bad = [wrong for column in columns.values() for wrong in column.wrong]
        faults: list[tuple[int, Fault]] = []
        if bad:
            good = ~pl.select(pl.any_horizontal([mask for mask, _ in bad])).to_series()
            faults = self._faults(frame, columns)
            found = {name: _Column(column.values.filter(good), []) for name, column in found.items()}
            rows = good.arg_true().to_numpy()
            lists = {name: _Lists(column.values.taken(rows), [], {}) for name, column in lists.items()}
        return self._rows(found, tuple(column.values for column in lists.values()), faults)

    def _rows(
        self, found: dict[str, _Column], lists: tuple[ListColumn, ...], faults: list[tuple[int, Fault]]
    ) -> Converted:
        label = self._layout.label
        height = len(next(iter(found.values())).values) if found else len(lists[0].lengths)
        labels = np.zeros(height, np.uint8)
        if label is not None:
            labels = found[label].values.to_numpy().astype(np.uint8, copy=False)
        dense = np.empty((len(labels), len(self._layout.numbers)), np.float32)
        lost = np.zeros(len(self._layout.numbers), np.int64)
        for place, name in enumerate(self._layout.numbers):
            values = found[name].values
            dense[:, place] = values.cast(pl.Float32).fill_null(float("nan")).to_numpy()
            if values.dtype == pl.Int64:
                lost[place] = inexact(values)
        ids = np.empty((len(labels), len(self._layout.read_tokens)), np.uint32)
        for place, name in enumerate(self._layout.read_tokens):
            ids[:, place] = found[name].values.fill_null(0).to_numpy()
        time = self._layout.time
        times = found[time].values.drop_nulls().to_numpy() if time else np.empty(0, np.int64)
        splits = None
        if self._split:
            named = found[self._split.column].values
            said = self._layout.kinds[self._split.column] == "split"
            places = named if said else self._split.places(named)
            splits = places.to_numpy().astype(np.uint8, copy=False)
        return Converted(Rows(labels, dense, ids, lists), faults, lost, times, splits)

    def _faults(self, frame: pl.DataFrame, found: Mapping[str, _Column | _Lists]) -> list[tuple[int, Fault]]:
        """Of each bad row the first column that is wrong, in the layout's order."""
        faults: dict[int, Fault] = {}
        for name in self.columns:
            column = found[name]
            culprits = column.culprits if isinstance(column, _Lists) else {}
            for mask, (reason, detail) in column.wrong:
                for row in mask.arg_true():
                    if row not in faults:
                        value = culprits[row] if row in culprits else frame[name][row]
                        said = "a missing value" if value is None else quoted(str(value).encode())
                        faults[row] = Fault(reason, f"column {name:.40}: {said} {detail}")
        return sorted(faults.items())

    def _column(self, name: str, raw: pl.Series) -> _Column:
        kind = self._layout.kinds[name]
        values, wrong = self._known(raw, kind)
        made = self._made(kind, values)
        if self._split and name == self._split.column:
            placed = made if kind == "split" else self._split.places(made)
            wrong.append((placed.is_null(), self._split.wrong))
        lost = made.is_null() & values.is_not_null()
        reason = _NO_RULE if kind == "label" and self._rule else _WRONG.get(kind, _LABEL)
        if kind in _RANGE:
            beyond = lost & _is_number(kind, values)
            wrong += [(beyond, _RANGE[kind])]
            lost &= ~beyond
        if kind != "split":
            wrong.append((lost, reason))
        if kind in _NEEDED:
            wrong.append((values.is_null(), _NEEDED[kind]))
        return _Column(made, [one for one in wrong if one[0].any()])

    def _lists(self, name: str, raw: pl.Series) -> _Lists:
        """A column of lists; their missing values are left out."""
        form, wrong = self._layout.list_form(name), list[tuple[pl.Series, tuple[str, str]]]()
        if not isinstance(raw.dtype, pl.List | pl.Array):
            raw, wrong = self._known(raw, "tokens")
        lists = list_values.as_lists(raw, form.separator, self._json)
        wrong.append((lists.is_null() & raw.is_not_null(), _NO_LIST))
        flat, rows = list_values.flattened(lists)
        values, no_text = self._known(flat, form.of)
        tokens = self._made(form.of, values)
        culprits: dict[int, object] = {}
        for mask, reason in (*no_text, (tokens.is_null() & values.is_not_null(), _WRONG[form.of])):
            places = mask.arg_true().to_list()
            culprits = {int(rows[place]): flat[place] for place in reversed(places)} | culprits
            wrong.append((list_values.any_of(rows[places], len(raw)), reason))
        column = list_values.regrouped(tokens, rows, len(raw))
        return _Lists(column, [one for one in wrong if one[0].any()], culprits)

    def _known(self, raw: pl.Series, kind: Kind) -> _Column:
        """The values, null where one is missing; as texts where they are not numbers, truth values or times."""
        wrong: list[tuple[pl.Series, tuple[str, str]]] = []
        if raw.dtype == pl.Null:
            return _Column(raw.cast(pl.String), wrong)
        if raw.dtype == pl.Binary:
            texts = texts_of(raw)
            wrong.append((texts.is_null() & raw.is_not_null(), ("not_text", "is not text in UTF-8")))
            raw = texts
        if raw.dtype in (pl.Categorical, pl.Enum):
            raw = raw.cast(pl.String)
        if raw.dtype.is_decimal():
            numbers = raw.cast(pl.Int64, strict=False)
            if raw.eq_missing(numbers.cast(raw.dtype, strict=False)).all():
                raw = numbers
            elif kind not in ("token", "string"):
                raw = raw.cast(pl.Float64)
            else:
                raw, fractions = texts_of_decimals(raw)
                wrong.append((fractions, _WRONG[kind]))
        if raw.dtype == pl.String:
            missing = raw.is_in(self._nulls) if len(self._nulls) > 1 else raw == ""
            return _Column(raw.set(missing, None), wrong) if missing.any() else _Column(raw, wrong)
        if raw.dtype.is_float():
            raw = raw.cast(pl.Float64).fill_nan(None)
        if self._null_numbers and raw.dtype.is_numeric():
            like = float if raw.dtype.is_float() else int  # Polars compares no real numbers with integers
            raw = raw.set(raw.is_in([like(number) for number in self._null_numbers]), None)
        return _Column(raw, wrong)

    def _made(self, kind: Kind, values: pl.Series) -> pl.Series:
        """What the values stand for in a column of that kind; null where they stand for nothing."""
        if kind == "label":
            return _ruled(values, self._rule) if self._rule else _labels(values)
        if kind == "integer":
            return _integers(values)
        if kind in ("number", "bucket", "score", "weight"):
            reals = _reals(values)
            return reals.set(reals < 0, None) if kind == "weight" else reals
        if kind == "probability":
            return log_odds(_reals_64(values))
        if kind in ("time", "order"):
            return _times(values)
        if kind == "split":
            assert self._split is not None
            return self._split.places(_hashed(values) if self._split.shares else values)
        if kind in ("string", "token"):
            return _hashed(values)
        return _words(values, base=16 if kind == "hex" else 10)


def _hashed(values: pl.Series) -> pl.Series:
    return hashing.tokens(_integers(values) if values.dtype.is_float() else values)


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


def unusable(kind: Kind, dtype: pl.DataType, form: ListForm | None = None) -> str:
    """Why no column of that kind can have values of a type, as a predicate; empty where it can.

    Args:
        kind: of the column.
        dtype: of its values.
        form: how lists are written.
    """
    form = form or ListForm()
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else None
    if kind == "tokens" and isinstance(inner, pl.DataType) and not inner.is_nested():
        wrong = unusable(form.of, inner)
        why = wrong.partition(":")[0]
        return f"is a list whose values cannot be read (each {why}): make it `skip`" if wrong else ""
    if kind == "tokens" and dtype != pl.Null and not dtype.is_nested():
        texts = dtype in (pl.String, pl.Binary, pl.Categorical, pl.Enum)
        return "" if texts else "holds no lists: make it a `token`"
    if dtype.is_nested() or dtype in (pl.Duration, pl.Time, pl.Object):
        if isinstance(inner, pl.DataType) and not inner.is_nested():
            return f"holds lists, and is no `{kind}`: make it `tokens` or `skip`"
        return f"holds {str(dtype).lower()[:30]}, of which no column can be made: make it `skip`"
    if dtype in (pl.Date, pl.Datetime) and kind not in ("time", "order"):
        return f"holds times, and is no `{kind}`: make it `time` or `skip`"
    if dtype == pl.Boolean and kind in ("hex", "decimal", "time", "order"):
        return f"holds truth values, and is no `{kind}`: make it a `token`"
    return ""


def _is_number(kind: Kind, values: pl.Series) -> pl.Series:
    """Whether a value that was refused is a number of the right form."""
    if values.dtype == pl.String:
        if kind == "integer":
            return values.str.contains(r"\A-?[0-9]+\z").fill_null(False)
        return values.str.contains(_REAL).fill_null(False)
    if values.dtype.is_float() and kind == "integer":
        return (values == values.floor()).fill_null(False)
    return values.is_not_null()


def _labels(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Boolean:
        return values.cast(pl.UInt8)
    if values.dtype == pl.String:
        quick = values.str.len_bytes() == 1
        if quick.all() and values.is_in(["0", "1"]).all():
            return values.cast(pl.UInt8)
        click, none = values.str.contains(_CLICK), values.str.contains(_NO_CLICK)
        return click.cast(pl.UInt8).set(~(click | none), None)
    return values.set((values != 0) & (values != 1), None).cast(pl.UInt8)


def _ruled(values: pl.Series, rule: LabelRule) -> pl.Series:
    """Whether the rule holds for each value, as 0 or 1; null where it cannot be said."""
    if isinstance(rule.operand, str):
        texts = _texts(values)
        equal = texts == rule.operand
        return (equal if rule.sign == "==" else ~equal).cast(pl.UInt8)
    numbers = _reals_64(values)
    holds = {
        ">=": numbers >= rule.operand,
        "<=": numbers <= rule.operand,
        ">": numbers > rule.operand,
        "<": numbers < rule.operand,
        "==": numbers == rule.operand,
        "!=": numbers != rule.operand,
    }
    return holds[rule.sign].cast(pl.UInt8)


def _integers(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return values.set(~values.str.contains(r"\A-?[0-9]+\z"), None).cast(pl.Int64, strict=False)
    if values.dtype.is_float():
        fits = (values == values.floor()) & (values >= -_BEYOND) & (values < _BEYOND)
        return values.set(~fits, None).cast(pl.Int64)
    return values.cast(pl.Int64, strict=False)


def _reals_64(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return values.set(~values.str.contains(_REAL), None).cast(pl.Float64, strict=False)
    return values.cast(pl.Float64)


def _reals(values: pl.Series) -> pl.Series:
    """As float32, by way of float64, so that a number and its text become the same."""
    numbers = _reals_64(values).cast(pl.Float32)
    return numbers.set(~numbers.is_finite(), None)


def _times(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return instants(values)
    if values.dtype in (pl.Date, pl.Datetime):
        return values.cast(pl.Datetime("us")).cast(pl.Int64)
    whole = _integers(values)
    return whole.set(whole.abs() >= 10**18, None)


def _texts(values: pl.Series) -> pl.Series:
    """What is hashed for each value."""
    if values.dtype == pl.String:
        return values
    if values.dtype.is_float():
        values = _integers(values)
    return values.cast(pl.String)  # of truth values: true and false


def _words(values: pl.Series, base: int) -> pl.Series:
    """Numbers of 32 bits, as they are or from their digits."""
    if values.dtype == pl.String:
        words = values.str.to_integer(base=base, dtype=pl.UInt32, strict=False)
        # It takes a plus sign and more than eight digits, which no token has; a pattern would cost more.
        odd = values.str.starts_with("+")
        if base == 16:
            odd |= values.str.len_bytes() > _HEX_DIGITS
        return words.set(odd, None) if odd.any() else words
    return _integers(values).cast(pl.UInt32, strict=False)
