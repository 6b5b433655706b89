"""The study's answer: the smallest model that loses little against the best, how sure that is, and in a sentence.

    found = answer(study)                      # loses at most 0.002 AUC by the estimate
    answer(study, confident=True)              # loses at most 0.002 at the worse end of the interval
    found.sentence, found.smallest, found.loss.low, found.rows_enough

The last line of `run`, `choose`, the report and the dashboard all take it from here, so that they never disagree.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.metrics.scores import GROUPS
from sizewise.results.columns.kept_errors import Score
from sizewise.results.columns.replicates import CONFIDENCE
from sizewise.results.columns.spread import Floats
from sizewise.results.decision.choosing import (
    EPSILON,
    NEAR,
    Choice,
    Limits,
    Point,
    answer_among,
    best_of,
    failed_seeds,
    learned,
    near,
    nothing,
)
from sizewise.results.decision.chosen_pair import AT_ONCE, ChosenPair
from sizewise.results.decision.intervals import Interval, difference, differences, point
from sizewise.results.decision.more_rows import more_rows
from sizewise.results.decision.selection import (
    Selection,
    contenders,
    covariances,
    critical_value,
    errors_of,
    selection,
)
from sizewise.results.decision.wording import lost_text, sentence, sentence_within, uncertainty
from sizewise.results.reading import Study
from sizewise_core.files.sealed import JsonObject


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
        paired: as `loss`, with the interval of two models that were named beforehand.
        logloss: the answer's log-loss minus the best one's, with that interval.
        confident: whether the interval's worse end, and not the estimate, had to be within the tolerance.
        met: whether it is: where limits leave no such model, `smallest` is the most accurate within them.
        selection: by how much the choice among many flatters; None where evaluations kept no errors.
        rows_enough: about how many validation rows would tell whether it loses more than the tolerance, if what it
            loses is as estimated; None where these rows do, or no number would, of which the sentence has the reason.
    """

    sentence: str
    tolerance: float
    best: Choice | None = None
    smallest: Choice | None = None
    loss: Interval | None = None
    paired: Interval | None = None
    logloss: Interval | None = None
    confident: bool = False
    met: bool = True
    selection: Selection | None = None
    rows_enough: int | None = None

    def as_json(self) -> JsonObject:
        """The same as one object."""
        return {
            "sentence": self.sentence,
            "tolerance": self.tolerance,
            "confident": self.confident,
            "met": self.met,
            "best": asdict(self.best) if self.best else None,
            "smallest": asdict(self.smallest) if self.smallest else None,
            "loss": self.loss.as_json() if self.loss else None,
            "paired": self.paired.as_json() if self.paired else None,
            "logloss_difference": self.logloss.as_json() if self.logloss else None,
            "selection": self.selection.as_json() if self.selection else None,
            "rows_enough": self.rows_enough,
        }


