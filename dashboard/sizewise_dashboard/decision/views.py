"""What stands behind tabs on the page to decide on: what limits cost, other figures, the front as a table."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import plotly.graph_objects as go
import polars as pl
import streamlit as st

from sizewise import figures
from sizewise.figures import EFFORTS, SCORES, SIZES, Axes
from sizewise.figures.elements.chosen import Over
from sizewise.results import Choice, Study
from sizewise.results.decision.baseline import Baseline, with_baseline
from sizewise.results.decision.intervals import with_best
from sizewise_core.errors import InputError
from sizewise_core.units import format_auc, format_bytes, format_count, format_ratio
from sizewise_dashboard import snapshots
from sizewise_dashboard.decision.limits import Asked, Limits
from sizewise_dashboard.elements import chart, picking, tables, today
from sizewise_dashboard.elements.parts import plain
from sizewise_dashboard.elements.today import Today
from sizewise_dashboard.snapshots import Snapshot

_EPSILONS = ("0.1", "0.2", "0.3", "0.5")
_MOST_RUNNERS_UP = 10


class View(NamedTuple):
    """The view of the study, which the address holds."""

    axes: Axes
    methods: tuple[str, ...]
    epsilon: float | None


class _Figure(NamedTuple):
    """A figure behind a tab: its key, which marks go over it, and how it is drawn."""

    key: str
    over: Over
    draw: Callable[[Study, View, Baseline | None], go.Figure]


_FIGURES = {
    "Against iterations": _Figure(
        "by_iterations",
        "iterations",
        lambda study, view, today: figures.accuracy_against_iterations(study, view.axes, today),
    ),
    "In three dimensions": _Figure(
        "tradeoff", "tradeoff", lambda study, view, today: figures.tradeoff_3d(study, view.axes, today)
    ),
    "All evaluations": _Figure(
        "by_size",
        "size",
        lambda study, view, today: figures.accuracy_against_size(study, view.epsilon, view.axes, today),
    ),
}
_NEXT, _TABLE = "Next best", "Pareto front"
TABS = (_NEXT, *_FIGURES, _TABLE)


def ask(study: Study) -> View:
    """Axes, methods and the theory's bound, behind a button."""
    methods = _methods(study)
    with st.popover("Axes and filters"):
        size = _choice("Size", SIZES, "size", study.size)
        score = _choice("Score (behind the tabs)", SCORES, "score", "auc")
        effort = _choice("Effort, and the colour of points", EFFORTS, "effort", "iteration")
        kept = _several("Methods", methods) if len(methods) > 1 else ()
        bound = st.selectbox(
            "Bound for dense projections, ε of",
            ["off", *_EPSILONS],
            key="epsilon",
            bind="query-params",
            help="The memory that the Johnson-Lindenstrauss lemma calls enough for a relative error ε of "
            "squared distances under a dense Gaussian projection. It does not hold for hash and robe, for which "
            "`sizewise bound` prints what can be expected. Drawn among all evaluations where all trials have one dim.",
        )
    return View(Axes(size, score, effort), kept, None if bound == "off" else float(bound))


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


def narrowed(now: Snapshot, view: View) -> Study:
    """The study with the chosen methods only, and the front among them."""
    if not view.methods:
        return now.study

    def narrow() -> Study:
        of_methods = pl.col("method").is_in(view.methods)
        study = now.study
        rounded = study.rounded.filter(of_methods) if study.rounded.width else study.rounded
        return replace(
            study,
            trials=study.trials.filter(of_methods),
            evaluations=study.evaluations.filter(of_methods),
            rounded=rounded,
        )

    return snapshots.kept(now, ("methods", view.methods), narrow)


def marks(study: Study, trials: list[int], over: Over, axes: Axes) -> go.Figure:
    """The picked trials, to be drawn over a figure.

    Args:
        study: of the trials.
        trials: ids.
        over: which figure.
        axes: its axes.
    """
    return figures.chosen(study, trials, over, axes)


