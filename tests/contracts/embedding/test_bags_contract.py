"""What every embedding method promises of lists of values, pooled by sum or mean, beside single values."""

import numpy as np
import pytest
import torch
from tests.contracts.embedding.embeddings import CARDINALITIES, CASES, CONTIGUOUS, DIM, ids_for, make
from torch import Tensor

from sizewise.embedding import Bags, Embedding
from sizewise_core.errors import InputError

FEATURES = len(CARDINALITIES)
# One of each method, and of each form in which numbers are found or stored.
LESS = [
    *(
        "full",
        "full int4",
        "hash",
        "hash shared",
        "hash bfloat16",
        "hash narrow",
        "robe",
        "robe ragged",
        "robe sign",
    ),
    *(
        "robe authors",
        "robe paper",
        "robe int8",
        "qr product",
        "qr contiguous",
        "tt",
        "cce",
        "hot",
        "hot int2",
    ),
    *("hot pool", "robe int2"),
]


def as_bags(ids: Tensor) -> Bags:
    """Every value of (rows, features) as a list of one."""
    values = ids.T.reshape(-1).contiguous()
    return Bags(values, torch.arange(len(values) + 1))


def drawn(case: str, rows: int, features: int, seed: int = 0, dtype: torch.dtype = torch.int64) -> Bags:
    """Lists of 0 to 5 values of the last features; the first row's are all empty."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 6, (features, rows))
    lengths[:, 0] = 0
    columns = ids_for(case, rows * 5, seed + 1)[:, FEATURES - features :]
    values = [columns[: lengths[f].sum(), f] for f in range(features)]
    offsets = np.concatenate([[0], lengths.ravel().cumsum()])
    return Bags(torch.cat(values).to(dtype), torch.from_numpy(offsets))


def transcribed(embedding: Embedding, ids: Tensor, bags: Bags) -> Tensor:
    """The definition, in float64: each value looked up as if it were a row's only one."""
    (rows, columns), whole = ids.shape, torch.zeros(len(bags.values), FEATURES, dtype=torch.int64)
    owners = bags.lengths().cumsum(0)
    features = torch.searchsorted(owners, torch.arange(len(bags.values)), right=True) // rows + columns
    whole[torch.arange(len(features)), features] = bags.values.to(torch.int64)
    vectors = embedding(whole)[torch.arange(len(features)), features].double()
    padded = torch.zeros(rows, FEATURES, dtype=torch.int64)
    padded[:, :columns] = ids
    out = [list(row[:columns].double()) for row in embedding(padded)]
    for number, (low, high) in enumerate(
        zip(bags.offsets[:-1].tolist(), bags.offsets[1:].tolist(), strict=True)
    ):
        total = vectors[low:high].sum(0)
        mean = embedding.pooling == "mean" and high > low
        out[number % rows].append(total / (high - low) if mean else total)
    return torch.stack([torch.stack(row) for row in out])


@pytest.mark.parametrize("case", CASES)
def test_a_list_of_one_is_a_single_value_to_the_last_bit(case: str) -> None:
    embedding, ids = make(case).eval(), ids_for(case)
    for embedding.fused in (False, True):
        single = embedding(ids)
        for embedding.pooling, columns, kind in (("mean", 0, torch.int64), ("sum", 2, torch.uint32)):
            bags = as_bags(ids[:, columns:].to(kind))
            assert torch.equal(embedding(ids[:, :columns].to(kind), bags), single)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("case", LESS)
