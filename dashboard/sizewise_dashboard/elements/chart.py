"""A Plotly figure that keeps its zoom while its data grows: `show(drawing, key="by_size", text="...")`.

`st.plotly_chart` replaces the drawing whenever the data changes, so the zoom would be lost every few seconds while a
study runs. This component updates the drawing (chart.js), with the plotly.js of the Python package, only where it is on
the screen, and only when it has changed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

from sizewise import figures
from sizewise.figures.elements import style
from sizewise_dashboard.snapshots import Drawing

_STYLE = """
.chart:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: -2px }
.chart:focus-within .modebar { opacity: 1 !important }
.chart .parcoords text { text-shadow: none !important }
.chart .parcoords .axis-extent { display: none }
.said { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%) }
"""
_SCRIPT = (Path(__file__).parent / "chart.js").read_text(encoding="utf-8")


class Point(NamedTuple):
    """The evaluation that was clicked, and whether to add its trial to those already picked."""

    trial: int
    iteration: int
    more: bool


class Dragged(NamedTuple):
    """A line that was dragged: its name, and the value on the axis that it crosses."""

    name: str
    value: float


def show(
    drawing: Drawing,
    key: str,
    text: str,
    marks: go.Figure | None = None,
    on_click: Callable[[Point], None] | None = None,
    on_drag: Callable[[Dragged], None] | None = None,
    on_brush: Callable[[list[int]], None] | None = None,
) -> None:
    """Show a figure.

    Args:
        drawing: the figure.
        key: of the component, and the name of its downloads.
        text: for screen readers.
        marks: traces that are drawn over the figure.
        on_click: called with a clicked point before the page runs again.
        on_drag: called likewise with a line that was dragged.
        on_brush: called likewise with the trials in a box, or within ranges of parallel coordinates; of none: all.
    """
    data = {
        "figure": drawing.figure,
        "digest": drawing.digest,
        "marks": marks.to_json() if marks and marks.data else "",
        "config": figures.CONFIG,
        "text": text,
        "file": f"sizewise-{key}",
        "ramps": [style.COLORS, style.DARK_COLORS],
    }

    def clicked() -> None:
        point = st.session_state[key].clicked
        if point and on_click:
            on_click(Point(**point))

    def dragged() -> None:
        line = st.session_state[key].dragged
        if line and on_drag:
            on_drag(Dragged(**line))

    def brushed() -> None:
        found = st.session_state[key].brushed
        if found is not None and on_brush:
            on_brush([int(trial) for trial in found["trials"]])

    _component()(
        key=key,
        data=data,
        on_clicked_change=clicked,
        on_dragged_change=dragged,
        on_brushed_change=brushed,
    )


def _component() -> ComponentRenderer:
    # Its styles are not isolated, because Plotly's style sheet is in the document.
    return st.components.v2.component(
        "sizewise_chart",
        html='<div class="chart" role="figure" tabindex="0"></div><p class="said" aria-live="polite"></p>',
        css=_STYLE,
        js=_SCRIPT,
        isolate_styles=False,
    )
