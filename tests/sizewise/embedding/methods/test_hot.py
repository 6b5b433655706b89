"""``hot``: which values have rows of their own, the coded list of them, and narrow vectors."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counted import counts_of
from sizewise.embedding import FeatureCounts, build
from sizewise.embedding.ids.counts import Ranking
from sizewise.embedding.ids.hashing import splitmix64
from sizewise.embedding.ids.hot_ids import HotIds, coded_bytes
from sizewise.embedding.width import STRENGTH
from sizewise.metrics.registry import METRICS
from sizewise_core.errors import InputError

CARDINALITIES = [3, 20_000, 1, 1_000_000]


def skewed(seed: int = 1, most: int = 4_000) -> list[FeatureCounts]:
    """Zipf's counts of raw tokens; the second feature has no value twice."""
    random = np.random.default_rng(seed)
    counts = []
    for number, cardinality in enumerate(CARDINALITIES):
        size = min(cardinality, most)
        ids = np.unique(random.integers(0, 2**32, size, dtype=np.uint32))
        occurring = (
            10_000 // (1 + random.permutation(len(ids))) + 1 if number != 1 else np.ones(len(ids), int)
        )
        counts.append(FeatureCounts(ids, occurring, random.binomial(occurring, 0.3)))
    return counts


def tokens_of(counts: list[FeatureCounts], rows: int = 3_000, seed: int = 2) -> torch.Tensor:
    """Known and unknown tokens, int64 (rows, features)."""
    random = np.random.default_rng(seed)
    known = [random.choice(feature.ids, rows).astype(np.int64) for feature in counts]
    unknown = random.integers(0, 2**32, (rows, len(counts)))
    return torch.from_numpy(np.where(random.random((rows, len(counts))) < 0.7, np.stack(known, 1), unknown))


def place_of(ids: HotIds, seed: int, feature: int, value: int) -> int | None:
    """A value's place by the definition, in Python's integers."""
    word = splitmix64(seed, ids.features)[feature]
    x = (((word >> 32) | 1) * value + word % 2**31) % 2**32
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * factor % 2**32
    x ^= x >> 16
    sizes = ids.decoded_sizes(ids.sizes).tolist()
    return (
        (sum(sizes[:feature]) << ids.bits) + (x * (sizes[feature] << ids.bits) >> 32)
        if sizes[feature]
        else None
    )


