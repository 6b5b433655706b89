"""Trials as a table, a scatter plot and parallel coordinates that follow one another; notes on them.

What is brushed in one of the three is what the others show: rows ticked, points in a box, lines within marked ranges.
"""

import re
from functools import partial
from typing import Any

import polars as pl
import streamlit as st

from sizewise.figures.searches import exploring
from sizewise.metrics.registry import METRICS
from sizewise.results import Study
from sizewise.results.columns.front import column
from sizewise.results.quality import searching
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place
from sizewise_dashboard import snapshots
from sizewise_dashboard.elements import chart, notes, picking, tables
from sizewise_dashboard.elements.notes import Key, Note
from sizewise_dashboard.elements.parts import plain
from sizewise_dashboard.snapshots import Snapshot

_NONE = "none"
_CONDITION = re.compile(r"([a-z_]+)\s*(<=|>=|!=|=|<|>)\s*(\S+)")
_FEW = 8  # distinct values, at most, that facets and shapes can show


def show(now: Snapshot, runs: Place) -> None:
    """Show the linked table and figures of a study, and what may be noted of its trials.

    Args:
        now: the study.
        runs: the folder of studies, beside which notes are kept.
    """
    study = now.study
    try:
        known = notes.load(runs)
    except InputError as error:
        st.warning(plain(str(error)))
        known = notes.Notes()
    rows, columns = _filtered(study, known)
    view = _view(study)
    brushed = _brushed(study)
    if brushed and st.button(f"Show all again ({len(brushed)} are brushed)", key="unbrush", type="tertiary"):
        _brush(study, [])
        st.rerun()
    left, right = st.columns(2)
    key = (tuple(rows["trial_id"]), tuple(sorted(brushed)))
    with left:
        chart.show(
            snapshots.drawn(
                now, ("scatter", view, *key), lambda: exploring.scatter(study, rows, view, brushed)
            ),
            "explorer",
            f"{tables.label(view.y)} against {tables.label(view.x)}, a point a trial; draw a box to choose among them.",
            on_click=partial(picking.follow, study),
            on_brush=partial(_brush, study),
        )
    with right:
        chart.show(
            snapshots.drawn(now, ("parallel", *key), lambda: exploring.parallel(study, rows, brushed)),
            "parallel",
            "Every trial as a line through its settings and objectives; drag along an axis to choose among them.",
            on_brush=partial(_brush, study),
        )
    shown = rows.filter(pl.col("trial_id").is_in(list(brushed))) if brushed else rows
    st.session_state["explored"] = shown["trial_id"].to_list()
    tables.show(
        shown,
        "explored_table",
        columns,
        height=tables.height_of(shown.height, 280),
        on_select=partial(_ticked, study),
        alt="Trials; tick rows to choose among them",
    )
    _note(runs, study, known)


def _filtered(study: Study, known: notes.Notes) -> tuple[pl.DataFrame, list[str]]:
    """The trials that the filter leaves, with what is noted of them, and the columns that the table shows."""
    said = [known.of(Key(study.name, trial)) for trial in study.trials["trial_id"]]
    rows = study.trials.with_columns(
        pl.Series("star", ["★" if note.star else "" for note in said], dtype=pl.String),
        pl.Series("tags", [", ".join(note.tags) for note in said], dtype=pl.String),
        pl.Series("note", [note.text for note in said], dtype=pl.String),
        pl.Series("archived", [note.archived for note in said], dtype=pl.Boolean),
    )
    usual = [
        "star",
        "trial_id",
        "state",
        "auc",
        study.size,
        "iteration",
        *searching.searched(study),
        "tags",
        "note",
    ]
    names = [name for name in dict.fromkeys([*usual, *study.trials.columns]) if name in rows.columns]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input(
            "Filter",
            key="filter",
            bind="query-params",
            width=340,
            placeholder="method=hash auc>0.74 tags=shipped",
        )
        archived = (
            st.toggle("Archived too", key="archived", bind="query-params")
            if rows["archived"].any()
            else False
        )
        with st.popover("Columns"):
            hidden = st.multiselect(
                "Hide", [name for name in usual if name in names], key="hidden", format_func=tables.label
            )
    if not archived:
        rows = rows.filter(~pl.col("archived"))
    for problem, condition in (_condition(rows, word) for word in _CONDITION.findall(words or "")):
        if condition is None:
            st.warning(plain(problem))
        else:
            rows = rows.filter(condition)
    return rows, [name for name in dict.fromkeys(usual) if name in names and name not in hidden]


