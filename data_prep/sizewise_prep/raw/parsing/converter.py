"""Columns of values to rows, and what is wrong with a row that cannot be one: for tables and for text by columns.

    found = Converter(layout).convert(frame)      # frame: a Polars data frame with the layout's columns by name
    found.rows, found.faults

A value may come as text or as a number, a truth value, a date: what it stands for is the same. So a log that was
written as CSV and as Parquet gives the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sizewise_prep.raw.columns import plain, series
from sizewise_prep.raw.columns.spans import Spans
from sizewise_prep.raw.layout import SCORES, TOKEN_KINDS, Kind, Layout, quoted
from sizewise_prep.raw.parsing import list_values
from sizewise_prep.raw.parsing.parser import Fault
from sizewise_prep.raw.parsing.rows import ListColumn, Rows
from sizewise_prep.raw.values.exactness import inexact, texts_of_decimals
from sizewise_prep.raw.values.row_splits import RowSplit
from sizewise_prep.raw.values.scores import log_odds

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
    "time": ("not_a_time", "is no time: digits (at most 19), or an ISO date and time"),
    "order": ("not_a_time", "is no time: digits (at most 19), or an ISO date and time"),
}
_OF_NUMBERS = ("number", "integer", "bucket", "weight", *SCORES)
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
    """A column's values, null where missing, and rows that have none: with what is wrong, by what it is.

    Of the column that says in which split a row is, `places` are the splits.
    """

    values: pl.Series
    wrong: list[tuple[pl.Series, tuple[str, str]]]
    places: pl.Series | None = None

    def filtered(self, good: pl.Series) -> _Column:
        """The values of some rows, of which none is wrong."""
        return _Column(
            self.values.filter(good), [], None if self.places is None else self.places.filter(good)
        )


class _Array(NamedTuple):
    """The values of a column of good rows.

    Attributes:
        values: as rows have them; of times only those that are there.
        missing: whether some are missing.
        lost: how many integers float32 does not hold exactly.
    """

    values: npt.NDArray[Any]
    missing: bool = False
    lost: int = 0


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
        self._kinds = layout.kinds
        self._labels, self._time = layout.labels, layout.time
        self._numbers, self._tokens = layout.numbers, layout.read_tokens
        self._coded: dict[str, tuple[pa.Array, plain.Tokens]] = {}
        self.columns = [name for name, kind in self._kinds.items() if kind != "skip"]
        self._nulls = ["", *layout.nulls]
        self._null_numbers = series.numbers_among(layout.nulls)

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
            found = {name: column.filtered(good) for name, column in found.items()}
            rows = good.arg_true().to_numpy()
            lists = {name: _Lists(column.values.taken(rows), [], {}) for name, column in lists.items()}
        places = found[self._split.column].places if self._split else None
        splits = None if places is None else places.to_numpy().astype(np.uint8, copy=False)
        arrays = {name: self._array(name, column.values) for name, column in found.items()}
        return self._rows(arrays, tuple(column.values for column in lists.values()), faults, splits)

    def quick(self, columns: Mapping[str, Spans | pa.Array]) -> Converted | None:
        """As `convert`, of columns as they lie in memory; None where a row is wrong, and `convert` says which and why.

        Args:
            columns: the layout's, by name.
        """
        arrays: dict[str, _Array] = {}
        lists: list[ListColumn] = []
        places: pl.Series | None = None
        for name in self.columns:
            column = plain.column_of(columns[name], self._nulls[1:], self._null_numbers)
            kind = self._kinds[name]
            if kind in _OF_NUMBERS and plain.has_any(column, self._null_numbers):
                column = None  # written in another way than `nulls` has it
            if kind == "tokens":
                json = self._json and isinstance(column, Spans)  # maybe the text of an array
                form = self._layout.list_form(name)
                values = None if json else plain.lists_of(form, column, self._nulls[1:])
                listed = ListColumn.of_lengths(*values) if values else self._slow_list(name, columns[name])
                if listed is None:
                    return None
                lists.append(listed)
                continue
            split = self._split if self._split and name == self._split.column else None
            found = self._quick(kind, name, column)
            if found is None or (split and (kind == "split" or found.missing)):
                slow = self._column(name, plain.series_of(columns[name]))
                if slow.wrong:
                    return None
                found = self._array(name, slow.values)
                if split:
                    places = slow.places
            elif split:
                places = split.places(pl.Series(found.values))
            arrays[name] = found
        splits = None if places is None else places.to_numpy().astype(np.uint8, copy=False)
        return self._rows(arrays, tuple(lists), [], splits)

    def _quick(self, kind: Kind, name: str, column: plain.Column) -> _Array | None:
        """What a column stands for, where all its values are plainly written; None where they may not be."""
        if kind == "label":
            labels = plain.labels_of(column, self._rule)
            return None if labels is None else _Array(labels)
        if kind in TOKEN_KINDS:
            tokens = (
                self._of_dictionary(kind, name, column)
                if isinstance(column, plain.Coded)
                else plain.tokens_of(kind, column)
            )
            return None if tokens is None else _Array(*tokens)
        if kind in ("time", "order"):
            times = plain.times_of(column)
            if times is None or (kind == "order" and times[1]):
                return None
            return _Array(*times)
        if kind == "integer":
            integers = plain.integers_of(column)
            return None if integers is None else _Array(integers[0], lost=integers[1])
        numbers = plain.reals_of(column) if kind in ("number", "bucket", "score", "weight") else None
        if numbers is None or (kind in ("score", "weight") and np.isnan(numbers).any()):
            return None
        return None if kind == "weight" and (numbers < 0).any() else _Array(numbers)

    def _of_dictionary(self, kind: Kind, name: str, column: plain.Coded) -> plain.Tokens | None:
        """Tokens of values from a dictionary, which is often that of the rows before."""
        known = self._coded.get(name)
        if known is None or not known[0].equals(column.dictionary):
            tokens = plain.tokens_of(kind, column.values)
            if tokens is None:
                return None
            known = self._coded[name] = column.dictionary, tokens
        return column.taken(known[1])

    def _slow_list(self, name: str, column: Spans | pa.Array) -> ListColumn | None:
        found = self._lists(name, plain.series_of(column))
        return None if found.wrong else found.values

    def _array(self, name: str, values: pl.Series) -> _Array:
        """The values of a column of good rows."""
        kind = self._kinds[name]
        if kind in TOKEN_KINDS:
            return _Array(values.fill_null(0).to_numpy(), bool(values.null_count()))
        if kind in ("time", "order"):
            return _Array(values.drop_nulls().to_numpy(), bool(values.null_count()))
        if name in self._numbers:
            lost = inexact(values) if values.dtype == pl.Int64 else 0
            return _Array(values.cast(pl.Float32).fill_null(float("nan")).to_numpy(), lost=lost)
        return _Array(values.to_numpy().astype(np.uint8, copy=False))

    def _rows(
        self,
        found: Mapping[str, _Array],
        lists: tuple[ListColumn, ...],
        faults: list[tuple[int, Fault]],
        splits: npt.NDArray[np.uint8] | None,
    ) -> Converted:
        time = self._time
        others = next((name for name in found if name != time), None)  # times may be missing
        height = len(found[others].values) if others else len(lists[0].lengths)
        labels = np.zeros(height, np.uint8)
        for name in self._labels:
            labels |= found[name].values
        dense = np.empty((height, len(self._numbers)), np.float32)
        for place, name in enumerate(self._numbers):
            dense[:, place] = found[name].values
        ids = np.empty((height, len(self._tokens)), np.uint32)
        for place, name in enumerate(self._tokens):
            ids[:, place] = found[name].values
        times = found[time].values if time else np.empty(0, np.int64)
        lost = np.array([found[name].lost for name in self._numbers], np.int64)
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
        kind = self._kinds[name]
        values, wrong, _ = self._known(raw, kind)
        made = self._made(kind, values)
        places: pl.Series | None = None
        if self._split and name == self._split.column:
            dates = series.are_dates(values) if kind in ("time", "order") else None
            places = made if kind == "split" else self._split.places(made, dates)
            wrong.append((places.is_null(), self._split.wrong))
        lost = made.is_null() & values.is_not_null()
        reason = _NO_RULE if kind == "label" and self._rule else _WRONG.get(kind, _LABEL)
        if kind in _RANGE:
            beyond = lost & series.is_number(kind, values)
            wrong += [(beyond, _RANGE[kind])]
            lost &= ~beyond
        if kind != "split":
            wrong.append((lost, reason))
        if kind in _NEEDED:
            wrong.append((values.is_null(), _NEEDED[kind]))
        return _Column(made, [one for one in wrong if one[0].any()], places)

    def _lists(self, name: str, raw: pl.Series) -> _Lists:
        """A column of lists; their missing values are left out."""
        form, wrong = self._layout.list_form(name), list[tuple[pl.Series, tuple[str, str]]]()
        if not isinstance(raw.dtype, pl.List | pl.Array):
            raw, wrong, _ = self._known(raw, "tokens")
        lists = list_values.as_lists(raw, form.separator, self._json)
        wrong.append((lists.is_null() & raw.is_not_null(), _NO_LIST))
        flat, rows = list_values.flattened(lists)
        values, no_text, _ = self._known(flat, form.of)
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
            texts = series.texts_of(raw)
            no_text = texts.is_null() & raw.is_not_null()
            wrong.append((no_text, ("not_text", "is not text in UTF-8")))
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
            if self._null_numbers and kind in _OF_NUMBERS:  # 7 and 7.0 are the same number
                missing |= series.among(series.reals_64(raw), self._null_numbers).fill_null(False)
            return _Column(raw.set(missing, None), wrong) if missing.any() else _Column(raw, wrong)
        if self._null_numbers and raw.dtype.is_numeric():
            raw = raw.set(series.among(raw, self._null_numbers), None)
        if raw.dtype.is_float():
            raw = raw.cast(pl.Float64).fill_nan(None)
        return _Column(raw, wrong)

    def _made(self, kind: Kind, values: pl.Series) -> pl.Series:
        """What the values stand for in a column of that kind; null where they stand for nothing."""
        if kind == "label":
            return series.ruled(values, self._rule) if self._rule else series.labels(values)
        if kind == "integer":
            return series.integers(values)
        if kind in ("number", "bucket", "score", "weight"):
            reals = series.reals(values)
            return reals.set(reals < 0, None) if kind == "weight" else reals
        if kind == "probability":
            return log_odds(series.reals_64(values))
        if kind in ("time", "order"):
            return series.times(values)
        if kind == "split":
            assert self._split is not None
            return self._split.places(series.hashed(values) if self._split.shares else values)
        if kind in ("string", "token"):
            return series.hashed(values)
        return series.words(values, base=16 if kind == "hex" else 10)
