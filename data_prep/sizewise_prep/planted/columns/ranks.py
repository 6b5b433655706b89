"""How often each value of a token column occurs: values are ranks, 1 the most frequent one, 0 missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.integers import Ints
from sizewise_prep.planted.randomness import Floats

COMMON_EFFECT = 0.45  # missing and the most frequent values move a click less than the rest
_LARGE = 1_000_000  # values from which on a column counts as large: its number of values is a dial


@dataclass(frozen=True)
class Column:
    """One token column's distribution over ranks: 0 missing, 1 the most frequent value, and so on.

    Attributes:
        cuts: cumulative shares of missing and the tabulated values, (1 + tabulated,).
        values: how many values there are.
        exponent, offset: of the tail beyond the tabulated values.
    """

    cuts: Floats
    values: int
    exponent: float
    offset: float

    @property
    def tabulated(self) -> int:
        """How many of the most frequent values have a share of their own."""
        return len(self.cuts) - 1

    @staticmethod
    def fitted(figures: Mapping[str, Any], dials: Dials) -> Column:
        """The column of the fitted figures, with the dials applied.

        `zipf` raises every value's probability to a power and renormalizes, tail included (its sum as an
        integral).
        """
        head = np.array(figures["head"], np.float64)
        values, exponent, offset = figures["values"], figures["exponent"], figures["offset"]
        if values >= _LARGE:
            values = round(values * dials.vocabulary)
        observed = 1 - figures["missing"]
        tail_values = values - len(head)
        tail_share = max(observed - float(head.sum()), 0.0) if tail_values else 0.0
        if dials.zipf != 1:
            head = head**dials.zipf
            if tail_values:
                density = tail_share / _integral(exponent, offset, tail_values)
                exponent *= dials.zipf
                tail_share = density**dials.zipf * _integral(exponent, offset, tail_values)
        missing = min(figures["missing"] * dials.missing, 1.0)
        shares = head / (head.sum() + tail_share) * (1 - missing)
        cuts = np.cumsum([missing, *shares])
        if not tail_values:
            cuts[-1] = 1.0
        return Column(cuts, values, exponent, offset)

    def ranks(self, uniform: Floats) -> Ints:
        """The rank at each quantile in [0, 1)."""
        rank: Ints = np.searchsorted(self.cuts, uniform, side="right").astype(np.int64)
        tail_values = self.values - self.tabulated
        if tail_values:
            tail = np.flatnonzero(rank > self.tabulated)
            start = self.cuts[-1]
            rest = (uniform[tail] - start) / (1 - start)
            if abs(power := 1 - self.exponent) < 1e-9:
                position = self.offset * ((self.offset + tail_values) / self.offset) ** rest
            else:
                low, high = self.offset**power, (self.offset + tail_values) ** power
                position = (low + rest * (high - low)) ** (1 / power)
            rank[tail] += np.clip(position - self.offset, 0, tail_values - 1).astype(np.int64)
        return rank

    def shares(self) -> Floats:
        """How often each rank is drawn, (values + 1,)."""
        shares = np.diff(self.cuts, prepend=0.0)
        tail_values = self.values - self.tabulated
        if not tail_values:
            return np.asarray(shares)
        edges = np.array([_integral(self.exponent, self.offset, n) for n in range(tail_values + 1)])
        return np.concatenate([shares, np.diff(edges) / edges[-1] * (1 - self.cuts[-1])])

    def effect_scale(self, ranks: Ints, rarity_decay: float) -> Floats:
        """How strongly each value moves a click, as a factor."""
        scale = np.where(ranks <= self.tabulated, COMMON_EFFECT, 1.0)
        if rarity_decay and self.values > self.tabulated:
            position = np.maximum(ranks - self.tabulated - 1, 0) + self.offset
            scale *= (position / self.offset) ** (-self.exponent * rarity_decay)
        return scale


def _integral(exponent: float, offset: float, values: int) -> float:
    """Integral of x^-exponent from `offset` to `offset + values`."""
    if abs(power := 1 - exponent) < 1e-9:
        return float(np.log((offset + values) / offset))
    return float(((offset + values) ** power - offset**power) / power)
