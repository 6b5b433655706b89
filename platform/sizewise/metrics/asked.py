"""Metrics that are measured where a study asks for them: AUC within groups, log-loss by frequency, calibration error.

    group_auc(labels, logits, keys=user_ids)                        # GAUC
    logloss_by_frequency(labels, logits, tenths(counts))            # ten numbers, rare values first
    calibration_error(labels, logits, bins=20)

Each costs one sort of the scored rows at most.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Whole = npt.NDArray[np.integer]
TENTHS = tuple(f"logloss_tenth_{number}" for number in range(1, 11))
"""Names of the metrics: the tenth of rows with the rarest values is the first."""


def group_auc(labels: Floats, logits: Floats, keys: Whole, weights: Floats | None = None) -> float:
    """The mean over groups of their AUC, weighted by their rows (GAUC; Zhu et al. 2018).

    Groups with one class alone have no AUC and take no part.

    Args:
        labels: (rows,) of 0 and 1.
        logits: (rows,) log-odds.
        keys: (rows,), equal within a group.
        weights: (rows,) how much each row counts; None: all the same.

    Returns:
        0 to 1; NaN where no group has both classes.
    """
    order = np.lexsort((logits, keys))
    key, score, click = keys[order], logits[order], labels[order] == 1
    weight = np.ones(len(key)) if weights is None else weights[order].astype(np.float64)
    first = np.concatenate([[True], key[1:] != key[:-1]])  # of its group
    group = np.cumsum(first) - 1
    tie = np.cumsum(first | np.concatenate([[True], score[1:] != score[:-1]])) - 1
    others = np.bincount(tie, weight * ~click)  # no clicks, at each score of each group
    below = np.cumsum(others) - others
    beaten = below[tie] - below[tie[first]][group] + others[tie] / 2
    rows, clicks = np.bincount(group, weight), np.bincount(group, weight * click)
    pairs = clicks * (rows - clicks)
    both = (clicks > 0) & (np.bincount(group, ~click) > 0) & (pairs > 0)
    if not both.any():
        return float("nan")
    wins = np.bincount(group, weight * click * beaten)
    return float(np.average(wins[both] / pairs[both], weights=rows[both]))


def tenths(counts: Whole) -> Whole:
    """The tenth that each row is in by how often its value occurs, 0 for the rarest; equal counts stay together.

    A value that many rows have can fill several tenths: then some have no rows.

    Args:
        counts: (rows,) how often the value of each row occurs in the training rows.

    Returns:
        (rows,) 0 to 9: where the middle of the rows lies that have its count.
    """
    _, which, rows = np.unique(counts, return_inverse=True, return_counts=True)
    middle = np.cumsum(rows) - rows / 2
    return np.minimum((10 * middle / len(counts)).astype(np.int64), 9)[which]


def logloss_by_frequency(
    labels: Floats, logits: Floats, tenth: Whole, weights: Floats | None = None
) -> dict[str, float]:
    """The mean log-loss of each tenth, in nats; NaN where a tenth has no rows.

    Args:
        labels: (rows,) of 0 and 1.
        logits: (rows,) log-odds.
        tenth: (rows,) of 0 to 9, see `tenths`.
        weights: (rows,) how much each row counts; None: all the same.
    """
    z = logits.astype(np.float64)
    weight = np.ones(len(z)) if weights is None else weights
    losses = np.logaddexp(0.0, np.where(labels == 1, -z, z)) * weight
    summed, rows = np.bincount(tenth, losses, minlength=10), np.bincount(tenth, weight, minlength=10)
    return {
        name: float(total / count) if count else float("nan")
        for name, total, count in zip(TENTHS, summed, rows, strict=True)
    }


def calibration_error(labels: Floats, logits: Floats, bins: int, weights: Floats | None = None) -> float:
    """The expected calibration error, over bins of equally many rows (Nixon et al. 2019).

    The mean over rows of how far the mean prediction of the row's bin is from its share of clicks. Bins of equal width,
    as for images, would all but two be empty where clicks are rare.

    Args:
        labels: (rows,) of 0 and 1.
        logits: (rows,) log-odds.
        bins: how many; with fewer rows, as many as those.
        weights: (rows,) how much each row counts; None: all the same.
    """
    order = np.argsort(logits, kind="stable")
    z = logits[order].astype(np.float64)
    weight = np.ones(len(z)) if weights is None else weights[order].astype(np.float64)
    over = (1 / (1 + np.exp(-np.clip(z, -700, 700))) - labels[order]) * weight
    starts = len(z) * np.arange(min(bins, len(z))) // min(bins, len(z))
    total = float(weight.sum())
    return float(np.abs(np.add.reduceat(over, starts)).sum()) / total if total else float("nan")
