"""What choosing among many models does to the numbers of those that are chosen.

    errors = errors_of(study, points)             # as they would be if the validation rows were drawn again
    flattery(points, errors, ...)                 # by how much the best of many looks better than it is
    critical_value(errors, differences, best)     # how many standard errors cover all of them at once

The highest of many measured AUCs is partly luck. How much, the kept parts of errors say: with weights of the 128 groups
of validation rows drawn at random, all models' errors are drawn anew, with their true correlations (multiplier
bootstrap), and the choice is repeated among what was measured plus these errors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.metrics.scores import GROUPS
from sizewise.results.columns.replicates import CONFIDENCE
from sizewise.results.columns.spread import Floats, seeds_of
from sizewise.results.reading import Study
from sizewise_core.files.sealed import JsonObject

DRAWS = 1_000
MOST_POINTS = 1_000  # of candidates; those with the lowest AUCs are never chosen
FAR = 6.0  # standard errors beyond which no draw brings a candidate


@dataclass(frozen=True)
class Selection:
    """By how much having been chosen flatters, in AUC.

    Attributes:
        among: how many candidates there were to choose from.
        best: by about how much the best one's AUC is too high because it is the best of so many.
        at_most: the same if all of them were equally good, which is the worst case.
        loss: by about how much the difference between the best and the chosen one is too large; below 0 where it is
            too small.
    """

    among: int
    best: float
    at_most: float
    loss: float

    def as_json(self) -> JsonObject:
        """The same as one object."""
        return {"among": self.among, "best": self.best, "at_most": self.at_most, "loss": self.loss}

    @property
    def text(self) -> str:
        """It in a sentence."""
        found = (
            f"Being the best of {self.among:,} candidates flatters the best AUC by about {self.best:.4f}, at most "
            f"{self.at_most:.4f}; the choice changes the difference by about {self.loss:.4f}"
        )
        return found.replace("-0.0000", "0.0000")


def contenders(points: pl.DataFrame, size: str, tolerance: float, kept: pl.DataFrame) -> pl.DataFrame:
    """The candidates that other validation rows could have made the best, or the choice; the best one first.

    Args:
        points: a study's candidates.
        size: the column of their size.
        tolerance: how much AUC a choice may lose.
        kept: one of them, which is among those found in any case.
    """
    error, highest = points["auc_error"].median() or 0.0, pl.col("auc").max()
    near = points.filter(pl.col("auc") >= highest - tolerance - FAR * error)  # type: ignore[operator]
    near = near.sort("auc", size, "iteration", descending=[True, False, False], maintain_order=True)
    if near.height <= MOST_POINTS:
        return near
    # Of each curve its best first: its other evaluations are much the same model.
    stored = [name for name in ("stored_as",) if name in near.columns]
    curve = pl.struct("configuration", *stored)
    first = near.sort(curve.is_first_distinct(), descending=True, maintain_order=True).head(MOST_POINTS)
    missing = kept.join(first, on=["trial_id", "iteration", *stored], how="anti", nulls_equal=True)
    return pl.concat([first.head(MOST_POINTS - missing.height), missing])


def errors_of(study: Study, points: pl.DataFrame, seed: int = 0) -> Floats | None:
    """Errors of the points' AUCs, drawn together; None where one kept no parts of its error.

    Args:
        study: the points'.
        points: rows of its candidates.
        seed: of the draws.

    Returns:
        (DRAWS, points) float64.
    """
    parts = study.errors.parts(points, "auc")
    if not points.height or not np.isfinite(parts).all():
        return None
    rng = np.random.default_rng(seed)
    # Student's t with the degrees of freedom of the groups, since their number is what is known of the variance.
    drawn: Floats = rng.standard_normal((DRAWS, GROUPS)) @ parts.T
    drawn /= np.sqrt(rng.chisquare(GROUPS - 1, (DRAWS, 1)) / (GROUPS - 1))
    if seeds := seeds_of(study.candidates, study.evaluations):
        _, configuration = np.unique(points["configuration"].to_numpy(), return_inverse=True)
        of_seeds = rng.standard_normal((DRAWS, configuration.max() + 1))[:, configuration]
        drawn += of_seeds * np.sqrt(seeds.variance / points["replicates"].to_numpy())
    # What all models have in common must add no error of few draws.
    return np.asarray(drawn - drawn.mean(axis=0))


def covariances(study: Study, points: pl.DataFrame, one: int, other: int) -> tuple[Floats, Floats]:
    """Covariance of the error of each point's AUC with that of the difference between two of them.

    Args:
        study: the points'.
        points: rows of its candidates, which kept parts of their errors.
        one, other: which of them; the difference is the first one's AUC minus the second one's.

    Returns:
        (points,) because validation rows are few, and (points,) because seeds differ.
    """
    parts = study.errors.parts(points, "auc")
    of_rows, of_seeds = parts @ (parts[one] - parts[other]), np.zeros(points.height)
    if seeds := seeds_of(study.candidates, study.evaluations):
        configuration = points["configuration"].to_numpy()
        same = [(configuration == configuration[which]).astype(np.float64) for which in (one, other)]
        of_seeds = (same[0] - same[1]) * seeds.variance / points["replicates"].to_numpy()
    return np.asarray(of_rows), np.asarray(of_seeds)


def selection(
    aucs: Floats, drawn: Floats, choice: Callable[[Floats], npt.NDArray[np.int64]], among: int
) -> Selection:
    """By how much the best and the chosen one are flattered.

    Args:
        aucs: (points,) as measured.
        drawn: (draws, points) errors.
        choice: gives for (draws, points) AUCs the chosen point of each draw, (draws,).
        among: how many candidates there were.
    """
    again = aucs + drawn
    row, best, chosen = np.arange(len(drawn)), again.argmax(axis=1), choice(again)
    of_best = drawn[row, best]
    return Selection(
        among,
        float(of_best.mean()),
        float((drawn.max(axis=1) - drawn.mean(axis=1)).mean()),
        float((of_best - drawn[row, chosen]).mean()),
    )


def critical_value(drawn: Floats, best: int, errors: Floats, confidence: float = CONFIDENCE) -> float:
    """How many standard errors a difference to the best one must be allowed, so that surely none of all is above.

    Args:
        drawn: (draws, points) errors.
        best: which point the others are compared with.
        errors: (points,) standard errors of these differences.
        confidence: how sure.
    """
    apart = np.abs(drawn - drawn[:, [best]])
    ratios = np.divide(apart, errors, out=np.zeros_like(apart), where=errors > 0)
    return float(np.quantile(ratios.max(axis=1), confidence))
