"""A study's constraints over its tables: which rows keep to them, and which they break."""

from collections.abc import Mapping, Sequence

import polars as pl

from sizewise.results.columns.front import column
from sizewise.store.records import Limit


def kept(constraints: Mapping[str, Limit]) -> pl.Expr:
    """Whether a row keeps to all constraints; one whose metric is undefined does not."""
    return pl.all_horizontal(pl.lit(True), *(_kept(metric, limit) for metric, limit in constraints.items()))


def broken(constraints: Mapping[str, Limit], columns: Sequence[str]) -> pl.Expr:
    """The column `breaks`: names of the constraints that a trial breaks, null where it breaks none.

    A trial that was never trained, for its size alone is too much, has its reason instead.
    """
    names = [
        pl.when(~_kept(metric, limit) & pl.col(column(metric)).is_not_null()).then(pl.lit(metric))
        for metric, limit in constraints.items()
        if column(metric) in columns
    ]
    measured = pl.concat_str(names, separator=", ", ignore_nulls=True) if names else pl.lit("")
    text = pl.when(pl.col("state") == "infeasible").then(pl.col("reason")).otherwise(measured)
    return pl.when(text != "").then(text).alias("breaks")


def _kept(metric: str, limit: Limit) -> pl.Expr:
    value = pl.col(column(metric))
    low = pl.lit(True) if limit.min is None else value >= limit.min
    high = pl.lit(True) if limit.max is None else value <= limit.max
    return (low & high).fill_null(False)
