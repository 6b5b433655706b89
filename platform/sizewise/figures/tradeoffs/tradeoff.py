"""The trade-off in three dimensions: AUC, size and iterations, with the Pareto front marked."""

from typing import NamedTuple

import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style, words
from sizewise.figures.elements.axes import EFFORTS, SCORES, Axes
from sizewise.figures.elements.today import add_line_in_space
from sizewise.results import Study
from sizewise.results.decision.baseline import Baseline
from sizewise_core.units import format_bytes


class _TradeoffInfo(NamedTuple):
    """dominated, front: (trial_id, iteration, score, effort, size in bytes)."""

    name: str
    counts: str
    axes: Axes
    dominated: pl.DataFrame
    front: pl.DataFrame
    words: list[str]


def tradeoff_3d(study: Study, axes: Axes | None = None, today: Baseline | None = None) -> go.Figure:
    """The score over size and effort; the front in colour, dominated evaluations dimmed.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        axes: the columns that are drawn; None for the usual ones.
        today: what runs today, for a line at its AUC and size where the score is the AUC.
    """
    info = _tradeoff_3d_info(study, axes)
    figure = _draw_tradeoff_3d(info)
    if info.axes.score == "auc":
        add_line_in_space(figure, today, pl.concat([info.dominated, info.front])[info.axes.effort])
    return figure


def _tradeoff_3d_info(study: Study, axes: Axes | None = None) -> _TradeoffInfo:
    axes = (axes or Axes()).of(study)
    front, points = study.front.filter(*axes.drawn), study.candidates.filter(*axes.drawn)
    every, front = front, style.thinned(front, style.MOST_POINTS // 2)
    return _TradeoffInfo(
        study.name,
        style.counts(study),
        axes,
        style.thinned(style.dominated(points, every)),
        front,
        words.of_points(study, front, axes),
    )


def _draw_tradeoff_3d(info: _TradeoffInfo) -> go.Figure:
    size, score, effort = info.axes
    both = pl.concat([info.dominated, info.front])
    by, label = EFFORTS[effort], SCORES[score].label
    axis = {"backgroundcolor": "rgba(0,0,0,0)", "gridcolor": "#d5d8dc", "showbackground": False}
    figure = go.Figure(
        layout=style.layout(
            info.name,
            f"{SCORES[score].heading}, size and {by.label}",
            f"{info.counts}; drag to turn",
            scene={
                "xaxis": style.log_axis("Size", both[size].to_numpy(), format_bytes, **axis),
                "yaxis": style.log_axis(by.label.capitalize(), both[effort].to_numpy(), by.text, **axis),
                "zaxis": {"title": label, **axis},
                "camera": {"eye": {"x": 1.45, "y": -1.8, "z": 0.55}, "center": {"x": 0, "y": 0, "z": -0.2}},
                "aspectmode": "manual",
                "aspectratio": {"x": 1.3, "y": 1.1, "z": 0.9},
            },
            legend={"orientation": "h", "y": 0.0, "x": 0.0},
            margin={"l": 0, "r": 0, "t": 60, "b": 0},
        )
    )
    hover = f"trial %{{customdata[0]}}<br>{label} %{{z:.4f}}<br>size %{{x:.3~s}}B"
    hover += "<br>iteration %{customdata[1]:,}<extra></extra>"
    for points, name, marker in (
        (info.dominated, "dominated", {"color": style.DIMMED, "size": 2.5, "opacity": 0.5}),
        (
            info.front,
            "Pareto front",
            {"color": info.front[score].to_numpy(), "size": 5, "colorscale": style.COLORS},
        ),
    ):
        figure.add_scatter3d(
            x=points[size].to_numpy(),
            y=points[effort].to_numpy(),
            z=points[score].to_numpy(),
            customdata=style.identity(points),
            mode="markers",
            name=name,
            marker=marker,
            text=None if points is info.dominated else info.words,
            hovertemplate=hover if points is info.dominated else style.WORDS,
        )
    return figure
