"""Hashes against exact integers: literals from big-integer arithmetic, and such arithmetic on random ids.

The literals came from a separate pure Python script; ``big_*`` here write the formulas out once more.
"""

import numpy as np
import pytest
import torch

from sizewise.embedding.ids.hashing import (
    AUTHORS_PRIME,
    AuthorsHash,
    FastHash,
    PaperHash,
    lowbias32,
    splitmix64,
)

# (feature, id, block)
POINTS = [(0, 0, 0), (0, 1, 0), (1, 0, 1), (2, 123456789, 3), (25, 2**32 - 1, 2), (3, 2**31, 1)]
FEATURES, BLOCKS, SEED = 26, 4, 42
GOLDEN = {
    "fast": {
        7: [2, 2, 3, 4, 2, 6],
        1000: [326, 398, 492, 629, 350, 930],
        27_000_000: [8818419, 10769020, 13292923, 16983825, 9453449, 25115670],
        2**31 - 1: [701385611, 856529446, 1057271694, 1350832870, 751893621, 1997610771],
    },
    "authors": {  # every feature with cardinality 1000
        7: [2, 2, 5, 4, 4, 2],
        1000: [19, 375, 256, 212, 560, 419],
        27_000_000: [13329019, 20534375, 18947256, 12804212, 19330560, 8544419],
        2**31 - 1: [634329019, 1505534375, 1368947256, 498804212, 208330560, 8544419],
    },
    "paper": {
        7: [3, 1, 2, 5, 5, 5],
        1000: [141, 650, 259, 575, 546, 76],
        27_000_000: [21973141, 21852650, 19688259, 7210575, 22396546, 14656076],
        2**31 - 1: [1857973141, 1155852650, 1180688259, 1033210575, 2074396546, 1796656076],
    },
}
PAPER_SIGNS = [1, 1, -1, 1, 1, 1]  # of element 5 * block


def build(form):
    if form == "fast":
        return FastHash(FEATURES, BLOCKS, SEED)
    if form == "authors":
        return AuthorsHash([1000] * FEATURES, BLOCKS)
    return PaperHash(FEATURES, BLOCKS, 20, SEED)


def slot_of(form, feature, value, block, slots):
    ids = torch.zeros(1, FEATURES, dtype=torch.int64)
    ids[0, feature] = value
    return int(build(form)(ids, slots)[0][0, feature, block])


def test_splitmix64_is_the_published_stream():
    # Outputs for seed 1234567, as listed with the reference implementation.
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_authors_numbers_are_their_random_state():
    assert AUTHORS_PRIME == 2038074743
    hashes = build("authors")
    assert (hashes.r1, hashes.r2, hashes.r3) == (634329019, 1825252241, 871205356)


@pytest.mark.parametrize("form", GOLDEN)
@pytest.mark.parametrize("slots", [7, 1000, 27_000_000, 2**31 - 1])
def test_golden_slots(form, slots):
    assert [slot_of(form, *point, slots) for point in POINTS] == GOLDEN[form][slots]


def test_golden_signs():
    hashes = build("paper")
    for (feature, value, block), sign in zip(POINTS, PAPER_SIGNS, strict=True):
        ids = torch.zeros(1, FEATURES, dtype=torch.int64)
        ids[0, feature] = value
        assert int(hashes.sign(ids, ids, 5)[0, feature, 5 * block]) == sign


def big_fast(feature, value, block, slots):
    word = splitmix64(SEED, FEATURES * BLOCKS)[feature * BLOCKS + block]
    x = (((word >> 32) | 1) * value + word % 2**31) % 2**32
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    x ^= x >> 16
    return x * slots >> 32


def big_authors(feature, value, block, slots):
    random = [int(r) for r in np.random.RandomState(1024).randint(0, 2038074743, (50,))]
    return ((value + 1000 * feature) * random[2] + block * random[1] + random[0]) % 2038074743 % slots


def big_paper(feature, value, block, slots):
    prime = 2**31 - 1
    a, b, c, d = (1 + word % (prime - 1) for word in splitmix64(SEED, 4))
    return (a * feature + b * value + c * block + d) % prime % slots


@pytest.mark.parametrize(
    ("form", "exact"), [("fast", big_fast), ("authors", big_authors), ("paper", big_paper)]
)
def test_equals_big_integers_on_random_ids(form, exact):
    random = np.random.default_rng(1)
    ids = random.integers(0, 2**32, (8, FEATURES))
    for slots in (1, 2, 1000, int(random.integers(2**30, 2**31))):
        found = build(form)(torch.from_numpy(ids), slots)[0]
        for row, feature, block in zip(
            random.integers(0, 8, 40),
            random.integers(0, FEATURES, 40),
            random.integers(0, BLOCKS, 40),
            strict=True,
        ):
            expected = exact(int(feature), int(ids[row, feature]), int(block), slots)
            assert int(found[row, feature, block]) == expected


def test_mixer_is_one_to_one_on_a_slice_and_moves_half_the_bits():
    x = torch.arange(2**20, dtype=torch.int64) * 4096
    mixed = lowbias32(x.clone())
    assert mixed.unique().numel() == x.numel()
    assert int(mixed.min()) >= 0
    assert int(mixed.max()) < 2**32
    changed = (mixed ^ lowbias32(x ^ 1)).numpy().astype(np.uint32)
    flips = np.unpackbits(changed.view(np.uint8)).mean()
    assert flips == pytest.approx(0.5, abs=0.002)
