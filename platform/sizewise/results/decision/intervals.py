"""How sure a score is, and a difference between two models' scores: 95 % intervals.

    intervals(study, study.front)                          # value, low, high, ... of each row's AUC
    best = point(study, trial_id=7, iteration=400)
    differences(study, study.front, best)                  # each row's AUC minus the best one's, as paired samples
    difference(study, small, best).text                    # "0.0013 lower, between 0.0033 lower and 0.0007 higher"

Two things make a score uncertain, and are given apart: the validation rows are a sample (`rows_error`), and another
seed would have trained another model (`seeds_error`, known where the study has replicates).

All models of a study are scored on the same validation rows, so that most of their errors are common and cancel in a
difference. Each evaluation keeps the parts of its error (`metrics.errors`), whose differences give the variance of a
difference as DeLong's covariance does (DeLong et al. 1988; for the log-loss as a paired t-test), with 127 degrees of
freedom. Where a model kept none, the two are taken for independent: `basis` says so, and the interval is wider.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.results.columns.kept_errors import ERRORS, Score, error_of
from sizewise.results.columns.rounded import STORED_AS
from sizewise.results.columns.spread import Floats, Seeds, half_width, seeds_of
from sizewise.results.decision.choosing import best_of
from sizewise.results.reading import Study
from sizewise_core.files.sealed import JsonObject

Basis = Literal["paired", "independent", "unknown"]

TO_BEST = tuple(f"{score}_to_best{end}" for score in ERRORS for end in ("", "_low", "_high"))
"""Of tables: each score minus that of the model with the best AUC, and the ends of the 95 % interval of that."""


@dataclass(frozen=True)
class Interval:
    """A score, or a difference of two, with its 95 % interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval; NaN where no error is known.
        rows_error: the standard error because validation rows are few; NaN where it is not known.
        seeds_error: the standard error because seeds differ; None where the study has no replicates.
        basis: of a difference, whether both models' errors on the same rows were compared ("paired"), or the models
            taken for independent because one kept none; of a single score "paired" where it kept its own error, and
            "independent" where a formula gave it; "unknown" without any.
    """

    value: float
    low: float
    high: float
    rows_error: float = math.nan
    seeds_error: float | None = None
    basis: Basis = "unknown"

    @property
    def known(self) -> bool:
        """Whether there is an interval, and not the estimate alone."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def text(self) -> str:
        """A difference in words: "0.0013 lower, between 0.0033 lower and 0.0007 higher"."""
        if not self.known or self.low == self.high:
            return _signed(self.value)
        if (self.low < 0) == (self.high < 0) and self.low and self.high:
            way = "lower" if self.value < 0 else "higher"
            ends = sorted(abs(end) for end in (self.low, self.high))
            return f"{_signed(self.value)}, between {ends[0]:.4f} and {ends[1]:.4f} {way}"
        return f"{_signed(self.value)}, between {_signed(self.low)} and {_signed(self.high)}"

    @property
    def short(self) -> str:
        """A difference for a table: "-0.0013 (-0.0033 to +0.0007)"; "" where it is not known."""
        if math.isnan(self.value):
            return ""
        return f"{self.value:+.4f}" + (f" ({self.low:+.4f} to {self.high:+.4f})" if self.known else "")

    @property
    def detail(self) -> str:
        """A difference in words, and where seeds have a part in it, which part each of the two has."""
        if not self.known or self.seeds_error is None:
            return self.text
        return f"{self.text} (standard errors {self.rows_error:.4f} by rows, {self.seeds_error:.4f} by seeds)"

    def as_json(self) -> JsonObject:
        """The same as one object; null for what is not known."""
        numbers = {"value": self.value, "low": self.low, "high": self.high, "rows_error": self.rows_error}
        finite = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        return {**finite, "seeds_error": self.seeds_error, "basis": self.basis}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Interval":
        """One row of `intervals` or `differences`."""
        numbers = {
            name: math.nan if row[name] is None else float(row[name])
            for name in ("value", "low", "high", "rows_error")
        }
        return cls(**numbers, seeds_error=row["seeds_error"], basis=row["basis"])


def _signed(value: float) -> str:
    if abs(value) < 0.00005:
        return "the same"
    return f"{abs(value):.4f} {'lower' if value < 0 else 'higher'}"


def point(study: Study, trial_id: int, iteration: int, stored_as: str | None = None) -> pl.DataFrame:
    """The candidate with that identity, as a table of one row; of none where it is no candidate.

    Args:
        study: the candidate's.
        trial_id, iteration: of the evaluation; of a mean over seeds, the first trial's.
        stored_as: the storage that it is rounded to; None where it is as it was trained.
    """
    found = study.candidates.filter(trial_id=trial_id, iteration=iteration)
    if STORED_AS in found.columns:
        found = found.filter(pl.col(STORED_AS).eq_missing(stored_as))
    return found.head(1)


