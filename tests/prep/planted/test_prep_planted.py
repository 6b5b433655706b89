"""Planted logs: deterministic, like the figures they were fitted to, and with the truth that they claim."""

import gzip
import hashlib
import json
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import log_loss, roc_auc_score

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import Chunk, Dials, Truth, World, generate
from sizewise_prep.planted.bayes import BayesMeter
from sizewise_prep.planted.text import encode
from sizewise_prep.raw.parsing.parser import Parser
from sizewise_prep.shards.manifest import Manifest

ROWS = 120_000
SMALL_WORLDS = [World(3, 300, dials) for dials in (Dials(), Dials(drift=1.5, factor_rank=6))]
FIGURES = json.loads(files("sizewise_prep.planted").joinpath("marginals.json").read_text())


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=1, rows=ROWS)


@pytest.fixture(scope="module")
def chunk(world: World) -> Chunk:
    return world.chunk(0, ROWS)


def test_the_text_says_what_the_arrays_say(chunk: Chunk) -> None:
    few = World(seed=1, rows=ROWS).chunk(0, 2000)
    rows, bad = Parser().parse(few.text())
    assert bad == []
    assert np.array_equal(rows.labels, few.labels)
    assert np.array_equal(rows.ids, few.tokens.T)
    expected = np.where(few.observed, few.integers, np.nan).T.astype(np.float32)
    assert np.array_equal(rows.dense, expected, equal_nan=True)
    assert np.array_equal(chunk.tokens[:, :2000], few.tokens)


@given(
    st.lists(st.one_of(st.integers(-4, 9_999_999), st.none()), min_size=1, max_size=13),
    st.integers(0, 2**32 - 1),
)
def test_any_value_is_written_as_it_is(values: list[int | None], word: int) -> None:
    row = [*values, *[None] * (13 - len(values))]
    integers = np.array([[value or 0] for value in row])
    observed = np.array([[value is not None] for value in row])
    words = np.full((26, 1), word, np.uint32)
    text = encode(np.array([1], np.uint8), integers, observed, words)
    numbers = ["" if value is None else str(value) for value in row]
    assert text.decode() == "\t".join(["1", *numbers, *[f"{word:08x}" if word else ""] * 26]) + "\n"


@given(
    cuts=st.lists(st.integers(0, 300), max_size=6),
    world=st.sampled_from(SMALL_WORLDS),
)
@settings(max_examples=15, deadline=None)
def test_a_row_does_not_depend_on_its_chunk(cuts: list[int], world: World) -> None:
    edges = [0, *sorted(cuts), 300]
    pieces = [world.chunk(first, last) for first, last in pairwise(edges)]
    whole = world.chunk(0, 300)
    assert b"".join(piece.text() for piece in pieces) == whole.text()
    assert np.array_equal(np.concatenate([piece.probability for piece in pieces]), whole.probability)


def test_shares_of_frequent_and_missing_values_are_the_fitted_ones(chunk: Chunk) -> None:
    for tokens, column in zip(chunk.tokens, FIGURES["categorical"], strict=True):
        values, counts = np.unique(tokens, return_counts=True)
        shares = counts / ROWS
        assert (tokens == 0).mean() == pytest.approx(column["missing"], abs=0.006)
        top = np.sort(shares[values != 0])[::-1][: min(8, len(column["head"]))]
        assert top == pytest.approx(sorted(column["head"], reverse=True)[: len(top)], abs=0.008)
        assert len(values) <= column["values"] + 1


def test_integers_have_the_fitted_quantiles(chunk: Chunk) -> None:
    for values, observed, column in zip(chunk.integers, chunk.observed, FIGURES["integer"], strict=True):
        assert 1 - observed.mean() == pytest.approx(column["missing"], abs=0.015)
        for level, quantile in zip(FIGURES["levels"], column["quantiles"], strict=True):
            if 0.05 <= level <= 0.95:
                low, high = np.quantile(values[observed], [level - 0.04, level + 0.04])
                assert low - 1 <= quantile <= high + 1


def test_integers_move_together_as_fitted(chunk: Chunk) -> None:
    ranked = np.where(chunk.observed, chunk.integers, -10).argsort(axis=1).argsort(axis=1)
    for first, second in ((2, 3), (3, 12), (6, 10), (0, 9), (4, 9)):
        found = np.corrcoef(ranked[first], ranked[second])[0, 1]
        assert found == pytest.approx(FIGURES["correlation"][first][second], abs=0.15)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_click_rate_and_the_best_possible_auc_are_those_of_a_real_log(seed: int) -> None:
    chunk = World(seed, 60_000).chunk(0, 60_000)
    meter = BayesMeter()
    meter.add(chunk.probability, chunk.labels)
    assert chunk.probability.mean() == pytest.approx(0.2565, abs=0.004)
    assert meter.bayes_auc == pytest.approx(0.791, abs=0.01)
    assert meter.bayes_logloss == pytest.approx(0.459, abs=0.008)


