"""What is shown of a point under the pointer: its scores with their intervals, and what it is.

scores(row)         # ["AUC 0.7469 (0.7433 to 0.7505)", "log-loss 0.5012 (0.4981 to 0.5043)"]
of_points(front, axes)
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from sizewise.figures.elements.axes import SCORES, Axes
from sizewise.results import Study
from sizewise.results.decision.intervals import with_best
from sizewise_core.units import format_bytes, format_count

_SCORES = {"auc": "AUC", "logloss": "log-loss"}


def scores(row: Mapping[str, Any]) -> list[str]:
    """The AUC and the log-loss of a candidate in a line each, with 95 % intervals and their difference to the best.

    Where seeds have a part in an interval, the standard errors by rows and by seeds stand apart.

    Args:
        row: of the candidates, with the columns of `intervals.with_best` or without.
    """
    lines = []
    for score, label in _SCORES.items():
        if row.get(score) is None:
            continue
        low, high = row.get(f"{score}_low"), row.get(f"{score}_high")
        line = f"{label} {row[score]:.4f}"
        lines.append(f"{line} ({low:.4f} to {high:.4f})" if low is not None and high is not None else line)
        of_rows, of_seeds = row.get(f"{score}_error"), row.get(f"{score}_seed_error")
        if of_rows is not None and of_seeds is not None:
            lines.append(f"  standard errors {of_rows:.4f} by rows, {of_seeds:.4f} by seeds")
        apart, low, high = (row.get(f"{score}_to_best{end}") for end in ("", "_low", "_high"))
        if apart is not None and low is not None and high is not None and low < high:
            lines.append(f"  to the best {apart:+.4f} ({low:+.4f} to {high:+.4f})")
    return lines


def of_points(study: Study, points: pl.DataFrame, axes: Axes) -> list[str]:
    """What is shown of each of a table's points, as HTML.

    Args:
        study: the points'.
        points: rows of the candidates.
        axes: of the figure; a score that is neither the AUC nor the log-loss comes first.
    """
    found = []
    for row in with_best(study, points).iter_rows(named=True):
        first = [] if axes.score in _SCORES else [f"{SCORES[axes.score].label} {row[axes.score]:.4f}"]
        stored = f", in {row['stored_as']}" if row.get("stored_as") else ""
        where = [f"{format_bytes(row[axes.size])}{stored}", f"{format_count(row['iteration'])} iterations"]
        found.append("<br>".join([f"trial {row['trial_id']}", *first, *scores(row), *where]))
    return found
