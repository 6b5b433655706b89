"""Fewer combinations of parameters keep every pair of values of two of them."""

from itertools import combinations, product

import pytest

from pairwise import covering, every_pair


@pytest.mark.parametrize(
    ("sizes", "number"), [((32, 3, 4), 128), ((32, 3, 2), 96), ((5, 4, 3, 2), 20), ((7, 2), 14)]
)
def test_every_pair_of_values_occurs(sizes: tuple[int, ...], number: int) -> None:
    """And of three parameters no more combinations are taken than the two largest need."""
    every = list(product(*map(range, sizes)))
    taken = covering(every)
    assert set(taken) <= set(every)
    assert len(set(taken)) == len(taken)
    assert number <= len(taken) <= 1.2 * number
    for one, other in combinations(range(len(sizes)), 2):
        found = {(combination[one], combination[other]) for combination in taken}
        assert found == set(product(range(sizes[one]), range(sizes[other])))
    assert covering(every) == taken
    assert {combination[0] for combination in taken} == set(range(sizes[0]))


def test_a_test_gets_them_by_name() -> None:
    mark = every_pair(case=["a", "b"], kind={"x": 1, "y": 2}, fused=(True, False)).mark
    assert mark.args[0] == ["case", "kind", "fused"]
    assert sorted(mark.args[1]) == [
        ("a", "x", True),
        ("a", "y", False),
        ("b", "x", False),
        ("b", "y", True),
    ]
