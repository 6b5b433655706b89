"""What a study's evaluations keep of their scores' errors, to be looked up by evaluation.

evaluations, kept = take_errors(evaluations, rounded, data)     # evaluations get the columns auc_error, logloss_error
kept.parts(study.candidates, "auc")                             # (candidates, GROUPS)
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.metrics.errors import PARTS, decoded
from sizewise.metrics.scores import GROUPS, standard_error
from sizewise.results.columns.rounded import STORED_AS
from sizewise.store.records import DataRecord

Score = Literal["auc", "logloss"]
ERRORS: dict[Score, str] = {"auc": "auc_error", "logloss": "logloss_error"}
"""By score, the column of its standard error: what the validation rows, by being few, add to it."""
_KEY = ["trial_id", "iteration", STORED_AS]
_BATCH = 8_192  # texts that are decoded at once: 8 MB of numbers


@dataclass(frozen=True, eq=False)
class KeptErrors:
    """The parts of errors as text, a row an evaluation: trial_id, configuration, iteration, stored_as ("" for none)."""

    table: pl.DataFrame = field(default_factory=pl.DataFrame)

    def parts(self, points: pl.DataFrame, score: Score) -> npt.NDArray[np.float64]:
        """What each group of validation rows adds to the error of each point's score.

        Args:
            points: rows of a study's candidates; of replicates' means, the mean of the parts is the parts of the mean.
            score: which score.

        Returns:
            (points, GROUPS) float64; NaN where an evaluation kept none.
        """
        found = np.full((points.height, GROUPS), np.nan)
        if self.table.is_empty() or points.is_empty():
            return found
        wanted = _keyed(points).select(
            *_KEY, "configuration", pl.col("replicates") > 1 if "replicates" in points.columns else False
        )
        wanted = wanted.rename({wanted.columns[-1]: "several"}).with_row_index("point")
        texts = self.table.rename({PARTS[score]: "text"}).select(*_KEY, "configuration", "text")
        alone = wanted.filter(~pl.col("several")).join(texts, on=_KEY, how="inner")
        same = ["configuration", "iteration", STORED_AS]
        several = wanted.filter("several").join(texts, on=same, how="inner")
        for members in (alone, several):
            if members.is_empty():
                continue
            rows = members["point"].to_numpy()
            each = decoded(members["text"].to_list())
            sums, counts = np.zeros_like(found), np.zeros(points.height)
            np.add.at(sums, rows, each)
            np.add.at(counts, rows, 1)
            found[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
        return found


def take_errors(
    evaluations: pl.DataFrame, rounded: pl.DataFrame, configurations: pl.DataFrame, data: DataRecord
) -> tuple[pl.DataFrame, pl.DataFrame, KeptErrors]:
    """Evaluations with their standard errors in place of what these are made of.

    Args:
        evaluations: as they are read, of the models as they were trained.
        rounded: of what they were rounded to.
        configurations: trial_id and configuration.
        data: by whose rows an AUC's error is estimated where an evaluation kept nothing (Hanley and McNeil 1982).

    Returns:
        Both tables with `auc_error` and `logloss_error` (null where unknown), and the parts.
    """
    names = list(PARTS.values())
    kept = [_keyed(table).select(*_KEY, *names) for table in (evaluations, rounded) if table.height]
    table = (
        pl.concat(kept).filter(pl.any_horizontal(pl.col(name).is_not_null() for name in names))
        if kept
        else None
    )
    errors = KeptErrors(
        table.join(configurations, on="trial_id", how="left") if table is not None else pl.DataFrame()
    )
    return _with_errors(evaluations, data), _with_errors(rounded, data), errors


def _with_errors(evaluations: pl.DataFrame, data: DataRecord) -> pl.DataFrame:
    columns = {ERRORS[score]: _errors_in(evaluations[PARTS[score]]) for score in ERRORS if evaluations.height}
    found = evaluations.with_columns(
        pl.Series(name, columns.get(name, []), dtype=pl.Float64).fill_nan(None) for name in ERRORS.values()
    )
    rows = data.rows.validation
    clicks = round(rows * (data.validation_click_rate or 0.0))
    if 0 < clicks < rows:
        aucs = found.filter(pl.col("auc_error").is_null())["auc"].drop_nulls().unique()
        guessed = [standard_error(auc, clicks, rows - clicks) for auc in aucs]
        by_formula = pl.DataFrame({"auc": aucs, "_formula": pl.Series(guessed, dtype=pl.Float64)})
        found = found.join(by_formula, on="auc", how="left", maintain_order="left")
        found = found.with_columns(pl.col("auc_error").fill_null(pl.col("_formula"))).drop("_formula")
    return found.drop(PARTS.values())


def _errors_in(texts: pl.Series) -> npt.NDArray[np.float64]:
    """The standard errors of the parts in (n,) texts, NaN where there are none; in batches, which saves memory."""
    found, known = np.full(len(texts), np.nan), texts.is_not_null().arg_true()
    for start in range(0, len(known), _BATCH):
        rows = known[start : start + _BATCH]
        found[rows.to_numpy()] = error_of(decoded(texts.gather(rows).to_list()))
    return found


def error_of(parts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The standard errors that parts (n, GROUPS) give: (n,), NaN where there are none."""
    return np.asarray(np.sqrt((parts**2).sum(axis=1)))


def _keyed(points: pl.DataFrame) -> pl.DataFrame:
    stored = pl.col(STORED_AS).fill_null("") if STORED_AS in points.columns else pl.lit("").alias(STORED_AS)
    return points.with_columns(stored)
