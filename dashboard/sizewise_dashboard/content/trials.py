"""The trials of one study as a table, and the picked ones side by side."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl
import streamlit as st

from sizewise import figures
from sizewise.figures import EFFORTS, SCORES
from sizewise.metrics.registry import columns_of_test, of_column, with_listed
from sizewise.results import Study, logs
from sizewise.results.commands import run_longer
from sizewise_core.stores.storage import Place
from sizewise_core.units import format_seconds
from sizewise_dashboard import snapshots
from sizewise_dashboard.elements import chart, picking, tables
from sizewise_dashboard.elements.parts import badge, has_trials, opened, plain, show_problems
from sizewise_dashboard.snapshots import Snapshot

_LAST = (
    "train_seconds",
    "cpu_seconds",
    "gpu_seconds",
    "money",
    "peak_memory_bytes",
    "attempts",
    "reason",
    "error",
)
_MORE = ("logloss", "normalized_entropy", "samples_per_second", "compression_ratio", "optimizer_bytes")


def _first() -> list[str]:
    """The columns that come first in the table of all trials."""
    size = ["embedding_bytes", "model_bytes"]
    scores = ["auc", *columns_of_test(listed=True).values()]
    return with_listed(["trial_id", "role", "state", *scores, *size, "iteration", "epoch"], after="epoch")


def page(runs: Place) -> None:
    """Show the table and the trials that the address names."""
    now = opened(runs)
    study = now.study
    if not has_trials(study):
        return
    shown = _table(study)
    trials = _ask(study, shown)
    if trials:
        _facts(study, trials)
        _curves(now, trials)
        if len(trials) > 1:
            _differences(study, trials)
        for trial in trials:
            _one(study, trial, alone=len(trials) == 1)
    show_problems(study)


def _table(study: Study) -> pl.DataFrame:
    """Each trial at its best validation AUC; test scores are shown when asked for, and used for nothing."""
    hidden = {"data", "bottom_mlp", "top_mlp", "checkpoint_seconds", "evaluate_every"}
    tested = set(columns_of_test().values()) & set(study.trials.columns)
    if not _shows_test(study, tested):
        study = replace(study, trials=study.trials.drop(tested))
    configuration = [name for name in study.config_columns if name not in hidden]
    columns = [name for name in (*_first(), *configuration, *_LAST) if name in study.trials.columns]
    empty = {*columns_of_test().values(), "reason", "error", "cpu_seconds", "gpu_seconds", "money"} & set(
        columns
    )
    columns = [name for name in columns if name not in empty or study.trials[name].is_not_null().any()]
    table = study.trials.select(*columns, pl.exclude(columns))
    tables.show(
        table,
        "trials_table",
        columns,
        height=tables.height_of(table.height, 320),
        on_select=_follow_table,
        alt="All trials; tick rows to see them in full",
    )
    return table


def _shows_test(study: Study, tested: set[str]) -> bool:
    """Whether to show scores on the test split: beside those on the validation split they invite to choose by them."""
    if not any(study.trials[name].is_not_null().any() for name in tested):
        return False
    return st.toggle(
        "Scores on the test split",
        key="test",
        bind="query-params",
        help="For the report of a choice that has been made. Choosing by them leaves no unbiased estimate of how the "
        "model does on new data.",
    )


def _follow_table() -> None:
    """Rows that were ticked become the picked trials; the page itself puts them into the address."""
    st.session_state["ticked"] = st.session_state["trials_table"]["selection"]["rows"]


def _ask(study: Study, table: pl.DataFrame) -> list[int]:
    """The picked trials: ticked in the table just now, or chosen by number, or named in the address."""
    ticked = st.session_state.pop("ticked", None)
    if ticked is not None:
        picking.pick(study, table["trial_id"].gather([row for row in ticked if row < table.height]).to_list())
    trials = picking.picked(study) or study.trials["trial_id"].head(1).to_list()
    # The key changes with the choice, so that the field shows trials that were picked elsewhere.
    key = f"numbers_{study.name}_{'_'.join(map(str, trials))}"
    chosen = st.multiselect(
        "Trials in full (up to six, side by side)",
        study.trials["trial_id"].to_list(),
        default=trials,
        max_selections=picking.MOST,
        key=key,
        width=460,
    )
    if chosen and chosen != trials:
        picking.pick(study, chosen)
        st.rerun()
    return trials


def _facts(study: Study, trials: list[int]) -> None:
    """State and the numbers of each picked trial."""
    for column, trial in zip(st.columns(max(len(trials), 2)), trials, strict=False):
        row = _row(study, trial)
        with column, st.container(horizontal=True, vertical_alignment="center"):
            role = ", a teacher" if row.get("role") == "teacher" else ""
            st.markdown(f"**Trial {trial}{role}**", width="content")
            badge(row["state"])
        lines = []
        if row["started"]:
            end = row["finished"] or (time.time() if study.state == "running" else None)
            if end:
                lines.append(f"took {format_seconds(end - row['started'])}")
        if (row["attempts"] or 1) > 1:
            lines.append(f"{row['attempts']} attempts")
        if row.get("money") is not None:
            lines.append(
                f"cost {row['money']:,.4g} {study.record.prices.currency if study.record.prices else ''}"
            )
        for kind in ("cpu", "gpu"):
            if row.get(f"{kind}_seconds"):
                lines.append(f"{kind.upper()} time {format_seconds(row[f'{kind}_seconds'])}")
        column.caption(", ".join(lines) or "not timed")


def _curves(now: Snapshot, trials: list[int]) -> None:
    """Learning curves against iterations, samples or seconds, and how fast the trials ran."""
    study = now.study
    with st.container(horizontal=True):
        effort = st.segmented_control(
            "Against",
            list(EFFORTS),
            default="iteration",
            required=True,
            key="against",
            bind="query-params",
            format_func=lambda name: EFFORTS[name].label,
        )
        score = st.segmented_control(
            "Score",
            list(SCORES),
            default="auc",
            required=True,
            key="curve",
            bind="query-params",
            format_func=lambda name: SCORES[name].label,
        )
    left, right = st.columns(2)
    named = ", ".join(map(str, trials))
    with left:
        chart.show(
            snapshots.drawn(
                now,
                ("curves", tuple(trials), effort, score),
                lambda: figures.learning_curves(study, trials, score, effort),
            ),
            "learning_curves",
            f"Validation {SCORES[score].label} against {EFFORTS[effort].label} of trials {named}.",
        )
    with right:
        chart.show(
            snapshots.drawn(
                now, ("speed", tuple(trials), effort), lambda: figures.throughput(study, trials, effort)
            ),
            "throughput",
            f"Samples a second against {EFFORTS[effort].label} of trials {named}.",
        )


def _differences(study: Study, trials: list[int]) -> None:
    """How the picked trials differ: settings first, then results."""
    rows = {trial: _row(study, trial) for trial in trials}
    settings = [name for name in study.config_columns if len({str(row[name]) for row in rows.values()}) > 1]
    first = [name for name in _first()[3:] if name not in columns_of_test().values()]
    outcome = [name for name in (*first, *_MORE, *_LAST[:5]) if name in study.trials.columns]
    outcome = [name for name in outcome if any(row[name] is not None for row in rows.values())]
    heads = [f"trial {trial}" for trial in rows]
    lines = [
        {
            "": tables.label(name),
            **dict(zip(heads, _texts(name, [row[name] for row in rows.values()]), strict=True)),
        }
        for name in (*settings, *outcome)
    ]
    st.subheader("Side by side")
    equal = len(study.config_columns) - len(settings)
    st.caption(
        f"{len(settings)} settings differ, {equal} are equal." if settings else "All settings are equal."
    )
    height = tables.height_of(len(lines), 1_000)
    tables.show(pl.DataFrame(lines), "differences", height=height, alt="The picked trials side by side")


def _one(study: Study, trial: int, alone: bool) -> None:
    """Failure, configuration, evaluations and files of one trial."""
    row = _row(study, trial)
    if row["error"]:
        st.code(row["error"], language=None)
    if row.get("reason"):
        st.info(plain(f"Trial {trial}: {row['reason']}"))
    if text := logs.traceback(study, trial):
        with st.expander(f"Log of trial {trial}"):
            st.code(text, language=None)
    with st.expander(f"Configuration and evaluations of trial {trial}", expanded=alone):
        left, right = st.columns([1, 2])
        with left:
            st.caption("Configuration")
            lines = (f"{name}: {row[name]}" for name in study.config_columns if row[name] is not None)
            st.code("\n".join(lines), language="yaml")
        with right:
            st.caption("Evaluations")
            rows = study.evaluations.filter(pl.col("trial_id") == trial)
            columns = ("iteration", "epoch", "auc", "logloss", "normalized_entropy", "train_seconds")
            height = tables.height_of(rows.height, 300)
            tables.show(rows, f"evaluations_{trial}", columns, height, alt=f"Evaluations of trial {trial}")
        kept = logs.checkpoints(study, trial)
        st.caption("Checkpoints: " + (plain("; ".join(kept)) if kept else "none are kept"))
        st.caption("Twice the epochs, everything else as it was:")
        st.code(run_longer(study, trial), language="bash", wrap_lines=True)


def _row(study: Study, trial: int) -> Mapping[str, Any]:
    return study.trials.filter(pl.col("trial_id") == trial).row(0, named=True)


def _texts(name: str, values: list[Any]) -> list[str]:
    """Values of one column of the trials' table as people read them, all in one unit."""
    if tables.is_size(name) and all(isinstance(value, int | float | None) for value in values):
        scale, unit = tables.unit_of(pl.Series(values, dtype=pl.Float64))
        return ["" if value is None else f"{_digits(value / scale)} {unit}" for value in values]
    return [_text(name, value) for value in values]


def _text(name: str, value: Any) -> str:
    """A value of the trials' table as people read it."""
    if value is None:
        return ""
    if (metric := of_column(name)) and name != "epoch":
        return format_seconds(value) if metric.unit == "seconds" else metric.text(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _digits(value: float) -> str:
    """Four significant digits, thousands separated, never in powers."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
