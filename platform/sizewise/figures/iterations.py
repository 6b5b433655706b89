"""Accuracy against iterations (or samples, or seconds): a curve a trial, coloured by the model's size."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl

from sizewise.figures import style
from sizewise.figures.axes import EFFORTS, SCORES, Axes
from sizewise.results import Study
from sizewise_core.units import format_bytes

_SHAPE = 8  # the fewest points that show a curve's shape


class _IterationsInfo(NamedTuple):
    """curves: (trial_id, iteration, score, effort, size in bytes), curve by curve; front: the front's points."""

    name: str
    counts: str
    trials: int
    axes: Axes
    curves: pl.DataFrame
    front: pl.DataFrame


def accuracy_against_iterations(study: Study, axes: Axes | None = None) -> go.Figure:
    """The score against the effort, log scale, a line a trial, with the Pareto front's points marked."""
    return _draw_accuracy_against_iterations(_accuracy_against_iterations_info(study, axes))


def _accuracy_against_iterations_info(study: Study, axes: Axes | None = None) -> _IterationsInfo:
    axes = (axes or Axes()).of(study)
    points = study.candidates.filter(*axes.drawn)
    curves = _thinned(points, 4 * style.MOST_POINTS)
    trials = points.select("trial_id", "replicate").n_unique()
    front = style.thinned(study.front.filter(*axes.drawn), style.MOST_POINTS // 4)
    return _IterationsInfo(study.name, style.counts(study), trials, axes, curves, front)


def _thinned(points: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most about `most` points: the same number of each curve, evenly spaced on the log axis, and its end.

    Where there are so many curves that each would lose its shape, evenly chosen ones are left out.
    """
    if points.height <= most:
        return points
    curve = ["trial_id", "replicate"]
    curves = style.thinned(points.select(curve).unique(maintain_order=True), most // _SHAPE)
    points = points.join(curves, on=curve, how="semi", maintain_order="left")
    position = pl.int_range(1, pl.len() + 1).over(curve)
    each = most // curves.height
    # A curve with one point more than `each` has as many steps of the logarithm.
    step = (position.log() / pl.len().over(curve).log() * (each - 1)).ceil()
    return points.filter((step != step.shift(-1).over(curve)).fill_null(True))


def _draw_accuracy_against_iterations(info: _IterationsInfo) -> go.Figure:
    size, score, effort = info.axes
    efforts = info.curves[effort].to_numpy()
    label, axis = SCORES[score].label, EFFORTS[effort]
    shown = info.curves.select("trial_id", "replicate").n_unique()
    what = "a line a trial" if shown == info.trials else f"{shown:,} trials as lines"
    figure = go.Figure(
        layout=style.layout(
            info.name,
            f"{'Accuracy' if score == 'auc' else SCORES[score].heading} against {axis.label}",
            f"{info.counts}; {what}, circles on the Pareto front",
            xaxis=style.log_axis(axis.title, efforts, axis.text, ticklabelstandoff=8),
            yaxis={"title": SCORES[score].title},
            showlegend=False,
        )
    )
    bar = style.color_bar("size", info.curves[size].to_numpy(), format_bytes)
    hover = style.hover("effort", label)
    for shade, trials in _shades(info):
        figure.add_scatter(
            **_with_gaps(trials, info.axes),
            mode="lines+markers" if info.curves.height <= 600 else "lines",
            line={"color": style.COLORS[shade], "width": 1.8},
            marker={"size": 4},
            opacity=0.85,
            hovertemplate=hover,
        )
    figure.add_scatter(
        x=info.front[effort].to_numpy(),
        y=info.front[score].to_numpy(),
        customdata=style.identity(info.front),
        text=[format_bytes(value) for value in info.front[size]],
        mode="markers",
        marker={
            "color": np.log10(info.front[size].to_numpy().astype(np.float64)),
            "size": style.front_size(info.front),
            "line": {"color": style.OUTLINE, "width": 1},
            **bar,
        },
        hovertemplate=hover,
    )
    return figure


def _shades(info: _IterationsInfo) -> list[tuple[int, pl.DataFrame]]:
    """The curves by shade of their size. One trace a shade, not a trial, draws a thousand trials quickly."""
    if info.curves.is_empty():
        return []
    log = pl.col(info.axes.size).cast(pl.Float64).log10()
    span = (log.max() - log.min()).clip(lower_bound=1e-9)
    shade = ((log - log.min()) / span * (len(style.COLORS) - 1)).round().cast(pl.Int64).alias("shade")
    shaded = info.curves.with_columns(shade)
    return [(int(key[0]), rows) for key, rows in sorted(shaded.group_by("shade", maintain_order=True))]


def _with_gaps(curves: pl.DataFrame, axes: Axes) -> dict[str, object]:
    """The curves as one trace, with a missing value after each to end its line."""
    x: list[float] = []
    y: list[float] = []
    texts: list[str] = []
    who: list[tuple[int, int]] = []
    for _, curve in curves.group_by("trial_id", "replicate", maintain_order=True):
        x += [*curve[axes.effort].to_list(), np.nan]
        y += [*curve[axes.score].to_list(), np.nan]
        who += [*zip(curve["trial_id"], curve["iteration"], strict=True), (-1, -1)]
        texts += [*(format_bytes(value) for value in curve[axes.size]), ""]
    return {"x": np.array(x), "y": np.array(y), "customdata": np.array(who, dtype=np.int32), "text": texts}
