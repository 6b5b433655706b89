"""Pairs of token columns whose combination moves a click, by an effect that neither column has alone.

Every pair of values has an effect of its own, a hash-normal, from which the mean over each value of either column is
taken: knowing one of the two says nothing of it. The columns of a pair are drawn independently of one another, so that
these means are those of the log.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sizewise_prep.planted.columns.added import Made, Rows
from sizewise_prep.planted.columns.ranks import Column
from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.randomness import Floats, Stream, counters, key, normals

PAIRS = ((1, 13), (4, 24), (7, 22), (5, 12), (0, 16))
"""Columns counted from 0: independent of one another, with few enough pairs of values for a table of effects."""


def cross_names(count: int) -> dict[str, list[str]]:
    """The names of the first crosses, and the columns of each."""
    pairs = [[f"C{column + 1}" for column in pair] for pair in PAIRS[:count]]
    return {"_x_".join(pair): pair for pair in pairs}


class Crosses:
    """The first pairs, as many as the dial says."""

    def __init__(self, seed: int, dials: Dials, columns: Sequence[Column]) -> None:
        """The effects of all pairs of values of `columns`, the token columns of Criteo's layout."""
        self.tables = [
            dials.cross_signal * _effects(columns[a], columns[b], key(seed, Stream.CROSSES, number))
            for number, (a, b) in enumerate(PAIRS[: dials.crosses])
        ]

    def make(self, rows: Rows) -> Made:
        """No columns, and one effect of all pairs."""
        effect = np.zeros(len(rows.words))
        for table, (a, b) in zip(self.tables, PAIRS, strict=False):
            effect += table[rows.ranks[a], rows.ranks[b]]
        return Made(effects={"crosses": effect})


def _effects(first: Column, second: Column, stream: np.uint64) -> Floats:
    """Effects by the ranks of two columns, (values + 1, values + 1): of mean 0 in each row and column and of
    deviation 1, weighted by how often values occur; 0 where one is missing, for a crossed column then is, too.
    """
    shares = [column.shares() for column in (first, second)]
    for share in shares:
        share[0] = 0
    a, b = (share / share.sum() for share in shares)
    pairs = np.arange(len(a))[:, None] * len(b) + np.arange(len(b))
    effects = normals(counters(pairs, stream))
    # Sums, not matrix products, whose rounding depends on the library that computes them.
    effects -= (effects * b).sum(axis=1, keepdims=True)
    effects -= (effects * a[:, None]).sum(axis=0)
    effects /= float((effects**2 * a[:, None] * b).sum()) ** 0.5
    effects[0], effects[:, 0] = 0, 0
    return effects
