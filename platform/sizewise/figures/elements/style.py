"""What the figures share: log axes in human units, colours, hover texts, and how many points are drawn.

Colours come from Viridis, which reads the same under every common colour blindness and in print. Of each theme's ramp
every colour has a contrast of at least 3:1 to the background: its light end is cut off on white, its dark end on black.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl
from plotly.colors import sample_colorscale

from sizewise.results import Study

PlotlyOptions = dict[str, Any]
"""Of a trace, a marker or an axis, by the names that Plotly gives them."""
COLORS: list[str] = sample_colorscale("Viridis", list(np.linspace(0.02, 0.58, 32)))
# The same on a dark page, where the dashboard draws each colour of the one ramp as its counterpart in the other.
DARK_COLORS: list[str] = sample_colorscale("Viridis", list(np.linspace(0.36, 0.98, 32)))
DIMMED = "#868d95"
OUTLINE = "#7a828a"
# After Okabe and Ito, as dark or as light as both themes need: picked trials, methods, studies that are compared.
CHOSEN = ["#d55e00", "#b8598f", "#8a6d00", "#0072b2", "#009e73", "#7a828a"]
LINES = ["#0072b2", "#d55e00", "#009e73", "#b8598f", "#8a6d00", "#7a828a"]
DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "pentagon", "hexagram", "triangle-down"]
HEIGHT = 500

# Points of a figure. More would not be visible, but take seconds of a browser and megabytes of a report.
MOST_POINTS = 1_000
MOST_TRIALS = 2_000  # in figures where each trial is one point, line or bar

# Plotly's options for every figure. Without them it would offer to upload the chart to its cloud.
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d"],
}


def thinned(points: pl.DataFrame, most: int = MOST_POINTS) -> pl.DataFrame:
    """At most `most` of the rows, evenly spaced in their order: the same study gives the same figure."""
    return points.gather_every(math.ceil(points.height / most)) if points.height > most else points


def dominated(points: pl.DataFrame, front: pl.DataFrame) -> pl.DataFrame:
    """The points that are not on the front."""
    return points.join(front, on=["trial_id", "replicate", "iteration"], how="anti", maintain_order="left")


def intervals(points: pl.DataFrame, score: str) -> PlotlyOptions:
    """Error bars where a point is the mean of replicates: the ends of its interval, where the table has them."""
    low, high = f"{score}_low", f"{score}_high"
    if not {low, high} <= set(points.columns) or points[low].is_null().all():
        return {}
    return {
        "error_y": {
            "array": (points[high] - points[score]).fill_null(0.0).to_numpy(),
            "arrayminus": (points[score] - points[low]).fill_null(0.0).to_numpy(),
            "thickness": 1,
            "width": 3,
            "color": OUTLINE,
        }
    }


def front_size(front: pl.DataFrame) -> int:
    """Pixels of a front's markers: large ones would hide a large study's curves."""
    return 8 if front.height <= 300 else 4


def ticks(values: Sequence[float] | npt.NDArray[Any]) -> list[float]:
    """Ticks of a log scale over `values`: decades, with 2s and 5s between them when there are few decades."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[numbers > 0]
    if not numbers.size:
        return [1.0]
    low, high = math.floor(math.log10(numbers.min())), math.ceil(math.log10(numbers.max()))
    steps = (1, 2, 5) if math.log10(numbers.max() / numbers.min()) < 2 else (1,)
    # One more decade on each side, for zooming out.
    return [float(step * 10.0**power) for power in range(low - 1, high + 2) for step in steps]


def log_axis(title: str, values: Any, text: Callable[[float], str], **options: Any) -> PlotlyOptions:
    """A log axis with few ticks, written with their unit, which Plotly's own ("2", "5", "10k") lack.

    Args:
        title: of the axis.
        values: all that is drawn along it.
        text: writes a value.
        options: further ones of Plotly's axis.
    """
    at = ticks(values)
    return {"type": "log", "title": title, "tickvals": at, "ticktext": [text(v) for v in at], **options}


