"""Which model to take: the answer in a sentence, and the best model within limits."""

import math
from dataclasses import dataclass, fields
from typing import Any, Self

import polars as pl

from sizewise.metrics.scores import SMALL
from sizewise.results import teachers
from sizewise.results.reading import Study
from sizewise.results.status import NEAR
from sizewise_core.errors import InputError
from sizewise_core.units import format_auc, format_bytes, format_count, format_ratio, format_seconds

# differences of AUC smaller than this are floating-point noise, not a limit missed
_EPSILON = 1e-12


@dataclass(frozen=True)
class Choice:
    """One evaluation that was chosen, and why; sizes in bytes, scores on the validation split."""

    trial_id: int
    iteration: int
    epoch: float | None
    auc: float
    embedding_bytes: int
    model_bytes: int | None
    compression_ratio: float | None
    why: str
    stored_as: str | None = None
    """The storage that the trained model is rounded to; None where it is chosen as it was trained."""


@dataclass(frozen=True)
class _Point:
    """One candidate; sizes in bytes."""

    configuration: int
    trial_id: int
    iteration: int
    epoch: float | None
    auc: float
    embedding_bytes: int
    model_bytes: int | None
    compression_ratio: float | None
    stored_as: str | None
    size: int
    """By what the study means by it."""

    @classmethod
    def first(cls, points: pl.DataFrame, size: str) -> Self:
        """The first row of a table of candidates."""
        row = points.row(0, named=True)
        values: dict[str, Any] = {one.name: row.get(one.name) for one in fields(cls)}
        return cls(**{**values, "size": row[size]})

    def chosen(self, why: str) -> Choice:
        """It, chosen for that reason."""
        return Choice(
            **{one.name: getattr(self, one.name) for one in fields(Choice) if one.name != "why"}, why=why
        )


@dataclass(frozen=True)
class Answer:
    """The study's answer; `best` and `smallest` are None before anything was evaluated."""

    sentence: str
    tolerance: float
    best: Choice | None = None
    smallest: Choice | None = None


@dataclass(frozen=True, eq=False)
class _Limit:
    """One limit: in words, as a filter, and what comes nearest to it (`extreme`, first in order of `by`)."""

    text: str
    met: pl.Expr
    extreme: str
    by: list[str]
    descending: bool = False

    def closest(self, points: pl.DataFrame, size: str) -> _Point:
        down = [self.descending] + [False] * (len(self.by) - 1)
        return _Point.first(points.sort(self.by, descending=down), size)


def choose(
    study: Study,
    max_bytes: int | None = None,
    max_iterations: int | None = None,
    min_auc: float | None = None,
    max_seconds: float | None = None,
) -> Choice:
    """The evaluation to ship within the limits, all inclusive.

    With `min_auc`: the smallest model that reaches it (then the fewest iterations). Without: the highest
    validation AUC (then the smallest).

    Args:
        study: its evaluations are what is chosen from.
        max_bytes: limit of the study's size objective.
        max_iterations: limit of the optimizer steps until then.
        min_auc: the least validation AUC.
        max_seconds: limit of the time trained until then.

    Raises:
        InputError: nothing fits; the message says what comes nearest.
    """
    points = study.candidates
    if points.is_empty():
        raise InputError(f"study {study.name}: {_nothing(study)} There is nothing to choose from.")
    size = study.size
    limits = _limits(size, max_bytes, max_iterations, min_auc, max_seconds)
    wanted = _listed([limit.text for limit in limits])
    fitting = points.filter(*(limit.met for limit in limits))
    if fitting.is_empty():
        raise InputError(
            f"study {study.name}: no model has {wanted}. Nearest: {_nearest(points, limits, size)}."
        )
    if min_auc is not None:
        found = _Point.first(fitting.sort(size, "iteration", "auc", descending=[False, False, True]), size)
        why = f"the smallest model with {wanted}"
    else:
        found = _best(fitting, size)
        why = f"the highest validation AUC with {wanted}" if limits else "the highest validation AUC"
    why += f", out of {_evaluations(len(fitting))} that fit{_failed_seeds(study, found)}"
    if learned := _teachers(study, found, others=False):
        why += f".{learned.rstrip('.')}"
    return found.chosen(why)