def test_labels_follow_the_true_probabilities(chunk: Chunk) -> None:
    spread = np.sqrt((chunk.probability * (1 - chunk.probability)).sum())
    assert abs((chunk.labels - chunk.probability).sum()) / spread < 4
    for decile in np.array_split(np.argsort(chunk.probability), 10):
        expected = chunk.probability[decile]
        error = np.sqrt((expected * (1 - expected)).sum()) / len(decile)
        assert abs(chunk.labels[decile].mean() - expected.mean()) < 4 * error


def test_the_meter_agrees_with_the_definitions(chunk: Chunk) -> None:
    meter = BayesMeter()
    for part in np.array_split(np.arange(ROWS), 7):
        other = BayesMeter()
        other.add(chunk.probability[part], chunk.labels[part])
        meter.merge(other)
    probability = chunk.probability
    assert meter.realised_auc == pytest.approx(roc_auc_score(chunk.labels, probability), abs=1e-6)
    assert meter.realised_logloss == pytest.approx(log_loss(chunk.labels, probability), abs=1e-9)
    p = np.sort(probability)
    alone = (p * (1 - p)).sum()  # a row is no pair with itself
    exact = ((p * np.cumsum(1 - p)).sum() - alone) / (p.sum() * (1 - p).sum() - alone)
    assert meter.bayes_auc == pytest.approx(exact, abs=1e-6)
    assert meter.bayes_auc == pytest.approx(meter.realised_auc, abs=0.006)


def test_one_column_helps_and_stays_below_the_truth(chunk: Chunk) -> None:
    """A column's click rates per token on other rows help, and by less than the true probabilities do."""
    train, test = slice(0, 100_000), slice(100_000, ROWS)
    column = chunk.tokens[17]
    values, codes = np.unique(column, return_inverse=True)
    clicks = np.bincount(codes[train], chunk.labels[train], len(values))
    seen = np.bincount(codes[train], minlength=len(values))
    rate = (clicks + 2.5) / (seen + 10)
    auc = roc_auc_score(chunk.labels[test], rate[codes[test]])
    assert 0.56 < auc < roc_auc_score(chunk.labels[test], chunk.probability[test]) - 0.05


@pytest.mark.slow
def test_dials_do_what_they_say(chunk: Chunk) -> None:
    def turned(**dials: float) -> Chunk:
        return World(1, 30_000, Dials(**dials)).chunk(0, 30_000)  # type: ignore[arg-type]

    def distinct(of: Chunk) -> int:
        return sum(len(np.unique(column)) for column in of.tokens[:, :30_000])

    assert distinct(turned(zipf=1.5)) < 0.7 * distinct(chunk)
    assert distinct(turned(zipf=0.5)) > 1.5 * distinct(chunk)
    assert not (turned(missing=0).tokens == 0).any()
    assert turned(missing=0).observed.all()
    assert turned(click_rate=0.03).labels.mean() == pytest.approx(0.03, abs=0.006)
    assert np.ptp(turned(noise=1).probability) < 1e-12
    calm = turned(token_signal=0, interactions=0)
    assert np.var(_logit(calm)) == pytest.approx(0.63**2, rel=0.1)
    assert np.var(_logit(turned(rarity_decay=0.5))) < 0.9 * np.var(_logit(turned()))
    single, many = (_logit(turned(token_signal=0, integer_signal=0, factor_rank=rank)) for rank in (1, 16))
    assert single.std() == pytest.approx(many.std(), rel=0.35)
    assert np.corrcoef(single, many)[0, 1] < 0.9


def test_a_larger_vocabulary_is_that_of_the_large_columns_alone(chunk: Chunk) -> None:
    world = World(1, 30_000, Dials(vocabulary=10))
    for column, figures in zip(world.columns, FIGURES["categorical"], strict=True):
        assert column.values == figures["values"] * (10 if figures["values"] >= 1_000_000 else 1)
    more = world.chunk(0, 30_000)
    for c, column in enumerate(world.columns):
        found, before = (len(np.unique(of.tokens[c, :30_000])) for of in (more, chunk))
        assert found > 1.05 * before if column.values > 2_000_000 else found == before
    assert Dials(vocabulary=10).model_dump()["vocabulary"] == 10
    assert "vocabulary" not in Dials().model_dump_json()  # `truth.json` as it was before there was this dial


def test_drift_turns_effects_over_time(world: World) -> None:
    still, turning = World(1, ROWS), World(1, ROWS, Dials(drift=np.pi / 2))

    def likeness(first: int) -> float:
        parts = (each.chunk(first, first + 4000) for each in (still, turning))
        return float(np.corrcoef(*(_logit(part) for part in parts))[0, 1])

    assert likeness(0) > 0.99 > 0.8 > likeness(ROWS - 4000)


def _logit(chunk: Chunk) -> np.ndarray:
    return np.asarray(np.log(chunk.probability / (1 - chunk.probability)))


