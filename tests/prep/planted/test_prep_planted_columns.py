"""What dials add to planted logs: columns that `prep` reads as they were made, and effects that are there."""

import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import Chunk, Dials, Truth, World, generate
from sizewise_prep.planted.columns.users import BEGIN, SPAN, Order, Users
from sizewise_prep.planted.output.files import frame
from sizewise_prep.raw.layout import Layout
from sizewise_prep.shards.manifest import Manifest

ROWS = 4_000
EVERYTHING = Dials(crosses=2, numbers=3, lists=2, list_length=6, users=90, items=400, history=5)
WORLD = World(2, ROWS, EVERYTHING)


@pytest.fixture(scope="module")
def chunk() -> Chunk:
    return WORLD.chunk(0, ROWS)


@pytest.fixture(scope="module")
def added(chunk: Chunk) -> pl.DataFrame:
    """The columns of the chunk beyond Criteo's."""
    return frame(chunk).select(list(chunk.added))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows as text and as Parquet."""
    folder = tmp_path_factory.mktemp("raw")
    for form in ("text", "parquet"):
        generate(folder / form, ROWS, seed=2, files=2, dials=EVERYTHING, format=form)
    return folder


def prepared(raw: Path, out: Path, **options: object) -> Manifest:
    layout = Layout.load(raw / "schema.yaml")
    return prepare([raw / "day_*"], out, layout=layout, workers=1, **options)  # type: ignore[arg-type]


def shards(folder: Path, manifest: Manifest, *splits: str) -> pl.DataFrame:
    parts = [shard.file for name in splits or manifest.splits for shard in manifest.splits[name].shards]
    return pl.concat([pl.read_ipc(folder / part) for part in parts])


def test_without_these_dials_logs_are_what_they_always_were(tmp_path: Path) -> None:
    truth = generate(tmp_path / "raw", 700, seed=5)
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == ["day_0.tsv", "truth.json"]
    assert truth.files[0].sha256 == "2b161631d88b79b29a273f5fdc0c81dab85a54efa29720bc711d4990629e6101"
    written = (tmp_path / "raw" / "truth.json").read_bytes()
    digest = "733255a52a7895b172d51944bfa16ac8ab77ebd7454b7fd0103dccd6ec56dc06"
    assert hashlib.sha256(written).hexdigest() == digest


@given(cuts=st.lists(st.integers(0, 300), max_size=5))
@settings(max_examples=4, deadline=None)
def test_a_row_does_not_depend_on_its_chunk(cuts: list[int]) -> None:
    pieces = [WORLD.chunk(*ends) for ends in pairwise([0, *sorted(cuts), 300]) if ends[0] < ends[1]]
    at_once = World(2, ROWS, EVERYTHING).chunk(0, 300)
    assert pl.concat([frame(piece) for piece in pieces]).equals(frame(at_once))
    assert np.array_equal(np.concatenate([piece.probability for piece in pieces]), at_once.probability)


def test_files_hold_the_same_rows_however_many(tmp_path: Path, raw: Path) -> None:
    one = generate(tmp_path / "one", ROWS, seed=2, dials=EVERYTHING, format="parquet")
    two = Truth.load(raw / "parquet")
    assert pl.read_parquet(tmp_path / "one/day_0.parquet").equals(
        pl.read_parquet(raw / "parquet/day_*.parquet")
    )
    assert one.added is not None
    assert two.added is not None
    assert one.added.lists == two.added.lists
    assert generate(tmp_path / "one", ROWS, seed=2, dials=EVERYTHING, format="parquet") == one


@pytest.mark.slow
def test_any_process_with_any_number_of_threads_writes_the_same_bytes(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from sizewise_prep.planted import Dials, generate
for form in ("text", "parquet"):
    generate(Path(sys.argv[1], form), 900, dials=Dials(users=50, lists=1, numbers=2, crosses=1), format=form)
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / threads)],
            env={**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONHASHSEED": threads},
        )
        for threads in ("1", "5")
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    one, five = (
        {
            path.relative_to(tmp_path / threads): path.read_bytes()
            for path in (tmp_path / threads).rglob("*.*")
        }
        for threads in ("1", "5")
    )
    assert one == five
    assert len(one) == 6


def test_text_and_parquet_become_the_shards_that_were_made(
    raw: Path, tmp_path: Path, chunk: Chunk, added: pl.DataFrame
) -> None:
    found = {form: prepared(raw / form, tmp_path / form) for form in ("text", "parquet")}
    digests = [
        [shard.sha256 for split in manifest.splits.values() for shard in split.shards]
        for manifest in found.values()
    ]
    assert digests[0] == digests[1]
    manifest, truth = found["parquet"], Truth.load(raw / "parquet")
    assert (manifest.rows_out, manifest.rows_quarantined) == (ROWS, 0)
    rows = shards(tmp_path / "parquet", manifest)
    assert rows["label"].to_numpy().tolist() == chunk.labels.tolist()
    for name in ("L1", "L2", "history"):
        assert rows[name].equals(added[name])
    ids = rows["ids"].to_numpy()
    names = Layout.load(raw / "parquet" / "schema.yaml").tokens
    assert np.array_equal(ids[:, :26], chunk.tokens.T)
    assert np.array_equal(ids[:, names.index("user")], added["user"].to_numpy())
    standardized = rows["dense"].to_numpy()[:, 13:]
    for column in range(3):
        made = added[f"N{column + 1}"].to_numpy()
        assert np.array_equal(np.isnan(standardized[:, column]), np.isnan(made))
        kept = ~np.isnan(made)
        assert np.corrcoef(standardized[kept, column], made[kept])[0, 1] == pytest.approx(1)
    assert truth.added is not None
    assert {one.name: (one.values, one.longest) for one in manifest.lists} == {
        name: (one.values, one.longest) for name, one in truth.added.lists.items()
    }


def test_histories_are_the_last_items_of_the_log(added: pl.DataFrame) -> None:
    seen: dict[int, list[int]] = defaultdict(list)
    lengths = []
    for user, item, history in added.select("user", "item", "history").iter_rows():
        assert history == seen[user][-5:]
        seen[user].append(item)
        lengths.append(len(history))
    assert len(seen) == 90
    visits = sorted(map(len, seen.values()))
    assert visits[-1] > 10 * visits[0] > 0  # tiers: some come 16 times as often
    assert max(lengths) == 5


def test_time_grows_over_thirty_days(added: pl.DataFrame) -> None:
    times = added["time"].to_numpy()
    assert (np.diff(times) >= 0).all()
    assert BEGIN <= times[0] < BEGIN + SPAN / ROWS
    assert BEGIN + SPAN * (1 - 1 / ROWS) <= times[-1] < BEGIN + SPAN


@given(size=st.integers(1, 500), turn=st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_an_order_holds_each_number_once(size: int, turn: int) -> None:
    order, numbers = Order(size, np.uint64(7)), np.arange(size)
    positions = order.positions(numbers, np.full(size, turn))
    assert sorted(positions) == numbers.tolist()
    assert order.slots(positions, np.full(size, turn)).tolist() == numbers.tolist()


def test_each_effect_is_in_the_log_odds_and_in_the_truth(
    raw: Path, chunk: Chunk, added: pl.DataFrame
) -> None:
    truth = Truth.load(raw / "text").added
    assert truth is not None
    logit = {name: np.log(p / (1 - p)) for name, p in {**chunk.without, "": chunk.probability}.items()}
    effects = {name: logit[""] - logit[name] for name in chunk.without}
    assert list(effects) == ["crosses", "numbers", "lists", "users", "interests"] == list(truth.auc_without)
    best = Truth.load(raw / "text").bayes_auc
    assert all(0.6 < auc < best - 0.002 for auc in truth.auc_without.values())
    assert effects["crosses"].var() == pytest.approx(2 * 0.8**2, rel=0.2)
    numbers = np.zeros(ROWS)
    for name, column in truth.numbers.items():
        value = added[name].to_numpy()
        t = (np.log(value) if column.of == "logarithm" else value) - column.centre
        numbers += np.nan_to_num(column.linear * t + column.square * (t * t - 1) / 2**0.5)
    assert effects["numbers"] == pytest.approx(numbers, abs=1e-9)
    liked = effects["interests"] > 0
    assert liked.mean() == pytest.approx(0.62, abs=0.04)


def test_a_cross_says_nothing_of_either_column_alone() -> None:
    rows = 60_000
    world = World(4, rows, Dials(crosses=1, cross_signal=1.0))
    chunk = world.chunk(0, rows)
    p, q = chunk.probability, chunk.without["crosses"]
    effect = np.log(p / (1 - p)) - np.log(q / (1 - q))
    both = chunk.tokens[1].astype(np.int64) * 2**32 + chunk.tokens[13]
    share = {}
    for name, key in {"C2": chunk.tokens[1], "C14": chunk.tokens[13], "both": both}.items():
        _, codes, counts = np.unique(key, return_inverse=True, return_counts=True)
        means = np.bincount(codes, effect) / counts
        share[name] = float((counts * means**2).sum() / (effect**2).sum())
    assert share["both"] == pytest.approx(1)
    assert share["C2"] < 0.03  # what chance leaves of 500 values in 60,000 rows
    assert share["C14"] < 0.01


def test_users_prefer_what_they_like() -> None:
    users = Users(1, Dials(users=50))
    user = np.repeat(np.arange(50), 400)
    liked = users.liked(user)
    shown = users.shown(user, np.tile(np.arange(400), 50), liked)
    assert shown.min() >= 1
    assert shown.max() <= 10_000
    topics = (shown - 1) % 40
    assert (liked == topics).any(axis=0).mean() == pytest.approx(0.6 + 0.4 * 3 / 40, abs=0.03)
    assert len(np.unique(topics)) == 40


def test_splits_by_time_and_by_user(raw: Path, tmp_path: Path, added: pl.DataFrame) -> None:
    by_time = prepared(raw / "parquet", tmp_path / "time", split="time:2024-05-25,2024-05-28")
    days = (added["time"].to_numpy() - BEGIN) / 86_400_000
    expected = {"train": (days < 24).sum(), "validation": ((days >= 24) & (days < 27)).sum()}
    assert {name: by_time.splits[name].rows for name in expected} == expected
    by_user = prepared(raw / "text", tmp_path / "user", split="key:user")
    column = Layout.load(raw / "text" / "schema.yaml").tokens.index("user")
    users = [
        set(shards(tmp_path / "user", by_user, name)["ids"].to_numpy()[:, column].tolist())
        for name in by_user.splits
    ]
    assert all(users)
    assert len(set.union(*users)) == 90 == sum(map(len, users))


def test_crosses_alone_leave_criteo_s_layout(tmp_path: Path) -> None:
    generate(tmp_path / "raw", 200, dials=Dials(crosses=1))
    line = (tmp_path / "raw" / "day_0.tsv").read_text().splitlines()[0]
    assert line.count("\t") == 39
    crossed = prepared(tmp_path / "raw", tmp_path / "crossed").settings.layout
    assert crossed is not None
    assert crossed.tokens[-1] == "C2_x_C14"
    assert prepare([tmp_path / "raw" / "day_0.tsv"], tmp_path / "plain", workers=1).rows_out == 200
