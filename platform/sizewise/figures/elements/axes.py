"""What a figure of the trade-off shows on its axes: which size, which score, which effort.

Axes()                                               # the study's size, AUC, iterations
Axes(size="model_bytes", score="logloss", effort="train_seconds")
"""

from typing import NamedTuple

import polars as pl

from sizewise.metrics.registry import EFFORTS, SCORES, SIZES, Metric
from sizewise.results import Study

__all__ = ["EFFORTS", "SCORES", "SIZES", "Axes", "Metric"]


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
        return SCORES[self.score].direction == "maximize"

    @property
    def drawn(self) -> list[pl.Expr]:
        """What a row must have to stand on these (logarithmic) axes."""
        return [pl.col(self.size) > 0, pl.col(self.effort) > 0, pl.col(self.score).is_not_null()]
