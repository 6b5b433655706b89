"""The trials that were picked on any page or figure. The address holds them (`trials=3,17`, `at=120`).

`at` is the iteration of the point that was clicked. Both are kept on all pages of one study.
"""

import polars as pl
import streamlit as st

from sizewise.results import Study
from sizewise_core.units import format_auc, format_bytes, format_count
from sizewise_dashboard.elements.chart import Point

MOST = 6  # as many as there are colours


def picked(study: Study) -> list[int]:
    """The picked trials that the study has, in the order in which they were picked."""
    if "trials" in st.query_params:
        words = st.query_params["trials"].split(",")
    else:
        name, words = st.session_state.get("picked", ("", []))
        words = words if name == study.name else []
    asked = [int(word) for word in words if word.strip().isdecimal() and len(word) < 10]
    known = set(study.trials["trial_id"].to_list())
    found = [trial for trial in dict.fromkeys(asked) if trial in known][:MOST]
    _keep(study, found)
    return found


def picked_at() -> int | None:
    """The iteration of the point that was clicked last; None where a trial was picked in another way."""
    at = st.query_params.get("at", "")
    return int(at) if at.isdecimal() else None


def described(study: Study, trial: int, last: bool) -> str:
    """A picked trial in words: the evaluation that was clicked, or its best one.

    Args:
        study: of the trial.
        trial: its id.
        last: whether it was picked last, and so is the one that was clicked.
    """
    at = picked_at()
    rows = study.evaluations.filter(pl.col("trial_id") == trial, pl.col("auc").is_not_null())
    here = rows.filter(pl.col("iteration") == at) if at and last else rows.head(0)
    if here.is_empty():
        here = rows.sort("auc", descending=True).head(1)
    for row in here.head(1).iter_rows(named=True):
        return (
            f"**Trial {trial}** at iteration {format_count(row['iteration'])}: AUC {format_auc(row['auc'])} with "
            f"{format_bytes(row[study.size])}"
        )
    return f"**Trial {trial}**"


def pick(study: Study, trials: list[int], at: int | None = None) -> None:
    """Pick these trials, and no others.

    Args:
        study: of the trials.
        trials: ids; the last `MOST` of them are picked.
        at: the iteration of the point that was clicked.
    """
    _keep(study, list(dict.fromkeys(trials))[-MOST:])
    if at is None:
        st.query_params.pop("at", None)
    else:
        st.query_params["at"] = str(at)


def follow(study: Study, click: Point) -> None:
    """Pick what was clicked in a figure; with Shift or Ctrl, one more, or one less where it was picked before."""
    before = picked(study)
    if not click.more:
        pick(study, [click.trial], click.iteration)
    elif click.trial in before:
        pick(study, [trial for trial in before if trial != click.trial])
    else:
        pick(study, [*before, click.trial], click.iteration)


def _keep(study: Study, trials: list[int]) -> None:
    words = [str(trial) for trial in trials]
    st.session_state["picked"] = (study.name, words)
    if words:
        if st.query_params.get("trials") != ",".join(words):
            st.query_params["trials"] = ",".join(words)
    else:
        st.query_params.pop("trials", None)
        st.query_params.pop("at", None)
