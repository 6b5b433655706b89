"""The study's answer: the smallest model that loses little against the best, how sure that is, and in a sentence.

    found = answer(study)                      # loses at most 0.002 AUC by the estimate
    answer(study, confident=True)              # loses at most 0.002 at the worse end of the interval
    found.sentence, found.smallest, found.loss.low, found.rows_enough

The last line of `run`, `choose`, the report and the dashboard all take it from here, so that they never disagree.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.metrics.scores import GROUPS, SMALL
from sizewise.results.choosing import (
    EPSILON,
    Choice,
    Limits,
    Point,
    best_of,
    failed_seeds,
    iterations_text,
    learned,
    near,
    nothing,
    smallest_of,
)
from sizewise.results.chosen_pair import AT_ONCE, ChosenPair
from sizewise.results.intervals import Interval, difference, differences, point
from sizewise.results.reading import Study
from sizewise.results.replicates import CONFIDENCE
from sizewise.results.selection import (
    Selection,
    contenders,
    covariances,
    critical_value,
    errors_of,
    selection,
)
from sizewise.results.spread import Floats
from sizewise.results.status import NEAR
from sizewise_core.units import format_auc, format_bytes, format_ratio


@dataclass(frozen=True)
class Answer:
    """The study's answer; `best` and `smallest` are None before anything was evaluated.

    Attributes:
        sentence: all of it in words.
        tolerance: how much AUC the smallest model may lose.
        best: the highest AUC of the study.
        smallest: the answer.
        loss: its AUC minus the best one's, with the 95 % interval, which allows for both having been chosen by the
            same rows; of a confident answer one that holds for all candidates at once. None without an answer.
        confident: whether the interval's worse end, and not the estimate, had to be within the tolerance.
        met: whether it is: where limits leave no such model, `smallest` is the most accurate within them.
        selection: by how much the choice among many flatters; None where evaluations kept no errors.
        rows_enough: about how many validation rows would tell whether it loses more than the tolerance; None where
            these rows do, or no number would.
    """

    sentence: str
    tolerance: float
    best: Choice | None = None
    smallest: Choice | None = None
    loss: Interval | None = None
    confident: bool = False
    met: bool = True
    selection: Selection | None = None
    rows_enough: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as one object."""
        return {
            "sentence": self.sentence,
            "tolerance": self.tolerance,
            "confident": self.confident,
            "met": self.met,
            "best": asdict(self.best) if self.best else None,
            "smallest": asdict(self.smallest) if self.smallest else None,
            "loss": self.loss.as_json() if self.loss else None,
            "selection": self.selection.as_json() if self.selection else None,
            "rows_enough": self.rows_enough,
        }


