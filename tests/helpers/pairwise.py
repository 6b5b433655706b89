"""Of the combinations of several parameters, few that have every two values of two parameters together.

A fault shows with one value, or with two that do not go together; those that need three at once are rare. The product
of three parameters of 32, 3 and 4 values has 384 combinations, and 128 of them have every pair.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import Any

import pytest

Pair = tuple[int, object, int, object]


def every_pair(**values: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize a test by combinations in which each pair of values of two parameters occurs.

    Args:
        values: of each parameter, all different and hashable.
    """
    return pytest.mark.parametrize(list(values), covering(list(product(*values.values()))))


def covering(every: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Some of the combinations, in their order, which have all pairs that any of them has; always the same ones.

    Taken one by one: the first of those that bring most pairs that none before has.
    """
    left = {pair for combination in every for pair in _pairs(combination)}
    taken: set[int] = set()
    most = len(_pairs(every[0])) if every else 0  # that one combination can bring
    while left:
        best, brought = -1, 0
        for number, combination in enumerate(every):
            new = sum(pair in left for pair in _pairs(combination))
            if new > brought:
                best, brought = number, new
            if brought == most:
                break
        most = brought
        taken.add(best)
        left.difference_update(_pairs(every[best]))
    return [every[number] for number in sorted(taken)]


def _pairs(combination: tuple[Any, ...]) -> list[Pair]:
    """Every two values with the places of their parameters."""
    return [(i, a, j, b) for (i, a), (j, b) in combinations(enumerate(combination), 2)]