def _condition(rows: pl.DataFrame, word: tuple[str, str, str]) -> tuple[str, pl.Expr | None]:
    """One condition of the filter, or what is wrong with it."""
    name, sign, text = word
    name = column(name)
    if name not in rows.columns:
        return f"Filter: no column {name}: {', '.join(rows.columns[:12])}, ...", None
    value: Any = text
    held = pl.col(name)
    if rows[name].dtype.is_numeric():
        try:
            value = float(text)
        except ValueError:
            return f"Filter: {name} holds numbers, and {text!r} is none", None
    elif sign in ("=", "!="):
        within = held.cast(pl.String).str.to_lowercase().str.contains(text.lower(), literal=True)
        return "", within.fill_null(False) if sign == "=" else ~within.fill_null(False)
    else:
        return f"Filter: {name} holds words: use {name}={text}", None
    found = {
        "=": held == value, "!=": held != value, "<": held < value, ">": held > value,
        "<=": held <= value, ">=": held >= value,
    }[sign]  # fmt: skip
    return "", found.fill_null(False)


def _view(study: Study) -> exploring.View:
    """The columns of the scatter plot, from selectors under plain names."""
    settings = searching.searched(study)
    measured = [
        name
        for name in METRICS
        if name in study.trials.columns
        and METRICS[name].kind != "identity"
        and study.trials[name].drop_nulls().len()
    ]
    every = list(dict.fromkeys([*settings, *measured])) or ["trial_id"]
    few = [name for name in settings if study.trials[name].drop_nulls().n_unique() <= _FEW]
    with st.container(horizontal=True):
        x = _column("Across", every, "x", study.size)
        y = _column("Along", every, "y", "auc")
        color = _column("Colour", [_NONE, *every], "color", "iteration")
        facet = _column("Side by side", [_NONE, *few], "facet", _NONE)
        group = _column("Shape", [_NONE, *few], "group", "method")
    chosen = (None if name == _NONE else name for name in (color, facet, group))
    return exploring.View(x, y, *chosen)


def _column(label: str, names: list[str], key: str, usual: str) -> str:
    found: str = st.selectbox(
        label,
        names,
        index=names.index(usual) if usual in names else 0,
        key=key,
        bind="query-params",
        width=190,
        format_func=tables.label,
    )
    return found


def _brushed(study: Study) -> set[int]:
    name, trials = st.session_state.get("brushed", ("", []))
    return set(trials) if name == study.name else set()


def _brush(study: Study, trials: list[int]) -> None:
    st.session_state["brushed"] = (study.name, trials)


def _ticked(study: Study) -> None:
    """Rows that were ticked are brushed."""
    shown = st.session_state.get("explored", [])
    rows = st.session_state["explored_table"]["selection"]["rows"]
    _brush(study, [shown[row] for row in rows if row < len(shown)])


def _note(runs: Place, study: Study, known: notes.Notes) -> None:
    """Fields for what people say of the study or of one of its trials."""
    if st.session_state.get("read_only"):
        return
    with st.popover("Star, tag, note or archive"):
        trial = st.selectbox(
            "What",
            [None, *study.trials["trial_id"].to_list()],
            format_func=lambda one: "this study" if one is None else f"trial {one}",
            key="noted",
        )
        key = Key(study.name, trial)
        before = known.of(key)
        with st.form(f"note {key.text}", border=False):
            star = st.checkbox("Star", value=before.star)
            tags = st.text_input("Tags, separated by commas", value=", ".join(before.tags))
            text = st.text_area("Note", value=before.text, max_chars=4_000)
            archived = st.checkbox("Archive: leave it out of lists", value=before.archived)
            if st.form_submit_button("Save"):
                note = Note(star=star, tags=notes.tags_of(tags), text=text, archived=archived)
                try:
                    notes.change(runs, key, note)
                except InputError as error:
                    st.error(plain(str(error)))
                else:
                    st.rerun()
