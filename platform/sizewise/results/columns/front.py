"""The Pareto front over evaluations.

Every evaluation is a point (AUC, bytes, iterations): stopping a trial early is a model one could ship.
So the front is taken over evaluations, in the directions that the study states.
"""

from collections.abc import Mapping

import moocore
import numpy as np
import polars as pl

from sizewise.metrics.registry import Direction, column_of


def column(objective: str) -> str:
    """The evaluations' column that holds `objective`."""
    return column_of(objective)


def nondominated(points: pl.DataFrame, objectives: Mapping[str, Direction]) -> pl.DataFrame:
    """The rows of `points` that no other beats: equal rows once, rows with a missing value not at all."""
    columns = [column(objective) for objective in objectives]
    complete = points.drop_nulls(columns)
    if complete.is_empty():
        return complete
    values = complete.select(columns).to_numpy().astype(np.float64)
    keep = moocore.is_nondominated(values, maximise=[way == "maximize" for way in objectives.values()])
    return complete.filter(pl.Series(keep))
