"""Expected errors of vectors read from a shared pool, against the methods' own hashes over many seeds."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sizewise.embedding import Embedding, build
from sizewise.theory.pool import Frequencies, PoolMap, pair_error, read_moments
from sizewise_core.errors import InputError

FEATURES, IDS = 3, 240
GIVEN = (2, 30)  # the ids whose vectors are given: a frequent and a rarer one
WEIGHTS = 1.0 / np.arange(1, IDS + 1)  # skewed
Floats = np.ndarray[Any, np.dtype[np.float64]]


def pool_of(embedding: Embedding) -> tuple[torch.nn.Parameter, PoolMap]:
    """The numbers that are stored, and what they are in the theory's terms."""
    (weight,) = embedding.parameters()
    if hasattr(embedding, "pool"):
        block_len, align = embedding.block_len, embedding.align
        return weight, PoolMap(
            weight.numel(), embedding.dim, block_len, align, embedding.signed, embedding.wrap
        )
    return weight, PoolMap(weight.numel(), embedding.dim, embedding.dim, embedding.dim)


def best_reads(embedding: Embedding, vectors: Floats) -> Floats:
    """What is read of all ids from the pool that is best by weight, made with the method's own lookup and gradient."""
    weight, _ = pool_of(embedding)
    ids = torch.arange(IDS // FEATURES)[:, None].expand(-1, FEATURES)
    shape = IDS // FEATURES, FEATURES, vectors.shape[1]
    by_id = torch.from_numpy(WEIGHTS).float().view(*shape[:2], 1)

    def spread(values: torch.Tensor) -> torch.Tensor:
        """The transposed lookup: every number added where the lookup would read it."""
        weight.grad = None
        embedding(ids).backward(values)
        assert weight.grad is not None
        return weight.grad.clone()

    with torch.no_grad():
        weight.fill_(1.0)
    signs = embedding(ids).detach()  # of every number; 1 without signs
    sums = spread(by_id * torch.from_numpy(vectors).float().view(shape))
    totals = spread(by_id * signs)
    with torch.no_grad():
        weight.copy_(torch.where(totals > 0, sums / totals.clamp(min=1e-9), 0.0))
        return embedding(ids).double().numpy().reshape(IDS, -1)


def experiments(seeds: int, vectors: Floats, method: str, budget: int, **options: Any) -> Iterator[Floats]:
    """Reads of the given ids under fresh hashes and, for the others, fresh vectors: (2, dim) each."""
    random = np.random.default_rng(1)
    for seed in range(seeds):
        table = random.choice((-1.0, 1.0), (IDS, vectors.shape[1]))
        table[list(GIVEN)] = vectors
        yield best_reads(made(method, vectors.shape[1], budget, seed, options), table)[list(GIVEN)]


def made(method: str, dim: int, budget: int, seed: int, options: dict[str, Any]) -> Embedding:
    return build(method, [IDS // FEATURES] * FEATURES, dim, budget, seed, **options)


def given_vectors(dim: int) -> Floats:
    x = np.resize([1.0, -1.0, 1.0, 1.0, -1.0], dim)
    y = x.copy()
    y[::3] *= -1  # an inner product of about a third of the lengths
    return np.array([x, y])


MAPS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    # method, bytes, dim, options; pools of a third of the tables and less
    "hash": ("hash", 4 * 16 * 80, 16, {}),
    "robe, blocks side by side": ("robe", 4 * 1200, 16, {"block_len": 4, "align": 4}),
    "robe, default": ("robe", 4 * 1200, 16, {"block_len": 16, "align": 4}),
    "robe, sign": ("robe", 4 * 1200, 16, {"block_len": 8, "align": 2, "sign": True}),
    "robe, every start": ("robe", 4 * 600, 8, {"block_len": 4, "align": 1, "sign": True}),
    "robe, wrap, cut blocks": ("robe", 4 * 800, 12, {"block_len": 8, "align": 4, "sign": True, "wrap": True}),
    "robe, cut blocks": ("robe", 4 * 800, 12, {"block_len": 8, "align": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
def test_errors_are_as_expected_over_the_methods_own_hashes(name: str) -> None:
    """Means over seeds within 4.5 standard errors of their own."""
    method, budget, dim, options = MAPS[name]
    vectors = given_vectors(dim)
    _, pool = pool_of(made(method, dim, budget, 1, options))
    ids, weights = Frequencies.of(WEIGHTS), (WEIGHTS[GIVEN[0]], WEIGHTS[GIVEN[1]])
    reads = np.array(list(experiments(600, vectors, method, budget, **options)))  # (seeds, 2, dim)
    pair = pair_error(pool, ids, weights, *vectors)
    x, y = vectors
    inner = (reads[:, 0] * reads[:, 1]).sum(1) - x @ y
    distances = ((reads[:, 0] - reads[:, 1]) ** 2).sum(1)
    moments = [read_moments(pool, ids, weight) for weight in weights]
    expected = {
        "kept of x": (moments[0].kept, (reads[:, 0] * x).sum(1) / dim),
        "kept of y": (moments[1].kept, (reads[:, 1] * y).sum(1) / dim),
        "error of x": (moments[0].vector_error() ** 2, ((reads[:, 0] - x) ** 2).sum(1) / dim),
        "error of y": (moments[1].vector_error() ** 2, ((reads[:, 1] - y) ** 2).sum(1) / dim),
        "inner product": (pair.inner_product, inner / dim),
        "inner product's square": (pair.inner_product_rms**2, (inner / dim) ** 2),
        "squared distance": (pair.squared_distance, distances / ((x - y) ** 2).sum() - 1),
    }
    for what, (value, found) in expected.items():
        error = found.std(ddof=1) / math.sqrt(len(found))
        assert abs(found.mean() - value) < 4.5 * error, what


def test_signs_change_expectations_where_two_given_vectors_share_blocks() -> None:
    """A check that can tell: one block in six is shared, and with signs its own squares cancel."""
    ids, weights, vectors = Frequencies.of(np.ones(6)), (1.0, 1.0), given_vectors(8)
    plain, signed = (
        pair_error(PoolMap(48, 8, 8, 8, sign=sign), ids, weights, *vectors).inner_product
        for sign in (False, True)
    )
    assert plain > signed + 0.05


def test_moments_by_hand() -> None:
    """Two ids, one block each, K starts: they meet with chance 1/K, and half of each is then the other's."""
    ids = Frequencies.of(np.ones(2))
    found = read_moments(PoolMap(40, 4, 4, 4), ids, 1.0)
    assert found.kept == pytest.approx(0.9 + 0.1 / 2, rel=1e-6)
    assert found.kept_square == pytest.approx(0.9 + 0.1 / 4, rel=1e-6)
    assert found.noise == pytest.approx(0.1 / 4, rel=1e-6)
    x, y = np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    pair = pair_error(PoolMap(40, 4, 4, 4), ids, (1.0, 1.0), x, y)
    # Apart nothing is lost; where they meet both read (x + y) / 2, of squared length 2.
    assert pair.inner_product == pytest.approx(0.1 * 2 / 4, rel=1e-6)
    assert pair.squared_distance == pytest.approx(-0.1, rel=1e-6)


def test_a_pool_far_smaller_than_its_ids_is_the_mean_of_all() -> None:
    """Of ids that are all as frequent, nothing of its own is left to one, and its error is the length of its vector."""
    found = read_moments(PoolMap(64, 16, 16, 4), Frequencies.of(np.ones(100_000)), 1.0)
    assert found.kept < 1e-4
    assert found.vector_error() == pytest.approx(1.0, abs=1e-3)


def test_frequencies_keep_ids_and_lookups() -> None:
    counts = np.random.default_rng(0).zipf(1.5, 5000).clip(max=10**7)
    ids = Frequencies.of(counts)
    assert len(ids.weights) <= 200
    assert ids.ids.sum() == 5000
    assert ids.weights @ ids.ids == pytest.approx(counts.sum())
    assert (np.diff(ids.weights) < 0).all()
    zipf = Frequencies.zipf(10**6, 1.0)
    assert zipf.ids.sum() == 10**6
    assert zipf.weights @ zipf.ids == pytest.approx((1 / np.arange(1, 10**6 + 1)).sum(), rel=1e-3)
    assert zipf.at(0.1) > zipf.at(0.5) > zipf.at(0.9)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (PoolMap(8, 16, 16, 16), "holds no block"),
        (PoolMap(100, 16, 8, 3), "align 3"),
        (PoolMap(100, 8, 16, 4), "block_len 16"),
        (PoolMap(24, 16, 16, 4), "too small for pairs"),
    ],
)
def test_impossible_pools_are_refused(pool: PoolMap, message: str) -> None:
    ids, vector = Frequencies.of(np.ones(3)), np.ones(pool.dim)
    with pytest.raises(InputError, match=message):
        pair_error(pool, ids, (1.0, 1.0), vector, vector)
