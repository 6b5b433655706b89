"""What the pages share: the study picker, states, problems, and text that is safe to show."""

import re
from typing import TYPE_CHECKING, Literal

import polars as pl
import streamlit as st

from sizewise import results
from sizewise.results import Study
from sizewise.results.commands import trial_report
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, StorageError

if TYPE_CHECKING:
    from sizewise_dashboard.snapshots import Snapshot

Color = Literal["blue", "green", "orange", "gray", "red"]
COLORS: dict[str, Color] = {
    "created": "gray",
    "running": "blue",
    "finished": "green",
    "interrupted": "orange",
    "stopped": "gray",
    "pruned": "gray",
    "infeasible": "gray",
    "failed": "red",
    "unreadable": "red",
}


def pick_study(runs: Place) -> None:
    """The study picker; its choice goes into the address.

    Stops the page when there is nothing to pick, and when the address names a study that does not exist, so that a link
    never shows another study instead.
    """
    names = study_names(runs)
    asked = st.query_params.get("study") or st.session_state.get("study")
    gone = bool(asked) and asked not in names
    if gone:
        st.error(plain(f"There is no study {asked!r} here." + (" Pick another one." if names else "")))
    if not names:
        st.info("No study has started yet. `sizewise run STUDY.yaml` starts one.")
        st.stop()
    st.session_state["study"] = None if gone else asked or names[0]
    st.selectbox(
        "Study",
        names,
        index=None,
        key="study",
        placeholder="Pick a study",
        width=420,
        label_visibility="collapsed",
        on_change=_follow_picker,
    )
    if gone:
        st.query_params["study"] = str(asked)
        st.stop()
    st.query_params["study"] = st.session_state["study"]


def _follow_picker() -> None:
    """Put the choice into the address, before the page runs and reads it."""
    if st.session_state["study"]:  # an emptied picker changes nothing
        st.query_params["study"] = st.session_state["study"]


def study_names(runs: Place) -> list[str]:
    """Studies under `runs`; none if the folder is missing."""
    try:
        return results.names(runs)
    except (InputError, StorageError):
        return []


def current_study() -> str:
    """The study that the address names."""
    return st.query_params["study"]


def opened(runs: Place) -> "Snapshot":
    """The study that the address names. Where it cannot be read, the page says why and ends."""
    from sizewise_dashboard import snapshots

    try:
        return snapshots.read(runs, current_study())
    except InputError as error:
        st.error(plain(str(error)))
        st.stop()


def has_trials(study: Study) -> bool:
    """Whether a trial has started; if not, the page says so."""
    if study.trials.is_empty():
        st.info("No trial has started yet.")
        show_problems(study)
    return not study.trials.is_empty()


def badge(state: str) -> None:
    """The state of a study or trial, in words and colour."""
    st.badge(state, color=COLORS.get(state, "gray"))


def plain(text: str) -> str:
    """Text with all characters escaped that Markdown or HTML would act on, because it may come from a study's files."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", text)


def reason(now: "Snapshot") -> str:
    """Why a study that can be continued has ended, in a sentence; empty for every other."""
    state, message = now.status["state"], now.status["message"]
    if state not in ("interrupted", "stopped"):
        return ""
    usual = {"interrupted": "the process that ran it ended without a message", "stopped": "by request"}
    return f"{state.capitalize()}: {(message or usual[state]).rstrip('.')}."


def show_failed_trial(now: "Snapshot") -> None:
    """Of a study without any model, why its first trial failed, and the command that says more."""
    study = now.study
    failed = study.trials.filter(pl.col("state") == "failed", pl.col("error").is_not_null())
    if failed.is_empty():
        return
    trial, error = failed["trial_id"][0], str(failed["error"][0])
    st.error(plain(f"Trial {trial} failed: {error[:500]}"))
    st.caption("Its log, and where it stopped:")
    st.code(trial_report(study, trial), language="bash", wrap_lines=True)


def show_problems(study: Study) -> None:
    """What could not be read of the study."""
    if study.problems:
        with st.expander(f"Problems ({len(study.problems)})", expanded=len(study.problems) <= 3):
            more = len(study.problems) - 50
            st.text("\n".join([*study.problems[:50], *([f"and {more:,} more"] if more > 0 else [])]))
