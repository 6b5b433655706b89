"""Several studies in one figure: their fronts, and by how much one attains more than another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl

from sizewise.figures.elements import style
from sizewise.figures.elements.axes import SIZES
from sizewise.results import Study
from sizewise.results.quality import comparing
from sizewise_core.units import format_bytes

# Dashes distinguish the lines without colour.
_COLORS, _DASHES = style.LINES, style.DASHES
MOST = len(_COLORS)
# Both figures have the same plot, and at 1280x720 the names above it are on the first screen.
_HEIGHT, _MARGIN = 440, {"l": 70, "r": 20, "t": 105, "b": 60}


class _FrontsInfo(NamedTuple):
    """Per study: its name, the front's points, and what it attains at `sizes`."""

    size: str
    sizes: comparing.Floats
    names: list[str]
    fronts: list[pl.DataFrame]
    attained: list[comparing.Attained]


def fronts(studies: Sequence[Study]) -> go.Figure:
    """The best AUC at each size or below, a line a study with its interval; points are on that study's front."""
    return _draw_fronts(_fronts_info(studies))


def _fronts_info(studies: Sequence[Study]) -> _FrontsInfo:
    size = _size(studies)
    sizes = comparing.span(studies, size)
    shown = pl.col(size) > 0, pl.col("auc").is_not_null()
    return _FrontsInfo(
        size,
        sizes,
        [study.name for study in studies],
        [style.thinned(study.front.filter(*shown), 500) for study in studies],
        [comparing.attained(study, sizes, size) for study in studies],
    )


def _draw_fronts(info: _FrontsInfo) -> go.Figure:
    figure = go.Figure(
        layout=style.layout(
            " ".join(info.names),
            "Fronts",
            f"best AUC at each size or below; bands: 95 % over {_over(info.attained)}",
            xaxis=style.log_axis(SIZES[info.size].title, info.sizes, format_bytes, ticklabelstandoff=8),
            yaxis={"title": "AUC (validation split)"},
            legend={"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0.0},
            margin=_MARGIN,
            showlegend=True,
        )
    )
    figure.update_layout(height=_HEIGHT)
    for number, (name, front, found) in enumerate(zip(info.names, info.fronts, info.attained, strict=True)):
        color = _COLORS[number % MOST]
        _band(figure, info.sizes, *found.ends, color, name)
        figure.add_scatter(
            x=info.sizes,
            y=found.best,
            mode="lines",
            name=name,
            legendgroup=name,
            line={"color": color, "width": 2, "shape": "hv", "dash": _DASHES[number % MOST]},
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=front[info.size].to_numpy(),
            y=front["auc"].to_numpy(),
            customdata=style.identity(front),
            mode="markers",
            legendgroup=name,
            showlegend=False,
            marker={"color": color, "size": 5},
            hovertemplate=f"{style.text(name)}<br>" + style.hover("size"),
        )
    return figure


def attained_difference(one: Study, other: Study) -> go.Figure:
    """How much more AUC `one` attains than `other` at each size or below, with its interval."""
    size = _size([one, other])
    sizes = comparing.span([one, other], size)
    both = comparing.attained(one, sizes, size), comparing.attained(other, sizes, size, seed=1)
    value, low, high = comparing.difference(*both)
    figure = go.Figure(
        layout=style.layout(
            f"{one.name} {other.name}",
            "Difference in attained AUC",
            f"{style.text(one.name)} minus {style.text(other.name)}; band: 95 % over {_over(both)}",
            xaxis=style.log_axis(SIZES[size].title, sizes, format_bytes, ticklabelstandoff=8),
            yaxis={"title": "AUC gained", "zeroline": True, "zerolinewidth": 2},
            margin=_MARGIN,
            showlegend=False,
        )
    )
    figure.update_layout(height=_HEIGHT)
    _band(figure, sizes, low, high, _COLORS[0], "")
    figure.add_scatter(
        x=sizes,
        y=value,
        mode="lines",
        line={"color": _COLORS[0], "width": 2, "shape": "hv"},
        text=[format_bytes(at) for at in sizes],
        hovertemplate="%{text}<br>%{y:+.4f} AUC<extra></extra>",
    )
    return figure


def _band(
    figure: go.Figure,
    sizes: comparing.Floats,
    low: comparing.Floats,
    high: comparing.Floats,
    color: str,
    group: str,
) -> None:
    known = np.isfinite(low) & np.isfinite(high)
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    figure.add_scatter(
        x=np.concatenate([sizes[known], sizes[known][::-1]]),
        y=np.concatenate([high[known], low[known][::-1]]),
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        line={"width": 0},
        mode="lines",
        legendgroup=group,
        showlegend=False,
        hoverinfo="skip",
    )


def _over(attained: Sequence[comparing.Attained]) -> str:
    """What the intervals are taken over, in words."""
    kinds = {found.of_replicates for found in attained}
    names = {True: "replicates", False: "resampled trials"}
    return " or ".join(names[kind] for kind in sorted(kinds, reverse=True))


def _size(studies: Sequence[Study]) -> str:
    """The size that all studies search by; that of the embeddings where they differ."""
    sizes = {study.size for study in studies}
    return sizes.pop() if len(sizes) == 1 else "embedding_bytes"
