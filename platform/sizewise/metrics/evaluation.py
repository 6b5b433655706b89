"""Evaluations: one row of a trial's curve."""

import math
from typing import Any


def best(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """The evaluation with the highest AUC, the earliest of equals; undefined AUCs come last."""
    return max(evaluations, key=lambda row: -math.inf if math.isnan(row["auc"]) else row["auc"])
