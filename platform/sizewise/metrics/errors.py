"""What the errors of an evaluation's scores are made of, as every evaluation keeps it.

    error_parts(labels, logits)        # {"auc_parts": "...", "logloss_parts": "..."}: text for a line of JSON
    decoded([text, other])             # (2, GROUPS)

The error of a score is the sum of what 128 groups of validation rows add to it (`scores.auc_parts`). Where two models
scored the same rows, the sum of squared differences of their parts is the variance of the difference of their scores,
and so any two evaluations of a study can be compared as paired samples, in half a kilobyte each.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sizewise.metrics.scores import GROUPS, auc_parts, logloss_parts

PARTS: Mapping[str, str] = {"auc": "auc_parts", "logloss": "logloss_parts"}
"""By score, the field of an evaluation that holds the parts of its error."""
_BYTES = 4 * GROUPS


def error_parts(
    labels: npt.ArrayLike, logits: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> dict[str, str]:
    """What an evaluation keeps of its scores' errors, by field; undefined ones are left out.

    Args:
        labels: (rows,) of 0 and 1.
        logits: (rows,) log-odds.
        weights: (rows,), how much each row counts; None: all the same.
    """
    found = {
        "auc_parts": auc_parts(labels, logits, weights),
        "logloss_parts": logloss_parts(labels, logits, weights),
    }
    return {name: encoded(parts) for name, parts in found.items() if np.isfinite(parts).all()}


def encoded(parts: npt.NDArray[Any]) -> str:
    """Parts of one score or several as text.

    Args:
        parts: (..., GROUPS) of any float type; float32 is kept.
    """
    return base64.b64encode(parts.astype("<f4").tobytes()).decode()


def decoded(texts: Sequence[str | None]) -> npt.NDArray[np.float64]:
    """(texts, GROUPS) float64: the parts in each text, NaN where it is empty, null or nothing that `encoded` gave."""
    found = np.full((len(texts), GROUPS), np.nan)
    for number, text in enumerate(texts):
        content = _content(text)
        if len(content) == _BYTES:
            found[number] = np.frombuffer(content, "<f4")
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


def _content(text: str | None) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if text else b""
    except (binascii.Error, ValueError):
        return b""
