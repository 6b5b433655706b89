"""How a search went: what it gained, what mattered, the spread of an objective, and when trials ran."""

import heapq
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style
from sizewise.figures.elements.setting_axes import (
    blank_figure,
    ended_trials,
    label_of,
    objective_axis,
    point_ids,
    value_text,
)
from sizewise.results import Study
from sizewise.results.columns.front import column
from sizewise.results.quality import searching

STATES = {
    "finished": "#31688e",
    "running": "#35b779",
    "pruned": "#e69f00",
    "infeasible": "#999999",
    "failed": "#d55e00",
}
_PATTERNS = ("", "/", "x", ".", "-")  # so that states differ without colour


class _HistoryInfo(NamedTuple):
    """history: (place, trial_id, hypervolume); `place` counts the trials that have ended."""

    name: str
    history: pl.DataFrame


class _ObjectiveInfo(NamedTuple):
    """trials: (trial_id, value of the objective, the best so far), in the order in which they were started."""

    name: str
    objective: str
    trials: pl.DataFrame


class _TimelineInfo(NamedTuple):
    """bars: (trial_id, state, lane, start and length in minutes since the first start)."""

    name: str
    bars: pl.DataFrame


def hypervolume_history(study: Study) -> go.Figure:
    """The hypervolume of all evaluations so far against the number of trials that have ended."""
    info = _HistoryInfo(study.name, searching.hypervolume_history(study))
    figure = blank_figure(
        info.name, "Hypervolume over trials", "how much of objective space the front covers", height=380
    )
    figure.update_layout(xaxis={"title": "Trials ended"}, yaxis={"title": "Hypervolume"})
    figure.add_scatter(
        x=info.history["place"].to_numpy(),
        y=info.history["hypervolume"].to_numpy(),
        customdata=np.column_stack([info.history["trial_id"].to_numpy(), np.zeros(len(info.history))]).astype(
            np.int32
        ),
        mode="lines+markers" if len(info.history) <= 60 else "lines",
        line={"shape": "hv", "color": style.COLORS[8], "width": 2},
        hovertemplate="after %{x} trials (the last: %{customdata[0]})<br>%{y:.4f}<extra></extra>",
    )
    return figure


def objective_history(study: Study, objective: str) -> go.Figure:
    """An objective of each trial in the order of their numbers, and the best so far."""
    return _draw_objective_history(study, _objective_history_info(study, objective))


def _objective_history_info(study: Study, objective: str) -> _ObjectiveInfo:
    value = pl.col(column(objective))
    known = study.trials.filter(value.is_not_null(), pl.col("state") != "failed").sort("trial_id")
    best = value.cum_max() if study.objectives.get(objective) == "maximize" else value.cum_min()
    rows = known.select("trial_id", value=value, best=best)
    return _ObjectiveInfo(study.name, objective, style.thinned(rows, style.MOST_TRIALS))


def _draw_objective_history(study: Study, info: _ObjectiveInfo) -> go.Figure:
    rows, value = info.trials, column(info.objective)
    label = label_of(info.objective)
    figure = blank_figure(info.name, f"{label} over trials", "the line is the best so far", height=380)
    figure.update_layout(
        xaxis={"title": "Trial"},
        yaxis=objective_axis(study, value, rows["value"]),
        showlegend=False,
    )
    marker = {"color": style.COLORS[16], "size": 6, "line": {"color": style.OUTLINE, "width": 0.6}}
    for name, mode, shape in (("value", "markers", "linear"), ("best", "lines", "hv")):
        figure.add_scatter(
            x=rows["trial_id"].to_numpy(),
            y=rows[name].to_numpy(),
            customdata=point_ids(rows),
            text=[value_text(value, number) for number in rows[name]],
            mode=mode,
            marker=marker,
            line={"shape": shape, "color": style.COLORS[8], "width": 2},
            hoverinfo="skip" if name == "best" else None,
            hovertemplate=None if name == "best" else "trial %{customdata[0]}<br>%{text}<extra></extra>",
        )
    return figure


