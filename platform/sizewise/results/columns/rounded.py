"""Evaluations of rounded models: those rows of a study's candidates that stand for a storage.

evaluations, rounded = split_rounded(read_curves(...))
rounded["stored_as"]        # "int4", ...
"""

import polars as pl

from sizewise.metrics.errors import PARTS
from sizewise.metrics.evaluation import STORAGES, in_storages, parts_in_storages
from sizewise.metrics.registry import METRICS

STORED_AS = "stored_as"
_OTHERS = ("embedding_bytes", "model_bytes", "compression_ratio")


def split_rounded(evaluations: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Evaluations of the models as they were trained, and, a row a storage, of what they were rounded to.

    Args:
        evaluations: as `curves` reads them, with a text column of what was measured in other storages.

    Returns:
        Both without that column; the second with `stored_as`, and with the trained model's values for all that
        rounding leaves as it is.
    """
    schema = {**evaluations.drop(STORAGES).schema, STORED_AS: pl.String()}
    replaced = {name for name, metric in METRICS.items() if metric.kind == "score" or metric.compute}
    replaced |= set(_OTHERS)
    rows = []
    for row in evaluations.filter(pl.col(STORAGES).is_not_null()).iter_rows(named=True):
        parts = parts_in_storages(row[STORAGES])
        for storage, measured in in_storages(row[STORAGES]).items():
            values = {name: measured.get(name) for name in replaced}
            values = {name: None if value != value else value for name, value in values.items()}
            errors = {name: parts.get(storage, {}).get(name) for name in PARTS.values()}
            rows.append({**row, **values, **errors, STORED_AS: storage})
    rounded = pl.DataFrame(
        [{name: row[name] for name in schema} for row in rows], schema=schema, strict=False
    )
    return evaluations.drop(STORAGES), rounded
