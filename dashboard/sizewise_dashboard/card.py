"""The chosen model on a card: what it is, what it costs, and the commands that export it or train it longer."""

from html import escape
from typing import Any

import polars as pl
import streamlit as st

from sizewise.figures.decision import name_of
from sizewise.results import Choice, Study
from sizewise.results.commands import export, run_longer
from sizewise.results.intervals import point
from sizewise_core.units import format_auc, format_bytes, format_count, format_ratio, format_seconds
from sizewise_dashboard import uncertainty
from sizewise_dashboard.limits import Limits, references


def show(study: Study, choice: Choice, limits: Limits, details: st.Page | None) -> None:
    """Show the card.

    Args:
        study: of the model.
        choice: the model.
        limits: within which it was chosen.
        details: the page of its trial.
    """
    one = point(study, choice.trial_id, choice.iteration, choice.stored_as)
    with st.container(border=True, gap="small"):
        st.html(_as_list(name_of(one.row(0, named=True)), facts(study, one, limits)))
        st.caption(f"Export it{_exported(study, choice)}:")
        st.code(export(study, choice.trial_id, choice.stored_as), language="bash", wrap_lines=True)
        with st.container(horizontal=True, vertical_alignment="center"):
            with st.popover("Train it longer", type="tertiary"):
                st.caption("Twice the epochs, everything else as it was:")
                st.code(run_longer(study, choice.trial_id), language="bash", wrap_lines=True)
            if details:
                query = {"study": study.name, "trials": str(choice.trial_id), "at": str(choice.iteration)}
                st.page_link(details, label="Open the trial", query_params=query)


def facts(study: Study, one: pl.DataFrame, limits: Limits) -> dict[str, str]:
    """What the card says of an evaluation, by its headings.

    Args:
        study: of the evaluation.
        one: its row of the candidates.
        limits: within which it was chosen.
    """
    row = one.row(0, named=True)
    size = format_bytes(row[study.size])
    ratio = row.get("compression_ratio")
    said = {
        "Size": size + (f", {format_ratio(ratio)} smaller than full tables" if ratio and ratio > 1 else ""),
        "AUC": format_auc(row["auc"]) + (f" ({auc})" if (auc := uncertainty.of_auc(study, one)) else ""),
        f"Against {limits.against}": uncertainty.lost(study, one, references(study)[limits.against]).text,
        "Iterations": format_count(row["iteration"])
        + (f" ({row['epoch']:.3g} epochs)" if row.get("epoch") is not None else ""),
        "Training": _training(study, row),
    }
    latency = row.get("p99_ms")
    return {
        name: text
        for name, text in {**said, "p99 latency": f"{latency:.3g} ms" if latency else ""}.items()
        if text
    }


def _training(study: Study, row: dict[str, Any]) -> str:
    """How long it trained until this evaluation, and what its trial cost."""
    parts = [] if row.get("train_seconds") is None else [format_seconds(row["train_seconds"])]
    (money,) = study.trials.filter(trial_id=row["trial_id"])["money"].to_list() or [None]
    if money is not None and study.record.prices:
        parts.append(f"{money:,.4g} {study.record.prices.currency}")
    return ", ".join(parts)


def _exported(study: Study, choice: Choice) -> str:
    """A note where the kept checkpoint, that of the trial's best AUC, is of another iteration than the chosen one."""
    kept = study.trials.filter(pl.col("trial_id") == choice.trial_id)["iteration"][0]
    return (
        "" if kept == choice.iteration else f" (the model that is kept is of iteration {format_count(kept)})"
    )


def _as_list(title: str, lines: dict[str, str]) -> str:
    """A heading and a list of facts, all of it escaped, because studies choose some of the words."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in lines.items())
    return f'<div class="sizewise-card"><h3>{escape(title)}</h3><dl>{items}</dl></div>'
