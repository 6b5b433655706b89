"""What the figures of a search share: trials as points, and an axis for any setting or objective."""

from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style
from sizewise.figures.elements.axes import SCORES
from sizewise.figures.elements.style import PlotlyOptions
from sizewise.metrics.registry import of_column
from sizewise.results import Study
from sizewise.results.columns.front import column
from sizewise.results.quality import searching
from sizewise_core.units import format_auc, format_bytes, format_count

_BYTES = ("memory_budget", "embedding_bytes", "model_bytes")


def ended_trials(study: Study, objective: str) -> pl.DataFrame:
    """Trials with a value of the objective, none that failed; of a large study, evenly chosen ones."""
    known = pl.col(column(objective)).is_not_null(), pl.col("state") != "failed"
    return style.thinned(study.trials.filter(*known), style.MOST_TRIALS)


def point_ids(rows: pl.DataFrame) -> npt.NDArray[np.int32]:
    """customdata: (rows, 2), the trial and, as these figures show no single evaluation, 0."""
    return np.column_stack([rows["trial_id"].to_numpy(), np.zeros(rows.height)]).astype(np.int32)


def blank_figure(name: str, title: str, subtitle: str, height: int) -> go.Figure:
    """A figure with the common layout and no data.

    Args:
        name: of the study, by which the figure keeps its zoom.
        title, subtitle: above the figure.
        height: in pixels.
    """
    figure = go.Figure(layout=style.layout(name, title, subtitle))
    figure.update_layout(height=height)
    return figure


def label_of(objective: str) -> str:
    """The name of a setting or an objective as axes and titles show it."""
    metric = of_column(column(objective))
    words = metric.label if metric else objective.replace("_", " ")
    return words[:1].upper() + words[1:]


def is_log_scaled(name: str) -> bool:
    """Whether an objective's axis is logarithmic: sizes and efforts are, scores are not."""
    return name not in SCORES


def value_text(name: str, value: float) -> str:
    """A value of a setting or an objective in human units."""
    if name in _BYTES or name.endswith("_bytes"):
        return format_bytes(value)
    return format_auc(value) if name in SCORES else format_count(value) if value >= 1 else f"{value:.3g}"


def axis_of(study: Study, name: str, values: pl.Series) -> PlotlyOptions:
    """An axis for a setting or an objective, its ticks with units where it is logarithmic.

    Args:
        study: in which the setting may be searched on a log scale.
        name: of the setting or objective.
        values: all that are drawn along it.
    """
    title = label_of(name)
    if not values.dtype.is_numeric():
        known = categories(values)
        at = list(range(len(known)))
        return {
            "title": title,
            "type": "linear",
            "tickvals": at,
            "ticktext": [style.text(name) for name in known],
            "range": [-0.5, max(len(known), 1) - 0.5],
            "zeroline": False,
        }
    if name in SCORES or values.is_empty():
        return {"title": title}
    if searching.is_log(study, name) or name in _BYTES:
        return style.log_axis(title, values.to_numpy(), lambda value: value_text(name, value))
    return {"title": title}


def objective_axis(study: Study, name: str, values: pl.Series) -> PlotlyOptions:
    """As `axis_of`, but always logarithmic for sizes and efforts.

    Args:
        study, name, values: as for `axis_of`.
    """
    axis = axis_of(study, name, values)
    return {**axis, "type": "log"} if is_log_scaled(name) and "type" not in axis and len(values) else axis


def coordinates(values: pl.Series) -> Any:
    """Values as positions on an axis of `axis_of`: numbers as they are, all else as places among its categories."""
    if values.dtype.is_numeric():
        return values.to_numpy()
    places = {name: place for place, name in enumerate(categories(values))}
    return np.array([places[name] for name in values.cast(pl.String)], dtype=np.float64)


def categories(values: pl.Series) -> list[str]:
    """The values of a setting that is no number, in the order in which axes have them."""
    return sorted(values.drop_nulls().cast(pl.String).unique().to_list())