def answer(study: Study, tolerance: float = NEAR) -> Answer:
    """How small a model can be within `tolerance` of the best validation AUC, in a sentence."""
    points = study.candidates
    if points.is_empty():
        return Answer(_nothing(study), tolerance)
    size = study.size
    best = _best(points, size)
    near = points.filter(pl.col("auc") >= best.auc - tolerance - _EPSILON)
    smallest = _Point.first(near.sort(size, "iteration", "auc", descending=[False, False, True]), size)
    return Answer(
        f"{_sentence(study, best, smallest, tolerance)}{_teachers(study, smallest)}{_uncertainty(study)}",
        tolerance,
        best.chosen(f"the highest validation AUC{_failed_seeds(study, best)}"),
        smallest.chosen(
            f"the smallest model within {tolerance:g} AUC of the best{_failed_seeds(study, smallest)}",
        ),
    )


def _teachers(study: Study, point: _Point, others: bool = True) -> str:
    """What the teachers of the model that is meant took; or those of the study's other models, if `others`."""
    if study.teachers is None or "student" not in study.trials["role"]:
        return ""
    if study.trials.filter(trial_id=point.trial_id)["role"].to_list() == ["student"]:
        return teachers.sentence(study.teachers)
    return teachers.sentence(study.teachers, "The study's students") if others else ""


def _uncertainty(study: Study) -> str:
    """That the validation split is too small for its AUCs to be taken at their word, where it is."""
    error = study.record.data.auc_error
    if not SMALL < error < math.inf:
        return ""
    rows = study.record.data.rows.validation
    return (
        f" With {rows:,} validation rows, differences below about {error:.2g} may be chance: that is the standard "
        "error of an AUC."
    )


def _limits(
    size: str,
    max_bytes: int | None,
    max_iterations: int | None,
    min_auc: float | None,
    max_seconds: float | None,
) -> list[_Limit]:
    limits = []
    if max_bytes is not None:
        text, met = f"at most {format_bytes(max_bytes)}", pl.col(size) <= max_bytes
        limits.append(_Limit(text, met, "the smallest model", [size, "iteration"]))
    if max_iterations is not None:
        text, met = f"at most {_iterations(max_iterations)}", pl.col("iteration") <= max_iterations
        limits.append(_Limit(text, met, "the one of fewest iterations", ["iteration", size]))
    if max_seconds is not None:
        text, met = (
            f"at most {format_seconds(max_seconds)} of training",
            pl.col("train_seconds") <= max_seconds,
        )
        limits.append(_Limit(text, met, "the one trained for the shortest time", ["train_seconds", size]))
    if min_auc is not None:
        text, met = f"an AUC of at least {min_auc:g}", pl.col("auc") >= min_auc - _EPSILON
        limits.append(_Limit(text, met, "the highest AUC", ["auc", size, "iteration"], descending=True))
    return limits


