"""The explorer's figures: any column of the trials against any other, and all of them side by side.

    scatter(study, rows, View("memory_budget", "auc", color="iteration", facet="method"), chosen={3, 7})

Trials that are not chosen are dimmed.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style
from sizewise.figures.elements.setting_axes import (
    axis_of,
    blank_figure,
    coordinates,
    is_log_scaled,
    label_of,
    point_ids,
)
from sizewise.figures.elements.style import PlotlyOptions
from sizewise.figures.searches.by_setting import dimension
from sizewise.results import Study
from sizewise.results.columns.front import column
from sizewise.results.quality import searching

HEIGHT = 390
MOST_FACETS = 4
_DIM = 0.12  # opacity of trials that are not chosen


class View(NamedTuple):
    """The columns of a scatter plot; None for no colour, facet or group."""

    x: str
    y: str
    color: str | None = None
    facet: str | None = None
    group: str | None = None


def scatter(study: Study, rows: pl.DataFrame, view: View, chosen: Collection[int]) -> go.Figure:
    """One column against another, a point a trial.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        rows: its trials that are shown.
        view: the columns.
        chosen: ids of the trials that are not dimmed; empty: all of them.
    """
    known = style.thinned(rows.drop_nulls([view.x, view.y]), style.MOST_TRIALS)
    facets = _values(known, view.facet)[:MOST_FACETS]
    figure = blank_figure(study.name, "", "", height=HEIGHT)
    figure.update_layout(
        title=None,
        dragmode="select",
        grid={"rows": 1, "columns": len(facets), "pattern": "coupled"},
        margin={"l": 64, "r": 10, "t": 36, "b": 50},
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom", "x": 0.0},
        uirevision=f"{study.name} {view}",
    )
    numbers = None if view.color is None or known.is_empty() else coordinates(known[view.color])
    for place, facet in enumerate(facets):
        suffix = "" if place == 0 else str(place + 1)
        of_facet = known if facet is None else known.filter(pl.col(view.facet or "").cast(pl.String) == facet)
        for number, group in enumerate(_values(known, view.group)):
            of_group = (
                of_facet
                if group is None
                else of_facet.filter(pl.col(view.group or "").cast(pl.String) == group)
            )
            if not of_group.is_empty():
                trace = _points(of_group, view, number, group, chosen, numbers)
                trace |= {"showlegend": group is not None and place == 0, "xaxis": f"x{suffix}"}
                figure.add_scatter(**trace)
        axis = axis_of(study, view.x, known[view.x])
        if facet is not None:
            axis["title"] = f"{label_of(view.x)}<br>{label_of(view.facet or '')}: {style.text(facet)}"
        figure.update_layout({f"xaxis{suffix}": axis})
    y = axis_of(study, view.y, known[view.y])
    figure.update_layout(
        yaxis={**y, **({"type": "log"} if is_log_scaled(view.y) and "type" not in y else {})}
    )
    return figure


def _values(rows: pl.DataFrame, name: str | None) -> list[str | None]:
    """The distinct values of a column that groups points; a single None without one."""
    if name is None or name not in rows.columns:
        return [None]
    return sorted(rows[name].drop_nulls().cast(pl.String).unique().to_list()) or [None]


def _points(
    rows: pl.DataFrame,
    view: View,
    number: int,
    group: str | None,
    chosen: Collection[int],
    numbers: Any,
) -> PlotlyOptions:
    marker: PlotlyOptions = {
        "size": 9,
        "symbol": style.SYMBOLS[number % len(style.SYMBOLS)],
        "opacity": [1.0 if not chosen or trial in chosen else _DIM for trial in rows["trial_id"]],
        "color": style.LINES[number % len(style.LINES)],
    }
    if view.color is not None and numbers is not None:
        title = {"text": label_of(view.color), "side": "top"}
        marker |= {"color": coordinates(rows[view.color]), "colorscale": style.COLORS, "showscale": True}
        marker |= {"cmin": np.nanmin(numbers), "cmax": np.nanmax(numbers)}
        marker |= {"colorbar": {"title": title, "thickness": 14, "outlinewidth": 0}}
    return {
        "x": coordinates(rows[view.x]),
        "y": coordinates(rows[view.y]),
        "customdata": point_ids(rows),
        "mode": "markers",
        "name": style.text(group or ""),
        "marker": marker,
        "text": [f"{x}<br>{y}" for x, y in rows.select(view.x, view.y).iter_rows()],
        "hovertemplate": "trial %{customdata[0]}<br>%{text}<extra></extra>",
        "unselected": {"marker": {"opacity": _DIM}},
    }


def parallel(study: Study, rows: pl.DataFrame, chosen: Collection[int]) -> go.Figure:
    """Trials as lines through their settings and objectives; drag along an axis to choose among them.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        rows: its trials that are shown.
        chosen: ids of the trials that are not dimmed; empty: all of them.
    """
    known = style.thinned(rows.filter(pl.col("auc").is_not_null()), style.MOST_TRIALS)
    names = [*searching.searched(study), *(column(name) for name in study.objectives)]
    names = [
        name for name in dict.fromkeys(names) if name in known.columns and known[name].is_not_null().any()
    ]
    figure = blank_figure(study.name, "", "", height=HEIGHT)
    figure.update_layout(title=None, margin={"l": 90, "r": 60, "t": 95, "b": 30})
    if known.is_empty():
        return figure
    shown = known.filter(pl.col("trial_id").is_in(list(chosen))) if chosen else known
    auc = shown["auc"].to_numpy()
    figure.update_layout(meta=style.at_least(150 + 40 * len(names)))
    figure.add_parcoords(
        line={
            "color": auc,
            "colorscale": style.COLORS,
            "cmin": known["auc"].min(),
            "cmax": known["auc"].max(),
        },
        dimensions=[dimension(study, shown, name) for name in names],
        customdata=point_ids(shown),
        labelangle=-20,  # so that neighbours do not overlap
    )
    return figure
