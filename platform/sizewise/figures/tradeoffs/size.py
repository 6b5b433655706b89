"""Accuracy against size: every evaluation, the Pareto front in colour, the best score that each size allows."""

import math
from typing import Any, NamedTuple

import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import reference, style, words
from sizewise.figures.elements.axes import EFFORTS, SCORES, SIZES, Axes
from sizewise.figures.elements.today import add_crosshair
from sizewise.results import Study
from sizewise.results.decision.baseline import Baseline
from sizewise.theory.bounds import FLOAT_BYTES, MemoryBound, memory_bound
from sizewise_core.units import format_bytes, format_ratio


class _SizeInfo(NamedTuple):
    """dominated, front, full: (trial_id, iteration, score, size in bytes); envelope: the best score by size."""

    name: str
    counts: str
    axes: Axes
    full_bytes: int | None
    dominated: pl.DataFrame
    front: pl.DataFrame
    envelope: pl.DataFrame
    full: pl.DataFrame
    marks: list[reference.Mark]
    bound: MemoryBound | None
    words: list[str]


class _Line(NamedTuple):
    """A vertical line at a size in bytes; `dash` as Plotly has it."""

    bytes: float
    text: str
    dash: str


def accuracy_against_size(
    study: Study, epsilon: float | None = None, axes: Axes | None = None, today: Baseline | None = None
) -> go.Figure:
    """The score against the size in bytes, log scale; the top axis shows the size as compression.

    The front is the study's own for all axes. A star marks a trial with full tables; lines mark the published sizes
    over Criteo Terabyte (`reference`).

    Args:
        study: the study, as `sizewise.results.load` reads it.
        epsilon: draw a line at the memory that the bound for dense projections gives for this relative error
            (`sizewise.theory`; it does not hold for `hash` and `robe`), where the size is that of the embeddings and
            all trials have one dim.
        axes: the columns that are drawn; None for the usual ones.
        today: what runs today, for a crosshair where the score is the AUC.
    """
    figure = _draw_accuracy_against_size(_accuracy_against_size_info(study, epsilon, axes))
    if axes is None or axes.score == "auc":
        add_crosshair(figure, today, by_size=True)
    return figure