def color_bar(title: str, values: Any, text: Callable[[float], str]) -> PlotlyOptions:
    """Marker options for colours by the logarithm of values, and their colour bar.

    Args:
        title: of the colour bar.
        values: all that are coloured.
        text: writes a value, for the ticks.
    """
    numbers = np.asarray(values, dtype=np.float64)
    low, high = (
        (float(np.log10(end)) for end in (numbers.min(), numbers.max())) if numbers.size else (0.0, 1.0)
    )
    # A tick at the very top would overlap the title.
    inside = [tick for tick in ticks(numbers) if low <= math.log10(tick) <= low + 0.92 * (high - low)]
    return {
        "colorscale": COLORS,
        "cmin": low,
        "cmax": high,
        "colorbar": {
            "title": {"text": title, "side": "top"},
            "tickvals": [math.log10(tick) for tick in inside],
            "ticktext": [text(tick) for tick in inside],
            "thickness": 14,
            "outlinewidth": 0,
        },
    }


def identity(points: pl.DataFrame) -> npt.NDArray[np.int32]:
    """customdata: (points, 2) trial and iteration, by which a click finds its row."""
    return points.select("trial_id", "iteration").to_numpy().astype(np.int32)


def hover(x: Literal["size", "effort"], label: str = "AUC") -> str:
    """The hover text of a point whose x is a size in bytes, or an effort with the size as its text."""
    where = "size %{x:.3~s}B" if x == "size" else "size %{text}"
    head = f"trial %{{customdata[0]}}<br>{label} %{{y:.4f}}"
    return f"{head}<br>{where}<br>iteration %{{customdata[1]:,}}<extra></extra>"


WORDS = "%{text}<extra></extra>"
"""The hover text of points whose text is all that is shown of them."""


def text(words: str) -> str:
    """Text of a study or a file with HTML escaped, some of which Plotly would act on."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def layout(study_name: str, title: str, subtitle: str, **options: Any) -> go.Layout:
    """The layout of all figures. Its `uirevision` keeps a reader's zoom while the figure of a running study changes.

    Args:
        study_name: by which the zoom is kept.
        title, subtitle: above the figure.
        options: further ones of Plotly's layout, which replace those from here.
    """
    return go.Layout(
        template="plotly_white",
        title={
            "text": title,
            "subtitle": {"text": subtitle},
            "x": 0.01,
            "xanchor": "left",
            "y": 0.97,
            "yanchor": "top",
        },
        height=HEIGHT,
        hovermode="closest",
        uirevision=study_name,
        **{"margin": {"l": 70, "r": 20, "t": 75, "b": 60}, **options},
    )


def at_least(width: int) -> dict[str, int]:
    """The `meta` of a layout that needs so many pixels: on a narrower screen the dashboard lets it be scrolled."""
    return {"least": width}


def say_if_empty(figure: go.Figure) -> None:
    """Replace the axes of a figure without data by a word, because Plotly would draw them from -1 to 4."""
    if any(_holds_data(trace) for trace in figure.data):
        return
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(shapes=[], annotations=[], showlegend=False)
    figure.add_annotation(
        text="Nothing to draw yet",
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        showarrow=False,
        font={"size": 15},
    )


def _holds_data(trace: Any) -> bool:
    if trace.type == "parcoords":
        return bool(trace.dimensions)
    values = trace.y if trace.y is not None else trace.x
    return values is not None and any(value is not None and value == value for value in values)


def counts(study: Study) -> str:
    """How many trials and evaluations a figure shows, for its subtitle."""
    points = study.candidates
    trials = points["trial_id"].n_unique()
    return (
        f"{trials:,} trial{'' if trials == 1 else 's'}, {points.height:,} evaluation"
        f"{'' if points.height == 1 else 's'}"
    )
