"""Picked trials, drawn over the figures of their study. A trial has the same colour in all of them."""

from typing import Literal

import numpy as np
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style
from sizewise.figures.elements.axes import Axes
from sizewise.figures.elements.style import PlotlyOptions
from sizewise.results import Study

Over = Literal["size", "iterations", "tradeoff"]


def chosen(study: Study, trials: list[int], over: Over, axes: Axes | None = None) -> go.Figure:
    """The traces that mark picked trials in a figure: each trial's evaluations as rings, joined by a line.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        trials: ids of the picked trials.
        over: the figure that they are drawn over.
        axes: of that figure; None for the usual ones.
    """
    axes = (axes or Axes()).of(study)
    figure = go.Figure()
    for number, trial_id in enumerate(trials):
        rows = study.evaluations.filter(pl.col("trial_id") == trial_id, *axes.drawn).sort("iteration")
        if rows.is_empty():
            continue
        color = style.CHOSEN[number % len(style.CHOSEN)]
        shared: PlotlyOptions = {
            "customdata": style.identity(rows),
            "name": f"trial {trial_id}",
            "showlegend": over != "iterations",
        }
        size, score, effort = (rows[column].to_numpy() for column in axes)
        if over == "tradeoff":
            line, marker = {"color": color, "width": 5}, {"color": color, "size": 4}
            figure.add_scatter3d(
                x=size, y=effort, z=score, mode="lines+markers", line=line, marker=marker, **shared
            )
            continue
        figure.add_scatter(
            x=size if over == "size" else effort,
            y=score,
            mode="markers" if over == "size" else "lines+markers",
            line={"color": color, "width": 3},
            marker={"color": "rgba(0,0,0,0)", "size": 11, "line": {"color": color, "width": 2.5}},
            text=np.full(rows.height, ""),
            hoverinfo="skip",
            **shared,
        )
    return figure