def test_sums_and_means_are_those_of_the_definition(case: str, fused: bool) -> None:
    embedding = make(case, **({"cluster_every": 100} if case == "cce" else {}))
    embedding.fused = fused
    embedding(ids_for(case))  # rounds what is stored in fewer bits
    for embedding.pooling in ("mean", "sum"):
        for columns, kind in ((0, torch.int64), (2, torch.uint32)):
            ids, bags = ids_for(case, 32)[:, :columns], drawn(case, 32, FEATURES - columns, dtype=kind)
            weights = torch.randn(32, FEATURES, DIM, dtype=torch.float64)
            found, expected = embedding(ids.to(kind), bags), transcribed(embedding, ids, bags)
            assert not found[0, columns:].any()  # of empty lists
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
            parameters = list(embedding.parameters())
            got = torch.autograd.grad((found.double() * weights).sum(), parameters)
            wanted = torch.autograd.grad((expected * weights).sum(), parameters)
            for one, other in zip(got, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", LESS)
def test_values_are_looked_up_one_by_one(case: str) -> None:
    """For models that pool lists themselves: as if each value were a list of its own, gradients too."""
    embedding = make(case, **({"cluster_every": 100} if case == "cce" else {}))
    embedding(ids_for(case))  # rounds what is stored in fewer bits
    ids, bags = ids_for(case, 8)[:, :2], drawn(case, 8, FEATURES - 2, dtype=torch.uint32)
    single, several = embedding.unpooled(ids, bags)
    columns = torch.zeros(len(bags.values), FEATURES, dtype=torch.int64)
    features = bags.numbers(FEATURES - 2, 8) + 2
    columns[torch.arange(len(features)), features] = bags.values.to(torch.int64)
    expected = embedding(columns)[torch.arange(len(features)), features]
    torch.testing.assert_close(several, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(single, embedding(ids, bags)[:, :2], rtol=1e-6, atol=1e-8)
    weights, parameters = torch.randn_like(several), list(embedding.parameters())
    got = torch.autograd.grad((several * weights).sum(), parameters)
    wanted = torch.autograd.grad((expected * weights).sum(), parameters)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="either a column of ids or a list"):
        embedding.unpooled(ids_for(case, 8), bags)


@pytest.mark.parametrize("case", ["full", "hash", "robe", "tt", "cce", "hot"])
def test_a_method_that_looks_up_no_flat_values_gets_them_from_its_columns(case: str) -> None:
    embedding, bags = make(case).eval(), drawn(case, 16, 2)
    ids = ids_for(case, 16)[:, : FEATURES - 2]
    features = bags.owners() // 16 + FEATURES - 2
    flat = embedding.lookup_flat(bags.values, features)
    assert torch.equal(Embedding.lookup_flat(embedding, bags.values, features), flat)
    assert embedding(ids, bags).shape == (16, FEATURES, DIM)
    assert embedding(ids[:0], Bags(bags.values[:0], bags.offsets[:1])).shape == (0, FEATURES, DIM)


@pytest.mark.parametrize("case", [case for case in LESS if case in CONTIGUOUS])
def test_values_beyond_the_vocabulary_are_refused(case: str) -> None:
    ids = ids_for(case, 4)
    bags = as_bags(ids[:, 2:])
    bags.values[5] = 2  # of feature 3
    with pytest.raises(InputError, match="feature 3 has id 2, but its cardinality is 2"):
        make(case)(ids[:, :2], bags)


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        ([1, 2], [0, 1, 2, 2], "shape"),
        ([1, 2], [0, 1, 2, 2, 3], "rise"),
        ([1, 2], [1, 1, 1, 1, 2], "rise"),
        ([1, 2], [0, 2, 1, 2, 2], "rise"),
        ([1, -2], [0, 1, 2, 2, 2], "span"),
        ([1.0, 2.0], [0, 1, 2, 2, 2], "dtype"),
    ],
)
def test_what_are_no_bags_is_refused(values: list[float], offsets: list[int], message: str) -> None:
    bags = Bags(torch.tensor(values), torch.tensor(offsets))
    with pytest.raises(InputError, match=message):
        make("robe")(torch.ones(2, 2, dtype=torch.int64), bags)


def test_a_feature_is_a_column_or_a_list() -> None:
    with pytest.raises(InputError, match="either a column of ids or a list"):
        make("robe")(
            ids_for("robe", 2), Bags(torch.ones(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        )
