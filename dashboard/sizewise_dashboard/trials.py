"""The trials of one study as a table, and one of them in full: configuration, curve, failure."""

import polars as pl
import streamlit as st

from sizewise.results import Study
from sizewise.units import format_seconds
from sizewise_dashboard.parts import badge, current_study, evaluation_table, plain, read_view, show_problems
from sizewise_prep.storage import Place


def page(runs: Place) -> None:
    """Show the table and the trial that the address names."""
    study = read_view(runs, current_study()).study
    if study.trials.is_empty():
        st.info("No trial has started yet.")
        return
    _table(study)
    _one(study)
    show_problems(study)


def _table(study: Study) -> None:
    """Each trial at its best validation AUC. The test AUC is shown and used for nothing."""
    shown = ["trial_id", "state", "auc", "test_auc", "embedding_bytes", "model_bytes", "iteration", "epoch"]
    sizes = ("embedding_bytes", "model_bytes", "peak_memory_bytes")
    table = study.trials.select(*shown, *study.config_columns, "train_seconds", "peak_memory_bytes", "error")
    st.dataframe(
        table,
        hide_index=True,
        height=min(38 + 35 * table.height, 400),
        column_config={
            "auc": st.column_config.NumberColumn("AUC", format="%.4f"),
            "test_auc": st.column_config.NumberColumn("test AUC", format="%.4f"),
            **{name: st.column_config.NumberColumn(format="bytes") for name in sizes},
            "epoch": st.column_config.NumberColumn(format="%.2f"),
            "train_seconds": st.column_config.NumberColumn(format="%.1f"),
        },
        key="trials",
    )


def _one(study: Study) -> None:
    """The chosen trial in full."""
    numbers = study.trials["trial_id"].to_list()
    chosen = st.selectbox("Trial", numbers, key="trial", bind="query-params", width=200)
    trial = study.trials.filter(pl.col("trial_id") == chosen).row(0, named=True)
    with st.container(horizontal=True, vertical_alignment="center"):
        badge(trial["state"])
        if trial["started"] and trial["finished"]:
            st.caption(f"took {format_seconds(trial['finished'] - trial['started'])}")
    if trial["error"]:
        st.code(trial["error"], language=None)
    left, right = st.columns([1, 2])
    with left:
        st.caption("Configuration")
        lines = (f"{name}: {trial[name]}" for name in study.config_columns if trial[name] is not None)
        st.code("\n".join(lines), language="yaml")
    with right:
        st.caption(plain("Evaluations"))
        evaluation_table(study.evaluations.filter(pl.col("trial_id") == chosen), key="evaluations")
