"""AUC, log-loss, normalized entropy and calibration of a model's scores, in float64.

scores = evaluate_scores(labels, logits)          # all rows at once: every figure exact
scores.auc, scores.normalized_entropy

stream = StreamingScores()                        # rows in parts, on one or many workers, in 1 MB
stream.update(labels, logits)
stream.merge(other_worker)
stream.scores(), stream.auc_error                 # AUC within auc_error, the rest as if all at once

one, other = auc_parts(labels, logits), auc_parts(labels, logits_of_another_model)
((one - other) ** 2).sum() ** 0.5                 # standard error of the difference of their AUCs
standard_error(0.75, clicks=2500, others=7500)    # of one AUC, from the rows alone (see `sizewise_core.auc_error`)
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sizewise_core.auc_error import SMALL, expected_error, rows_enough, standard_error, too_small
from sizewise_core.errors import InputError

__all__ = [
    "GROUPS",
    "SMALL",
    "Scores",
    "StreamingScores",
    "auc_parts",
    "evaluate_scores",
    "expected_error",
    "logloss_parts",
    "rows_enough",
    "standard_error",
    "too_small",
]

Floats = NDArray[np.float64]
GROUPS = 128  # of rows, into which `auc_parts` divides an AUC's error


class Scores(NamedTuple):
    """The figures of one evaluation. Where the labels leave one undefined it is NaN, and ``undefined`` says why."""

    auc: float
    """Probability that a click scores above a non-click, ties counting one half; NaN with one class."""
    logloss: float
    """Mean negative log-likelihood in nats."""
    normalized_entropy: float
    """Log-loss over the entropy of the click rate (He et al. 2014); NaN with one class."""
    calibration: float
    """Sum of predicted probabilities over clicks; NaN without clicks."""
    undefined: str = ""
    """Why some figures are NaN; empty where none is."""


def evaluate_scores(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> Scores:
    """Exact figures of logits against labels.

    Args:
        labels: (rows,) of 0 and 1.
        logits: (rows,) log-odds of any float dtype; infinities are allowed, NaN is not.
        weights: (rows,), how much each row counts in every figure: a row of weight 2 as two rows; None: all the same.

    Raises:
        InputError: empty or unequal arrays, labels other than 0 and 1, or NaN logits.
    """
    y, z = _checked(labels, logits)
    if weights is not None:
        return _weighted_scores(y, z, _checked_weights(weights, y))
    auc = float("nan")
    if 0 < y.sum() < y.size:
        # Imported here because it takes a second, which most programs that import this module do not need.
        from sklearn.metrics import roc_auc_score

        # Only the order counts, so infinities may become the largest floats.
        auc = float(roc_auc_score(y, np.nan_to_num(z)))
    losses, probabilities = _ExactSum(), _ExactSum()
    losses.add(_losses(y, z))
    probabilities.add(_probabilities(z))
    return _scores(y.size, int(y.sum()), losses, probabilities, auc)


def _weighted_scores(y: Floats, z: Floats, w: Floats) -> Scores:
    """As `evaluate_scores`, of rows with weights."""
    from sklearn.metrics import roc_auc_score

    total, clicks = math.fsum(w), math.fsum(w * y)
    losses = _losses(y, z)[w > 0]
    logloss = math.fsum(w[w > 0] * losses) / total if np.isfinite(losses).all() else math.inf
    calibration = math.fsum(w * _probabilities(z)) / clicks if clicks else float("nan")
    if not 0 < clicks < total:
        only = "rows of one class alone have weights above 0: AUC and normalized entropy need both classes"
        return Scores(float("nan"), logloss, float("nan"), calibration, only)
    auc = float(roc_auc_score(y, np.nan_to_num(z), sample_weight=w))
    return Scores(auc, logloss, logloss / _entropy(clicks / total), calibration)


def auc_parts(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """How far each of ``GROUPS`` groups of rows (every 128th) moves the AUC: the parts of its error.

    A click's component is the share of non-clicks below it, a non-click's the share of clicks above it (DeLong et
    al. 1988); here they are centred, scaled and summed by group.  Where two models scored the same rows in the same
    order, the sum of squared differences of their parts estimates the variance of the difference of their AUCs,
    even where they are alike, with ``GROUPS - 1`` degrees of freedom.

    Args:
        labels: (rows,) of 0 and 1.
        logits: (rows,) log-odds.
        weights: (rows,), how much each row counts; None: all the same.

    Returns:
        (GROUPS,); NaN with one class only.
    """
    y, z = _checked(labels, logits)
    if weights is not None:
        return _weighted_auc_parts(y, z, _checked_weights(weights, y))
    clicks = int(y.sum())
    others = y.size - clicks
    if not clicks or not others:
        return np.full(GROUPS, np.nan)
    order = np.argsort(z)
    click, ascending = y[order] == 1, z[order]
    # Of each row, in ascending order: how many rows come before its ties, and how many with them.
    first = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
    size = np.diff(np.append(first, y.size))
    low, high = np.repeat(first, size), np.repeat(first + size, size)
    clicks_before = np.append(0, np.cumsum(click))
    below = clicks_before[low] + clicks_before[high]  # twice the clicks below a non-click, ties once
    below[click] = (low + high)[click] - below[click]  # and twice the non-clicks below a click
    components = np.empty(y.size)
    components[order] = below / (2.0 * np.where(click, others, clicks))
    clicked = y == 1
    components[~clicked] = 1.0 - components[~clicked]
    components -= components[clicked].mean()
    components /= np.where(clicked, clicks, others)
    return _in_groups(components)


def _weighted_auc_parts(y: Floats, z: Floats, w: Floats) -> Floats:
    """As `auc_parts`: a component counts its row's weight, and the weights of the rows that it is compared with."""
    clicks, others = math.fsum(w * y), math.fsum(w * (1 - y))
    if not clicks or not others:
        return np.full(GROUPS, np.nan)
    order = np.argsort(z, kind="stable")
    ascending = z[order]
    first = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
    size = np.diff(np.append(first, y.size))
    low, high = np.repeat(first, size), np.repeat(first + size, size)
    components = np.empty(y.size)
    for is_click, of_others in ((1.0, others), (0.0, clicks)):
        before = np.append(0.0, np.cumsum(np.where(y == is_click, 0.0, w)[order]))
        share = (before[low] + before[high]) / (2.0 * of_others)  # of the other class below, ties once
        chosen = y[order] == is_click
        components[order[chosen]] = (share if is_click else 1.0 - share)[chosen]
    for is_click, own in ((1.0, clicks), (0.0, others)):
        rows = y == is_click
        components[rows] = (components[rows] - (w[rows] * components[rows]).sum() / own) * w[rows] / own
    return _in_groups(components)