def intervals(study: Study, points: pl.DataFrame, score: Score = "auc") -> pl.DataFrame:
    """The 95 % interval of each point's score.

    Args:
        study: the points'.
        points: rows of its candidates, or of a table made of these.
        score: which score.

    Returns:
        A row a point, in their order: value, low, high, rows_error, seeds_error (null without replicates), basis.
    """
    seeds = seeds_of(study.candidates, study.evaluations, score)
    rows_error = points[ERRORS[score]].cast(pl.Float64).fill_null(math.nan).to_numpy()
    kept = np.isfinite(study.errors.parts(points, score).sum(axis=1))
    each = _of_seeds(seeds, 1 / _replicates(points))
    return _table(points[score], rows_error**2, each, kept, seeds)


def interval(study: Study, one: pl.DataFrame, score: Score = "auc") -> Interval:
    """The interval of one point's score.

    Args:
        study: the point's.
        one: a table of one row (see `point`).
        score: which score.
    """
    return Interval.of_row(intervals(study, one, score).row(0, named=True))


def differences(
    study: Study, points: pl.DataFrame, reference: pl.DataFrame, score: Score = "auc"
) -> pl.DataFrame:
    """Each point's score minus that of one other model on the same validation rows, with its 95 % interval.

    Args:
        study: of all of them.
        points: rows of its candidates, or of a table made of these.
        reference: one row of the same (see `point`).
        score: which score.

    Returns:
        A row a point, in their order: value (below 0 where its score is lower), low, high, rows_error, seeds_error
        (null without replicates), basis.
    """
    own, others = study.errors.parts(points, score), study.errors.parts(reference, score)[0]
    paired = error_of(own - others) ** 2
    errors = points[ERRORS[score]].cast(pl.Float64).fill_null(math.nan).to_numpy()
    other = reference[ERRORS[score]].cast(pl.Float64).fill_null(math.nan).to_numpy()[0]
    kept = np.isfinite(paired)
    variance = np.where(kept, paired, errors**2 + other**2)
    same = _same(points, reference)
    variance[same] = 0.0
    seeds = seeds_of(study.candidates, study.evaluations, score)
    # Evaluations of one configuration are of the same trained models, at other times.
    apart = (points["configuration"] != reference["configuration"][0]).to_numpy()
    each = _of_seeds(seeds, (1 / _replicates(points) + 1 / _replicates(reference)[0]) * apart)
    value = points[score] - reference[score][0]
    return _table(value, variance, each, kept | same, seeds)


def difference(study: Study, one: pl.DataFrame, other: pl.DataFrame, score: Score = "auc") -> Interval:
    """One point's score minus another's, with its interval.

    Args:
        study: of both.
        one, other: tables of one row each (see `point`).
        score: which score.
    """
    return Interval.of_row(differences(study, one, other, score).row(0, named=True))


def with_best(study: Study, table: pl.DataFrame) -> pl.DataFrame:
    """A table of candidates with `TO_BEST`: each score minus that of the model with the best AUC, as paired samples.

    Args:
        study: the table's.
        table: rows of its candidates.
    """
    if table.is_empty() or study.candidates.is_empty():
        return table
    best = best_of(study.candidates, study.size)
    reference = point(study, best.trial_id, best.iteration, best.stored_as)
    for score in ERRORS:
        if score not in table.columns:
            continue
        found = differences(study, table, reference, score)
        ends = {"": "value", "_low": "low", "_high": "high"}
        table = table.with_columns(found[name].alias(f"{score}_to_best{end}") for end, name in ends.items())
    return table


def _same(points: pl.DataFrame, reference: pl.DataFrame) -> npt.NDArray[np.bool_]:
    same = (pl.col("trial_id") == reference["trial_id"][0]) & (
        pl.col("iteration") == reference["iteration"][0]
    )
    if STORED_AS in points.columns and STORED_AS in reference.columns:
        same &= pl.col(STORED_AS).eq_missing(pl.lit(reference[STORED_AS][0], pl.String))
    return np.array(points.select(same).to_series().to_numpy(), dtype=bool)


def _replicates(points: pl.DataFrame) -> Floats:
    if "replicates" not in points.columns:
        return np.ones(points.height)
    return points["replicates"].fill_null(1).to_numpy().astype(np.float64)


def _of_seeds(seeds: Seeds | None, share: Floats) -> Floats:
    return share * (seeds.variance if seeds else 0.0)


def _table(
    value: pl.Series, of_rows: Floats, of_seeds: Floats, kept: npt.NDArray[np.bool_], seeds: Seeds | None
) -> pl.DataFrame:
    """The intervals of values with these variances.

    Args:
        value: (n,).
        of_rows: (n,) variance because of the validation rows; NaN where it is not known.
        of_seeds: (n,) variance because of seeds.
        kept: (n,) whether the first comes from what evaluations kept.
        seeds: where the second comes from.
    """
    half = half_width(of_rows, of_seeds, seeds)
    value = value.cast(pl.Float64)
    basis = np.where(~np.isfinite(of_rows), "unknown", np.where(kept, "paired", "independent"))
    return pl.DataFrame(
        {
            "value": value,
            "low": value - pl.Series(half),
            "high": value + pl.Series(half),
            "rows_error": np.sqrt(of_rows),
            "seeds_error": np.sqrt(of_seeds) if seeds else [None] * len(value),
            "basis": basis,
        },
        schema_overrides={"seeds_error": pl.Float64, "basis": pl.String},
    ).with_columns(pl.col("low", "high", "rows_error").fill_nan(None))
