"""Which types of values a column of each kind can have."""

from __future__ import annotations

import polars as pl

from sizewise_prep.raw.layout import Kind
from sizewise_prep.raw.options import ListForm


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
