"""How a search went: what it gained, what mattered, slices, contour, parallel coordinates, timeline."""

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from sizewise.figures import style
from sizewise.figures.axes import SCORES
from sizewise.results import Study, searching
from sizewise.results.front import column
from sizewise_core.units import format_auc, format_bytes, format_count

STATES = {
    "finished": "#31688e",
    "running": "#35b779",
    "pruned": "#e69f00",
    "infeasible": "#999999",
    "failed": "#d55e00",
}
_STEPS = ("", "/", "x", ".", "-")  # patterns, so that states differ without colour as well
_BYTES = ("memory_budget", "embedding_bytes", "model_bytes")


class _HistoryInfo(NamedTuple):
    """history: (place, trial_id, hypervolume)."""

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
    figure = _empty(
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
    label = _label(info.objective)
    figure = _empty(info.name, f"{label} over trials", "the line is the best so far", height=380)
    figure.update_layout(
        xaxis={"title": "Trial"}, yaxis=_objective_axis(study, value, rows["value"]), showlegend=False
    )
    marker = {"color": style.COLORS[16], "size": 6, "line": {"color": style.OUTLINE, "width": 0.6}}
    for name, mode, shape in (("value", "markers", "linear"), ("best", "lines", "hv")):
        figure.add_scatter(
            x=rows["trial_id"].to_numpy(),
            y=rows[name].to_numpy(),
            customdata=_identity(rows),
            text=[_text(value, number) for number in rows[name]],
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
    figure = _empty(study.name, "What mattered", f"importance of each setting, by {evaluator}", height=380)
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
            name=_label(objective),
            marker={"color": color},
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    return figure


def distribution(study: Study, objective: str) -> go.Figure:
    """The share of trials at or below each value of an objective (empirical distribution function)."""
    rows = _ended(study, objective)
    value = column(objective)
    rows = rows.sort(value)
    figure = _empty(
        study.name, "Distribution", f"share of trials with at most this {_label(objective)}", height=380
    )
    figure.update_layout(
        xaxis=_objective_axis(study, value, rows[value]),
        yaxis={"title": "Share of trials", "range": [0, 1.02]},
    )
    figure.add_scatter(
        x=rows[value].to_numpy(),
        y=np.arange(1, rows.height + 1) / max(rows.height, 1),
        customdata=_identity(rows),
        text=[_text(value, number) for number in rows[value]],
        mode="lines",
        line={"shape": "hv", "color": style.COLORS[8], "width": 2},
        hovertemplate="trial %{customdata[0]}<br>%{text}<br>%{y:.1%} of trials<extra></extra>",
    )
    return figure


def ranks(study: Study, x: str, y: str, objective: str) -> go.Figure:
    """Each trial over two searched settings, coloured by its rank in an objective: 1 is the best."""
    rows = _ended(study, objective).drop_nulls([x, y])
    value = column(objective)
    falling = study.objectives.get(objective) == "maximize"
    rank = rows[value].rank("min", descending=falling).to_numpy()
    figure = _empty(
        study.name, f"{_label(objective)} by rank", "a point a trial; rank 1 is the best", height=430
    )
    figure.update_layout(xaxis=_axis(study, x, rows[x]), yaxis=_axis(study, y, rows[y]), showlegend=False)
    figure.add_scatter(
        x=_plain(rows[x]),
        y=_plain(rows[y]),
        customdata=_identity(rows),
        text=[f"rank {place:,.0f}: {_text(value, at)}" for place, at in zip(rank, rows[value], strict=True)],
        mode="markers",
        marker={
            "color": rank,
            "colorscale": style.COLORS,
            "reversescale": True,
            "size": 8,
            "line": {"color": style.OUTLINE, "width": 0.6},
            "colorbar": {"title": {"text": "rank", "side": "top"}, "thickness": 14, "outlinewidth": 0},
        },
        hovertemplate="trial %{customdata[0]}<br>%{text}<extra></extra>",
    )
    return figure


def slices(study: Study, objective: str) -> go.Figure:
    """An objective at each trial's best evaluation against every searched setting."""
    settings = searching.searched(study)
    rows, value = _ended(study, objective), column(objective)
    columns = min(max(len(settings), 1), 3)
    lines = max(math.ceil(len(settings) / columns), 1)
    figure = make_subplots(rows=lines, cols=columns, horizontal_spacing=0.08, vertical_spacing=0.25 / lines)
    figure.update_layout(
        style.layout(
            study.name,
            "Slices",
            f"{_label(objective)} of each trial against every searched setting; lighter trials came later",
        )
    )
    figure.update_layout(height=110 + 250 * lines, showlegend=False)
    for place, name in enumerate(settings):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        known = rows.drop_nulls([name])
        figure.add_scatter(
            x=_plain(known[name]),
            y=known[value].to_numpy(),
            customdata=_identity(known),
            mode="markers",
            marker={
                "color": known["trial_id"].to_numpy(),
                "colorscale": style.COLORS,
                "size": 6,
                "opacity": 0.8,
                "line": {"color": style.OUTLINE, "width": 0.6},
            },
            hovertemplate="trial %{customdata[0]}<br>%{x}<br>%{y:.4~g}<extra></extra>",
            **where,
        )
        figure.update_xaxes(**_axis(study, name, known[name]), **where)
        figure.update_yaxes(**(_axis(study, value, known[value]) if place % columns == 0 else {}), **where)
        if _decades(value):
            figure.update_yaxes(type="log", **where)
    return figure


def contour(study: Study, x: str, y: str, objective: str) -> go.Figure:
    """An objective over two searched settings, between the trials by inverse distance."""
    rows = _ended(study, objective).drop_nulls([x, y])
    value = column(objective)
    figure = _empty(
        study.name,
        f"{_label(objective)} over two settings",
        "points are trials; between them, the mean weighted by nearness",
        height=430,
    )
    figure.update_layout(xaxis=_axis(study, x, rows[x]), yaxis=_axis(study, y, rows[y]), showlegend=False)
    if rows.height < 3:
        return figure
    across, along = _unit(study, rows, x), _unit(study, rows, y)
    z = rows[value].to_numpy().astype(np.float64)
    z = np.log10(z) if _decades(value) and (z > 0).all() else z
    steps = np.linspace(0, 1, 50)
    # (50, 50, trials) is 20 MB at a thousand trials; more would not be seen
    near = np.linspace(0, len(z) - 1, min(len(z), 500)).astype(int)
    distance = (steps[None, :, None] - across[near]) ** 2 + (steps[:, None, None] - along[near]) ** 2
    weight = 1 / (distance + 1e-4) ** 1.5
    figure.add_contour(
        x=_grid(study, rows, x, steps),
        y=_grid(study, rows, y, steps),
        z=(weight * z[near]).sum(-1) / weight.sum(-1),
        colorscale=style.COLORS,
        ncontours=15,
        line={"width": 0.4},
        hoverinfo="skip",
        colorbar={"title": {"text": _label(objective), "side": "top"}, "thickness": 14, "outlinewidth": 0},
    )
    if _decades(value):
        ticks = [
            tick for tick in style.ticks(rows[value].to_numpy()) if z.min() <= math.log10(tick) <= z.max()
        ]
        text = [_text(value, tick) for tick in ticks]
        bar = {"tickvals": [math.log10(tick) for tick in ticks], "ticktext": text}
        figure.data[0].colorbar.update(bar)
    figure.add_scatter(
        x=_plain(rows[x]),
        y=_plain(rows[y]),
        customdata=_identity(rows),
        text=[_text(value, number) for number in rows[value]],
        mode="markers",
        marker={"color": "white", "size": 6, "line": {"color": "black", "width": 1}},
        hovertemplate="trial %{customdata[0]}<br>%{text}<extra></extra>",
    )
    return figure


def parallel_coordinates(study: Study) -> go.Figure:
    """Every trial as a line through its settings and objectives; drag along an axis to choose among them."""
    rows = style.thinned(study.trials.filter(pl.col("auc").is_not_null()), style.MOST_TRIALS)
    names = [*searching.searched(study), *(column(name) for name in study.objectives)]
    names = [name for name in dict.fromkeys(names) if name in rows.columns]
    figure = _empty(
        study.name, "Parallel coordinates", "a line a trial; drag along an axis to choose", height=420
    )
    figure.update_layout(margin={"l": 90, "r": 60, "t": 115, "b": 40})
    if rows.is_empty():
        return figure
    auc = rows["auc"].to_numpy()
    figure.add_parcoords(
        line={"color": auc, "colorscale": style.COLORS, "cmin": auc.min(), "cmax": auc.max()},
        dimensions=[_dimension(study, rows, name) for name in names],
        labelangle=0,
    )
    return figure


def timeline(study: Study) -> go.Figure:
    """Trials as bars over time, in as many lanes as ran at once; pattern and colour say how each ended."""
    info = _timeline_info(study)
    lanes = int(info.bars["lane"].max() or 0) + 1 if info.bars.height else 1  # type: ignore[arg-type]
    figure = _empty(
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
    for pattern, (state, color) in zip(_STEPS, STATES.items(), strict=True):
        bars = info.bars.filter(pl.col("state") == state)
        if bars.is_empty():
            continue
        figure.add_bar(
            x=bars["length"].to_numpy(),
            y=bars["lane"].to_numpy(),
            base=bars["start"].to_numpy(),
            orientation="h",
            name=state,
            customdata=_identity(bars),
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
    schema: dict[str, Any] = {"trial_id": pl.Int64, "state": pl.String, "lane": pl.Int64}
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


def _ended(study: Study, objective: str) -> pl.DataFrame:
    """Trials with a value of the objective, none that failed; of a large study, evenly chosen ones."""
    known = pl.col(column(objective)).is_not_null(), pl.col("state") != "failed"
    return style.thinned(study.trials.filter(*known), style.MOST_TRIALS)


def _identity(rows: pl.DataFrame) -> Any:
    return np.column_stack([rows["trial_id"].to_numpy(), np.zeros(rows.height)]).astype(np.int32)


def _empty(name: str, title: str, subtitle: str, height: int) -> go.Figure:
    figure = go.Figure(layout=style.layout(name, title, subtitle))
    figure.update_layout(height=height)
    return figure


def _label(objective: str) -> str:
    score = SCORES.get(objective)
    return score.label if score else objective.replace("_", " ").capitalize()


def _decades(name: str) -> bool:
    return name not in SCORES


def _text(name: str, value: float) -> str:
    if name in _BYTES or name.endswith("_bytes"):
        return format_bytes(value)
    return format_auc(value) if name in SCORES else format_count(value) if value >= 1 else f"{value:.3g}"


def _axis(study: Study, name: str, values: pl.Series) -> dict[str, Any]:
    """An axis for a setting or an objective, its ticks in human units where it is logarithmic."""
    title = _label(name)
    if not values.dtype.is_numeric():
        return {"type": "category", "title": title}
    if name in SCORES or values.is_empty():
        return {"title": title}
    if searching.is_log(study, name) or name in _BYTES:
        return style.log_axis(title, values.to_numpy(), lambda value: _text(name, value))
    return {"title": title}


def _objective_axis(study: Study, name: str, values: pl.Series) -> dict[str, Any]:
    axis = _axis(study, name, values)
    return {**axis, "type": "log"} if _decades(name) and "type" not in axis and len(values) else axis


def _plain(values: pl.Series) -> Any:
    return values.to_numpy() if values.dtype.is_numeric() else values.cast(pl.String).to_list()


def _codes(values: pl.Series) -> tuple[np.ndarray[Any, Any], list[str]]:
    """A setting's values as numbers; what is no number becomes its place among the values, which are named."""
    if values.dtype.is_numeric():
        return values.to_numpy().astype(np.float64), []
    texts = values.cast(pl.String)
    known = sorted(texts.unique().to_list())
    return np.array([known.index(text) for text in texts], dtype=np.float64), known


def _unit(study: Study, rows: pl.DataFrame, name: str) -> np.ndarray[Any, Any]:
    """A setting's values from 0 to 1, by their logarithm where it is one."""
    numbers, known = _codes(rows[name])
    if not known and searching.is_log(study, name):
        numbers = np.log10(numbers)
    span: float = float(numbers.max() - numbers.min()) or 1.0
    scaled: np.ndarray[Any, Any] = (numbers - numbers.min()) / span
    return scaled


def _grid(study: Study, rows: pl.DataFrame, name: str, steps: Any) -> Sequence[Any]:
    """The values of a setting at `steps` from 0 to 1."""
    numbers, known = _codes(rows[name])
    log = not known and searching.is_log(study, name)
    ends = np.log10(numbers) if log else numbers
    values = ends.min() + steps * (ends.max() - ends.min())
    return list(10**values if log else values)


def _dimension(study: Study, rows: pl.DataFrame, name: str) -> dict[str, Any]:
    numbers, known = _codes(
        rows[name].fill_null(strategy="min") if rows[name].dtype.is_numeric() else rows[name]
    )
    if known:
        return {
            "label": _label(name),
            "values": numbers,
            "tickvals": list(range(len(known))),
            "ticktext": known,
        }
    if name not in SCORES and (numbers > 0).all() and numbers.max() / numbers.min() > 20:
        ticks = [t for t in style.ticks(numbers) if numbers.min() <= t <= numbers.max()]
        text = [_text(name, tick) for tick in ticks]
        at = [math.log10(tick) for tick in ticks]
        return {"label": _label(name), "values": np.log10(numbers), "tickvals": at, "ticktext": text}
    return {"label": _label(name), "values": numbers}
