"""The best model within limits, and what else says which model to take; `answering` has the study's answer."""

from dataclasses import astuple, dataclass, fields
from typing import Any, Self

import polars as pl

from sizewise.results.columns import teachers
from sizewise.results.reading import Study
from sizewise_core.errors import InputError
from sizewise_core.units import format_auc, format_bytes, format_count, format_seconds

NEAR = 0.002  # differences of AUC that people call small: a tenth of what a thousandfold compression costs
# differences of AUC smaller than this are floating-point noise, not a limit missed
EPSILON = 1e-12


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
    auc_low: float | None = None
    auc_high: float | None = None
    """The ends of the 95 % interval of its AUC; None where no error is known."""


@dataclass(frozen=True)
class Point:
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
    auc_low: float | None
    auc_high: float | None
    size: int
    """By what the study means by it."""
    cooled_down: bool | None = None
    """Whether its learning rate had fallen; None where no trial's falls."""

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


@dataclass(frozen=True, eq=False)
class _Limit:
    """One limit: in words, as a filter, and what comes nearest to it (`extreme`, first in order of `by`)."""

    text: str
    met: pl.Expr
    extreme: str
    by: list[str]
    descending: bool = False

    def closest(self, points: pl.DataFrame, size: str) -> Point:
        down = [self.descending] + [False] * (len(self.by) - 1)
        return Point.first(points.sort(self.by, descending=down), size)


@dataclass(frozen=True)
class Limits:
    """What a model may be at most, or must be at least; all inclusive, and None for no limit.

    Attributes:
        max_bytes: of the study's size objective.
        max_iterations: of optimizer steps until then.
        min_auc: the least validation AUC.
        max_seconds: of the time trained until then.
    """

    max_bytes: int | None = None
    max_iterations: int | None = None
    min_auc: float | None = None
    max_seconds: float | None = None

    def fitting(self, study: Study) -> tuple[pl.DataFrame, str]:
        """The study's candidates that keep to all of them, and these in words.

        Raises:
            InputError: none does; the message says what comes nearest.
        """
        points, size = study.candidates, study.size
        limits = _limits(size, self)
        wanted = _listed([limit.text for limit in limits])
        found = points.filter(*(limit.met for limit in limits))
        if found.is_empty():
            raise InputError(
                f"study {study.name}: no model has {wanted}. Nearest: {_nearest(points, limits, size)}."
            )
        return found, wanted


def choose(
    study: Study,
    max_bytes: int | None = None,
    max_iterations: int | None = None,
    min_auc: float | None = None,
    max_seconds: float | None = None,
) -> Choice:
    """The evaluation to ship within the limits, all inclusive.

    With `min_auc`: the smallest model that reaches it (then the fewest iterations). Without: the highest
    validation AUC (then the smallest). `answer` has the smallest model that loses little.

    Args:
        study: its evaluations are what is chosen from.
        max_bytes, max_iterations, min_auc, max_seconds: as `Limits` has them.

    Raises:
        InputError: nothing fits; the message says what comes nearest.
    """
    if study.candidates.is_empty():
        raise InputError(f"study {study.name}: {nothing(study)} There is nothing to choose from.")
    size = study.size
    fitting, wanted = Limits(max_bytes, max_iterations, min_auc, max_seconds).fitting(study)
    if min_auc is not None:
        found = Point.first(fitting.sort(size, "iteration", "auc", descending=[False, False, True]), size)
        why = f"the smallest model with {wanted}"
    else:
        found = best_of(fitting, size)
        why = f"the highest validation AUC with {wanted}" if wanted else "the highest validation AUC"
    why += f", out of {evaluations_text(len(fitting))} that fit{failed_seeds(study, found)}"
    if taken := learned(study, found, others=False):
        why += f".{taken.rstrip('.')}"
    return found.chosen(why)


