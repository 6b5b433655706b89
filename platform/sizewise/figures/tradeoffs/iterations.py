"""Accuracy against iterations (or samples, or seconds): a curve a trial, coloured by the model's size."""

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style, words
from sizewise.figures.elements.axes import EFFORTS, SCORES, Axes
from sizewise.figures.elements.today import add_crosshair
from sizewise.results import Study
from sizewise.results.columns.cooling import cooled_down
from sizewise.results.decision.baseline import Baseline
from sizewise_core.units import format_bytes

_SHAPE = 8  # the fewest points that show a curve's shape
_MOST_CURVES = (
    60  # more would form a block, so that of each decade of sizes the best and the middle are drawn
)
_STEPS = 60  # of such an envelope


class _IterationsInfo(NamedTuple):
    """of: which models are compared, where not all are; curves: (trial_id, iteration, score, effort, size in bytes),
    curve by curve; front: its points; envelopes: (decade of the size, effort, best, middle), of all curves where
    there are too many, empty elsewhere.
    """

    name: str
    counts: str
    of: str
    trials: int
    axes: Axes
    curves: pl.DataFrame
    front: pl.DataFrame
    envelopes: pl.DataFrame
    words: list[str]


def accuracy_against_iterations(
    study: Study, axes: Axes | None = None, today: Baseline | None = None
) -> go.Figure:
    """The score against the effort, log scale, a line a trial, with the Pareto front's points marked.

    Where learning rates fall at the end of trials, those points alone whose rate had fallen: others would compare
    iterations of models that are not alike.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        axes: the columns that are drawn; None for the usual ones.
        today: what runs today, for a line where the score is the AUC.
    """
    figure = _draw_accuracy_against_iterations(_accuracy_against_iterations_info(study, axes))
    if axes is None or axes.score == "auc":
        add_crosshair(figure, today, by_size=False)
    return figure


def _accuracy_against_iterations_info(study: Study, axes: Axes | None = None) -> _IterationsInfo:
    axes = (axes or Axes()).of(study)
    points = study.candidates.filter(*axes.drawn)
    trials = points.select("trial_id", "replicate").n_unique()
    envelopes = _envelopes(cooled_down(points) if trials > _MOST_CURVES else points.head(0), axes)
    curves = _thinned(points, 4 * style.MOST_POINTS)
    front = style.thinned(study.cooled_front.filter(*axes.drawn), style.MOST_POINTS // 4)
    of = " of models whose learning rate has fallen" if study.cooled_front is not study.front else ""
    said = words.of_points(study, front, axes)
    return _IterationsInfo(study.name, style.counts(study), of, trials, axes, curves, front, envelopes, said)


def _envelopes(points: pl.DataFrame, axes: Axes) -> pl.DataFrame:
    """Of each decade of sizes, over efforts: the best score by then, and the middle of what its trials have by then."""
    schema = {"decade": pl.Int64, axes.effort: pl.Float64, "best": pl.Float64, "middle": pl.Float64}
    if points.is_empty():
        return pl.DataFrame(schema=schema)
    efforts = points[axes.effort].cast(pl.Float64).to_numpy()
    grid = np.geomspace(efforts.min(), efforts.max(), _STEPS)
    found: dict[int, list[np.ndarray]] = {}
    for _, curve in points.sort(axes.effort).group_by("trial_id", "replicate", maintain_order=True):
        scores = curve[axes.score].cum_max() if axes.highest else curve[axes.score].cum_min()
        place = (
            np.searchsorted(curve[axes.effort].cast(pl.Float64).to_numpy(), grid * (1 + 1e-9), side="right")
            - 1
        )
        values = np.where(place >= 0, scores.to_numpy()[np.maximum(place, 0)], np.nan)
        decade = int(np.floor(np.log10(max(float(curve[axes.size][0]), 1.0))))
        found.setdefault(decade, []).append(values)
    rows = []
    for decade, curves in sorted(found.items()):
        values = np.array(curves)
        known = np.isfinite(values).any(axis=0)
        best = (np.nanmax if axes.highest else np.nanmin)(values[:, known], axis=0)
        middle = np.nanmedian(values[:, known], axis=0)
        rows += [(decade, *row) for row in zip(grid[known], best, middle, strict=True)]
    return pl.DataFrame(rows, schema=schema, orient="row")


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
    if info.envelopes.height:
        what = "bands from the middle trial to the best of each decade of sizes"
    figure = go.Figure(
        layout=style.layout(
            info.name,
            f"{'Accuracy' if score == 'auc' else SCORES[score].heading} against {axis.label}",
            f"{info.counts}; {what}, circles on the Pareto front{info.of}",
            xaxis=style.log_axis(axis.title, efforts, axis.text, ticklabelstandoff=8),
            yaxis={"title": SCORES[score].title},
            showlegend=False,
        )
    )
    bar = style.color_bar("size", info.curves[size].to_numpy(), format_bytes)
    hover = style.hover("effort", label)
    _add_envelopes(figure, info)
    for shade, trials in _shades(info) if info.envelopes.is_empty() else []:
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
        text=info.words,
        mode="markers",
        marker={
            "color": np.log10(info.front[size].to_numpy().astype(np.float64)),
            "size": style.front_size(info.front),
            "line": {"color": style.OUTLINE, "width": 1},
            **bar,
        },
        hovertemplate=style.WORDS,
    )
    return figure


def _add_envelopes(figure: go.Figure, info: _IterationsInfo) -> None:
    """A band a decade of sizes, in its colour, its upper edge named."""
    if info.envelopes.is_empty():
        return
    log = np.log10(info.curves[info.axes.size].cast(pl.Float64).to_numpy())
    low, span = log.min(), max(float(log.max() - log.min()), 1e-9)
    for (decade,), rows in info.envelopes.group_by("decade", maintain_order=True):
        place = min(max((float(decade) + 0.5 - low) / span, 0.0), 1.0)
        color = style.COLORS[round(place * (len(style.COLORS) - 1))]
        name = f"{format_bytes(10.0 ** float(decade))} to {format_bytes(10.0 ** (float(decade) + 1))}"
        for edge, fill in (("middle", None), ("best", "tonexty")):
            figure.add_scatter(
                x=rows[info.axes.effort].to_numpy(),
                y=rows[edge].to_numpy(),
                mode="lines",
                name=name,
                line={"color": color, "width": 2.5 if fill else 0.8, "shape": "hv"},
                fill=fill,
                fillcolor=color.replace("rgb(", "rgba(").replace(")", ", 0.18)"),
                hovertemplate=f"{name}, {edge} trial<br>%{{y:.4f}}<extra></extra>",
            )


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
