"""The chosen model on a card: what it is, what it costs, and the commands that export it or train it longer."""

from html import escape
from typing import Any

import polars as pl
import streamlit as st

from sizewise.figures.tradeoffs.decision import name_of
from sizewise.results import Choice, Study
from sizewise.results.columns.teachers import taken
from sizewise.results.commands import export, run_longer
from sizewise.results.decision.baseline import Baseline
from sizewise.results.decision.intervals import point
from sizewise.results.weights import kept_weights
from sizewise_core.stores.storage import StorageError
from sizewise_core.units import format_auc, format_bytes, format_count, format_ratio, format_seconds
from sizewise_dashboard import snapshots
from sizewise_dashboard.decision import uncertainty
from sizewise_dashboard.decision.limits import Asked, references
from sizewise_dashboard.elements.today import TODAY, Today
from sizewise_dashboard.snapshots import Snapshot


def show(now: Snapshot, study: Study, choice: Choice, asked: Asked, details: st.Page | None) -> None:
    """Show the card.

    Args:
        now: the snapshot of the study.
        study: with the chosen methods only.
        choice: the model.
        asked: the limits within which it was chosen, and what runs today.
        details: the page of its trial.
    """
    one = point(study, choice.trial_id, choice.iteration, choice.stored_as)
    is_kept = snapshots.kept(now, ("weights", choice), lambda: _is_kept(study, choice))
    with st.container(border=True, gap="small"):
        st.html(_as_list(name_of(one.row(0, named=True)), facts(study, one, asked)))
        st.caption(f"Export it{'' if is_kept else _exported(study, choice)}:")
        at = choice.iteration if is_kept else None
        st.code(export(study, choice.trial_id, choice.stored_as, at), language="bash", wrap_lines=True)
        with st.container(horizontal=True, vertical_alignment="center"):
            with st.popover("Train it longer", type="tertiary", key="longer", on_change="rerun") as longer:
                if longer.open:  # the command needs PyTorch, which takes seconds to load
                    st.caption("Twice the epochs, everything else as it was:")
                    st.code(run_longer(study, choice.trial_id), language="bash", wrap_lines=True)
            if details:
                query = {"study": study.name, "trials": str(choice.trial_id), "at": str(choice.iteration)}
                st.page_link(details, label="Open the trial", query_params=query)


def facts(study: Study, one: pl.DataFrame, asked: Asked) -> dict[str, str]:
    """What the card says of an evaluation, by its headings; those of which nothing is known are left out.

    Args:
        study: of the evaluation.
        one: its row of the candidates.
        asked: the limits within which it was chosen, and what runs today.
    """
    row = one.row(0, named=True)
    against, today = asked.limits.against, asked.today
    difference = today.difference(study, one)
    compared, of_logloss = {}, None
    if against != TODAY:
        reference = references(study)[against]
        compared = {against: asked.lost or uncertainty.lost(study, one, reference)}
        of_logloss = uncertainty.lost(study, one, reference, "logloss")
    compared |= {} if difference is None else {"today": difference}
    said = {
        "Size": _size(row[study.size], row.get("compression_ratio"), today),
        "AUC": format_auc(row["auc"]) + (f" ({auc})" if (auc := uncertainty.of_auc(study, one)) else ""),
        **{f"Against {name}": interval.detail for name, interval in compared.items()},
        "Log-loss": of_logloss.detail if of_logloss and of_logloss.rows_error > 0 else "",
        "Iterations": format_count(row["iteration"])
        + (f" ({row['epoch']:.3g} epochs)" if row.get("epoch") is not None else ""),
        "Training": _training(study, row, today.baseline),
        **_teachers(study, row),
        "p99 latency": _latency(row.get("p99_ms"), today.baseline),
        "": today.money(row[study.size], difference) if difference else "",
    }
    return {name: text for name, text in said.items() if text}


def _size(size: int, ratio: float | None, today: Today) -> str:
    """The size of a model, and how much smaller that is than full tables, and than what runs today."""
    smaller = [f"{format_ratio(ratio)} smaller than full tables"] if ratio and ratio > 1 else []
    smaller += [f"{times} than today's"] if (times := today.sized(size)) else []
    return ", ".join([format_bytes(size), *smaller])


def _latency(measured: float | None, baseline: Baseline | None) -> str:
    """The latency of a model where it was measured, and that of what runs today."""
    parts = [f"{measured:.3g} ms"] if measured is not None else []
    if baseline and baseline.p99_ms is not None:
        parts = [*(parts or ["measured by its export"]), f"today's {baseline.p99_ms:.3g} ms"]
    return "; ".join(parts)


def _training(study: Study, row: dict[str, Any], baseline: Baseline | None) -> str:
    """How long it trained until this evaluation, and what its trial cost, beside what runs today."""
    parts = [] if row.get("train_seconds") is None else [format_seconds(row["train_seconds"])]
    (money,) = study.trials.filter(trial_id=row["trial_id"])["money"].to_list() or [None]
    if money is not None and study.record.prices:
        parts.append(f"{money:,.4g} {study.record.prices.currency}")
    if baseline and baseline.cost is not None:
        currency = f" {study.record.prices.currency}" if study.record.prices else ""
        parts.append(f"today's {baseline.cost:,.4g}{currency}")
    return ", ".join(parts)


def _teachers(study: Study, row: dict[str, Any]) -> dict[str, str]:
    """What a student learned from, and what that took on top."""
    roles = study.trials.filter(trial_id=row["trial_id"])
    if study.teachers is None or "role" not in roles.columns or roles["role"].to_list() != ["student"]:
        return {}
    names, took = study.teachers.names, taken(study.teachers) or "not counted"
    if len(names) == 1:
        return {"Teacher": f"{names[0]}, {took}"}
    return {
        "Teachers": f"{len(names)}, together {took}" if study.teachers.iterations else f"{len(names)}, {took}"
    }


def _is_kept(study: Study, choice: Choice) -> bool:
    """Whether the weights of the very evaluation can be exported."""
    try:
        return choice.iteration in kept_weights(study, choice.trial_id)
    except (StorageError, OSError):
        return False


def _exported(study: Study, choice: Choice) -> str:
    """A note where the kept checkpoint, that of the trial's best AUC, is of another iteration than the chosen one."""
    kept = study.trials.filter(pl.col("trial_id") == choice.trial_id)["iteration"][0]
    return (
        "" if kept == choice.iteration else f" (the model that is kept is of iteration {format_count(kept)})"
    )


def _as_list(title: str, lines: dict[str, str]) -> str:
    """A heading and a list of facts, all of it escaped, because studies choose some of the words.

    Args:
        title: the heading.
        lines: facts by their headings; one without a heading stands below the others.
    """
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in lines.items() if name)
    below = f"<p>{escape(lines[''])}</p>" if "" in lines else ""
    return f'<div class="sizewise-card"><h3>{escape(title)}</h3><dl>{items}</dl>{below}</div>'
