"""Columns of lists: from what files have, a list or text, to the values of all rows one after another, and back.

lists = as_lists(raw, separator="|")          # "a|b", "", null -> ["a", "b"], null, null
flat, rows = flattened(lists)                 # the values, and the row of each
column = regrouped(tokens, rows, len(raw))    # a ListColumn of those that are not null
"""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise_prep.raw.parsing.rows import ListColumn
from sizewise_prep.raw.values.bracketed import bracketed

_STRING = r'"(?:\\.|[^"\\])*"'
_VALUE = r"(?:\"\"|-?[0-9][0-9.eE+-]*|true|false|null)"
_ARRAY = rf"\A\[\s*(?:{_VALUE}\s*(?:,\s*{_VALUE}\s*)*)?\]\z"
"""An array without nested ones, whose strings are empty."""


def as_lists(raw: pl.Series, separator: str | None, json_arrays: bool = False) -> pl.Series:
    """A column as lists of its values; null where it has none.

    Args:
        raw: lists, or texts.
        separator: between the values of a text; None: only texts in brackets are lists (see `bracketed`). With a comma,
            both are.
        json_arrays: whether a list, or another nested value, is the text of it.
    """
    if isinstance(raw.dtype, pl.List):
        return raw
    if isinstance(raw.dtype, pl.Array):
        return raw.arr.to_list()
    texts = raw.cast(pl.String)
    nothing = pl.Series(raw.name, [None], pl.List(pl.String)).new_from_index(0, len(raw))
    apart = texts.str.split(separator) if separator else nothing
    opening = texts.str.contains(r"\A\s*[\[(]").fill_null(False)
    if (separator is None or separator.strip() == ",") and opening.any():
        cells = bracketed(texts.set(~opening, None))
        apart = cells.zip_with(cells.is_not_null(), apart)
    if not json_arrays:
        return apart
    arrays = opening & texts.str.starts_with("[").fill_null(False)
    objects = texts.str.starts_with("{") & texts.str.ends_with("}")
    apart = apart.zip_with(~objects.fill_null(False), nothing)
    if not arrays.any():
        return apart
    decoded = _decoded(texts.set(~arrays, None))
    return decoded.zip_with(decoded.is_not_null(), apart)


def _decoded(texts: pl.Series) -> pl.Series:
    """JSON arrays as lists of texts; null where one is none, or holds something else than single values."""
    kind = pl.List(pl.String)
    try:
        return texts.str.json_decode(kind)
    except pl.exceptions.PolarsError:
        flat = texts.str.replace_all(_STRING, '""').str.contains(_ARRAY).fill_null(False)
        texts = texts.set(~flat, None)
    try:
        return texts.str.json_decode(kind)
    except pl.exceptions.PolarsError:  # texts in the file that look like arrays, and are not
        good = pl.Series([text is not None and _is_json(text) for text in texts], dtype=pl.Boolean)
        return texts.set(~good, None).str.json_decode(kind)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def flattened(lists: pl.Series) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    """The values of all lists, row after row, and the row of each, int64."""
    lengths = lists.list.len().fill_null(0)
    some = lists.filter(lengths > 0)
    rows = np.repeat(np.arange(len(lists)), lengths.to_numpy())
    return some.explode(), rows


def any_of(rows: npt.NDArray[np.int64], count: int) -> pl.Series:
    """Which of so many rows are among those."""
    found = np.zeros(count, np.bool_)
    found[rows] = True
    return pl.Series(found)


def regrouped(tokens: pl.Series, rows: npt.NDArray[np.int64], count: int) -> ListColumn:
    """The lists of so many rows.

    Args:
        tokens: their values, row after row, uint32; null where one is left out.
        rows: of each value its row, ascending.
        count: rows.
    """
    if tokens.null_count():
        there = tokens.is_not_null()
        tokens, rows = tokens.filter(there), rows[there.to_numpy()]
    return ListColumn.of_lengths(np.bincount(rows, minlength=count), tokens.to_numpy())
