"""The trade-off of one study: the answer, the three figures and the front; live while it runs."""

from typing import Any

import polars as pl
import streamlit as st

from sizewise import results
from sizewise.units import format_auc, format_bytes, format_count, format_ratio, format_seconds
from sizewise_dashboard import chart
from sizewise_dashboard.parts import (
    View,
    badge,
    current_study,
    evaluation_table,
    plain,
    read_view,
    show_problems,
)
from sizewise_prep.errors import InputError
from sizewise_prep.storage import Place

# how often the page looks for news; a study that has not finished may be resumed at any time
_SECONDS = {"running": 2, "created": 2, "interrupted": 10, "stopped": 10}


def page(runs: Place, details: st.Page | None = None) -> None:
    """Show the study that the address names; a clicked point links to its trial on the page `details`."""
    name = current_study()
    state = results.status(runs, name)["state"]
    st.fragment(_live, run_every=_SECONDS.get(state))(runs, name, state, details)


def _live(runs: Place, name: str, state: str, details: st.Page | None) -> None:
    """Everything that changes while the study runs."""
    try:
        status = results.status(runs, name)
        view = read_view(runs, name)
    except InputError as error:
        st.error(plain(str(error)))
        return
    if status["state"] != state:
        st.rerun()  # the whole page, to look for news more or less often
    _head(status, view)
    sentence = view.answer.sentence
    left, right = st.columns(2)
    with left:
        on_size = chart.show(view.by_size, "by_size", f"Validation AUC against size, a log scale. {sentence}")
    with right:
        on_curve = chart.show(view.by_iterations, "by_iterations", "Validation AUC against iterations.")
    _clicked(view, on_size or on_curve, details)
    left, right = st.columns(2)
    with left:
        chart.show(view.tradeoff, "tradeoff", "Validation AUC over size and iterations, in three dimensions.")
    with right:
        st.subheader("Pareto front")
        if view.study.front.is_empty():
            st.text("Nothing yet.")
        else:
            evaluation_table(view.study.front, key="front", height=400)
    show_problems(view.study)


def _head(status: dict[str, Any], view: View) -> None:
    """State, the answer in a sentence, and the numbers behind it."""
    trials = status["trials"]
    with st.container(horizontal=True, vertical_alignment="center"):
        badge(status["state"])
        if status["message"]:
            st.caption(plain(status["message"]))
    st.markdown(f"#### {plain(view.answer.sentence)}")
    numbers = {"Trials done": f"{trials['finished'] + trials['failed']} of {trials['asked']}"}
    if trials["failed"]:
        numbers["Failed"] = str(trials["failed"])
    best, smallest = view.answer.best, view.answer.smallest
    if best and smallest:
        numbers["Best AUC"] = format_auc(best.auc)
        numbers[f"Smallest within {view.answer.tolerance:g} AUC"] = format_bytes(
            getattr(smallest, view.study.size)
        )
        if smallest.compression_ratio is not None:
            numbers["Its compression"] = format_ratio(smallest.compression_ratio)
    if status["seconds_left"] is not None:
        numbers["Time left"] = format_seconds(status["seconds_left"])
    for column, (label, value) in zip(st.columns(len(numbers)), numbers.items(), strict=True):
        column.metric(label, value)


def _clicked(view: View, point: chart.Point | None, details: st.Page | None) -> None:
    """The evaluation that was last clicked, in words, with the way to its trial."""
    study = view.study
    if point:
        st.session_state["clicked"] = (study.name, point)
    name, point = st.session_state.get("clicked", (None, None))
    if name != study.name or point is None:
        st.caption("Click a point to see its trial.")
        return
    rows = study.evaluations.filter(pl.col("trial_id") == point.trial, pl.col("iteration") == point.iteration)
    for row in rows.head(1).iter_rows(named=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(
                f"**Trial {point.trial}** at iteration {format_count(point.iteration)}: AUC "
                f"{format_auc(row['auc'])} with {format_bytes(row[study.size])}"
            )
            if details:
                query = {"study": study.name, "trial": str(point.trial)}
                st.page_link(details, label="Open the trial", query_params=query)