def show(now: Snapshot, study: Study, view: View, asked: Asked, choice: Choice | None) -> None:
    """The tabs; only the open one is drawn.

    Args:
        now: the snapshot of the study.
        study: with the chosen methods only.
        view: axes and filters.
        asked: limits on the model, and what runs today.
        choice: the model within them.
    """
    columns = [*tables.evaluation_columns(), *today.COLUMNS]
    tabs = dict(zip(TABS, st.tabs(TABS, key="view", on_change="rerun", bind="query-params"), strict=True))
    for name, tab in tabs.items():
        if not tab.open:
            continue
        with tab:
            if name == _NEXT:
                _next_best(study, asked, choice)
            elif name == _TABLE:
                front = with_baseline(study, with_best(study, study.front), asked.today.baseline)
                tables.show(front, "front", columns, height=400, alt="The Pareto front")
            else:
                _figure(now, study, view, name, asked.today)


def _figure(now: Snapshot, study: Study, view: View, name: str, compared: Today) -> None:
    key, over, draw = _FIGURES[name]
    score, effort = SCORES[view.axes.score].label, EFFORTS[view.axes.effort].label
    against = {
        "size": "size in bytes, a log scale",
        "iterations": f"{effort}, a log scale, a line a trial",
        "tradeoff": f"size and {effort}, in three dimensions",
    }[over]
    chart.show(
        snapshots.drawn(now, (key, view, compared.key), lambda: draw(study, view, compared.baseline)),
        key,
        f"Validation {score} against {against}. {now.answer.sentence}",
        marks(study, picking.picked(now.study), over, view.axes),
        partial(picking.follow, now.study),
    )


def _next_best(study: Study, asked: Asked, choice: Choice | None) -> None:
    """What each limit costs, and the other trials within them."""
    limits = asked.limits
    if choice is None:
        st.text("No model is within the limits.")
        return
    for what, rest in limits.without():
        try:
            other, *_ = rest.choose(study)
        except InputError:
            continue
        st.markdown(
            f"- {plain(f'Without the limit on {what}: {_point(study, other)}; {_difference(study, choice, other)}')}"
        )
    others = runners_up(study, choice, limits)
    if others.is_empty():
        st.text("No other trial is within the limits.")
    else:
        columns = [*tables.evaluation_columns(), *today.COLUMNS]
        others = with_baseline(study, with_best(study, others), asked.today.baseline)
        tables.show(others, "runners_up", columns, alt="The runners-up")


def _point(study: Study, choice: Choice) -> str:
    size = format_bytes(getattr(choice, study.size))
    steps = format_count(choice.iteration)
    size += f" in {choice.stored_as}" if choice.stored_as else ""
    return f"trial {choice.trial_id} at iteration {steps}: AUC {format_auc(choice.auc)} with {size}"


def _difference(study: Study, chosen: Choice, other: Choice) -> str:
    """What another choice has and costs beyond the chosen one."""
    if all(getattr(other, name) == getattr(chosen, name) for name in ("trial_id", "iteration", "stored_as")):
        return "the same, so this limit costs nothing"
    size = getattr(other, study.size) / max(getattr(chosen, study.size), 1)
    steps = other.iteration / max(chosen.iteration, 1)
    gain = f"{other.auc - chosen.auc:+.4f} AUC"
    return f"{gain} for {format_ratio(size)} the size and {format_ratio(steps)} the iterations"


def runners_up(study: Study, chosen: Choice, limits: Limits) -> pl.DataFrame:
    """The best evaluation of every other trial within the limits, in the order of preference.

    Args:
        study: of the trials.
        chosen: whose trial is left out.
        limits: on size, AUC and effort.
    """
    fitting = study.candidates.filter(pl.col("trial_id") != chosen.trial_id, limits.met(study.size))
    order, down = ["auc", study.size, "iteration"], [True, False, False]
    if limits.floor is not None:
        order, down = [study.size, "iteration", "auc"], [False, False, True]
    ranked = fitting.sort(order, descending=down)
    return ranked.unique("trial_id", keep="first", maintain_order=True).head(_MOST_RUNNERS_UP)
