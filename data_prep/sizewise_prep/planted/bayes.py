"""AUC and log-loss of the true probabilities, in constant memory.

No model can expect to rank clicks better than their true probabilities do, nor to have a lower log-loss:
these are the Bayes-optimal figures, and their distance from a model's is what the model could still gain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sizewise_prep.planted.randomness import Floats

_BINS = 1 << 16


class BayesMeter:
    """Accumulates rows. Probabilities within 1/65,536 count as equal: an error of 1e-5 in the AUC of few rows
    at most.
    """

    def __init__(self) -> None:
        self.rows = self.clicks = 0
        self._entropy = self._loss = self._alone = 0.0
        self._expected = np.zeros((2, _BINS))  # expected non-clicks and clicks by probability
        self._drawn = np.zeros((2, _BINS))

    def add(
        self, probability: Floats, labels: npt.NDArray[np.uint8], ranked_by: Floats | None = None
    ) -> None:
        """Count rows.

        Args:
            probability: (rows,), the true ones, in (0, 1).
            labels: (rows,), as drawn.
            ranked_by: (rows,), scores in [0, 1] of which the AUC is to be, in place of the probabilities.
        """
        bins = np.minimum(
            ((probability if ranked_by is None else ranked_by) * _BINS).astype(np.int64), _BINS - 1
        )
        clicked = labels.astype(np.float64)
        for expected, drawn, weight, label in zip(
            self._expected, self._drawn, (1 - probability, probability), (1 - clicked, clicked), strict=True
        ):
            expected += np.bincount(bins, weight, _BINS)
            drawn += np.bincount(bins, label, _BINS)
        surprise, relief = -np.log(probability), -np.log1p(-probability)
        self._entropy += float((probability * surprise + (1 - probability) * relief).sum())
        self._loss += float(np.where(labels == 1, surprise, relief).sum())
        self._alone += float((probability * (1 - probability)).sum())
        self.rows += len(labels)
        self.clicks += int(labels.sum())

    def merge(self, other: BayesMeter) -> None:
        """Count another meter's rows here too."""
        self.rows += other.rows
        self.clicks += other.clicks
        self._entropy += other._entropy
        self._loss += other._loss
        self._alone += other._alone
        self._expected += other._expected
        self._drawn += other._drawn

    @property
    def bayes_auc(self) -> float | None:
        """Expected AUC of the true probabilities (or of scores in their place); None with fewer than two rows."""
        return _auc(self._expected, self._alone) if self.rows > 1 else None

    @property
    def bayes_logloss(self) -> float | None:
        """Mean entropy of the labels in nats; None without rows."""
        return self._entropy / self.rows if self.rows else None

    @property
    def realised_auc(self) -> float | None:
        """AUC of the true probabilities on the labels as drawn; None unless both labels occur."""
        return _auc(self._drawn, alone=0.0)

    @property
    def realised_logloss(self) -> float | None:
        """Log-loss of the true probabilities on the labels as drawn, in nats; None without rows."""
        return self._loss / self.rows if self.rows else None


def _auc(weights: Floats, alone: float) -> float | None:
    """Share of (negative, positive) pairs in the right order, ties half, from (2, bins) weights by score.

    `alone` is the weight of the pairs that a row would form with itself, which do not exist.
    """
    negatives, positives = weights
    pairs = float(negatives.sum() * positives.sum()) - alone
    if pairs <= 0:
        return None
    below = np.cumsum(negatives) - negatives
    return (float((positives * (below + negatives / 2)).sum()) - alone / 2) / pairs
