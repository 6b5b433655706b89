"""How many validation rows would tell whether the answer loses more than it may.

    found = more_rows(rows=10_000, loss=loss, tolerance=0.002, end=worse_end)
    found.enough          # 63,000, or None where no number would do, or these rows do
    found.hindrance       # why not: "estimate" or "seeds"; "" where nothing is to be said

More rows make the interval narrower around the same estimate. So none are enough where the estimate itself is as large
as what may be lost, and none where another seed alone could move it so far.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sizewise.results.decision.choosing import EPSILON
from sizewise.results.decision.intervals import Interval

MOST_TIMES = 1_000.0
"""More than so many times the rows are none that anybody has."""
_PRINTED = 0.00005  # half of the last digit of a printed AUC
_STEPS = 24  # of halving the logarithm of a number of rows: exact to a millionth


@dataclass(frozen=True)
class MoreRows:
    """Whether more validation rows would help.

    Attributes:
        loss: of what they would make sure, with its interval on the rows that there are.
        enough: about how many would be; None where these rows are, or no number would.
        hindrance: why no number would: the estimate, or the seeds; "" otherwise.
    """

    loss: Interval
    enough: int | None = None
    hindrance: Literal["", "estimate", "seeds"] = ""


def more_rows(rows: int, loss: Interval, tolerance: float, end: Callable[[float], float]) -> MoreRows:
    """How many rows bring the interval's worse end within the tolerance, the estimate staying as it is.

    Args:
        rows: of the validation split.
        loss: the difference to the best model.
        tolerance: how much AUC may be lost.
        end: the interval's worse end with so many times the rows.
    """
    if loss.basis != "paired" or not loss.rows_error > 0 or loss.low >= -tolerance - EPSILON or not rows:
        return MoreRows(loss)
    if loss.high < -tolerance:
        return MoreRows(loss)  # it surely loses more, which is no question of rows
    if tolerance + loss.value <= min(_PRINTED, tolerance / 10):
        return MoreRows(loss, hindrance="estimate")
    if end(MOST_TIMES) < -tolerance:
        return MoreRows(loss, hindrance="seeds" if loss.seeds_error else "estimate")
    few, many = 0.0, math.log(MOST_TIMES)
    for _ in range(_STEPS):
        middle = (few + many) / 2
        few, many = (middle, many) if end(math.exp(middle)) < -tolerance else (few, middle)
    needed = math.ceil(rows * math.exp(many))
    unit: int = 10 ** max(0, len(str(needed)) - 2)
    return MoreRows(loss, math.ceil(needed / unit) * unit)
