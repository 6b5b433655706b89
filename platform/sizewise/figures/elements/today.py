"""What runs today, drawn into figures of a study: a crosshair, and from where on another model pays.

add_crosshair(figure, baseline, by_size=True)      # at its AUC and its size
add_break_even(figure, baseline, prices, sizes, scores)
"""

import math

import numpy as np
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style
from sizewise.results.decision.baseline import Baseline, Prices
from sizewise_core.units import format_auc, format_bytes

COLOR = style.LINES[4]
_LINE = {"color": COLOR, "width": 1.5, "dash": "dot"}


def add_crosshair(figure: go.Figure, baseline: Baseline | None, by_size: bool) -> None:
    """Lines at the baseline's AUC and size, below all points, so that they cannot be dragged; nothing without one.

    Args:
        figure: of AUC along its y axis.
        baseline: what runs today.
        by_size: whether the x axis is one of sizes, in bytes.
    """
    if baseline is None:
        return
    figure.add_hline(baseline.auc, line=_LINE, layer="below")
    size = baseline.bytes if by_size else None
    if size:
        figure.add_vline(size, line=_LINE, layer="below")
    words = [style.text(baseline.name), f"AUC {format_auc(baseline.auc)}"]
    # Without a size nothing is drawn of it but its line, which the legend names all the same.
    figure.add_scatter(
        x=[size],
        y=[baseline.auc],
        mode="markers",
        name=style.text(baseline.name),
        marker={"symbol": "x-thin", "size": 11, "line": {"color": COLOR, "width": 2.5}},
        hovertemplate="<br>".join([*words, *([format_bytes(size)] if size else [])]) + "<extra></extra>",
    )
    figure.add_annotation(
        text=f"today {format_auc(baseline.auc)}",
        x=1.0,
        xref="x domain",
        xanchor="right",
        y=baseline.auc,
        yanchor="bottom",
        font={"color": COLOR},
        showarrow=False,
    )


def add_line_in_space(figure: go.Figure, baseline: Baseline | None, efforts: pl.Series) -> None:
    """A line at the baseline's AUC and size through all efforts, because how long it trained is not known.

    Nothing without a baseline; one without a size is named as one that is not shown.

    Args:
        figure: of AUC over size and an effort.
        baseline: what runs today.
        efforts: all that are drawn.
    """
    if baseline is None or efforts.is_empty():
        return
    name = f"{style.text(baseline.name)}, AUC {format_auc(baseline.auc)}"
    if not baseline.bytes:
        figure.update_layout(
            title={"subtitle": {"text": f"{name}, is not shown here: its size is not known"}}
        )
        return
    ends = [efforts.min(), efforts.max()]
    figure.add_scatter3d(
        x=[baseline.bytes] * 2,
        y=ends,
        z=[baseline.auc] * 2,
        mode="lines+markers",
        name=name,
        line={"color": COLOR, "width": 5, "dash": "dash"},
        marker={"color": COLOR, "size": 4},
        hovertemplate=f"{name}<br>{format_bytes(baseline.bytes)}<extra></extra>",
    )


def add_break_even(
    figure: go.Figure,
    baseline: Baseline | None,
    prices: Prices | None,
    sizes: tuple[float, float],
    scores: tuple[float, float],
) -> None:
    """The line above which a model brings more than what runs today; nothing where too little is known.

    Args:
        figure: of AUC against size.
        baseline: what runs today.
        prices: what is assumed.
        sizes: the smallest and the largest size that is drawn, in bytes.
        scores: the lowest and the highest AUC that is drawn; the line ends there.
    """
    if baseline is None or not baseline.bytes or prices is None or not prices.auc_value:
        return
    at = np.geomspace(max(min(sizes), 1.0), max(*sizes, baseline.bytes), 200)
    saved = (baseline.bytes - at) / 1e9 * prices.gb_price * prices.replicas
    even = baseline.auc - 0.001 * saved / prices.auc_value
    even[(even < scores[0]) | (even > scores[1])] = math.nan
    figure.add_scatter(
        x=at,
        y=even,
        mode="lines",
        name="break-even: above it pays",
        line={"color": COLOR, "width": 2, "dash": "longdashdot"},
        hovertemplate="break-even AUC %{y:.4f}<extra></extra>",
    )
