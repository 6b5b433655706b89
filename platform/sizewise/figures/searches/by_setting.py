"""An objective over the settings that a study searches: ranks, slices, a contour, parallel coordinates."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from sizewise.figures.elements import style
from sizewise.figures.elements.axes import SCORES
from sizewise.figures.elements.setting_axes import (
    axis_of,
    blank_figure,
    categories,
    coordinates,
    ended_trials,
    is_log_scaled,
    label_of,
    point_ids,
    value_text,
)
from sizewise.figures.elements.style import PlotlyOptions
from sizewise.results import Study
from sizewise.results.columns.front import column
from sizewise.results.quality import searching


def ranks(study: Study, x: str, y: str, objective: str) -> go.Figure:
    """Each trial over two searched settings, coloured by its rank in an objective: 1 is the best.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        x, y: names of searched settings.
        objective: one of the study's.
    """
    rows = ended_trials(study, objective).drop_nulls([x, y])
    value = column(objective)
    falling = study.objectives.get(objective) == "maximize"
    rank = rows[value].rank("min", descending=falling).to_numpy()
    figure = blank_figure(
        study.name,
        f"{label_of(objective)} by rank",
        "a point a trial; rank 1 is the best",
        height=430,
    )
    figure.update_layout(
        xaxis=axis_of(study, x, rows[x]),
        yaxis=axis_of(study, y, rows[y]),
        showlegend=False,
    )
    figure.add_scatter(
        x=coordinates(rows[x]),
        y=coordinates(rows[y]),
        customdata=point_ids(rows),
        text=[
            f"rank {at:,.0f}: {value_text(value, number)}"
            for at, number in zip(rank, rows[value], strict=True)
        ],
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
    rows, value = ended_trials(study, objective), column(objective)
    columns = min(max(len(settings), 1), 3)
    lines = max(math.ceil(len(settings) / columns), 1)
    figure = make_subplots(rows=lines, cols=columns, horizontal_spacing=0.08, vertical_spacing=0.25 / lines)
    figure.update_layout(
        style.layout(
            study.name,
            "Slices",
            f"{label_of(objective)} of each trial against every searched setting; lighter trials came later",
        )
    )
    figure.update_layout(height=110 + 250 * lines, showlegend=False, meta=style.at_least(220 * columns))
    for number, name in enumerate(settings):
        where = {"row": number // columns + 1, "col": number % columns + 1}
        known = rows.drop_nulls([name])
        figure.add_scatter(
            x=coordinates(known[name]),
            y=known[value].to_numpy(),
            customdata=point_ids(known),
            mode="markers",
            marker={
                "color": known["trial_id"].to_numpy(),
                "colorscale": style.COLORS,
                "size": 6,
                "opacity": 0.8,
                "line": {"color": style.OUTLINE, "width": 0.6},
            },
            text=[str(setting) for setting in known[name]],
            hovertemplate="trial %{customdata[0]}<br>%{text}<br>%{y:.4~g}<extra></extra>",
            **where,
        )
        figure.update_xaxes(**axis_of(study, name, known[name]), **where)
        figure.update_yaxes(**(axis_of(study, value, known[value]) if number % columns == 0 else {}), **where)
        if is_log_scaled(value):
            figure.update_yaxes(type="log", **where)
    return figure


def contour(study: Study, x: str, y: str, objective: str) -> go.Figure:
    """An objective over two searched settings, interpolated between trials by inverse distance.

    Args:
        study: the study, as `sizewise.results.load` reads it.
        x, y: names of searched settings.
        objective: one of the study's.
    """
    rows = ended_trials(study, objective).drop_nulls([x, y])
    value = column(objective)
    figure = blank_figure(
        study.name,
        f"{label_of(objective)} over two settings",
        "points are trials; between them, the mean weighted by nearness",
        height=430,
    )
    figure.update_layout(
        xaxis=axis_of(study, x, rows[x]),
        yaxis=axis_of(study, y, rows[y]),
        showlegend=False,
    )
    if rows.height < 3:
        return figure
    z = rows[value].to_numpy().astype(np.float64)
    z = np.log10(z) if is_log_scaled(value) and (z > 0).all() else z
    figure.add_contour(
        **_surface(study, rows, (x, y), z),
        colorscale=style.COLORS,
        ncontours=15,
        line={"width": 0.4},
        hoverinfo="skip",
        colorbar={"title": {"text": label_of(objective), "side": "top"}, "thickness": 14, "outlinewidth": 0},
    )
    if is_log_scaled(value):
        ticks = [
            tick for tick in style.ticks(rows[value].to_numpy()) if z.min() <= math.log10(tick) <= z.max()
        ]
        text = [value_text(value, tick) for tick in ticks]
        bar = {"tickvals": [math.log10(tick) for tick in ticks], "ticktext": text}
        figure.data[0].colorbar.update(bar)
    figure.add_scatter(
        x=coordinates(rows[x]),
        y=coordinates(rows[y]),
        customdata=point_ids(rows),
        text=[value_text(value, number) for number in rows[value]],
        mode="markers",
        marker={"color": "white", "size": 6, "line": {"color": "black", "width": 1}},
        hovertemplate="trial %{customdata[0]}<br>%{text}<extra></extra>",
    )
    return figure


def _surface(
    study: Study, rows: pl.DataFrame, settings: tuple[str, str], z: npt.NDArray[np.float64]
) -> PlotlyOptions:
    """x, y and z of a contour: the mean of z, (trials,), weighted by nearness in two settings."""
    x, y = settings
    across, along = _unit(study, rows, x), _unit(study, rows, y)
    steps = np.linspace(0, 1, 50)
    # (50, 50, trials) is 20 MB at a thousand trials; more points would not be visible.
    near = np.linspace(0, len(z) - 1, min(len(z), 500)).astype(int)
    distance = (steps[None, :, None] - across[near]) ** 2 + (steps[:, None, None] - along[near]) ** 2
    weight = 1 / (distance + 1e-4) ** 1.5
    mean = (weight * z[near]).sum(-1) / weight.sum(-1)
    return {"x": _grid(study, rows, x, steps), "y": _grid(study, rows, y, steps), "z": mean}


def parallel_coordinates(study: Study) -> go.Figure:
    """Every trial as a line through its settings and objectives; drag along an axis to choose among them."""
    rows = style.thinned(study.trials.filter(pl.col("auc").is_not_null()), style.MOST_TRIALS)
    names = [*searching.searched(study), *(column(name) for name in study.objectives)]
    names = [name for name in dict.fromkeys(names) if name in rows.columns]
    figure = blank_figure(
        study.name, "Parallel coordinates", "a line a trial; drag along an axis to choose", height=420
    )
    figure.update_layout(margin={"l": 90, "r": 60, "t": 115, "b": 40})
    if rows.is_empty():
        return figure
    auc = rows["auc"].to_numpy()
    figure.add_parcoords(
        line={"color": auc, "colorscale": style.COLORS, "cmin": auc.min(), "cmax": auc.max()},
        dimensions=[dimension(study, rows, name) for name in names],
        labelangle=0,
    )
    return figure


def _codes(values: pl.Series) -> tuple[np.ndarray[Any, Any], list[str]]:
    """A setting's values as numbers, and the names of values that are not numbers, which become positions in them."""
    if values.dtype.is_numeric():
        return values.to_numpy().astype(np.float64), []
    return coordinates(values), categories(values)


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


def dimension(study: Study, rows: pl.DataFrame, name: str) -> PlotlyOptions:
    """One axis of parallel coordinates.

    Args:
        study: of the trials.
        rows: the trials.
        name: of a setting or a metric, their column.
    """
    numbers, known = _codes(
        rows[name].fill_null(strategy="min")
        if rows[name].dtype.is_numeric()
        else rows[name].cast(pl.String).fill_null("")
    )
    if known:
        return {
            "label": label_of(name),
            "values": numbers,
            "tickvals": list(range(len(known))),
            "ticktext": known,
        }
    if name not in SCORES and (numbers > 0).all() and numbers.max() / numbers.min() > 20:
        ticks = [t for t in style.ticks(numbers) if numbers.min() <= t <= numbers.max()]
        text = [value_text(name, tick) for tick in ticks]
        at = [math.log10(tick) for tick in ticks]
        return {
            "label": label_of(name),
            "values": np.log10(numbers),
            "tickvals": at,
            "ticktext": text,
        }
    return {"label": label_of(name), "values": numbers}
