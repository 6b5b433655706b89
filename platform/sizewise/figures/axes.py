"""What a figure of the trade-off shows on its axes: which size, which score, which effort.

Axes()                                               # the study's size, AUC, iterations
Axes(size="model_bytes", score="logloss", effort="train_seconds")
"""

from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from sizewise.results import Study
from sizewise_core.units import format_bytes, format_count, format_seconds


class Axis(NamedTuple):
    """A column of the evaluations as an axis: its name for people and its values as text."""

    label: str
    title: str
    text: Callable[[float], str]


SIZES = {
    "embedding_bytes": Axis("embeddings", "Size of the embeddings (bytes, log scale)", format_bytes),
    "model_bytes": Axis("whole model", "Size of the whole model (bytes, log scale)", format_bytes),
}
SCORES = {
    "auc": Axis("AUC", "AUC (validation split)", "{:.4f}".format),
    "logloss": Axis("log-loss", "Log-loss (validation split, nats)", "{:.4f}".format),
    "normalized_entropy": Axis(
        "normalized entropy", "Normalized entropy (validation split)", "{:.4f}".format
    ),
}
EFFORTS = {
    "iteration": Axis("iterations", "Iterations (optimizer steps, log scale)", format_count),
    "samples": Axis("samples", "Samples (rows trained on, log scale)", format_count),
    "train_seconds": Axis(
        "training time",
        "Training time (log scale)",
        lambda seconds: format_seconds(seconds) if seconds >= 1 else f"{seconds:g} s",
    ),
}


class Axes(NamedTuple):
    """The columns that the figures draw; an empty `size` is the study's own."""

    size: str = ""
    score: str = "auc"
    effort: str = "iteration"

    def of(self, study: Study) -> "Axes":
        """With the study's size where none was asked for."""
        return self._replace(size=self.size or study.size)

    @property
    def highest(self) -> bool:
        """Whether more of the score is better."""
        return self.score == "auc"

    @property
    def drawn(self) -> list[pl.Expr]:
        """What a row must have to stand on these (logarithmic) axes."""
        return [pl.col(self.size) > 0, pl.col(self.effort) > 0, pl.col(self.score).is_not_null()]
