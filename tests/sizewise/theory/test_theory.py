"""Bounds by number, and by Monte Carlo against what they promise."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.random_projection import johnson_lindenstrauss_min_dim

from sizewise.embedding.ids.hashing import FastHash
from sizewise.theory.bounds import (
    feature_hashing_chebyshev,
    feature_hashing_tail,
    feature_hashing_variance,
    jl_dimensions,
    memory_bound,
    simulate_feature_hashing,
    simulate_jl,
    simulate_sparse_jl,
    sparse_jl,
)
from sizewise_core.errors import InputError


def test_the_headline_size():
    bound = memory_bound(rows=204_184_588, dim=128, epsilon=0.1)
    assert bound.dimensions == 16_402
    assert bound.bytes == 16_402 * 128 * 4 == 8_397_824
    assert bound.full_bytes == 104_542_509_056
    assert bound.ratio == pytest.approx(12_448.7, abs=0.1)


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("points", [2, 1000, 10**9])
def test_agrees_with_scikit_learn(points, epsilon):
    # scikit-learn rounds down where the bound asks for at least.
    assert jl_dimensions(points, epsilon) - johnson_lindenstrauss_min_dim(points, eps=epsilon) in (0, 1)


def test_dimensions_grow_with_the_logarithm_of_the_rows():
    steps = np.diff([jl_dimensions(10**power, 0.1) for power in range(2, 10)])
    assert steps.max() - steps.min() <= 1
    assert steps.mean() == pytest.approx(4 * math.log(10) / (0.005 - 0.001 / 3), abs=1)


def test_jl_holds_as_often_as_it_promises():
    """200 trials at failure 0.1: many more than 20 failures would refute the bound (level 2e-4)."""
    points = np.random.default_rng(0).normal(size=(30, 60))
    k = jl_dimensions(30, 0.5, failure=0.1)
    failures = sum(error > 0.5 for error in simulate_jl(points, k, trials=200, seed=1))
    assert failures <= binom.ppf(0.9998, 200, 0.1)
    # A fifteenth of the dimensions does not do, so the check can fail.
    assert sum(error > 0.5 for error in simulate_jl(points, k // 15, trials=50, seed=1)) > 40


def test_the_bound_does_not_hold_for_the_hash_of_rows():
    """At the k of the bound, some of 1,000 rows share all that they read, under every one of 100 seeds."""
    ids, k = torch.arange(1000)[:, None], jl_dimensions(1000, 0.05)
    for seed in range(100):
        rows, _ = FastHash(1, 1, seed)(ids, k)
        assert len(rows.unique()) < 1000


def vectors(n=40, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=n), random.normal(size=n)


def test_feature_hashing_is_unbiased_with_the_stated_variance():
    """20,000 trials: mean within 4.5 standard errors, variance within 5 % of the formula."""
    x, y = vectors()
    products = simulate_feature_hashing(x, y, 16, trials=20_000, seed=1)
    variance = feature_hashing_variance(x, y, 16)
    assert abs(products.mean() - x @ y) < 4.5 * math.sqrt(variance / 20_000)
    assert products.var() == pytest.approx(variance, rel=0.05)


def test_feature_hashing_variance_equals_its_double_sum():
    x, y = vectors(7)
    double = sum(
        x[i] ** 2 * y[j] ** 2 + x[i] * y[i] * x[j] * y[j] for i in range(7) for j in range(7) if i != j
    )
    assert feature_hashing_variance(x, y, 5) == pytest.approx(double / 5, rel=1e-12)


def test_chebyshev_holds():
    x, y = vectors()
    errors = np.abs(simulate_feature_hashing(x, y, 16, trials=5000, seed=2) - x @ y)
    for error in (1.5, 2.0, 3.0):
        deviation = error * math.sqrt(feature_hashing_variance(x, y, 16))
        bound = feature_hashing_chebyshev(x, y, 16, deviation)
        assert bound == pytest.approx(1 / error**2)
        assert (errors >= deviation).mean() <= bound


def test_feature_hashing_tail_holds_where_its_conditions_do():
    tail = feature_hashing_tail(epsilon=0.9, delta=0.2)
    assert tail.size == math.ceil(72 * math.log(5) / 0.81)
    n = math.ceil(1 / tail.largest_entry**2)
    x = np.full(n, n**-0.5)
    assert x.max() <= tail.largest_entry
    lengths = simulate_feature_hashing(x, x, tail.size, trials=400, seed=1)
    assert (np.abs(lengths - 1) >= 0.9).mean() <= tail.failure


def test_one_large_entry_is_why_the_tail_has_a_condition():
    """Two large entries collide in one of m trials and then double or cancel: no bound can be below that."""
    x = np.array([1.0, 1.0]) / math.sqrt(2)
    lengths = simulate_feature_hashing(x, x, 8, trials=4000, seed=1)
    off = np.abs(lengths - 1) > 0.9
    assert off.mean() == pytest.approx(1 / 8, abs=5 * math.sqrt(7 / 64 / 4000))


@pytest.mark.parametrize("epsilon", [0.25, 0.5])
@pytest.mark.parametrize("kind", ["dense", "two large", "one hot"])
def test_sparse_jl_holds_with_the_default_constants(epsilon, kind):
    delta = 0.05
    sizes = sparse_jl(epsilon, delta)
    assert sizes.dimensions >= 8 * math.log(1 / delta) / epsilon**2
    x = {"dense": vectors(200)[0], "two large": np.array([1.0, 1.0]), "one hot": np.array([1.0])}[kind]
    lengths = simulate_sparse_jl(x / np.linalg.norm(x), sizes, trials=600, seed=1)
    failures = int((np.abs(lengths - 1) > epsilon).sum())
    assert failures <= binom.ppf(0.999, 600, delta)
    if kind == "one hot":
        assert np.allclose(lengths, 1)


def test_sparse_jl_fails_with_far_fewer_rows():
    x = vectors(200)[0]
    sizes = sparse_jl(0.25, 0.05, rows_constant=0.5)
    lengths = simulate_sparse_jl(x / np.linalg.norm(x), sizes, trials=300, seed=1)
    assert (np.abs(lengths - 1) > 0.25).mean() > 0.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memory_bound(1, 16, 0.1), "rows 1"),
        (lambda: memory_bound(10, 0, 0.1), "dim 0"),
        (lambda: memory_bound(10, 16, 0.0), "epsilon 0.0"),
        (lambda: memory_bound(10, 16, 1.0), "epsilon 1.0"),
        (lambda: jl_dimensions(10, 0.1, failure=2), "failure 2"),
        (lambda: sparse_jl(0.1, 0), "delta 0"),
        (lambda: feature_hashing_tail(2, 0.1), "epsilon 2"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