_Ends = Callable[[float], tuple[float, float]]
"""The ends of an interval with so many times the validation rows."""


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
    def of(study: Study, best: Point, hoped: Point, tolerance: float) -> "_Compared":
        points = contenders(study.candidates, study.size, tolerance, _row(study, hoped))
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
        sizes = self.points[self.study.size].to_numpy()

        def choice(aucs: Floats) -> npt.NDArray[np.int64]:
            best = aucs.argmax(axis=1)
            within = fits & (aucs >= aucs.max(axis=1, keepdims=True) - tolerance - EPSILON)
            found = np.asarray(order[within[:, order].argmax(axis=1)])
            return np.where(within.any(axis=1) & (sizes[found] < sizes[best]), found, best)

        aucs = self.points["auc"].to_numpy()
        return selection(aucs, self.drawn, choice, self.study.candidates.height)

    def as_chosen(
        self, loss: Interval, found: Point, tolerance: float, allowed: pl.DataFrame
    ) -> _Ends | None:
        """What the answer loses, allowing for both it and the best one having been chosen by the same rows.

        Args:
            loss: with the interval of two models that were named beforehand.
            found: the answer, which is not the best one.
            tolerance: how much AUC it may lose.
            allowed: the candidates that keep to the limits beside.

        Returns:
            The ends of its interval with so many times the rows; None where the interval is that of `loss`.
        """
        number = int(np.flatnonzero(self._among(_row(self.study, found)))[0])
        of_rows, of_seeds = covariances(self.study, self.points, number, 0)
        moved = of_rows + of_seeds
        if self.drawn is None or not moved[number] - moved[0] > 0:
            return None
        order = self._order()
        earlier = np.zeros(len(order), dtype=bool)
        earlier[order[: np.flatnonzero(order == number)[0]]] = True
        earlier &= self._among(allowed)
        aucs = self.points["auc"].to_numpy()
        widest = critical_value(self.drawn, 0, self.errors, AT_ONCE)
        half = (loss.high - loss.low) / 2

        def ends(times: float) -> tuple[float, float]:
            pair = ChosenPair(aucs, of_rows / times + of_seeds, 0, number, earlier, tolerance)
            return pair.interval(half * _shrunk(loss, times), widest)

        return ends

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
    usual = _both(near(points, tolerance), fitting)
    # What more validation rows would make sure: the answer itself, or what would be the answer then.
    hoped = best_of(fitting, study.size) if usual.is_empty() else answer_among(usual, best, study.size)
    compared = _Compared.of(study, best, hoped, tolerance)
    allowed = _both(compared.sure(tolerance), fitting) if confident else usual
    met = not allowed.is_empty()
    found = answer_among(allowed, best, study.size) if met else best_of(fitting, study.size)
    loss, paired = _loss(compared, found, best, confident), lost(study, found)
    hoped_loss = _loss(compared, hoped, best, confident)
    is_chosen = met and not confident and loss.basis == "paired" and found != best
    ends = compared.as_chosen(loss, found, tolerance, fitting) if is_chosen else None
    if ends is not None:
        loss = hoped_loss = replace(loss, low=ends(1.0)[0], high=ends(1.0)[1])
    more = more_rows(study.record.data.rows.validation, hoped_loss, tolerance, _worse_end(hoped_loss, ends))
    why = "the smallest model" if met else f"the most accurate model with {wanted}"
    why += f" within {tolerance:g} AUC of the best" if met else ""
    if wanted or confident:
        said = sentence_within(study, best, found, tolerance, wanted, confident, met)
    else:
        said = sentence(study, best, found, tolerance)
    if found != best and loss.known and (loss.basis == "paired" or confident):
        said = f"{said[:-1]}; {lost_text(loss)}."
    return Answer(
        f"{said}{learned(study, found)}{uncertainty(study, loss, tolerance, more, confident)}",
        tolerance,
        best.chosen(f"the highest validation AUC{failed_seeds(study, best)}"),
        found.chosen(f"{why}{failed_seeds(study, found)}"),
        loss,
        paired,
        lost(study, found, "logloss"),
        confident,
        met,
        compared.selection(tolerance, fitting),
        more.enough,
    )


def _both(points: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Those points that are among the others too."""
    return points.join(others, on=_identity(points), how="semi", nulls_equal=True)


def lost(study: Study, choice: Choice | Point, score: Score = "auc") -> Interval:
    """A score of a choice minus that of the model with the best AUC, with its 95 % interval.

    Args:
        study: of both.
        choice: the model; the interval is that of two models that were named beforehand.
        score: which score.
    """
    one = point(study, choice.trial_id, choice.iteration, choice.stored_as)
    return difference(study, one, _row(study, best_of(study.candidates, study.size)), score)


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


def _shrunk(loss: Interval, times: float) -> float:
    """How long the standard error is with so many times the rows, as a share of what it is: seeds' part stays."""
    of_seeds = loss.seeds_error or 0.0
    return math.hypot(loss.rows_error / math.sqrt(times), of_seeds) / math.hypot(loss.rows_error, of_seeds)


def _worse_end(loss: Interval, ends: _Ends | None) -> Callable[[float], float]:
    """The interval's worse end with so many times the rows.

    Args:
        loss: as these rows have it.
        ends: of an interval that allows for the choice; None where it only shrinks.
    """

    def end(times: float) -> float:
        return ends(times)[0] if ends else loss.value - (loss.value - loss.low) * _shrunk(loss, times)

    return end