def logloss_parts(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """How far each of ``GROUPS`` groups of rows (every 128th) moves the log-loss: as `auc_parts` of the AUC.

    Args:
        labels: (rows,) of 0 and 1.
        logits: (rows,) log-odds.
        weights: (rows,), how much each row counts; None: all the same.

    Returns:
        (GROUPS,); not finite where the log-loss is infinite.
    """
    y, z = _checked(labels, logits)
    losses = _losses(y, z)
    if not np.isfinite(losses).all():
        return np.full(GROUPS, np.nan)
    if weights is not None:
        w = _checked_weights(weights, y)
        return _in_groups(w * (losses - (w * losses).sum() / w.sum()) / w.sum())
    return _in_groups((losses - losses.mean()) / y.size)


def _in_groups(components: Floats) -> Floats:
    """(GROUPS,): what the rows of each group add to a score's error, scaled to estimate its variance without bias."""
    found = np.bincount(np.arange(components.size) % GROUPS, components, minlength=GROUPS)
    return np.asarray((found - found.mean()) * math.sqrt(GROUPS / (GROUPS - 1)))


class StreamingScores:
    """Figures of rows that arrive in parts, in constant memory; parts may be merged in any order.

    Log-loss, normalized entropy and calibration equal ``evaluate_scores`` of all rows bit for bit, in
    whatever parts and order they came, because their sums are exact.  AUC counts clicks and non-clicks in
    bins of logits, of equal width from -limit to limit; pairs within a bin count one half, so it is off by at
    most ``auc_error``.

    Args:
        bins: number of bins; the error falls as their inverse.
        limit: logits beyond it share the outermost bins.
    """

    def __init__(self, bins: int = 2**16, limit: float = 16.0) -> None:
        self.bins, self.limit = bins, limit
        self._counts = np.zeros((2, bins), dtype=np.int64)  # non-clicks, clicks
        self._losses, self._probabilities = _ExactSum(), _ExactSum()

    def update(self, labels: ArrayLike, logits: ArrayLike) -> None:
        """Add rows; arguments and errors as for ``evaluate_scores``, but no rows at all are allowed."""
        y, z = _checked(labels, logits, at_least=0)
        scaled = (np.clip(z, -self.limit, self.limit) + self.limit) * (self.bins / (2 * self.limit))
        bin_of = np.minimum(scaled.astype(np.int64), self.bins - 1)
        for label in (0, 1):
            self._counts[label] += np.bincount(bin_of[y == label], minlength=self.bins)
        self._losses.add(_losses(y, z))
        self._probabilities.add(_probabilities(z))

    def merge(self, other: "StreamingScores") -> None:
        """Add another stream's rows, such as another worker's."""
        if (self.bins, self.limit) != (other.bins, other.limit):
            raise InputError(
                f"streams of {self.bins} bins to {self.limit}, {other.bins} to {other.limit} do not merge: "
                "make them with the same bins and limit"
            )
        self._counts += other._counts
        self._losses.merge(other._losses)
        self._probabilities.merge(other._probabilities)

    @property
    def auc_error(self) -> float:
        """How far the AUC of ``scores`` may be off: half the share of pairs within one bin; NaN with it."""
        negatives, positives = (int(count) for count in self._counts.sum(1))
        if not negatives or not positives:
            return float("nan")
        return float(self._counts.prod(0, dtype=np.float64).sum() / (2.0 * negatives * positives))

    def scores(self) -> Scores:
        """Figures of all rows so far."""
        negatives, positives = (int(count) for count in self._counts.sum(1))
        if not negatives + positives:
            raise InputError("no rows to evaluate: update with at least one")
        auc = float("nan")
        if negatives and positives:
            # Non-clicks below each click: all in lower bins, and half of those in its own.
            below = np.cumsum(self._counts[0]) - self._counts[0] / 2
            auc = float((self._counts[1] * below).sum() / (float(negatives) * positives))
        return _scores(negatives + positives, positives, self._losses, self._probabilities, auc)


class _ExactSum:
    """A sum of nonnegative floats as an integer multiple of 2^-52, so that it does not depend on their order.

    Each value is off by at most 2^-52.
    """

    def __init__(self) -> None:
        self.units = 0
        self.infinite = False

    def add(self, values: Floats) -> None:
        large = values >= 2.0**20  # these would overflow the vectorized path; they are rare
        self.infinite |= bool(np.isinf(values).any())
        for value in values[large & np.isfinite(values)]:
            numerator, denominator = float(value).as_integer_ratio()
            self.units += (numerator << 52) // denominator
        for part in np.array_split(values[~large], 1 + values.size // 2**22):
            high = np.floor(part * 2.0**20)  # below 2^40: 2^22 of them stay below 2^63
            rest = np.rint((part * 2.0**20 - high) * 2.0**32)
            self.units += (int(high.astype(np.int64).sum()) << 32) + int(rest.astype(np.int64).sum())

    def merge(self, other: "_ExactSum") -> None:
        self.units += other.units
        self.infinite |= other.infinite

    def mean(self, count: int) -> float:
        return math.inf if self.infinite else self.units / (count << 52)


def _checked(labels: ArrayLike, logits: ArrayLike, at_least: int = 1) -> tuple[Floats, Floats]:
    y = np.asarray(labels, dtype=np.float64).ravel()
    z = np.asarray(logits, dtype=np.float64).ravel()
    if y.size < at_least or y.size != z.size:
        raise InputError(
            f"{y.size} labels and {z.size} logits: give one of each per row, and at least one row"
        )
    if not np.isin(y, (0.0, 1.0)).all():
        raise InputError("labels must be 0 or 1")
    if np.isnan(z).any():
        raise InputError(
            f"{np.isnan(z).sum()} of {z.size} logits are NaN: training diverged, lower learning_rate"
        )
    return y, z


def _checked_weights(weights: ArrayLike, y: Floats) -> Floats:
    w = np.asarray(weights, dtype=np.float64).ravel()
    if w.size != y.size or not (np.isfinite(w) & (w >= 0)).all() or not w.any():
        raise InputError("weights must be finite, from 0 on, one for each row, and not all of them 0")
    return w


def _losses(y: Floats, z: Floats) -> Floats:
    # log(1 + e^-z) for clicks, log(1 + e^z) for the rest.  Probabilities would saturate at 0 and 1.
    return np.logaddexp(0.0, np.where(y == 1, -z, z))


def _probabilities(z: Floats) -> Floats:
    # 1 / (1 + e^-z) with an exponent that is never positive, so that it cannot overflow.
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def _scores(rows: int, clicks: int, losses: _ExactSum, probabilities: _ExactSum, auc: float) -> Scores:
    logloss = losses.mean(rows)
    calibration = probabilities.mean(clicks) if clicks else float("nan")
    if clicks in (0, rows):
        only = f"all {rows} labels are {int(clicks > 0)}: AUC and normalized entropy need both classes"
        return Scores(float("nan"), logloss, float("nan"), calibration, only)
    rate = clicks / rows
    return Scores(auc, logloss, logloss / _entropy(rate), calibration)


def _entropy(rate: float) -> float:
    """Of a click rate, in nats."""
    return -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
