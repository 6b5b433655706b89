"""Why a score is uncertain: few validation rows, other seeds. Intervals out of both.

seeds_of(averaged, evaluations, "auc")         # how much seeds differ, pooled over configurations
half_width(of_rows, of_seeds, seeds)           # half of a 95 % interval
with_intervals(averaged, evaluations, kept)    # candidates with auc_low, auc_high, ...
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.metrics.scores import GROUPS
from sizewise.results.columns.kept_errors import ERRORS, KeptErrors, Score, error_of
from sizewise.results.columns.replicates import CONFIDENCE
from sizewise.results.columns.rounded import STORED_AS

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seeds:
    """The variance of a score between the seeds of one configuration, pooled over those that have several."""

    variance: float
    freedom: int


def seeds_of(averaged: pl.DataFrame, evaluations: pl.DataFrame, score: Score = "auc") -> Seeds | None:
    """How much seeds differ; None where no configuration has replicates.

    Args:
        averaged: candidates, of replicates their means; each configuration counts at the iteration of its best AUC.
        evaluations: all evaluations of models as they were trained, with configuration and state.
        score: which score.
    """
    several = averaged.filter(pl.col("replicates") > 1)
    if STORED_AS in several.columns:
        several = several.filter(pl.col(STORED_AS).is_null())
    best = several.sort("auc", "iteration", descending=[True, False]).unique("configuration", keep="first")
    spread = (
        evaluations.join(
            best.select("configuration", "iteration"), on=["configuration", "iteration"], how="semi"
        )
        .filter(pl.col(score).is_not_null(), pl.col("state") != "failed")
        .group_by("configuration")
        .agg(pl.col(score).var(ddof=1).alias("variance"), (pl.len().cast(pl.Int64) - 1).alias("freedom"))
        .filter(pl.col("freedom") > 0)
        .sort("configuration")
    )
    freedom = int(spread["freedom"].sum())
    return (
        Seeds(float((spread["variance"] * spread["freedom"]).sum()) / freedom, freedom) if freedom else None
    )


def half_width(of_rows: Floats, of_seeds: Floats, seeds: Seeds | None) -> Floats:
    """Half of a 95 % interval, Student's t with the degrees of freedom that both variances leave (Satterthwaite 1946).

    Args:
        of_rows: (n,) variance because validation rows are few; NaN where it is not known.
        of_seeds: (n,) variance because of seeds.
        seeds: for the degrees of freedom of the latter.
    """
    from scipy.special import stdtrit  # here, because SciPy takes a moment

    total = of_rows + of_seeds
    least = of_rows**2 / (GROUPS - 1) + (of_seeds**2 / seeds.freedom if seeds else 0.0)
    freedom = np.divide(total**2, least, out=np.full(len(total), GROUPS - 1.0), where=least > 0)
    wide: Floats = stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(total)
    return wide


def with_intervals(averaged: pl.DataFrame, evaluations: pl.DataFrame, kept: KeptErrors) -> pl.DataFrame:
    """Candidates with the 95 % intervals of their AUC and log-loss.

    Args:
        averaged: candidates, of replicates their means.
        evaluations: as for `seeds_of`.
        kept: what these keep of their errors.

    Returns:
        The same rows with, for each score: `auc_error` (the standard error because validation rows are few), in studies
        with replicates `auc_seed_error` (because of seeds, null otherwise), and `auc_low`, `auc_high`, the ends of the
        interval from both; from one of them where the other is not known.
    """
    several = (averaged["replicates"] > 1).to_numpy()
    for score, name in ERRORS.items():
        error = averaged[name].cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
        if several.any():
            of_means = error_of(kept.parts(averaged.filter(several), score))
            error[several] = np.where(np.isnan(of_means), error[several], of_means)
        seeds = seeds_of(averaged, evaluations, score) if several.any() else None
        of_seeds = (seeds.variance if seeds else 0.0) / averaged["replicates"].to_numpy()
        known = error if seeds is None else np.nan_to_num(error)
        half = pl.Series(half_width(known**2, of_seeds, seeds), dtype=pl.Float64)
        averaged = averaged.with_columns(
            pl.Series(name, error),
            pl.Series(
                f"{score}_seed_error", np.sqrt(of_seeds) if seeds else [None] * averaged.height, pl.Float64
            ),
            (averaged[score] - half).alias(f"{score}_low"),
            (averaged[score] + half).alias(f"{score}_high"),
        ).with_columns(pl.col(name, f"{score}_low", f"{score}_high").fill_nan(None))
    return averaged