def learned(study: Study, point: Point, others: bool = True) -> str:
    """What the teachers of the model that is meant took.

    Args:
        study: the model's.
        point: the model.
        others: where it had no teachers, those of the study's other models.
    """
    if study.teachers is None or "student" not in study.trials["role"]:
        return ""
    if study.trials.filter(trial_id=point.trial_id)["role"].to_list() == ["student"]:
        return teachers.sentence(study.teachers)
    return teachers.sentence(study.teachers, "The study's students") if others else ""


def _limits(size: str, asked: Limits) -> list[_Limit]:
    max_bytes, max_iterations, min_auc, max_seconds = astuple(asked)
    limits = []
    if max_bytes is not None:
        text, met = f"at most {format_bytes(max_bytes)}", pl.col(size) <= max_bytes
        limits.append(_Limit(text, met, "the smallest model", [size, "iteration"]))
    if max_iterations is not None:
        text, met = f"at most {iterations_text(max_iterations)}", pl.col("iteration") <= max_iterations
        limits.append(_Limit(text, met, "the one of fewest iterations", ["iteration", size]))
    if max_seconds is not None:
        text, met = (
            f"at most {format_seconds(max_seconds)} of training",
            pl.col("train_seconds") <= max_seconds,
        )
        limits.append(_Limit(text, met, "the one trained for the shortest time", ["train_seconds", size]))
    if min_auc is not None:
        text, met = f"an AUC of at least {min_auc:g}", pl.col("auc") >= min_auc - EPSILON
        limits.append(_Limit(text, met, "the highest AUC", ["auc", size, "iteration"], descending=True))
    return limits


def failed_seeds(study: Study, point: Point) -> str:
    """What a mean over the seeds of a configuration hides: how many of them failed, for example by diverging."""
    seeds = study.trials.filter(configuration=point.configuration)["state"]
    failed = (seeds == "failed").sum()
    return f"; {failed} of its {len(seeds)} seeds failed" if failed else ""


def nothing(study: Study) -> str:
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


def _point(point: Point) -> str:
    steps = iterations_text(point.iteration)
    return f"trial {point.trial_id} (AUC {format_auc(point.auc)}, {format_bytes(point.size)}, {steps})"


def best_of(points: pl.DataFrame, size: str) -> Point:
    """The highest AUC among them; of equals the smallest, then the one of fewest iterations."""
    # Sorting the hundred thousands of evaluations of a large study would take longer than all else.
    highest = points.filter(pl.col("auc") == pl.col("auc").max())
    return Point.first(highest.sort(size, "iteration", maintain_order=True), size)


def smallest_of(points: pl.DataFrame, size: str) -> Point:
    """The smallest among them; of equals the one of fewest iterations, then the highest AUC."""
    return Point.first(points.sort(size, "iteration", "auc", descending=[False, False, True]), size)


def answer_among(points: pl.DataFrame, best: Point, size: str) -> Point:
    """The answer among those that lose little: the smallest, or the best one itself where none is smaller.

    Args:
        points: candidates that lose little.
        best: the highest AUC of the study.
        size: the column of their size.
    """
    found = smallest_of(points, size)
    if found.size < best.size:
        return found
    itself = points.filter(trial_id=best.trial_id, iteration=best.iteration)
    if "stored_as" in points.columns:
        itself = itself.filter(pl.col("stored_as").eq_missing(pl.lit(best.stored_as, pl.String)))
    return found if itself.is_empty() else best


def near(points: pl.DataFrame, tolerance: float) -> pl.DataFrame:
    """Those within the tolerance of the highest AUC among them.

    Args:
        points: a study's candidates.
        tolerance: how much AUC they may lose.
    """
    return points.filter(pl.col("auc") >= pl.col("auc").max() - tolerance - EPSILON)


def iterations_text(count: int) -> str:
    """So many iterations."""
    return f"{format_count(count)} iteration{'' if count == 1 else 's'}"


def evaluations_text(count: int) -> str:
    """So many evaluations."""
    return f"{count:,} evaluation{'' if count == 1 else 's'}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else " and ".join([", ".join(parts[:-1]), parts[-1]]) if parts else ""