@pytest.mark.parametrize("setting", [{"zipf": -1}, {"factor_rank": 0}, {"noise": 2}, {"unknown": 1}])
def test_impossible_dials_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        Dials(**setting)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_world(tmp_path: Path) -> None:
    truths = [generate(tmp_path / name, 700, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    assert truths[0] == truths[1]
    assert truths[0].files[0].sha256 != truths[2].files[0].sha256
    a, c = ((tmp_path / name / "day_0.tsv").read_bytes() for name in "ac")
    assert hashlib.sha256(a).hexdigest() == truths[0].files[0].sha256
    tokens = [{field for field in text.split() if len(field) == 8} for text in (a, c)]
    assert len(tokens[0] & tokens[1]) < 3


def test_files_in_time_order_hold_the_same_rows_however_many(tmp_path: Path) -> None:
    one = generate(tmp_path / "one", 1000)
    many = generate(tmp_path / "many", 1000, files=3, compress=True)
    assert [log.name for log in many.files] == ["day_0.tsv.gz", "day_1.tsv.gz", "day_2.tsv.gz"]
    assert [log.rows for log in many.files] == [333, 333, 334]
    text = b"".join(gzip.decompress((tmp_path / "many" / log.name).read_bytes()) for log in many.files)
    assert text == (tmp_path / "one" / "day_0.tsv").read_bytes()
    assert many.intercept == one.intercept
    for name, split in one.splits.items():  # sums over other pieces may round otherwise
        assert many.splits[name].model_dump() == pytest.approx(split.model_dump(), rel=1e-12)


def test_the_truth_of_a_split_is_that_of_the_prepared_rows(tmp_path: Path) -> None:
    reported: list[int] = []
    truth = generate(tmp_path / "raw", 20_007, files=2, progress=reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == 20_007
    manifest = prepare([tmp_path / "raw" / "day_*.tsv"], tmp_path / "shards")
    assert {name: (split.rows, split.click_rate) for name, split in manifest.splits.items()} == {
        name: (split.rows, pytest.approx(split.click_rate)) for name, split in truth.splits.items()
    }
    assert manifest.click_rate == pytest.approx(truth.click_rate)
    assert Truth.load(tmp_path / "raw") == truth
    test = World(truth.seed, truth.rows, truth.dials).chunk(20_007 - truth.splits["test"].rows, 20_007)
    assert truth.splits["test"].realised_auc == pytest.approx(
        roc_auc_score(test.labels, test.probability), abs=1e-5
    )


def test_a_folder_is_generated_once_and_never_mixed(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    truth = generate(out, 100)
    before = (out / "truth.json").stat().st_mtime_ns
    assert generate(out, 100) == truth
    assert (out / "truth.json").stat().st_mtime_ns == before
    for other in ({"rows": 101}, {"seed": 2}, {"files": 2}, {"dials": Dials(noise=0.1)}):
        with pytest.raises(InputError, match="holds something else"):
            generate(out, **{"rows": 100, **other})  # type: ignore[arg-type]
    (out / "day_0.tsv").write_bytes(b"")
    with pytest.raises(InputError, match="holds something else"):
        generate(out, 100)


def test_impossible_requests_are_named(tmp_path: Path) -> None:
    for arguments, message in [
        ({"rows": 1}, "rows = 1"),
        ({"rows": 5, "files": 6}, "files = 6"),
        ({"rows": 5, "files": 0}, "files = 0"),
    ]:
        with pytest.raises(InputError, match=message):
            generate(tmp_path / "raw", **arguments)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        generate(tmp_path / "file", 5)
    with pytest.raises(InputError, match=r"truth\.json: not found"):
        Truth.load(tmp_path)
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(InputError, match=r"truth\.json: seed: Field required"):
        Truth.load(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "truth.json"}


def test_planted_rows_are_like_real_ones(tmp_path: Path, real_data: Path) -> None:
    """Side by side: distinct and missing values, and how many tokens of test rows training has never seen."""
    real = prepare([real_data / "criteo_kaggle_sample.tsv.gz"], tmp_path / "real")
    generate(tmp_path / "log", real.rows_out)
    planted = prepare([tmp_path / "log" / "day_0.tsv"], tmp_path / "planted")
    for column, (wanted, found) in enumerate(zip(real.cardinalities, planted.cardinalities, strict=True)):
        slack = 0.35 if column == 10 else 0.15  # the fit of that one column is known to be poor
        assert found == pytest.approx(wanted, rel=slack, abs=2)
    assert planted.full_rows == pytest.approx(real.full_rows, rel=0.1)
    assert planted.token_missing == pytest.approx(real.token_missing, abs=0.01)
    assert planted.dense_missing == pytest.approx(real.dense_missing, abs=0.02)
    assert planted.click_rate == pytest.approx(real.click_rate, abs=0.006)

    def unseen(folder: Path, manifest: Manifest) -> float:
        parts = [
            np.concatenate([read_shard(folder / shard.file).ids for shard in manifest.splits[name].shards])
            for name in ("train", "test")
        ]
        return sum(float((~np.isin(parts[1][:, c], parts[0][:, c])).mean()) for c in range(26))

    assert unseen(tmp_path / "planted", planted) == pytest.approx(unseen(tmp_path / "real", real), rel=0.2)
