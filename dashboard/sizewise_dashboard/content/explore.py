"""A study's trials to explore, and the questions that people have of a search, each with its figures."""

from functools import partial

import polars as pl
import streamlit as st

from sizewise.figures.searches import by_setting
from sizewise.figures.searches import searching as figures
from sizewise.results import Study
from sizewise.results.quality import searching as results
from sizewise_core.stores.storage import Place
from sizewise_dashboard import snapshots
from sizewise_dashboard.elements import chart, explorer, picking, tables
from sizewise_dashboard.elements.chart import Point
from sizewise_dashboard.elements.parts import has_trials, opened, show_problems
from sizewise_dashboard.snapshots import Snapshot

_UNFINISHED = ("pruned", "infeasible", "failed")


def page(runs: Place, details: st.Page | None = None) -> None:
    """Show the search of the study that the address names."""
    now = opened(runs)
    study = now.study
    if not has_trials(study):
        return
    if st.session_state.pop("open", False) and details:
        trials = ",".join(map(str, picking.picked(study)))
        st.switch_page(details, query_params={"study": study.name, "trials": trials})
    explorer.show(now, runs)
    _settings(now)
    _gains(now)
    _unfinished(study)
    show_problems(study)


def _open(study: Study, click: Point) -> None:
    """Pick what was clicked; the page then opens the trial."""
    picking.follow(study, click)
    st.session_state["open"] = True


def _gains(now: Snapshot) -> None:
    """The hypervolume and the first objective over trials, and when trials ran."""
    study = now.study
    st.subheader("Was the search long enough?")
    left, right = st.columns(2)
    with left:
        chart.show(
            snapshots.drawn(now, "history", lambda: figures.hypervolume_history(study)),
            "hypervolume",
            "Hypervolume of the front so far against the number of trials that have ended.",
            on_click=partial(_open, study),
        )
    with right:
        objective = next(iter(study.objectives))
        chart.show(
            snapshots.drawn(
                now, ("objective", objective), lambda: figures.objective_history(study, objective)
            ),
            "objective_history",
            f"{objective} of each trial in their order, and the best so far.",
            on_click=partial(_open, study),
        )
    st.caption("Click a bar or a point to open its trial.")
    chart.show(
        snapshots.drawn(now, "timeline", lambda: figures.timeline(study)),
        "timeline",
        "When each trial ran, in as many lanes as ran at the same time.",
        on_click=partial(_open, study),
    )


def _settings(now: Snapshot) -> None:
    """The settings that were tried: their importance, slices, a contour, ranks, and the spread of the objective."""
    study = now.study
    settings = results.searched(study)
    st.subheader("Which settings matter?")
    if not settings:
        st.info("All trials have the same settings, so there is nothing to slice.")
        return
    _importance(now)
    with st.container(horizontal=True):
        objectives = list(study.objectives)
        objective = st.selectbox(
            "Objective", objectives, key="objective", bind="query-params", width=220, format_func=_named
        )
        x = st.selectbox(
            "Settings across", settings, key="across", bind="query-params", width=220, format_func=_named
        )
        rest = [name for name in settings if name != x] or settings
        y = st.selectbox("and along", rest, key="along", bind="query-params", width=220, format_func=_named)
    chart.show(
        snapshots.drawn(now, ("slices", objective), lambda: by_setting.slices(study, objective)),
        "slices",
        f"{objective} of each trial against every searched setting.",
        on_click=partial(_open, study),
    )
    left, right = st.columns(2)
    with left:
        chart.show(
            snapshots.drawn(
                now, ("contour", x, y, objective), lambda: by_setting.contour(study, x, y, objective)
            ),
            "contour",
            f"{objective} over {x} and {y}.",
            on_click=partial(_open, study),
        )
    with right:
        chart.show(
            snapshots.drawn(
                now, ("ranks", x, y, objective), lambda: by_setting.ranks(study, x, y, objective)
            ),
            "ranks",
            f"Trials over {x} and {y}, coloured by their rank in {objective}.",
            on_click=partial(_open, study),
        )
    chart.show(
        snapshots.drawn(now, ("distribution", objective), lambda: figures.distribution(study, objective)),
        "distribution",
        f"Share of trials with at most each value of {objective}.",
        on_click=partial(_open, study),
    )


def _importance(now: Snapshot) -> None:
    """The share of each setting in each objective, and by which method."""
    study = now.study
    names = results.evaluators(study)
    evaluator = st.session_state.get("evaluator") or st.query_params.get("evaluator") or names[0]
    evaluator = evaluator if evaluator in names else names[0]
    chart.show(
        snapshots.drawn(now, ("importance", evaluator), lambda: figures.importance(study, evaluator)),
        "importance",
        f"Importance of each searched setting for each objective, by {evaluator}.",
    )
    st.segmented_control(
        "Importance by",
        names,
        default=names[0],
        required=True,
        key="evaluator",
        bind="query-params",
        label_visibility="collapsed",
    )


def _named(name: str) -> str:
    """A setting or an objective as tables and axes call it."""
    return tables.label("iteration" if name == "iterations" else name)


def _unfinished(study: Study) -> None:
    """Trials that did not run to their end, and why."""
    rows = study.trials.filter(pl.col("state").is_in(_UNFINISHED))
    st.subheader("What failed, and why?")
    if rows.is_empty():
        st.text("No trial was pruned, and none failed.")
        return
    reasons = [pl.col(name).cast(pl.String) for name in ("reason", "error") if name in rows.columns]
    rows = rows.with_columns(pl.coalesce(reasons).alias("why"))
    columns = ["trial_id", "state", "why", "iteration", "auc", *results.searched(study)]
    tables.show(rows, "given_up", columns, alt="Trials that were pruned or failed, and why")
