"""What the pages share: the study picker, a cached reading of a study, states and text made safe to show."""

import re
from typing import Literal, NamedTuple

import plotly.graph_objects as go
import polars as pl
import streamlit as st

from sizewise import figures, results
from sizewise.results import Answer, Study
from sizewise_prep.errors import InputError
from sizewise_prep.storage import Place

Color = Literal["blue", "green", "orange", "gray", "red"]
COLORS: dict[str, Color] = {
    "created": "gray",
    "running": "blue",
    "finished": "green",
    "interrupted": "orange",
    "stopped": "gray",
    "failed": "red",
}


class View(NamedTuple):
    """A study with everything that is drawn of it."""

    study: Study
    answer: Answer
    by_size: go.Figure
    by_iterations: go.Figure
    tradeoff: go.Figure


def read_view(runs: Place, name: str) -> View:
    """The study as it is on disk now, read and drawn again only if it has changed."""
    return _view(runs, name, results.fingerprint(runs, name))


@st.cache_resource(max_entries=8, show_spinner=False)
def _view(runs: Place, name: str, fingerprint: str) -> View:
    study = results.load(runs, name)
    return View(
        study,
        results.answer(study),
        figures.accuracy_against_size(study),
        figures.accuracy_against_iterations(study),
        figures.tradeoff_3d(study),
    )


def pick_study(runs: Place) -> None:
    """The study picker; its choice goes into the address. Stops the page when there is nothing to pick."""
    names = study_names(runs)
    asked = st.query_params.get("study") or st.session_state.get("study")
    if asked and asked not in names:
        st.error(plain(f"There is no study {asked!r} here. Pick another one."))
        asked = None
    if not names:
        st.info("No study has started yet. `sizewise run STUDY.yaml` starts one.")
        st.stop()
    st.session_state["study"] = asked or names[0]
    st.selectbox(
        "Study", names, key="study", width=420, label_visibility="collapsed", on_change=_follow_picker
    )
    st.query_params["study"] = st.session_state["study"]


def _follow_picker() -> None:
    """Runs before the page does, which reads the address."""
    st.query_params["study"] = st.session_state["study"]


def study_names(runs: Place) -> list[str]:
    """Studies under `runs`; none if the folder is missing."""
    try:
        return results.names(runs)
    except InputError:
        return []


def current_study() -> str:
    """The study that the address names."""
    return st.query_params["study"]


def badge(state: str) -> None:
    """The state of a study or trial, in words and colour."""
    st.badge(state, color=COLORS.get(state, "gray"))


def plain(text: str) -> str:
    """`text` with everything that Markdown or HTML would act on escaped: it may come from a study's files."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])", r"\\\1", text)


def evaluation_table(evaluations: pl.DataFrame, key: str, height: int | Literal["auto"] = "auto") -> None:
    """Evaluations as a table in human units."""
    st.dataframe(
        evaluations.select(
            pl.col("trial_id").alias("trial"),
            pl.col("auc").alias("AUC"),
            pl.col("embedding_bytes").alias("embeddings"),
            pl.col("compression_ratio").alias("compression"),
            pl.col("model_bytes").alias("whole model"),
            pl.col("iteration").alias("iterations"),
            pl.col("epoch").alias("epochs"),
        ),
        hide_index=True,
        height=height,
        column_config={
            "AUC": st.column_config.NumberColumn(format="%.4f"),
            "embeddings": st.column_config.NumberColumn(format="bytes"),
            "compression": st.column_config.NumberColumn(format="%,.1fx"),
            "whole model": st.column_config.NumberColumn(format="bytes"),
            "epochs": st.column_config.NumberColumn(format="%.2f"),
        },
        key=key,
    )


def show_problems(study: Study) -> None:
    """What could not be read of the study."""
    if study.problems:
        with st.expander(f"Problems ({len(study.problems)})", expanded=len(study.problems) <= 3):
            st.text("\n".join(study.problems[:50]))
