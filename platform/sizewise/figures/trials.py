"""A few trials side by side: their learning curves, and how fast they trained."""

from typing import NamedTuple

import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style
from sizewise.figures.elements.axes import EFFORTS, SCORES
from sizewise.results import Study
from sizewise_core.units import format_bytes, format_count


class _CurvesInfo(NamedTuple):
    """curves: each trial's evaluations in order, where both columns are defined, by trial."""

    name: str
    x: str
    y: str
    size: str
    curves: dict[int, pl.DataFrame]


def learning_curves(
    study: Study, trials: list[int], score: str = "auc", effort: str = "iteration"
) -> go.Figure:
    """The score of each trial's evaluations against its effort, a line a trial.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        trials: ids.
        score, effort: columns of the evaluations.
    """
    info = _curves_info(study, trials, effort, score)
    label = "Learning curves" if len(trials) > 1 else "Learning curve"
    return _draw_curves(
        info, label, f"{SCORES[score].label} against {EFFORTS[effort].label}", SCORES[score].title
    )


def throughput(study: Study, trials: list[int], effort: str = "iteration") -> go.Figure:
    """Samples a second between evaluations against the effort, a line a trial.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        trials: ids.
        effort: a column of the evaluations.
    """
    info = _curves_info(study, trials, effort, "samples_per_second")
    return _draw_curves(info, "Throughput", "training alone, without evaluation", "Samples a second")


def _curves_info(study: Study, trials: list[int], x: str, y: str) -> _CurvesInfo:
    rows = study.evaluations.drop_nulls([x, y])
    curves = {trial: rows.filter(pl.col("trial_id") == trial).sort(x) for trial in trials}
    return _CurvesInfo(study.name, x, y, study.size, {t: curve for t, curve in curves.items() if len(curve)})


def _draw_curves(info: _CurvesInfo, title: str, subtitle: str, label: str) -> go.Figure:
    axis = EFFORTS[info.x]
    figure = go.Figure(
        layout=style.layout(
            info.name,
            title,
            subtitle,
            xaxis={"title": axis.label.capitalize() + (" (s)" if info.x == "train_seconds" else "")},
            yaxis={"title": label, **({"rangemode": "tozero"} if info.y == "samples_per_second" else {})},
            legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0.0},
            margin={"l": 70, "r": 20, "t": 75, "b": 90},
            showlegend=True,
        )
    )
    figure.update_layout(height=400, uirevision=f"{info.name} {info.x} {info.y}")
    text = format_count if info.y == "samples_per_second" else "{:.4f}".format
    for number, (trial, curve) in enumerate(info.curves.items()):
        size = curve[info.size].drop_nulls()
        weight = f" ({format_bytes(size[0])})" if len(size) else ""
        color = style.CHOSEN[number % len(style.CHOSEN)]
        figure.add_scatter(
            x=curve[info.x].to_numpy(),
            y=curve[info.y].to_numpy(),
            text=[text(value) for value in curve[info.y]],
            customdata=style.identity(curve),
            mode="lines+markers" if curve.height <= 100 else "lines",
            name=f"trial {trial}{weight}",
            line={"color": color, "width": 2},
            hovertemplate=f"trial {trial}<br>%{{text}}<br>iteration %{{customdata[1]:,}}<extra></extra>",
        )
    return figure
