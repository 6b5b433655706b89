"""Means over the seeds of a configuration; `spread` has their intervals."""

import polars as pl

from sizewise.metrics.registry import METRICS
from sizewise.results.columns.kept_errors import ERRORS

CONFIDENCE = 0.95


def means(evaluations: pl.DataFrame) -> pl.DataFrame:
    """Evaluations with those of a configuration's replicates at one iteration as one row, their mean.

    Evaluations of models rounded to a storage (`stored_as`) are averaged among themselves.

    `replicates` says of how many trials a row is. `trial_id` is the configuration's first. Where a configuration has
    replicates, iterations that only one of them has reached are left out.
    """
    same = ["configuration", *(name for name in ("stored_as",) if name in evaluations.columns)]
    is_several = pl.col("trial_id").n_unique().over("configuration") > 1
    single = evaluations.filter(~is_several).with_columns(replicates=pl.lit(1, pl.Int64))
    rest = evaluations.filter(is_several)
    if rest.is_empty():
        return single
    measured = [name for name, metric in METRICS.items() if metric.kind == "score" or metric.compute]
    averaged = [*measured, *ERRORS.values(), "train_seconds", "samples_per_second"]
    others = [c for c in rest.columns if c not in (*averaged, *same, "iteration")]
    grouped = (
        rest.sort("configuration", "iteration", "replicate")
        .group_by(*same, "iteration", maintain_order=True)
        .agg(
            *(pl.col(c).first() for c in others),
            *(pl.col(c).mean() for c in averaged if c in rest.columns),
            pl.len().cast(pl.Int64).alias("replicates"),
        )
        .filter(pl.col("replicates") > 1)
    )
    first = rest.group_by("configuration").agg(pl.col("trial_id").min())
    grouped = grouped.drop("trial_id").join(first, on="configuration", maintain_order="left")
    return pl.concat([single, grouped.select(single.columns)]).sort("trial_id", "iteration")
