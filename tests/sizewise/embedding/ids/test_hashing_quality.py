"""The default hash spreads like a random function, for random ids and for the patterned ones of real data.

Each check states its level.  Seeds are fixed, so a check either always passes or always fails.
"""

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from sizewise.embedding.ids.hashing import FastHash

N = 20_000
PATTERNS = {
    "random": np.random.default_rng(0).integers(0, 2**32, N),
    "consecutive": np.arange(N),
    "high bits only": np.arange(N) << 16 & 0xFFFFFFFF,
    "multiples of 1000": np.arange(N) * 1000,
    "gray code": np.arange(N) ^ (np.arange(N) >> 1),
}


def slots_of(pattern, slots, features=8, blocks=4, seed=3):
    """(N, features * blocks): every column another hash of the same ids."""
    ids = torch.from_numpy(PATTERNS[pattern].astype(np.int64)).unsqueeze(1).expand(-1, features)
    return FastHash(features, blocks, seed)(ids, slots)[0].flatten(1).numpy()


def chi_square_p(counts):
    expected = counts.sum() / counts.size
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.size - 1)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("slots", [100, 1024, 1999])
def test_uniform(pattern, slots):
    """Chi-square p-values of 32 columns are uniform themselves: level 0.001 on the set, none below 1e-5."""
    p = [chi_square_p(np.bincount(column, minlength=slots)) for column in slots_of(pattern, slots).T]
    assert min(p) > 1e-5
    assert kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pairwise_collisions(pattern):
    """Colliding pairs of 32 columns, n(n-1)/2 / slots expected of each: within 4 standard errors (6e-5)."""
    slots = 1_000_003
    columns = slots_of(pattern, slots)
    counts = (np.bincount(column, minlength=slots) for column in columns.T)
    pairs = sum(int((c * (c - 1) // 2).sum()) for c in counts)
    expected = columns.shape[1] * N * (N - 1) / 2 / slots
    assert abs(pairs - expected) < 4 * expected**0.5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_features_and_blocks_are_independent(pattern):
    """Joint chi-square of neighbouring columns, 16 x 16 cells: level 0.001 on the set, none below 1e-5."""
    columns = slots_of(pattern, 16)
    p = [
        chi_square_p(np.bincount(a * 16 + b, minlength=256))
        for a, b in zip(columns.T[:-1], columns.T[1:], strict=True)
    ]
    assert min(p) > 1e-5
    assert kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize("pattern", PATTERNS)
def test_signs_are_fair_and_independent_of_the_slot(pattern):
    """Means of 32 columns of signs, alone and times the slot's parity: within 4.5 standard errors of 0."""
    ids = torch.from_numpy(PATTERNS[pattern].astype(np.int64)).unsqueeze(1).expand(-1, 8)
    hashes = FastHash(8, 4, 3)
    slots, bits = hashes(ids, 1024)
    signs = hashes.sign(ids, bits, 1).numpy().reshape(N, -1)
    parity = 1 - 2 * (slots.numpy().reshape(N, -1) & 1)
    assert np.abs(signs.mean(0)).max() < 4.5 / N**0.5
    assert np.abs((signs * parity).mean(0)).max() < 4.5 / N**0.5


def test_without_the_feature_term_features_share():
    ids = torch.full((1, 3), 77)
    shared = FastHash(3, 2, 1, feature_term=False)(ids, 10**6)[0]
    assert (shared == shared[:, :1]).all()
    own = FastHash(3, 2, 1, feature_term=True)(ids, 10**6)[0]
    assert own.unique().numel() == 6