@pytest.mark.parametrize("bits", [4, 6, 16])
def test_the_list_is_what_its_coded_bytes_say(bits: int) -> None:
    """Elias-Fano, read bit by bit; every value that was put in is found, at the position of its place."""
    random = np.random.default_rng(bits)
    features = np.repeat([0, 2, 3], [50, 1, 49])
    values = random.integers(0, 2**32, 100, dtype=np.uint32)
    ids = HotIds(4, 80, bits, seed=7)
    taken = ids.fill(features, values)
    assert 80 <= taken <= 100
    highs, lows = ("".join(f"{byte:08b}"[::-1] for byte in part.tolist()) for part in (ids.highs, ids.lows))
    runs = [at - number for number, at in enumerate(at for at, bit in enumerate(highs) if bit == "1")]
    low = [int(lows[bits * n : bits * (n + 1)][::-1], 2) for n in range(80)]
    places = [run << bits | rest for run, rest in zip(runs, low, strict=True)]
    expected = {place_of(ids, 7, f, int(v)) for f, v in zip(features[:taken], values[:taken], strict=True)}
    assert places == sorted(expected)
    assert sum(part.nbytes for part in ids.state_dict().values()) == ids.stored_bytes
    assert ids.stored_bytes == coded_bytes(4, 80, 80, bits) <= (80 * (bits + 2) + 4 * 7) / 8 + 3
    rows = torch.zeros(taken, 4, dtype=torch.int64)
    rows[torch.arange(taken), torch.from_numpy(features[:taken])] = torch.from_numpy(
        values[:taken].astype(np.int64)
    )
    positions, found = ids.find(rows)
    for row, (feature, value) in enumerate(zip(features[:taken], values[:taken], strict=True)):
        assert found[row, feature]
        assert places[positions[row, feature]] == place_of(ids, 7, feature, int(value))
    assert not found[:, 1].any()  # that feature has no value in the list


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    budget=st.integers(200, 60_000),
    bits=st.integers(4, 9),
    share=st.sampled_from([0.0, 0.4]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 5),
)
def test_the_kernel_finds_the_rows_that_pytorch_finds(
    budget: int, bits: int, share: float, threads: int, seed: int
) -> None:
    counts = skewed(seed, most=800)
    hot = build("hot", CARDINALITIES, 8, budget, seed, fingerprint_bits=bits, hashed_share=share)
    hot.assign_rows(counts)
    ids = tokens_of(counts, rows=40_000 if threads > 1 else 300, seed=seed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = hot.addresses(ids)
        assert torch.equal(rows.long(), hot._rows(ids))
        assert torch.equal(rows, hot.addresses(ids.to(torch.uint32)))
    finally:
        torch.set_num_threads(before)
    assert int(rows.long().max()) < len(hot.table.weight)
    assert torch.equal(hot.hot.decoded(), hot.hot.places.long())


def test_frequent_values_have_rows_of_their_own_and_the_others_their_feature_s() -> None:
    counts = skewed()
    hot = build("hot", CARDINALITIES, 16, 20_000, 3)
    assert hot.facts() == {}
    report = hot.assign_rows(counts)
    assert hot.facts()["mistaken_lookups"] == report.mistaken_lookups
    assert set(hot.facts()) <= set(METRICS)  # which evaluations hold
    features, ids = Ranking(counts, "count", 1).top(report.hot)
    ranked = {(int(f), int(i)) for f, i in zip(features, ids, strict=True)}
    least = min(int(counts[f].counts[np.searchsorted(counts[f].ids, i)]) for f, i in ranked)
    of_hot: list[set[int]] = []
    mistaken = mistaken_lookups = hot_lookups = 0
    for feature, (values, occurring, _) in enumerate(counts):
        rows = torch.zeros(len(values), 4, dtype=torch.int64)
        rows[:, feature] = torch.from_numpy(values.astype(np.int64))
        found = hot.addresses(rows)[:, feature].long().numpy()
        chosen = np.array([(feature, int(value)) in ranked for value in values])
        assert (occurring[chosen] >= least).all()
        assert (occurring[~chosen] <= least).all()
        assert (found[chosen] < hot.hot.values).all()
        of_hot.append(set(found[chosen].tolist()))
        cold = found == hot.hot.values + feature
        wrong = ~chosen & ~cold
        assert set(found[wrong].tolist()) <= of_hot[-1]  # a mistake stays within the feature
        mistaken, mistaken_lookups = mistaken + wrong.sum(), mistaken_lookups + occurring[wrong].sum()
        hot_lookups += occurring[chosen].sum()
    total = sum(int(occurring.sum()) for _, occurring, _ in counts)
    assert sum(map(len, of_hot)) == len(set().union(*of_hot)) == hot.hot.values == report.hot - report.sharing
    assert [min(rows) for rows in of_hot if rows] == sorted(min(rows) for rows in of_hot if rows)
    assert (report.mistaken, report.mistaken_lookups) == (mistaken, mistaken_lookups / total)
    assert report.hot_lookups == hot_lookups / total
    assert report.values == sum(len(values) for values, *_ in counts)
    assert f"{mistaken:,} others are taken for one" in str(report)


@pytest.mark.parametrize(("bits", "rate"), [(4, 2**-4), (8, 2**-8)])
def test_so_many_unknown_tokens_are_taken_for_hot_ones(bits: int, rate: float) -> None:
    hot = build("hot", CARDINALITIES, 16, 40_000, 3, fingerprint_bits=bits)
    hot.assign_rows(skewed())
    unknown = torch.randint(0, 2**32, (50_000, 4), generator=torch.Generator().manual_seed(1))
    taken = (hot.addresses(unknown).long() < hot.hot.values)[:, 3].double().mean()
    assert float(taken) == pytest.approx(rate, rel=0.15)


def test_values_are_ranked_by_count_or_by_chi_square_and_ties_by_feature_and_id() -> None:
    words = np.array([3, 5, 9], np.uint32)
    counts = [
        FeatureCounts(words, np.array([10, 40, 10]), np.array([10, 10, 0])),
        FeatureCounts(words, np.array([20, 20, 20]), np.array([6, 7, 7])),
    ]
    features, ids = Ranking(counts, "count", 1).top(9)
    assert list(zip(features.tolist(), ids.tolist(), strict=True)) == [
        (0, 5), (1, 3), (1, 5), (1, 9), (0, 3), (0, 9),
    ]  # fmt: skip
    features, ids = Ranking(counts, "chi2", 1).top(2)
    assert list(zip(features.tolist(), ids.tolist(), strict=True)) == [(0, 3), (0, 9)]
    assert Ranking(counts, "count", 20).size == 4
    # Pearson's statistic of the table (value or not, clicked or not), cell by cell.
    table = np.array([[10, 0], [10, 40]])
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert Ranking(counts, "chi2", 1)._score[0] == pytest.approx(((table - expected) ** 2 / expected).sum())


def test_a_threshold_and_few_values_make_it_smaller_and_bytes_are_known_beforehand() -> None:
    counts = skewed()
    for options in ({"min_count": 100}, {"width": 1}, {"by": "chi2", "min_count": 50}):
        hot = build("hot", CARDINALITIES, 16, 2_000_000, 1, **options)
        with torch.device("meta"):
            sketched = build("hot", CARDINALITIES, 16, 2_000_000, 1, **options)
            sketched.assign_rows(counts)
        room = hot.embedding_bytes
        report = hot.assign_rows(counts)
        assert sketched.embedding_bytes == hot.embedding_bytes < room
        assert report.hot == sum((f.counts >= options.get("min_count", 1)).sum() for f in counts)


def test_a_trained_model_needs_no_counts() -> None:
    """Its list is in its state, and in copies; also where the list is shorter than there is room for."""
    counts = skewed()
    hot = build("hot", CARDINALITIES, 16, 60_000, 1, min_count=40, storage="int8")
    hot.assign_rows(counts)
    ids = tokens_of(counts)
    hot.eval()
    again = build("hot", CARDINALITIES, 16, 60_000, 1, min_count=40, storage="int8").eval()
    again.load_state_dict(hot.state_dict())
    for other in (again, copy.deepcopy(hot)):
        assert torch.equal(other(ids), hot(ids))
        assert other.embedding_bytes == hot.embedding_bytes


def test_a_traced_program_reads_the_coded_list() -> None:
    counts = skewed()
    hot = build("hot", CARDINALITIES, 16, 9_000, 1, hashed_share=0.2)
    hot.assign_rows(counts)
    ids, expected = tokens_of(counts), hot(tokens_of(counts))
    hot.prepare_export()
    assert torch.equal(hot(ids), expected)
    program = torch.export.export(hot.eval(), (ids[:5],), dynamic_shapes=({0: torch.export.Dim("rows")},))
    assert torch.equal(program.module()(ids), expected)
    carried = [*program.state_dict.values(), *program.constants.values()]
    assert max(part.nbytes for part in carried) <= hot.table.weight.nbytes  # no list beside the coded one


@pytest.mark.parametrize("bits", [4, 5, 9, 16])
@pytest.mark.parametrize("values", [1, 3, 60, 5_000])
def test_lookups_in_the_coded_list_alone_find_the_same(values: int, bits: int) -> None:
    """Also where positions are left over, and for features without values."""
    random = np.random.default_rng(values)
    for size in (max(1, values // 2), values, values * 2):
        features = random.choice([0, 2, 3], size)
        ids = HotIds(5, values, bits, seed=3)
        tokens = random.integers(0, 2**32, size, dtype=np.uint32)
        ids.fill(features, tokens)
        asked = np.concatenate([tokens[:2_000], random.integers(0, 2**32, 2_000, dtype=np.uint32)])
        asked = torch.from_numpy(asked.astype(np.int64)).unsqueeze(1).expand(-1, 5)
        places, (positions, found) = ids.places.clone(), ids.find(asked)
        ids.keep_coded()
        there, coded = ids.find(asked)
        assert torch.equal(coded, found)
        assert torch.equal(there[found], positions[found])
        assert torch.equal(ids.decoded(), places.long())
        assert found[:, [0, 2, 3]].any()
        assert not found[:, [1, 4]].any()


def test_what_counts_cannot_be_used_is_said() -> None:
    counts = skewed()
    hot = build("hot", CARDINALITIES, 16, 20_000, 1, min_count=10**6)
    with pytest.raises(InputError, match=r"call assign_rows\(counts\)"):
        hot(tokens_of(counts))
    with pytest.raises(InputError, match=r"min_count 1000000: no value .*at most 10,001 times.* set a lower"):
        hot.assign_rows(counts)
    with pytest.raises(InputError, match=r"counts of 3 features .* has 4"):
        hot.assign_rows(counts[:3])
    with pytest.raises(InputError, match="feature 0: give distinct ascending uint32 ids"):
        hot.assign_rows([FeatureCounts(counts[0].ids[::-1], *counts[0][1:]), *counts[1:]])
    without = [FeatureCounts(ids, occurring) for ids, occurring, _ in counts]
    with pytest.raises(InputError, match="chi2 needs the clicks"):
        build("hot", CARDINALITIES, 16, 20_000, 1, by="chi2").assign_rows(without)


def test_there_are_no_more_hot_values_than_32_bits_have_places_for() -> None:
    with torch.device("meta"):
        hot = build("hot", [2**32], 16, 2**32, 1, width=1, fingerprint_bits=8)
    assert hot.hot.values == 2**23 - 1
    assert hot.embedding_bytes < 2**26


@pytest.mark.parametrize("method", ["hash", "robe", "hot"])
def test_narrow_vectors_are_repeated_at_a_quarter_of_their_strength(method: str) -> None:
    options = {} if method != "robe" else {"block_len": 2, "align": 2}
    wide, narrow = (build(method, [50, 9], dim, 3_000, 5, width=2, **options) for dim in (2, 16))
    ids = torch.stack([torch.arange(50), torch.arange(50) % 9], dim=1)
    for embedding in (wide, narrow):
        if method == "hot":
            embedding.assign_rows(counts_of(ids))
    assert wide.embedding_bytes == narrow.embedding_bytes
    gradient = torch.randn(50, 2, 16, generator=torch.Generator().manual_seed(1))
    for fused in (True, False):
        wide.fused = narrow.fused = fused
        assert torch.equal(narrow(ids), wide(ids).repeat(1, 1, 8) * STRENGTH)
        wide.zero_grad()
        narrow.zero_grad()
        (narrow(ids) * gradient).sum().backward()
        (wide(ids) * gradient.view(50, 2, 8, 2).sum(2) * STRENGTH).sum().backward()
        (one,), (other,) = wide.parameters(), narrow.parameters()
        torch.testing.assert_close(other.grad, one.grad)
