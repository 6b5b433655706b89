"""The figure to decide on: a point a trial, the limits as lines, what fits lit, the choice ringed and named.

    decision(study, View(max_bytes=10_000_000, floor=0.745, choice=choose(study, 10_000_000, min_auc=0.745)))

Shapes are methods, each with a line of the best AUC at each size or below; colours are iterations or another effort.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import reference, style, words
from sizewise.figures.elements.axes import EFFORTS, SCORES, SIZES, Axes
from sizewise.figures.elements.style import PlotlyOptions
from sizewise.figures.elements.today import add_break_even, add_crosshair
from sizewise.results import Choice, Study
from sizewise.results.decision.baseline import Baseline, Prices, against
from sizewise.results.decision.intervals import with_best
from sizewise_core.units import format_bytes, format_count

HEIGHT = 398
# The names of the lines that the dashboard lets people drag.
SIZE_LINE, SCORE_LINE = "max_bytes", "floor"
_OPEN = "-open"  # ends the name of a symbol that is not filled
_BESIDE = 1.6  # the line of no limit stands at this many times the largest size


class View(NamedTuple):
    """The limits that the figure draws, what meets all of them, and the model that was chosen.

    Args:
        max_bytes: the largest size; None: none, and the line stands at the right.
        floor: the least AUC; None: none.
        floor_text: the least AUC in words, such as "lose at most 0.002 against the best trial".
        met: which candidates are within all limits.
        choice: None where no model fits.
        today: what runs today; a crosshair, and each point's difference to it under the pointer.
        prices: for the line of break-even with it.
    """

    max_bytes: int | None = None
    floor: float | None = None
    floor_text: str = ""
    met: pl.Expr | None = None
    choice: Choice | None = None
    today: Baseline | None = None
    prices: Prices | None = None


class _DecisionInfo(NamedTuple):
    """points: a row a trial (and storage), its best evaluation, with `kind` (its method) and `fits`; envelopes:
    by kind, the best AUC at each size or below.
    """

    name: str
    axes: Axes
    view: View
    points: pl.DataFrame
    envelopes: dict[str, pl.DataFrame]
    chosen: pl.DataFrame
    full_bytes: int | None
    marks: list[reference.Mark]


def decision(
    study: Study,
    view: View,
    axes: Axes | None = None,
    intervals: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> go.Figure:
    """AUC against size, a point a trial, with the limits and the choice.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        view: the limits and the choice.
        axes: the columns that are drawn; None for the usual ones. The score is the AUC.
        intervals: adds `auc_low` and `auc_high` to the points; None: those that replicates give.
    """
    return _draw_decision(_decision_info(study, view, axes, intervals))


def best_points(study: Study, axes: Axes) -> pl.DataFrame:
    """Each trial (and storage that it is rounded to) at its best evaluation that a choice may fall on."""
    points = study.candidates.filter(*axes.drawn)
    same = ["trial_id", *(name for name in ("stored_as",) if name in points.columns)]
    best = points.filter(pl.col("auc") == pl.col("auc").max().over(same))
    best = best.sort(axes.size, "iteration", maintain_order=True)
    return best.unique(same, keep="first", maintain_order=True).sort(axes.size, "trial_id")


def _decision_info(
    study: Study,
    view: View,
    axes: Axes | None = None,
    intervals: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> _DecisionInfo:
    axes = (axes or Axes()).of(study)._replace(score="auc")
    points = best_points(study, axes)
    if intervals is not None:
        points = intervals(points)
    kind = pl.col("method").cast(pl.String) if "method" in points.columns else pl.lit("trial")
    met = pl.lit(True) if view.met is None else view.met
    points = points.with_columns(kind.fill_null("?").alias("kind"), met.fill_null(False).alias("fits"))
    envelopes = {
        str(name): envelope(rows, axes.size)
        for (name,), rows in points.sort("kind").group_by("kind", maintain_order=True)
    }
    points = with_best(study, style.thinned(points, style.MOST_TRIALS))
    if view.today is not None:
        differences = [one.text for one in against(study, points, view.today)]
        points = points.with_columns(pl.Series("against_today", differences, pl.String))
    chosen = study.candidates.head(0)
    if view.choice is not None:
        is_it = (pl.col("trial_id") == view.choice.trial_id, pl.col("iteration") == view.choice.iteration)
        chosen = study.candidates.filter(*is_it)
        if "stored_as" in chosen.columns:
            chosen = chosen.filter(pl.col("stored_as").eq_missing(pl.lit(view.choice.stored_as, pl.String)))
    return _DecisionInfo(
        study.name,
        axes,
        view,
        points,
        envelopes,
        chosen.filter(*axes.drawn).head(1),
        study.record.data.full_bytes,
        reference.marks(study) if axes.size == "embedding_bytes" else [],
    )


def envelope(points: pl.DataFrame, size: str) -> pl.DataFrame:
    """The best AUC at each size or below."""
    by_size = points.group_by(size).agg(pl.col("auc").max()).sort(size)
    return by_size.filter((pl.col("auc") > pl.col("auc").cum_max().shift(1)).fill_null(True))


def name_of(row: dict[str, Any]) -> str:
    """A trial by what it is: its number, method, storage and width, as far as it has them."""
    parts = [str(row["method"])] if row.get("method") is not None else []
    storage = row.get("stored_as") or row.get("storage")
    parts += [str(storage)] if storage is not None else []
    parts += [f"width {row['width']}"] if row.get("width") is not None else []
    return f"Trial {row['trial_id']}" + (f": {', '.join(parts)}" if parts else "")


def _draw_decision(info: _DecisionInfo) -> go.Figure:
    size, _, effort = info.axes
    sizes = [*info.points[size].to_list(), *info.chosen[size].to_list()]
    figure = go.Figure(
        layout=style.layout(
            info.name,
            "",
            "",
            xaxis=style.log_axis(SIZES[size].title, sizes, format_bytes, ticklabelstandoff=4),
            yaxis={"title": SCORES["auc"].title},
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0.0, "title": {"text": ""}},
            margin={"l": 64, "r": 10, "t": 34, "b": 46},
            showlegend=True,
        )
    )
    figure.update_layout(height=HEIGHT, title=None)  # the page's sentence is its title
    if not sizes:
        return figure
    bar = style.color_bar(EFFORTS[effort].label, info.points[effort].to_numpy(), EFFORTS[effort].text)
    for number, (kind, envelope) in enumerate(info.envelopes.items()):
        rows = info.points.filter(pl.col("kind") == kind)
        _add_method(figure, info, number, rows, envelope, bar)
    figure.add_scatter(  # the scale of colours, whichever points are drawn
        x=[None],
        y=[None],
        mode="markers",
        marker={"color": [bar["cmin"]], "showscale": True, **bar},
        showlegend=False,
        hoverinfo="skip",
    )
    _add_choice(figure, info)
    _add_limits(figure, info, sizes)
    add_crosshair(figure, info.view.today, by_size=True)
    low, high = _score_range(info)
    ends = low - 0.12 * (high - low), high + 0.12 * (high - low)
    add_break_even(figure, info.view.today, info.view.prices, (min(sizes), max(sizes)), ends)
    return figure


def _add_method(
    figure: go.Figure,
    info: _DecisionInfo,
    number: int,
    rows: pl.DataFrame,
    envelope: pl.DataFrame,
    bar: PlotlyOptions,
) -> None:
    """One method: the line of its best, its points that fit in colour, the others as outlines."""
    size, _, effort = info.axes
    kind = rows["kind"][0]
    color, symbol = style.LINES[number % len(style.LINES)], style.SYMBOLS[number % len(style.SYMBOLS)]
    named = kind if "method" in rows.columns else "best at this size or below"
    figure.add_scatter(
        x=envelope[size].to_numpy(),
        y=envelope["auc"].to_numpy(),
        mode="lines",
        name=style.text(named),
        legendgroup=kind,
        showlegend=False,
        line={"color": color, "width": 1.5, "shape": "hv", "dash": style.DASHES[number % len(style.DASHES)]},
        hoverinfo="skip",
    )
    for fits in (False, True):
        points = rows.filter(pl.col("fits") == fits)
        if points.is_empty():
            continue
        only = fits or not rows["fits"].any()
        marker: PlotlyOptions = {"size": 10 if rows.height <= 300 else 6}
        if fits:
            shades = points[effort].cast(pl.Float64).log10().to_numpy()
            scale = {name: bar[name] for name in ("colorscale", "cmin", "cmax")}
            marker |= {"symbol": symbol, "color": shades, "line": {"color": color, "width": 1.5}, **scale}
        else:
            marker |= {"symbol": symbol + _OPEN, "color": style.DIMMED}
        figure.add_scatter(
            x=points[size].to_numpy(),
            y=points["auc"].to_numpy(),
            customdata=style.identity(points),
            text=[_words(row, info.axes) for row in points.iter_rows(named=True)],
            mode="markers",
            name=style.text(named),
            legendgroup=kind,
            showlegend=only,
            marker=marker,
            hovertemplate="%{text}<extra></extra>",
            **style.intervals(points, "auc"),
        )


def _words(row: dict[str, Any], axes: Axes) -> str:
    """What is shown of a point under the pointer."""
    lines = [
        f"<b>{style.text(name_of(row))}</b>",
        *words.scores(row),
        format_bytes(row[axes.size]),
        f"{format_count(row['iteration'])} iterations",
    ]
    if row.get("against_today"):
        lines.append(f"against what runs today: {row['against_today']}")
    return "<br>".join(lines if row["fits"] else [*lines, "outside the limits"])


def _add_choice(figure: go.Figure, info: _DecisionInfo) -> None:
    """A ring around the choice, and its name."""
    size = info.axes.size
    for row in info.chosen.iter_rows(named=True):
        figure.add_scatter(
            x=[row[size]],
            y=[row["auc"]],
            customdata=[[row["trial_id"], row["iteration"]]],
            mode="markers",
            name="the choice",
            marker={
                "symbol": "circle-open",
                "size": 22,
                "color": style.CHOSEN[0],
                "line": {"color": style.CHOSEN[0], "width": 3},
            },
            hoverinfo="skip",
        )
        left = not _is_left(info)
        figure.add_annotation(
            # In two lines, of which the longer one has room on a narrow screen.
            text=f"<b>{style.text(name_of(row)).replace(': ', '<br>', 1)}</b>",
            align="right" if left else "left",
            x=math.log10(row[size]),
            y=row["auc"],
            xanchor="right" if left else "left",
            ax=-34 if left else 34,
            ay=-26,
            font={"color": style.CHOSEN[0]},
            arrowcolor=style.CHOSEN[0],
            arrowhead=0,
            standoff=11,
        )


def _score_range(info: _DecisionInfo) -> tuple[float, float]:
    """All that is drawn along the axis of scores; around it there must be room for words."""
    columns = [name for name in ("auc", "auc_low", "auc_high") if name in info.points.columns]
    values = [value for name in columns for value in info.points[name].drop_nulls()]
    values += info.chosen["auc"].to_list() + ([] if info.view.floor is None else [info.view.floor])
    values += [] if info.view.today is None else [info.view.today.auc]
    low, high = min(values), max(values)
    return (low, high) if high - low > 1e-6 else (low - 0.001, high + 0.001)


def _is_left(info: _DecisionInfo) -> bool:
    """Whether the choice is in the left half of the figure; true without one."""
    sizes = info.points[info.axes.size]
    low, high = float(sizes.min()), float(sizes.max())  # type: ignore[arg-type]
    return info.chosen.is_empty() or info.chosen[info.axes.size][0] ** 2 <= low * high


def _add_limits(figure: go.Figure, info: _DecisionInfo, sizes: list[float]) -> None:
    """The two limits as lines that the dashboard lets people drag, and marks of published sizes."""
    view, largest = info.view, max(*sizes, info.view.max_bytes or 0)
    at = view.max_bytes or largest * _BESIDE
    line = {"color": style.OUTLINE, "width": 2, "dash": "dash"}
    figure.add_shape(type="line", name=SIZE_LINE, x0=at, x1=at, y0=0, y1=1, yref="paper", line=line)
    figure.add_annotation(
        text=f"at most {format_bytes(view.max_bytes)}" if view.max_bytes else "any size",
        x=math.log10(at),
        xanchor="left" if at**2 <= min(sizes) * largest else "right",
        y=0.0,
        yref="paper",
        yanchor="bottom",
        showarrow=False,
    )
    # Not a fixed range, with which a reader's zoom would end as soon as the study grows.
    ends = [0.7 * min(sizes), 1.4 * largest, 1.15 * at]
    if view.today is not None and view.today.bytes:
        ends += [0.8 * view.today.bytes, 1.3 * view.today.bytes]
    figure.update_xaxes(autorangeoptions={"include": ends})
    low, high = _score_range(info)
    figure.update_yaxes(autorangeoptions={"include": [low - 0.12 * (high - low), high + 0.12 * (high - low)]})
    if view.floor is not None:
        figure.add_shape(
            type="line",
            name=SCORE_LINE,
            x0=0,
            x1=1,
            xref="paper",
            y0=view.floor,
            y1=view.floor,
            line=line,
        )
        across, along = _room(info, (min(sizes), at), (low, high))
        figure.add_annotation(
            text=style.text(view.floor_text),
            x=0.0 if across == "left" else 0.98,
            xref="paper",
            xanchor=across,
            y=view.floor,
            yanchor=along,
            showarrow=False,
        )
    for mark in info.marks:
        line = {"color": style.OUTLINE, "width": 1, "dash": "dot"}
        figure.add_vline(mark.bytes, line=line, layer="below")


def _room(info: _DecisionInfo, sizes: tuple[float, float], scores: tuple[float, float]) -> tuple[str, str]:
    """Where along the line of the least AUC the fewest points are in the way of its words.

    Args:
        info: of the figure.
        sizes: the smallest and the largest size that is drawn, in bytes.
        scores: the lowest and the highest AUC that is drawn.

    Returns:
        The end of the line, left or right, and the words' edge that touches it, top or bottom.
    """
    assert info.view.floor is not None
    height, span = 0.09 * max(scores[1] - scores[0], 1e-9), math.log(max(sizes[1] / sizes[0], 1.01))
    across = (info.points[info.axes.size] / sizes[0]).log() / span
    above = (info.points["auc"] - info.view.floor) / height
    beside = {"left": across < 0.2, "right": across > 0.75}
    near = {"top": (above < 0.2) & (above > -1), "bottom": (above > -0.2) & (above < 1)}
    taken = {(x, y): (beside[x] & near[y]).sum() for x in beside for y in near}
    return min(taken, key=taken.__getitem__)