def _sentence(study: Study, best: _Point, smallest: _Point, tolerance: float) -> str:
    weight, auc = format_bytes(smallest.size), format_auc(smallest.auc)
    weight += f" in {smallest.stored_as}" if smallest.stored_as else ""
    full = study.record.data.full_bytes
    against_full = ""
    if full and full > smallest.size:
        against_full = f", {format_ratio(full / smallest.size)} smaller than the full tables"
    if study.candidates["trial_id"].n_unique() == 1:
        found = f"AUC {format_auc(best.auc)} at {weight} after {_iterations(best.iteration)}"
        so_far = "" if study.state == "finished" else " so far"
        return f"Only one trial has been evaluated{so_far}: {found}{against_full}."
    if smallest.size == best.size:
        alone = study.candidates.filter(pl.col("auc") >= best.auc - tolerance - _EPSILON)
        rest = "no other model" if alone["trial_id"].n_unique() == 1 else "no smaller model"
        sentence = (
            f"The best model (AUC {format_auc(best.auc)}, {weight}) is also the smallest: {rest} comes "
            f"within {tolerance:g} AUC of it{against_full.replace(', ', '; it is ', 1)}."
        )
    else:
        iterations = smallest.iteration / best.iteration if best.iteration else 1.0
        cost = "the same number of" if f"{iterations:.3g}" == "1" else f"{_short(iterations)} the"
        sentence = (
            f"The smallest model within {tolerance:g} AUC of the best ({format_auc(best.auc)}, "
            f"{format_bytes(best.size)}) is {weight} (AUC {auc}): {_short(best.size / smallest.size)} "
            f"smaller, for {cost} iterations"
        )
        # Where the best model is about as large as the full tables, it has been said already.
        sentence += f"{against_full.replace(', ', ', and ', 1)}." if full and full > 1.1 * best.size else "."
    if failed := _failed_seeds(study, smallest):
        sentence = f"{sentence[:-1]}{failed}."
    if study.state == "finished":
        return sentence
    done = study.trials.filter(pl.col("state").is_in(["finished", "pruned"])).height
    asked = study.record.trials or study.trials.height
    return f"So far, with {done} of {asked} trials finished, {sentence[0].lower()}{sentence[1:]}"


def _failed_seeds(study: Study, point: _Point) -> str:
    """What a mean over the seeds of a configuration hides: how many of them failed, for example by diverging."""
    seeds = study.trials.filter(configuration=point.configuration)["state"]
    failed = (seeds == "failed").sum()
    return f"; {failed} of its {len(seeds)} seeds failed" if failed else ""


def _short(ratio: float) -> str:
    """Two significant digits up to ten: one run of a stochastic search does not support a third."""
    return format_ratio(float(f"{ratio:.2g}") if ratio < 10 else ratio)


def _nothing(study: Study) -> str:
    """Why a study has nothing to answer with."""
    trials = study.trials.height
    if study.evaluations.height and study.record.constraints and study.candidates.is_empty():
        return "No evaluation keeps to the study's constraints yet."
    if trials and (study.trials["state"] == "failed").all():
        both = {1: "The only trial", 2: "Both trials"}
        return f"{both.get(trials, f'All {trials} trials')} failed, so there is no model yet."
    if study.evaluations.filter(pl.col("auc").is_null()).height:
        return "No evaluation has a defined AUC yet."
    return "No trial has been evaluated yet."


def _nearest(points: pl.DataFrame, limits: list[_Limit], size: str) -> str:
    """What is nearest to each limit while the others hold; if no single limit is to blame, to each alone."""
    nearest = {}
    for limit in limits:
        rest = points.filter(*(other.met for other in limits if other is not limit))
        if not rest.is_empty():
            nearest[limit] = rest
    among = " within the other limits" if nearest and len(limits) > 1 else ""
    return "; ".join(
        f"{limit.extreme}{among} is {_point(limit.closest(rest, size))}"
        for limit, rest in (nearest or dict.fromkeys(limits, points)).items()
    )


def _point(point: _Point) -> str:
    steps = _iterations(point.iteration)
    return f"trial {point.trial_id} (AUC {format_auc(point.auc)}, {format_bytes(point.size)}, {steps})"


def _best(points: pl.DataFrame, size: str) -> _Point:
    return _Point.first(points.sort("auc", size, "iteration", descending=[True, False, False]), size)


def _iterations(count: int) -> str:
    return f"{format_count(count)} iteration{'' if count == 1 else 's'}"


def _evaluations(count: int) -> str:
    return f"{count:,} evaluation{'' if count == 1 else 's'}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else " and ".join([", ".join(parts[:-1]), parts[-1]]) if parts else ""
