"""How uncertain an AUC is because rows are few, and how many rows would be enough.

    standard_error(0.75, clicks=2500, others=7500)     # 0.0061
    rows_enough(click_rate=0.25)                       # 93,000: then it is 0.002

After Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
Radiology 143 (1982). The formula is exact where the scores of both classes are exponentially distributed, and close for
others. Where the scores themselves are known, `sizewise.metrics.scores.auc_parts` gives the error without assumptions.
"""

from __future__ import annotations

import math

TYPICAL_AUC = 0.75
"""The AUC of usual models on click logs; the error hardly depends on it."""
SMALL = 0.002
"""A difference of AUC that matters. With a standard error above this, it cannot be separated from chance."""


def standard_error(auc: float, clicks: int, others: int) -> float:
    """The standard error of an AUC, by Hanley and McNeil.

    Args:
        auc: from 0 to 1.
        clicks, others: rows of each label.

    Returns:
        Infinity where one of the labels has no rows, because there is no AUC then.
    """
    if clicks < 1 or others < 1:
        return math.inf
    above_two_others = auc / (2 - auc)  # that a click is scored above two non-clicks
    below_two_clicks = 2 * auc * auc / (1 + auc)  # that a non-click is scored below two clicks
    variance = auc * (1 - auc)
    variance += (clicks - 1) * (above_two_others - auc * auc)
    variance += (others - 1) * (below_two_clicks - auc * auc)
    return math.sqrt(max(0.0, variance) / (clicks * others))


def rows_enough(click_rate: float, error: float = SMALL, auc: float = TYPICAL_AUC) -> int:
    """How many rows, rounded up to two digits, give an AUC whose standard error is at most `error`.

    Args:
        click_rate: share of clicks, above 0 and below 1.
        error: the standard error.
        auc: the AUC to expect, roughly.
    """
    low, high = 2, 2
    while _error(high, click_rate, auc) > error:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _error(middle, click_rate, auc) > error else (low, middle)
    unit: int = 10 ** max(0, len(str(high)) - 2)
    return math.ceil(high / unit) * unit


def _error(rows: int, click_rate: float, auc: float) -> float:
    clicks = max(1, round(rows * click_rate))
    return standard_error(auc, clicks, max(1, rows - clicks))


def expected_error(rows: int, click_rate: float | None) -> float:
    """The standard error of a usual model's AUC on so many rows with that share of clicks; infinity without an AUC.

    It does not use the AUC that was measured: on a few rows that may be 1, for which the formula would give 0.
    """
    clicks = round(rows * (click_rate or 0.0))
    return standard_error(TYPICAL_AUC, clicks, rows - clicks)


def too_small(rows: int, click_rate: float | None) -> str:
    """A warning about a validation split that is too small to compare models; empty where it is large enough.

    Args:
        rows: of the split.
        click_rate: of the split; None without rows.
    """
    if not rows or click_rate is None:
        return ""
    clicks, error = round(rows * click_rate), expected_error(rows, click_rate)
    if error <= SMALL:
        return ""
    counted = f"{rows:,} row{'' if rows == 1 else 's'} ({clicks:,} click{'' if clicks == 1 else 's'})"
    if not 0 < clicks < rows:
        return (
            f"validation has {counted}, all of one label, so that there is no AUC; prepare more rows, or, where a log "
            "is in the order of its labels, split it by a key (--split key:COLUMN)"
        )
    return (
        f"validation has {counted}, too few to tell models apart: an AUC of them has a standard error of about "
        f"{error:.2g}; about {rows_enough(click_rate):,} validation rows would bring it to {SMALL:g}"
    )
