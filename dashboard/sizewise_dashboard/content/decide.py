"""The page to decide on: the answer in a sentence, the figure with its limits, the model; updated while it runs."""

from dataclasses import replace
from functools import partial

import streamlit as st

from sizewise.figures import Axes
from sizewise.figures.tradeoffs.decision import View, decision
from sizewise.results import Choice, Study
from sizewise.results.columns.teachers import all_failed
from sizewise.results.commands import resume
from sizewise.results.decision.intervals import Interval
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place
from sizewise_core.units import format_seconds
from sizewise_dashboard import snapshots
from sizewise_dashboard.content.studies import cost
from sizewise_dashboard.decision import card, limits, views
from sizewise_dashboard.decision.limits import Limits
from sizewise_dashboard.decision.uncertainty import with_ends
from sizewise_dashboard.elements import chart, picking
from sizewise_dashboard.elements.parts import (
    badge,
    current_study,
    opened,
    plain,
    reason,
    show_failed_trial,
    show_problems,
)
from sizewise_dashboard.snapshots import Drawing, Snapshot

# Seconds between updates. A study that has not finished may be resumed at any time.
_SECONDS = {"running": 2, "created": 2, "interrupted": 10, "stopped": 10}


def page(runs: Place, details: st.Page | None = None) -> None:
    """Show the study that the address names; trials are linked to the page `details`."""
    name = current_study()
    state = opened(runs).status["state"]
    st.fragment(_live, run_every=_SECONDS.get(state))(runs, name, state, details)


def prepare(now: Snapshot) -> None:
    """Draw what the page shows of a study at first."""
    if now.study.candidates.is_empty():
        return
    usual = limits.Asked(Limits(reference=float(now.study.candidates["auc"].max())))  # type: ignore[arg-type]
    view = views.View(Axes().of(now.study), (), None)
    _drawn(now, now.study, usual, _choose(now, now.study, usual, view)[0], view)


def _live(runs: Place, name: str, state: str, details: st.Page | None) -> None:
    """Everything that changes while the study runs."""
    try:
        now = snapshots.read(runs, name)
    except InputError as error:
        st.error(plain(str(error)))
        return
    if now.status["state"] != state:
        st.rerun()  # the page, so that it is updated more or less often
    if now.study.candidates.is_empty():
        st.markdown(f"#### {plain(now.answer.sentence)}")
        _state(now)
        show_failed_trial(now)
        show_problems(now.study)
        return
    _decide(now, details)
    show_problems(now.study)


def _decide(now: Snapshot, details: st.Page | None) -> None:
    sentence = st.empty()
    _state(now)
    left, right = st.columns([7, 3], gap="medium")
    with left:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            asked = limits.ask(now.study)
            view = views.ask(now.study)
        study = views.narrowed(now, view)
        choice, why, lost = _choose(now, study, asked, view)
        _figure(now, study, asked, choice, view)
    sentence.markdown(f"#### {plain(why)}")
    with right:
        if choice:
            card.show(now, study, choice, replace(asked, lost=lost), details)
        else:
            st.warning("No model is within the limits: allow a larger one, or a larger loss.")
    _picked(study, details)
    views.show(now, study, view, asked, choice)


def _choose(
    now: Snapshot, study: Study, asked: limits.Asked, view: views.View
) -> tuple[Choice | None, str, Interval | None]:
    """The model within the limits, why it is the one, and what it loses; or why there is none."""
    if asked.problems:
        return None, "; ".join(asked.problems), None

    def choose() -> tuple[Choice | None, str, Interval | None]:
        try:
            return asked.limits.choose(study)
        except InputError as error:
            return None, str(error), None

    return snapshots.kept(now, ("choice", asked.limits, view.methods), choose)


def _figure(
    now: Snapshot, study: Study, asked: limits.Asked, choice: Choice | None, view: views.View
) -> None:
    trials = picking.picked(now.study)
    chart.show(
        _drawn(now, study, asked, choice, view),
        "decision",
        f"Validation AUC against size in bytes, a log scale, a point a trial. {now.answer.sentence}",
        views.marks(study, trials, "size", view.axes._replace(score="auc")),
        partial(picking.follow, now.study),
        partial(limits.follow, study, asked.limits),
    )


def _drawn(
    now: Snapshot, study: Study, asked: limits.Asked, choice: Choice | None, view: views.View
) -> Drawing:
    within, today = asked.limits, asked.today
    drawn = View(
        within.max_bytes,
        within.floor,
        within.floor_text,
        within.met(study.size),
        choice,
        today.baseline,
        today.prices,
    )
    key = ("decision", within, today.key, choice, view.axes, view.methods)
    return snapshots.drawn(now, key, lambda: decision(study, drawn, view.axes, partial(with_ends, study)))


def _state(now: Snapshot) -> None:
    """Of a study that has not finished: how far it is, what it has cost, and, where it ended, why and how to go on.

    All of it is in one row, so that the figure below it is still on the first screen.
    """
    status = now.status
    trials = status["trials"]
    if status["state"] == "finished" and not now.study.candidates.is_empty():
        return
    done = trials["finished"] + trials["failed"] + trials["pruned"]
    words = [f"{done:,} of {trials['asked']:,} trials"]
    words += [f"{trials[kind]:,} {kind}" for kind in ("failed", "pruned", "infeasible") if trials[kind]]
    if status["seconds_left"] is not None:
        words.append(f"{format_seconds(status['seconds_left'])} left")
    if spent := cost(status["cost"]):
        words.append(spent)
    with st.container(horizontal=True, vertical_alignment="center"):
        badge(status["state"])
        st.caption(plain(", ".join(words)), width="content")
        why = reason(now)
        if why and status["message"] and all_failed(now.study.trials):
            st.markdown(plain(why), width="content")  # which says that another study must be started
        elif why:
            st.markdown(plain(f"{why} Continue it with:"), width="content")
            st.code(resume(now.study), language="bash", width="content", wrap_lines=True)


def _picked(study: Study, details: st.Page | None) -> None:
    """The picked trials in words, with links to them."""
    trials = picking.picked(study)
    if not trials:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        for number, trial in enumerate(trials):
            words = picking.described(study, trial, last=trial == trials[-1])
            st.markdown(f"{words}{';' if number < len(trials) - 1 else ''}")
        if details:
            query = {"study": study.name, "trials": ",".join(map(str, trials))}
            label = "Open the trial" if len(trials) == 1 else "Compare the trials"
            st.page_link(details, label=label, query_params=query)
        if st.button("Clear selection", key="clear", type="tertiary"):
            picking.pick(study, [])
            st.rerun(scope="fragment")
