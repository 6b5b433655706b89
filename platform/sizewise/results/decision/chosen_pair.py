"""The interval of the difference between two models that the same rows have chosen: the best one, and the answer.

    pair = ChosenPair(aucs, moved, best=0, chosen=7, earlier=smaller, tolerance=0.002)
    low, high = pair.interval(error, widest=3.4)

An ordinary interval is of two models that were named beforehand. Where many models are a little worse than allowed, the
answer is the luckiest of them, and its interval covers the truth too rarely; where rows are few, the choice bounds
what can be measured, and it covers too often. What holds whatever the truth is: given that these two were chosen,
the measured difference has a normal distribution that is cut off where another model would have been chosen (Lee et al.
2016), which gives the ends. Where it lies close to a cut, hardly anything is known, and the ends would be infinitely
far; so they stay within an interval that holds for all candidates at once with 99.5 % (the hybrid of Andrews, Kitagawa
and McCloskey 2024).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sizewise.results.columns.spread import Floats

AT_ONCE = 0.995
"""The confidence of the interval, for all candidates at once, beyond which no end lies."""
# Below 95 %, because an interval reaches to what was measured in any case, which covers one or two percent more.
_CONFIDENCE = 0.93
_STEPS = 60  # of halving, until ends are exact
_NORMAL = 1.959964  # standard errors to the end of a usual interval


@dataclass(frozen=True, eq=False)
class ChosenPair:
    """Two models and what has chosen them.

    Attributes:
        aucs: (n,) of all candidates, as measured.
        moved: (n,) covariance of each AUC's error with that of the chosen one's minus the best one's.
        best, chosen: which candidates they are.
        earlier: (n,) whether a candidate would have been chosen before the chosen one, had it been near the best.
        tolerance: how much AUC the chosen one may lose.
    """

    aucs: Floats
    moved: Floats
    best: int
    chosen: int
    earlier: npt.NDArray[np.bool_]
    tolerance: float

    def interval(self, half: float, widest: float) -> tuple[float, float]:
        """The ends of the 95 % interval of the chosen one's AUC minus the best one's.

        Args:
            half: half of the usual interval.
            widest: how many standard errors of the difference reach to the end of the interval that holds for all.
        """
        measured, error = float(self.aucs[self.chosen] - self.aucs[self.best]), half / _NORMAL
        low, high = self._cuts(measured)
        reach = widest * error

        def at(true: float) -> float:
            """How probable so low a difference is, with that one in truth."""
            ends = max(low, true - reach), min(high, true + reach)
            return _share_below(measured, true, error, ends)

        tail = (1 - _CONFIDENCE - (1 - AT_ONCE)) / AT_ONCE / 2
        span = measured - reach, measured + reach
        lower, upper = _where(at, 1 - tail, span), _where(at, tail, span)
        return min(lower, measured), max(upper, measured)

    def _cuts(self, measured: float) -> tuple[float, float]:
        """Between which differences these two would have been chosen, all else that was measured being the same."""
        slope = self.moved / (self.moved[self.chosen] - self.moved[self.best])
        rest = self.aucs - slope * measured
        # Each of these, as a line over the difference, must stay from zero on.
        to_best = rest[self.best] - rest, slope[self.best] - slope
        beyond = to_best[0][self.earlier] - self.tolerance, to_best[1][self.earlier]
        start, rise = (np.concatenate(pair) for pair in zip(to_best, beyond, strict=True))
        rising, falling = rise > 1e-12, rise < -1e-12
        low = np.max(-start[rising] / rise[rising], initial=-self.tolerance)
        high = np.min(-start[falling] / rise[falling], initial=np.inf)
        return min(float(low), measured), max(float(high), measured)


def _where(share: Callable[[float], float], wanted: float, span: tuple[float, float]) -> float:
    """For which true difference so large a share lies below what was measured; the nearest end if for none.

    Args:
        share: falls as the true difference rises.
        wanted: the share.
        span: in which it is looked for.
    """
    low, high = span
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) > wanted else (low, middle)
    return (low + high) / 2


def _share_below(value: float, mean: float, error: float, ends: tuple[float, float]) -> float:
    """The share below a value of a normal distribution that is cut off at two ends."""
    from scipy.special import log_ndtr  # here, because SciPy takes a moment

    low, at, high = ((point - mean) / error for point in (ends[0], value, ends[1]))
    if at <= low or at >= high:
        return 0.0 if at <= low else 1.0

    def log_between(one: float, other: float) -> float:
        """The logarithm of the share between two points, also far from the mean."""
        if one > 0:
            one, other = -other, -one
        less, more = log_ndtr(one), log_ndtr(other)
        return float(more + np.log1p(-np.exp(min(less - more, -1e-300))))

    return float(np.exp(log_between(low, at) - log_between(low, high)))
