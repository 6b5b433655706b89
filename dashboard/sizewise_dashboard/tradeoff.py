"""The trade-off of one study: the answer, the linked figures and the front, updated while it runs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import plotly.graph_objects as go
import polars as pl
import streamlit as st

from sizewise import figures
from sizewise.figures import EFFORTS, SCORES, SIZES, Axes
from sizewise.results import Study
from sizewise_core.errors import InputError
from sizewise_core.storage import Place
from sizewise_core.units import format_auc, format_bytes, format_count, format_ratio, format_seconds
from sizewise_dashboard import chart, picking, snapshots, tables
from sizewise_dashboard.parts import badge, current_study, opened, plain, show_problems
from sizewise_dashboard.snapshots import Drawing, Snapshot
from sizewise_dashboard.studies import cost

# Seconds between updates. A study that has not finished may be resumed at any time.
_SECONDS = {"running": 2, "created": 2, "interrupted": 10, "stopped": 10}
_EPSILONS = ("0.1", "0.2", "0.3", "0.5")


class _View(NamedTuple):
    """The view of the study, which the address holds."""

    axes: Axes
    methods: tuple[str, ...]
    epsilon: float | None


_FIGURES: dict[str, Callable[[Study, _View], go.Figure]] = {
    "by_size": lambda study, view: figures.accuracy_against_size(study, view.epsilon, view.axes),
    "by_iterations": lambda study, view: figures.accuracy_against_iterations(study, view.axes),
    "tradeoff": lambda study, view: figures.tradeoff_3d(study, view.axes),
}


def page(runs: Place, details: st.Page | None = None) -> None:
    """Show the study that the address names; picked trials are linked to the page `details`."""
    name = current_study()
    state = opened(runs).status["state"]
    st.fragment(_live, run_every=_SECONDS.get(state))(runs, name, state, details)


def _live(runs: Place, name: str, state: str, details: st.Page | None) -> None:
    """Everything that changes while the study runs."""
    try:
        now = snapshots.read(runs, name)
    except InputError as error:
        st.error(plain(str(error)))
        return
    if now.status["state"] != state:
        st.rerun()  # the page, so that it is updated more or less often
    view = _head(now)
    study = _narrowed(now, view)
    trials = picking.picked(now.study)
    _picked(now.study, trials, details)
    follow = partial(picking.follow, now.study)
    left, right = st.columns(2)
    sentence = now.answer.sentence
    score, effort = SCORES[view.axes.score].label, EFFORTS[view.axes.effort].label
    by_size, by_iterations, tradeoff = (_drawn(now, study, view, name) for name in _FIGURES)
    with left:
        chart.show(
            by_size,
            "by_size",
            f"Validation {score} against size in bytes, a log scale. {sentence}",
            figures.chosen(study, trials, "size", view.axes),
            follow,
        )
    with right:
        chart.show(
            by_iterations,
            "by_iterations",
            f"Validation {score} against {effort}, a log scale, a line a trial. {sentence}",
            figures.chosen(study, trials, "iterations", view.axes),
            follow,
        )
    left, right = st.columns(2)
    with left:
        chart.show(
            tradeoff,
            "tradeoff",
            f"Validation {score} over size and {effort}, in three dimensions. {sentence}",
            figures.chosen(study, trials, "tradeoff", view.axes),
            follow,
        )
    with right:
        st.subheader("Pareto front")
        if study.front.is_empty():
            st.text("Nothing yet.")
        else:
            tables.show(study.front, "front", tables.evaluation_columns(), height=400, alt="The Pareto front")
    show_problems(now.study)


def prepare(now: Snapshot) -> None:
    """Draw what the page shows of a study at first."""
    for name in _FIGURES:
        _drawn(now, now.study, _View(Axes().of(now.study), (), None), name)


def _drawn(now: Snapshot, study: Study, view: _View, name: str) -> Drawing:
    return snapshots.drawn(now, (name, view), lambda: _FIGURES[name](study, view))


def _ask(study: Study) -> _View:
    """Axes, filters and the bound."""
    methods = _methods(study)
    with st.popover("Axes and filters"):
        size = _choice("Size", SIZES, "size", study.size)
        score = _choice("Score", SCORES, "score", "auc")
        effort = _choice("Effort", EFFORTS, "effort", "iteration")
        kept = _several("Methods", methods) if len(methods) > 1 else ()
        bound = st.selectbox(
            "Bound for dense projections, ε of",
            ["off", *_EPSILONS],
            key="epsilon",
            bind="query-params",
            help="The memory that the Johnson-Lindenstrauss lemma calls enough for a relative error ε of "
            "squared distances under a dense Gaussian projection. It does not hold for hash and robe, for which "
            "`sizewise bound` prints what can be expected. Drawn where all trials have one dim.",
        )
    return _View(Axes(size, score, effort), kept, None if bound == "off" else float(bound))


def _choice(label: str, axes: Mapping[str, figures.Metric], key: str, usual: str) -> str:
    names = list(axes)
    chosen: str = st.selectbox(
        label,
        names,
        index=names.index(usual),
        key=key,
        bind="query-params",
        format_func=lambda name: axes[name].label,
    )
    return chosen


def _several(label: str, methods: list[str]) -> tuple[str, ...]:
    chosen = st.multiselect(label, methods, key="methods", bind="query-params", placeholder="all")
    return tuple(chosen)


def _methods(study: Study) -> list[str]:
    if "method" not in study.config_columns:
        return []
    return sorted(str(method) for method in study.trials["method"].drop_nulls().unique())


def _narrowed(now: Snapshot, view: _View) -> Study:
    """The study with the chosen methods only, and the front among them."""
    if not view.methods:
        return now.study

    def narrow() -> Study:
        of_methods = pl.col("method").is_in(view.methods)
        study = now.study
        return replace(
            study, trials=study.trials.filter(of_methods), evaluations=study.evaluations.filter(of_methods)
        )

    return snapshots.kept(now, ("methods", view.methods), narrow)


def _head(now: Snapshot) -> _View:
    """The state, the answer in a sentence and its numbers. Returns the view that the reader has chosen."""
    status, study = now.status, now.study
    trials = status["trials"]
    st.markdown(f"#### {plain(now.answer.sentence)}")
    done = trials["finished"] + trials["failed"] + trials.get("pruned", 0)
    numbers = {"Trials done": f"{done:,} of {trials['asked']:,}"}
    for kind in ("failed", "pruned", "infeasible"):
        if trials.get(kind):
            numbers[kind.capitalize()] = f"{trials[kind]:,}"
    best, smallest = now.answer.best, now.answer.smallest
    if best and smallest:
        numbers["Best AUC"] = format_auc(best.auc)
        numbers[f"Smallest within {now.answer.tolerance:g} AUC"] = format_bytes(getattr(smallest, study.size))
        if smallest.compression_ratio is not None:
            numbers["Its compression"] = format_ratio(smallest.compression_ratio)
    if status["seconds_left"] is not None:
        numbers["Time left"] = format_seconds(status["seconds_left"])
    if spent := cost(status["cost"]):
        numbers["Cost"] = spent
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        badge(status["state"])
        for label, value in numbers.items():
            st.metric(label, value, width="content")
        view = _ask(study)
    if status["message"]:
        st.caption(plain(status["message"]))
    return view


def _picked(study: Study, trials: list[int], details: st.Page | None) -> None:
    """The picked trials in words, with links to them."""
    if not trials:
        st.caption("Click a point to pick its trial; with Shift, to compare it with those already picked.")
        return
    at = picking.picked_at()
    with st.container(horizontal=True, vertical_alignment="center"):
        for number, trial in enumerate(trials):
            rows = study.evaluations.filter(pl.col("trial_id") == trial, pl.col("auc").is_not_null())
            here = rows.filter(pl.col("iteration") == at) if at and trial == trials[-1] else rows.head(0)
            if here.is_empty():
                here = rows.sort("auc", descending=True).head(1)
            for row in here.head(1).iter_rows(named=True):
                st.markdown(
                    f"**Trial {trial}** at iteration {format_count(row['iteration'])}: AUC "
                    f"{format_auc(row['auc'])} with {format_bytes(row[study.size])}"
                    f"{';' if number < len(trials) - 1 else ''}"
                )
            if here.is_empty():
                st.markdown(f"**Trial {trial}**")
        if details:
            query = {"study": study.name, "trials": ",".join(map(str, trials))}
            label = "Open the trial" if len(trials) == 1 else "Compare the trials"
            st.page_link(details, label=label, query_params=query)
        if st.button("Clear selection", key="clear", type="tertiary"):
            picking.pick(study, [])
            st.rerun(scope="fragment")