@dataclass(frozen=True, eq=False)
class _Compared:
    """The candidates that could be chosen, compared with the best one; the study has at least one.

    Attributes:
        points: (n,) rows of the study's candidates, the best one first.
        lost: (n,) AUC below the best one's.
        errors: (n,) standard errors of that; NaN where none is known.
        drawn: (draws, n) errors of the AUCs; None where they kept no parts.
        wide: how many standard errors reach to the end of an interval that holds for all of them at once.
    """

    study: Study
    points: pl.DataFrame
    lost: Floats
    errors: Floats
    drawn: Floats | None
    wide: float

    @staticmethod
    def of(study: Study, best: Point, tolerance: float) -> "_Compared":
        points = contenders(study.candidates, study.size, tolerance)
        table = differences(study, points, _row(study, best))
        variances = table.select(
            pl.col("rows_error").fill_null(math.nan) ** 2 + pl.col("seeds_error").fill_null(0.0) ** 2
        )
        errors = np.sqrt(variances.to_series().to_numpy())
        drawn = errors_of(study, points)
        if drawn is None:
            from scipy.special import stdtrit  # here, because SciPy takes a moment

            wide = float(stdtrit(GROUPS - 1, 1 - (1 - CONFIDENCE) / 2 / points.height))
        else:
            wide = critical_value(drawn, 0, errors)
        return _Compared(study, points, -table["value"].to_numpy(), errors, drawn, wide)

    def sure(self, tolerance: float) -> pl.DataFrame:
        """The candidates that lose no more, allowing for the choice among all of them."""
        within = self.lost + self.wide * self.errors <= tolerance + EPSILON
        return self.points.filter(pl.Series(within))  # NaN is not within

    def selection(self, tolerance: float, allowed: pl.DataFrame) -> Selection | None:
        """By how much the best and the answer are flattered, if that is known.

        Args:
            tolerance: how much AUC the answer may lose.
            allowed: the candidates that keep to the limits beside.
        """
        if self.drawn is None or self.points.height < 2:
            return None
        order, fits = self._order(), self._among(allowed)

        def choice(aucs: Floats) -> npt.NDArray[np.int64]:
            within = fits & (aucs >= aucs.max(axis=1, keepdims=True) - tolerance - EPSILON)
            found = np.asarray(order[within[:, order].argmax(axis=1)])
            return np.where(within.any(axis=1), found, aucs.argmax(axis=1))

        aucs = self.points["auc"].to_numpy()
        return selection(aucs, self.drawn, choice, self.study.candidates.height)

    def as_chosen(self, loss: Interval, found: Point, tolerance: float, allowed: pl.DataFrame) -> Interval:
        """What the answer loses, allowing for both it and the best one having been chosen by the same rows.

        Args:
            loss: with the interval of two models that were named beforehand.
            found: the answer, which is not the best one.
            tolerance: how much AUC it may lose.
            allowed: the candidates that keep to the limits beside.
        """
        number = int(np.flatnonzero(self._among(_row(self.study, found)))[0])
        moved = covariances(self.study, self.points, number, 0)
        if self.drawn is None or not moved[number] - moved[0] > 0:
            return loss
        order = self._order()
        earlier = np.zeros(len(order), dtype=bool)
        earlier[order[: np.flatnonzero(order == number)[0]]] = True
        earlier &= self._among(allowed)
        pair = ChosenPair(self.points["auc"].to_numpy(), moved, 0, number, earlier, tolerance)
        widest = critical_value(self.drawn, 0, self.errors, AT_ONCE)
        low, high = pair.interval((loss.high - loss.low) / 2, widest)
        return Interval(loss.value, low, high, loss.rows_error, loss.seeds_error, loss.basis)

    def _order(self) -> npt.NDArray[np.int64]:
        """The candidates in the order in which they are chosen, as far as they are near the best."""
        by = ("auc", "iteration", self.study.size)
        columns = [self.points[name].to_numpy() for name in by]
        return np.lexsort((-columns[0], *columns[1:]))

    def _among(self, others: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """(n,) whether each candidate is among the others too."""
        numbered = self.points.with_row_index()
        return np.isin(numbered["index"].to_numpy(), _both(numbered, others)["index"].to_numpy())


def answer(
    study: Study,
    tolerance: float = NEAR,
    confident: bool = False,
    limits: Limits = Limits(),  # noqa: B008
) -> Answer:
    """The smallest model that loses at most `tolerance` of the best validation AUC, and how sure that is.

    Args:
        study: whose models.
        tolerance: how much AUC it may lose.
        confident: the worse end of the 95 % interval of what it loses must be within the tolerance, not the estimate
            alone; the interval allows for the choice among all candidates.
        limits: what it must keep to beside. Where they leave no model that loses so little, the answer is the most
            accurate within them, and `met` is False.

    Raises:
        InputError: no candidate keeps to the limits.
    """
    points = study.candidates
    if points.is_empty():
        return Answer(nothing(study), tolerance, confident=confident)
    best = best_of(points, study.size)
    fitting, wanted = limits.fitting(study) if limits != Limits() else (points, "")
    compared = _Compared.of(study, best, tolerance)
    usual = _both(near(points, tolerance), fitting)
    allowed = _both(compared.sure(tolerance), fitting) if confident else usual
    met = not allowed.is_empty()
    found = smallest_of(allowed, study.size) if met else best_of(fitting, study.size)
    loss = _loss(compared, found, best, confident)
    if met and not confident and loss.basis == "paired" and not _are_same(found, best):
        loss = compared.as_chosen(loss, found, tolerance, fitting)
    # What more validation rows would make sure: the answer itself, or what would be the answer then.
    hoped = smallest_of(usual, study.size) if confident and not usual.is_empty() else found
    hoped_loss = loss if hoped is found else _loss(compared, hoped, best, confident)
    enough = _rows_enough(study, hoped_loss, tolerance)
    if wanted or confident:
        sentence = _sentence_within(study, best, found, tolerance, wanted, confident, met)
    else:
        sentence = _sentence(study, best, found, tolerance)
    if loss.known and (loss.basis == "paired" or confident) and not _are_same(found, best):
        sentence = f"{sentence[:-1]}; {_lost(loss)}."
    why = "the smallest model" if met else f"the most accurate model with {wanted}"
    why += f" within {tolerance:g} AUC of the best" if met else ""
    return Answer(
        f"{sentence}{learned(study, found)}{_uncertainty(study, loss, tolerance, enough)}",
        tolerance,
        best.chosen(f"the highest validation AUC{failed_seeds(study, best)}"),
        found.chosen(f"{why}{failed_seeds(study, found)}"),
        loss,
        confident,
        met,
        compared.selection(tolerance, fitting),
        enough,
    )


def _both(points: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Those points that are among the others too."""
    return points.join(others, on=_identity(points), how="semi", nulls_equal=True)


def lost(study: Study, choice: Choice) -> Interval:
    """The AUC of a choice minus the best one's, with its 95 % interval."""
    one = point(study, choice.trial_id, choice.iteration, choice.stored_as)
    return difference(study, one, _row(study, best_of(study.candidates, study.size)))


def _are_same(one: Point, other: Point) -> bool:
    return (one.trial_id, one.size, one.stored_as) == (other.trial_id, other.size, other.stored_as)


def _identity(points: pl.DataFrame) -> list[str]:
    return ["trial_id", "iteration", *(name for name in ("stored_as",) if name in points.columns)]


def _row(study: Study, one: Point) -> pl.DataFrame:
    return point(study, one.trial_id, one.iteration, one.stored_as)


def _loss(compared: _Compared, found: Point, best: Point, confident: bool) -> Interval:
    """What the model that was found loses against the best; of a confident answer, allowing for the choice."""
    study = compared.study
    row = differences(study, _row(study, found), _row(study, best)).row(0, named=True)
    loss = Interval.of_row(row)
    if not confident or not loss.known:
        return loss
    half = compared.wide * math.hypot(loss.rows_error, loss.seeds_error or 0.0)
    return Interval(
        loss.value, loss.value - half, loss.value + half, loss.rows_error, loss.seeds_error, loss.basis
    )


def _rows_enough(study: Study, loss: Interval, tolerance: float) -> int | None:
    """About how many validation rows bring the interval's worse end within the tolerance, the estimate staying.

    None where it is within, or no number would.
    """
    rows, error = study.record.data.rows.validation, math.hypot(loss.rows_error, loss.seeds_error or 0.0)
    if loss.basis != "paired" or loss.low >= -tolerance - EPSILON or not rows or not error:
        return None
    wide = (loss.value - loss.low) / error
    room = (max(tolerance + loss.value, tolerance / 10) / wide) ** 2 - (loss.seeds_error or 0.0) ** 2
    if room <= 0:
        return None
    needed = rows * loss.rows_error**2 / room
    unit: int = 10 ** max(0, len(str(math.ceil(needed))) - 2)
    return math.ceil(needed / unit) * unit


def _lost(loss: Interval) -> str:
    """A difference in words, and what its interval rests on where that is not the usual."""
    how = {"paired": "", "independent": ", the two taken for independent", "unknown": ""}[loss.basis]
    seeds = f", seeds differing by {loss.seeds_error:.4f}" if loss.seeds_error else ""
    return f"AUC {loss.text}{how}{seeds}"


def _uncertainty(study: Study, loss: Interval, tolerance: float, rows_enough: int | None) -> str:
    """That the validation split is too small for the answer to be taken at its word, where it is."""
    rows = study.record.data.rows.validation
    if rows_enough:
        return (
            f" {rows:,} validation rows do not tell whether a smaller one loses more than {tolerance:g}: about "
            f"{rows_enough:,} would be enough."
            if loss.low >= -tolerance - EPSILON
            else f" {rows:,} validation rows do not tell whether it loses more than {tolerance:g}: about "
            f"{rows_enough:,} would be enough."
        )
    if loss.basis == "paired" and loss.rows_error:
        if loss.low >= -tolerance - EPSILON or not rows:
            return ""
        return f" Whether it loses more than {tolerance:g} is not sure: more replicates are what would tell."
    error = study.record.data.auc_error
    if not SMALL < error < math.inf:
        return ""
    return (
        f" With {rows:,} validation rows, differences below about {error:.2g} may be chance: that is the standard "
        "error of an AUC."
    )


def _sentence_within(
    study: Study, best: Point, found: Point, tolerance: float, wanted: str, confident: bool, met: bool
) -> str:
    """The sentence of an answer that has to keep to limits, or be sure."""
    size = format_bytes(found.size) + (f" in {found.stored_as}" if found.stored_as else "")
    against = f"the best ({format_auc(best.auc)}, {format_bytes(best.size)})"
    among = f" with {wanted}" if wanted else ""
    surely = "surely " if confident else ""
    if not met:
        return (
            f"No model{among} {surely}loses at most {tolerance:g} AUC to {against}. The most accurate one is {size} "
            f"(AUC {format_auc(found.auc)})."
        )
    if confident and found.trial_id == best.trial_id and found.size == best.size:
        return f"No smaller model{among} surely loses at most {tolerance:g} AUC to {against}: it is the answer itself."
    smaller = f": {_short(best.size / found.size)} smaller" if best.size > found.size else ""
    return (
        f"The smallest model{among} that {surely}loses at most {tolerance:g} AUC to {against} is {size} "
        f"(AUC {format_auc(found.auc)}){smaller}."
    )


def _sentence(study: Study, best: Point, smallest: Point, tolerance: float) -> str:
    weight, auc = format_bytes(smallest.size), format_auc(smallest.auc)
    weight += f" in {smallest.stored_as}" if smallest.stored_as else ""
    full = study.record.data.full_bytes
    against_full = ""
    if full and full > smallest.size:
        against_full = f", {format_ratio(full / smallest.size)} smaller than the full tables"
    if study.candidates["trial_id"].n_unique() == 1:
        found = f"AUC {format_auc(best.auc)} at {weight} after {iterations_text(best.iteration)}"
        so_far = "" if study.state == "finished" else " so far"
        return f"Only one trial has been evaluated{so_far}: {found}{against_full}."
    if smallest.size == best.size:
        alone = near(study.candidates, tolerance)
        rest = "no other model" if alone["trial_id"].n_unique() == 1 else "no smaller model"
        sentence = (
            f"The best model (AUC {format_auc(best.auc)}, {weight}) is also the smallest: {rest} comes "
            f"within {tolerance:g} AUC of it{against_full.replace(', ', '; it is ', 1)}."
        )
    else:
        sentence = (
            f"The smallest model within {tolerance:g} AUC of the best ({format_auc(best.auc)}, "
            f"{format_bytes(best.size)}) is {weight} (AUC {auc}): {_short(best.size / smallest.size)} "
            f"smaller{_for_iterations(smallest, best)}"
        )
        # Where the best model is about as large as the full tables, it has been said already.
        sentence += f"{against_full.replace(', ', ', and ', 1)}." if full and full > 1.1 * best.size else "."
    if failed := failed_seeds(study, smallest):
        sentence = f"{sentence[:-1]}{failed}."
    if study.state == "finished":
        return sentence
    done = study.trials.filter(pl.col("state").is_in(["finished", "pruned"])).height
    asked = study.record.trials or study.trials.height
    return f"So far, with {done} of {asked} trials finished, {sentence[0].lower()}{sentence[1:]}"


def _for_iterations(smallest: Point, best: Point) -> str:
    """How many iterations the smaller one took; nothing where the learning rate of only one of both had fallen."""
    if smallest.cooled_down != best.cooled_down:
        return ""
    iterations = smallest.iteration / best.iteration if best.iteration else 1.0
    cost = "the same number of" if f"{iterations:.3g}" == "1" else f"{_short(iterations)} the"
    return f", for {cost} iterations"


def _short(ratio: float) -> str:
    """Two significant digits up to ten: one run of a stochastic search does not support a third."""
    return format_ratio(float(f"{ratio:.2g}") if ratio < 10 else ratio)