def importance(study: Study, evaluator: str) -> go.Figure:
    """The share of each searched setting in each objective, as Optuna's evaluator has it."""
    shares = {name: searching.importances(study, name, evaluator) for name in study.objectives}
    settings = list(dict.fromkeys(name for share in shares.values() for name in share))
    figure = blank_figure(
        study.name, "What mattered", f"importance of each setting, by {evaluator}", height=380
    )
    figure.update_layout(
        xaxis={"title": "Share", "rangemode": "tozero"},
        yaxis={"autorange": "reversed"},
        barmode="group",
        legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0.0},
        margin={"l": 130, "b": 90},
        showlegend=True,
    )
    colors = [style.COLORS[3], style.COLORS[16], style.COLORS[28], *style.CHOSEN]
    for color, (objective, share) in zip(colors, shares.items(), strict=False):
        figure.add_bar(
            y=[name.replace("_", " ") for name in settings],
            x=[share.get(name, 0.0) for name in settings],
            orientation="h",
            name=label_of(objective),
            marker={"color": color},
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    return figure


def distribution(study: Study, objective: str) -> go.Figure:
    """The share of trials at or below each value of an objective (empirical distribution function)."""
    rows = ended_trials(study, objective)
    value = column(objective)
    rows = rows.sort(value)
    figure = blank_figure(
        study.name,
        "Distribution",
        f"share of trials with at most this {label_of(objective)}",
        height=380,
    )
    figure.update_layout(
        xaxis=objective_axis(study, value, rows[value]),
        yaxis={"title": "Share of trials", "range": [0, 1.02]},
    )
    figure.add_scatter(
        x=rows[value].to_numpy(),
        y=np.arange(1, rows.height + 1) / max(rows.height, 1),
        customdata=point_ids(rows),
        text=[value_text(value, number) for number in rows[value]],
        mode="lines",
        line={"shape": "hv", "color": style.COLORS[8], "width": 2},
        hovertemplate="trial %{customdata[0]}<br>%{text}<br>%{y:.1%} of trials<extra></extra>",
    )
    return figure


def timeline(study: Study) -> go.Figure:
    """Trials as bars over time, in as many lanes as ran at once; pattern and colour say how each ended."""
    info = _timeline_info(study)
    lanes = int(info.bars["lane"].max() or 0) + 1 if info.bars.height else 1  # type: ignore[arg-type]
    figure = blank_figure(
        info.name,
        "Timeline",
        "a bar a trial, a lane for each that ran at the same time"
        + (f"; the last {style.MOST_TRIALS:,} trials" if study.trials.height > style.MOST_TRIALS else ""),
        height=min(170 + 34 * lanes, 600),
    )
    figure.update_layout(
        xaxis={
            "title": "Minutes since the first of them started"
            if study.trials.height > style.MOST_TRIALS
            else "Minutes since the first trial started"
        },
        yaxis={"title": "Lane", "dtick": max(1, lanes // 10), "range": [lanes - 0.5, -0.5]},
        barmode="overlay",
        bargap=0.15,
        legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0.0},
        margin={"b": 90},
        showlegend=True,
    )
    for pattern, (state, color) in zip(_PATTERNS, STATES.items(), strict=True):
        bars = info.bars.filter(pl.col("state") == state)
        if bars.is_empty():
            continue
        figure.add_bar(
            x=bars["length"].to_numpy(),
            y=bars["lane"].to_numpy(),
            base=bars["start"].to_numpy(),
            orientation="h",
            name=state,
            customdata=point_ids(bars),
            marker={
                "color": color,
                "line": {"color": "white", "width": 0.5},
                "pattern": {"shape": pattern, "size": 5},
            },
            hovertemplate=f"trial %{{customdata[0]}} ({state})<br>%{{x:.2f}} minutes<extra></extra>",
        )
    return figure


def _timeline_info(study: Study) -> _TimelineInfo:
    rows = study.trials.filter(pl.col("started").is_not_null()).sort("started", "trial_id")
    rows = rows.tail(style.MOST_TRIALS)
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "trial_id": pl.Int64,
        "state": pl.String,
        "lane": pl.Int64,
    }
    schema |= {"start": pl.Float64, "length": pl.Float64}
    if rows.is_empty():
        return _TimelineInfo(study.name, pl.DataFrame(schema=schema))
    first = float(rows["started"][0])
    last = max(float(rows["started"][-1]), float(rows["finished"].max() or 0.0))  # type: ignore[arg-type]
    free: list[int] = []  # lanes that are empty, lowest first
    busy: list[tuple[float, int]] = []  # (end, lane)
    bars, lanes = [], 0
    for row in rows.iter_rows(named=True):
        start, end = row["started"], max(row["finished"] or last, row["started"])
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, lanes = lanes, lanes + 1
        heapq.heappush(busy, (end, lane))
        bars.append((row["trial_id"], row["state"], lane, (start - first) / 60, (end - start) / 60))
    return _TimelineInfo(study.name, pl.DataFrame(bars, schema=schema, orient="row"))
