"""The intervals that the page to decide on shows: of each point's AUC, and of what a model loses against another.

All of them come from `sizewise.results.decision.intervals`.
"""

from typing import Any

import polars as pl

from sizewise.results import Study
from sizewise.results.columns.kept_errors import Score
from sizewise.results.decision.intervals import Interval, difference, intervals
from sizewise_core.units import format_auc


def with_ends(study: Study, points: pl.DataFrame) -> pl.DataFrame:
    """The points with the ends of their AUC's 95 % interval as `auc_low` and `auc_high`, null where it is not known.

    Args:
        study: the points'.
        points: rows of its candidates.
    """
    if points.is_empty():
        return points
    ends = intervals(study, points)
    return points.with_columns(ends["low"].alias("auc_low"), ends["high"].alias("auc_high"))


def of_auc(study: Study, one: pl.DataFrame) -> str:
    """The interval of one model's AUC in words, empty where none is known.

    Args:
        study: the model's.
        one: its row of the candidates.
    """
    row: dict[str, Any] = with_ends(study, one).row(0, named=True)
    low, high = row["auc_low"], row["auc_high"]
    return "" if low is None or high is None else f"{format_auc(low)} to {format_auc(high)}"


def lost(study: Study, one: pl.DataFrame, reference: pl.DataFrame, score: Score = "auc") -> Interval:
    """How a score of one model differs from that of another on the same rows.

    Args:
        study: of both.
        one, reference: a row each of its candidates.
        score: which score.
    """
    return difference(study, one, reference, score)
