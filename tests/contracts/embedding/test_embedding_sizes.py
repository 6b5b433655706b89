"""The bytes of every embedding method: they fill the budget, are known beforehand, and are what a file holds."""

import pytest
import torch
from tests.contracts.embedding.embeddings import CARDINALITIES, CASES, DIM, ids_for, make

from sizewise.embedding import build, smallest_budget
from sizewise.embedding.storage.table import shipped
from sizewise_core.errors import InputError

# The smallest step in bytes by which a method can grow, where that is coarser than 1 % of the budget.
GRANULARITY = {
    "hash": DIM * 4,
    "robe": 16 * 4,
    "qr": DIM * 4,
    "tt": 4 * 16 * 4,
    "cce": 2 * DIM * 4,
    "hot": DIM * 4 + 3,
}
MANY = [10**6] * len(CARDINALITIES)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("full")])
@pytest.mark.parametrize("factor", [1, 1.5, 4, 50, 1000])
def test_bytes_fill_the_budget(case, factor):
    method, options = CASES[case]
    # More rows than there are values are of no use.
    cardinalities = MANY if method == "hot" else CARDINALITIES
    budget = int(factor * smallest_budget(method, cardinalities, DIM, **options))
    size = build(method, cardinalities, DIM, budget, 1, **options).embedding_bytes
    step = GRANULARITY[method]
    if method == "cce" and options.get("count_pointers", True):
        step += (
            sum(CARDINALITIES) * 4
        )  # where one-byte pointers no longer reach, and two-byte ones do not fit yet
    assert size <= budget
    assert size >= budget - max(0.01 * budget, step)


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_known_without_making_the_model(case):
    with torch.device("meta"):  # tensors without memory
        sketched = make(case)
    assert sketched.embedding_bytes == make(case).embedding_bytes
    assert all(table.device.type == "meta" for table in sketched.parameters())


def test_bytes_of_full_are_the_tables():
    assert make("full").embedding_bytes == sum(CARDINALITIES) * DIM * 4
    assert make("full int8").embedding_bytes == sum(CARDINALITIES) * DIM + 4
    assert make("full int4").embedding_bytes == sum(CARDINALITIES) * DIM / 2 + 2
    assert make("full int2 row").embedding_bytes == sum(CARDINALITIES) * (DIM / 4 + 2)


@pytest.mark.parametrize("case", CASES)
def test_smallest_budget_is_the_smallest(case):
    method, options = CASES[case]
    smallest = smallest_budget(method, CARDINALITIES, DIM, **options)
    embedding = make(case, smallest)
    assert embedding.embedding_bytes <= smallest
    embedding(ids_for(case)).sum().backward()
    with pytest.raises(InputError, match=f"memory_budget .* {method} .* at least {smallest} bytes"):
        make(case, smallest - 1)


@pytest.mark.parametrize("case", CASES)
def test_the_file_weighs_what_is_reported(case, tmp_path):
    embedding = make(case)
    state = embedding.state_dict()
    counters = {"lookups", "roundings"}  # eight bytes each, needed only to train on
    stored = sum(t.nbytes for name, t in shipped(state).items() if name.split(".")[-1] not in counters)
    if not CASES[case][1].get("count_pointers", True):
        stored -= embedding.pointer_bytes
    assert stored == embedding.embedding_bytes
