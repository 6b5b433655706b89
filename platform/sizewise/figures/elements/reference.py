"""What a study's sizes are compared with: its own full tables, and the sizes that the authors of ROBE published.

The published sizes are marked only over their own data, Criteo Terabyte, recognized by its number of rows or of
distinct values; and as sizes only, because the abstract gives no AUC (Desai and Shrivastava, NeurIPS 2022: tables of
100 GB against a pool of 10 MB, "without losing quality", for 4.5 times the iterations).
"""

from typing import NamedTuple

import polars as pl

from sizewise.results import Study
from sizewise.theory.bounds import FLOAT_BYTES

CRITEO_TB_ROWS = 4_195_197_692  # MLPerf's training split
CRITEO_TB_VALUES = 204_184_588  # with MLPerf's cap of 40 million values a feature
CRITEO_TB_FEATURES = 26


class Mark(NamedTuple):
    """A vertical line at a size in bytes."""

    bytes: float
    text: str


def marks(study: Study) -> list[Mark]:
    """The lines to draw over the study, by size; none where the study's size is not that of the embeddings."""
    if study.size != "embedding_bytes" or not is_criteo_tb(study):
        return []
    return [
        Mark(10e6, "published: 10 MB, 4.5x iterations"),
        Mark(100e9, "published: 100 GB tables"),
    ]


def full_table(study: Study) -> pl.DataFrame:
    """The best evaluation of a trial with full tables, the reference for all others; no row without one."""
    if "method" not in study.config_columns:
        return study.candidates.head(0)
    return study.candidates.filter(pl.col("method") == "full").sort("auc", descending=True).head(1)


def is_criteo_tb(study: Study) -> bool:
    """Whether the study's data is Criteo Terabyte: 26 features, and its rows or MLPerf's count of values."""
    data = study.record.data
    rows = data.rows.train + data.rows.validation + data.rows.test
    if data.features != CRITEO_TB_FEATURES:
        return False
    dims = study.trials["dim"].drop_nulls().unique().to_list() if "dim" in study.config_columns else []
    values = data.full_bytes / FLOAT_BYTES / dims[0] if data.full_bytes and len(dims) == 1 else 0
    return rows >= CRITEO_TB_ROWS or abs(values / CRITEO_TB_VALUES - 1) < 0.01
