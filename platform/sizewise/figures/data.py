"""The data of a study: how many values each column has, what is missing, how often values occur."""

import numpy as np
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style
from sizewise.results.data import Frequencies
from sizewise_core.units import format_count


def cardinalities(name: str, columns: pl.DataFrame) -> go.Figure:
    """The number of distinct values of every token column, log scale."""
    tokens = columns.filter(pl.col("kind") == "token")
    counts = tokens["cardinality"].to_numpy()
    figure = go.Figure(
        layout=style.layout(
            name,
            "Cardinality",
            "distinct values of each token column",
            xaxis={"type": "category", "tickangle": -90},
            yaxis=style.log_axis("Distinct values (log scale)", counts, format_count),
        )
    )
    figure.update_layout(height=380)
    figure.add_bar(
        x=tokens["column"].to_list(),
        y=counts,
        marker={"color": style.COLORS[8]},
        text=[format_count(count) for count in counts],
        textposition="none",
        hovertemplate="%{x}: %{text} values<extra></extra>",
    )
    return figure


def missing(name: str, columns: pl.DataFrame) -> go.Figure:
    """The share of rows without a value, of every column."""
    figure = go.Figure(
        layout=style.layout(
            name,
            "Missing values",
            "share of rows without a value",
            xaxis={"type": "category", "tickangle": -90},
            yaxis={"title": "Share of rows", "tickformat": ".0%", "rangemode": "tozero"},
            legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0.0},
            margin={"l": 70, "r": 20, "t": 75, "b": 110},
            showlegend=True,
        )
    )
    figure.update_layout(height=380)
    for kind, color in (("integer", style.COLORS[24]), ("token", style.COLORS[8])):
        of_kind = columns.filter(pl.col("kind") == kind)
        figure.add_bar(
            x=of_kind["column"].to_list(),
            y=of_kind["missing_share"].to_numpy(),
            name=f"{kind} columns",
            marker={"color": color},
            hovertemplate="%{x}: %{y:.2%}<extra></extra>",
        )
    return figure


def frequency_curve(name: str, column: str, found: Frequencies) -> go.Figure:
    """How often the values of a column occur, most frequent first; a straight line is Zipf's law.

    Args:
        name: of the study, by which the figure keeps its zoom.
        column: the token column's name.
        found: how often its values occur.
    """
    ranks = np.arange(1, len(found.counts) + 1)
    # As many points as there are pixels, evenly spaced on the log axis.
    kept = np.unique(np.geomspace(1, max(len(ranks), 1), 400).astype(int)) - 1
    kept = kept[kept < len(ranks)]
    figure = go.Figure(
        layout=style.layout(
            name,
            f"How often the values of {column} occur",
            f"{format_count(len(ranks))} values in {format_count(found.rows)} training rows",
            xaxis=style.log_axis("Rank of the value (log scale)", ranks, format_count),
            yaxis=style.log_axis("Occurrences (log scale)", found.counts, format_count),
        )
    )
    figure.update_layout(height=420, uirevision=f"{name} {column}")
    figure.add_scatter(
        x=ranks[kept],
        y=found.counts[kept],
        mode="lines",
        line={"color": style.COLORS[8], "width": 2},
        hovertemplate="rank %{x:,}: %{y:,} times<extra></extra>",
    )
    return figure