def _accuracy_against_size_info(
    study: Study, epsilon: float | None = None, axes: Axes | None = None
) -> _SizeInfo:
    axes = (axes or Axes()).of(study)
    points, front = study.candidates.filter(*axes.drawn), study.front.filter(*axes.drawn)
    every, front = front, style.thinned(front, style.MOST_POINTS // 2)
    best = pl.col(axes.score).max() if axes.highest else pl.col(axes.score).min()
    by_size = points.group_by(axes.size).agg(best).sort(axes.size)
    score = pl.col(axes.score) if axes.highest else -pl.col(axes.score)
    envelope = by_size.filter((score > score.cum_max().shift(1)).fill_null(True))
    return _SizeInfo(
        study.name,
        style.counts(study),
        axes,
        study.record.data.full_bytes,
        style.thinned(style.dominated(points, every)),
        front,
        envelope,
        reference.full_table(study).filter(*axes.drawn),
        reference.marks(study) if axes.size == "embedding_bytes" else [],
        None if epsilon is None or axes.size != "embedding_bytes" else _bound(study, epsilon),
        words.of_points(study, front, axes),
    )


def _bound(study: Study, epsilon: float) -> MemoryBound | None:
    """The bound for as many rows as the study's full tables have; None where that is not known."""
    dims = study.trials["dim"].unique().to_list() if "dim" in study.trials.columns else []
    full_bytes = study.record.data.full_bytes
    if len(dims) != 1 or not dims[0] or not full_bytes:
        return None
    return memory_bound(full_bytes // (dims[0] * FLOAT_BYTES), dims[0], epsilon)


def _draw_accuracy_against_size(info: _SizeInfo) -> go.Figure:
    size, score, _ = info.axes
    sizes = pl.concat([info.dominated[size], info.front[size]]).to_numpy()
    label = SCORES[score].label
    figure = go.Figure(
        layout=style.layout(
            info.name,
            f"{'Accuracy' if score == 'auc' else SCORES[score].heading} against size",
            f"{info.counts}; the line is the best {label} at each size or below",
            xaxis=style.log_axis(SIZES[size].title, sizes, format_bytes, ticklabelstandoff=8),
            yaxis={"title": SCORES[score].title},
            legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0.0},
            margin={"l": 70, "r": 20, "t": 75, "b": 90},
        )
    )
    _add_evaluations(figure, info)
    for number, line in enumerate(_lines(info)):
        _add_line(figure, line, number, sizes)
    if info.full_bytes and sizes.size:
        _add_compression_axis(figure, info.full_bytes, sizes.tolist())
    return figure


def _add_evaluations(figure: go.Figure, info: _SizeInfo) -> None:
    """The points: dominated ones, the line of the best, the front, and trials with full tables."""
    size, score, effort = info.axes
    hover = style.hover("size", SCORES[score].label)
    figure.add_scatter(
        x=info.dominated[size].to_numpy(),
        y=info.dominated[score].to_numpy(),
        customdata=style.identity(info.dominated),
        mode="markers",
        name="dominated",
        marker={"color": style.DIMMED, "size": 5, "opacity": 0.5},
        hovertemplate=hover,
    )
    figure.add_scatter(
        x=info.envelope[size].to_numpy(),
        y=info.envelope[score].to_numpy(),
        mode="lines",
        name="best at this size or below",
        line={"color": style.OUTLINE, "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
    )
    efforts = info.front[effort].to_numpy()
    figure.add_scatter(
        x=info.front[size].to_numpy(),
        y=info.front[score].to_numpy(),
        customdata=style.identity(info.front),
        mode="markers",
        name="Pareto front",
        marker={
            "color": info.front[effort].cast(pl.Float64).log10().to_numpy(),
            "size": style.front_size(info.front),
            "line": {"color": style.OUTLINE, "width": 0.6},
            **style.color_bar(EFFORTS[effort].label, efforts, EFFORTS[effort].text),
        },
        text=info.words,
        hovertemplate=style.WORDS,
        **style.intervals(info.front, score),
    )
    if not info.full.is_empty():
        figure.add_scatter(
            x=info.full[size].to_numpy(),
            y=info.full[score].to_numpy(),
            customdata=style.identity(info.full),
            mode="markers",
            name="full tables",
            marker={"symbol": "star", "size": 15, "color": style.CHOSEN[1], "line": {"width": 1}},
            hovertemplate=hover,
        )


def _lines(info: _SizeInfo) -> list[_Line]:
    """Vertical lines at published sizes and at the bound."""
    lines = [_Line(mark.bytes, mark.text, "dot") for mark in info.marks]
    if info.bound:
        # A short text, because it is drawn across the figure; `sizewise bound` says what holds for hash and robe.
        size_text = format_bytes(info.bound.bytes)
        text = f"dense projection: {size_text} for ε = {info.bound.epsilon:g}<br>(no bound for hash and robe)"
        lines.append(_Line(info.bound.bytes, text, "dash"))
    return lines


def _add_line(figure: go.Figure, line: _Line, number: int, sizes: npt.NDArray[Any]) -> None:
    """A vertical line, its text above those of the lines before it."""
    # Unlike lines, annotations on a log axis are positioned by the logarithm.
    figure.add_vline(line.bytes, line={"color": style.OUTLINE, "width": 1, "dash": line.dash})
    figure.add_annotation(
        text=line.text,
        x=math.log10(line.bytes),
        xanchor="right" if sizes.size and line.bytes > math.sqrt(sizes.min() * sizes.max()) else "left",
        y=0.07 * number,
        yref="y domain",
        yanchor="bottom",
        showarrow=False,
    )


def _add_compression_axis(figure: go.Figure, full_bytes: int, sizes: list[float]) -> None:
    """A second axis along the top: how many times smaller than the full tables."""
    ratios = style.ticks([full_bytes / size for size in sizes])
    # Plotly draws no axis without a trace, so it gets an empty one.
    figure.add_scatter(x=[sizes[0]], y=[None], xaxis="x2", showlegend=False, hoverinfo="skip")
    figure.update_layout(
        xaxis2={
            "type": "log",
            "overlaying": "x",
            "matches": "x",
            "side": "top",
            "showgrid": False,
            "tickvals": [full_bytes / ratio for ratio in ratios],
            "ticktext": [format_ratio(ratio) for ratio in ratios],
            "title": {"text": f"Compression (full tables: {format_bytes(full_bytes)})", "standoff": 4},
        },
        margin={"t": 115},
    )
