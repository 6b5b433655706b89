"""The first page of the report: the answer, one figure, five options as a table, and caveats.

options(study, found)       # five models from the smallest to the best, the answer among them
caveats(study, found)       # what the numbers do not say
figure(study, "tradeoff")   # as an SVG to be set into a page; "" without Matplotlib
"""

import re

import polars as pl

from sizewise.figures.elements.axes import Axes
from sizewise.figures.paper import paper
from sizewise.figures.tradeoffs.decision import best_points, envelope
from sizewise.results import Answer, Choice, Study, answer
from sizewise.results.columns.kept_errors import ERRORS
from sizewise.results.commands import export
from sizewise.results.decision.baseline import Baseline, against
from sizewise.results.decision.intervals import Interval, differences
from sizewise.results.weights import kept_weights
from sizewise_core.errors import InputError
from sizewise_core.units import format_auc, format_bytes, format_count, format_seconds

MOST_OPTIONS = 5


def options(study: Study, found: Answer, today: Baseline | None = None) -> list[dict[str, str]]:
    """The cells of the table of options, by their headings, from the smallest model to the largest.

    Args:
        study: whose models.
        found: its answer; there is one.
        today: what runs today, with which each is compared too.
    """
    picked = _picked(study, found)
    reference = _of(study, found.best)
    lost = (differences(study, picked, reference, score).to_dicts() for score in ERRORS)
    rows = [
        _cells(study, row, Interval.of_row(of_auc), Interval.of_row(of_logloss), found)
        for row, of_auc, of_logloss in zip(picked.to_dicts(), *lost, strict=True)
    ]
    if today is not None:
        for cells, one in zip(rows, against(study, picked, today), strict=True):
            cells["against today"] = one.detail
    return rows


def _picked(study: Study, found: Answer) -> pl.DataFrame:
    """The answer, the best one, what is sure, and of the best at each size as many as there is room for."""
    sure = answer(study, found.tolerance, confident=True)
    named = [_of(study, one) for one in (found.best, found.smallest, sure.smallest)]
    points = best_points(study, Axes().of(study))
    steps = points.join(envelope(points, study.size), on=[study.size, "auc"], how="semi")
    steps = steps.unique(study.size, keep="first").sort(study.size)
    same = ["trial_id", "iteration", *(name for name in ("stored_as",) if name in points.columns)]
    picked = pl.concat([one.select(points.columns) for one in named]).unique(same, maintain_order=True)
    steps = steps.join(picked, on=same, how="anti", nulls_equal=True)
    room = MOST_OPTIONS - picked.height
    if room > 0 and steps.height:
        # Evenly over the sizes, which are in order.
        numbers = [round((n + 0.5) * steps.height / room - 0.5) for n in range(min(room, steps.height))]
        picked = pl.concat([picked, steps[sorted(set(numbers))]])
    return picked.sort(study.size, "iteration")


def _of(study: Study, one: Choice | None) -> pl.DataFrame:
    """The candidate that was chosen."""
    if one is None:
        return study.candidates.head(0)
    points = study.candidates.filter(trial_id=one.trial_id, iteration=one.iteration)
    if "stored_as" in points.columns:
        points = points.filter(pl.col("stored_as").eq_missing(pl.lit(one.stored_as, pl.String)))
    return points.head(1)


def _cells(
    study: Study, row: dict[str, object], lost: Interval, of_logloss: Interval, found: Answer
) -> dict[str, str]:
    def is_(one: Choice | None) -> bool:
        return one is not None and (row["trial_id"], row["iteration"], row.get("stored_as")) == (
            one.trial_id,
            one.iteration,
            one.stored_as,
        )

    role = " and ".join(name for name, one in (("answer", found.smallest), ("best", found.best)) if is_(one))
    auc, low, high = (row[name] for name in ("auc", "auc_low", "auc_high"))
    interval = "" if low is None else f" ({low:.4f} to {high:.4f})"
    seconds = row.get("train_seconds")
    lost = found.loss if is_(found.smallest) and found.loss is not None else lost
    return {
        "": role,
        "trial": str(row["trial_id"]),
        **({"method": str(row["method"])} if row.get("method") is not None else {}),
        **({"stored as": str(row["stored_as"] or "as trained")} if "stored_as" in row else {}),
        "size": format_bytes(row[study.size]),  # type: ignore[arg-type]
        "AUC (95 %)": f"{format_auc(auc)}{interval}",  # type: ignore[arg-type]
        "against the best": "" if is_(found.best) else lost.detail,
        "log-loss against it": "" if is_(found.best) else of_logloss.short,
        "iterations": format_count(row["iteration"]),  # type: ignore[arg-type]
        "training": "" if seconds is None else format_seconds(seconds),  # type: ignore[arg-type]
    }


def command(study: Study, found: Answer) -> str:
    """What exports the answer."""
    one = found.smallest
    if one is None:
        return ""
    kept = one.iteration in kept_weights(study, one.trial_id)
    return export(study, one.trial_id, one.stored_as, one.iteration if kept else None)


def caveats(study: Study, found: Answer, today: Baseline | None = None) -> list[str]:
    """What the numbers do not say, a sentence each.

    Args:
        study: the study.
        found: its answer.
        today: what runs today.
    """
    lines = []
    if today is not None:
        exact = "" if today.parts is not None else ", whose AUC is taken as exact"
        lines.append(f"Today is {today.text}{exact}.")
    if found.selection:
        lines.append(f"{found.selection.text}.")
    if "replicates" in study.candidates.columns and (study.candidates["replicates"] == 1).all():
        lines.append(
            "Each configuration was trained with one seed: how much another seed would change is not known."
        )
    basis = found.loss.basis if found.loss else "paired"
    if basis != "paired":
        lines.append(
            "Evaluations of this version kept no errors: models are compared as if they were independent."
        )
    if study.state != "finished":
        lines.append(f"The study is {study.state}: more trials may change the answer.")
    failed = int((study.trials["state"] == "failed").sum())
    if failed:
        lines.append(f"{failed} of {study.trials.height} trials failed.")
    if study.problems:
        lines.append(
            f"{len(study.problems)} things of the study could not be read; see the end of this report."
        )
    lines.append(
        "AUCs are on the validation split, by which models were chosen; the test split decided nothing."
    )
    return lines


def figure(study: Study, kind: paper.Kind, today: Baseline | None = None, width: float = 6.6) -> str:
    """A figure as an SVG to be set into a page; "" where there is nothing to draw, or no Matplotlib.

    Args:
        study: what it shows.
        kind: of the figure.
        today: what runs today, which is drawn too.
        width: in inches.
    """
    try:
        text = paper.drawn(study, kind, "svg", width, today).content.decode()
    except InputError:
        return ""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Names of formats, which look like addresses; within HTML they are known.
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    # Several of them on one page must not use each other's parts.
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{kind}-", text)
    return f'<figure class="static" role="img" aria-label="{kind}">{text}</figure>'
