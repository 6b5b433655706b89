"""Where the log is cut, how rows are treated, and in which order they lie."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arrow_shards import read_shard
from sizewise.training.input.batches import Split
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.parsing.rows import Rows, log_dense
from sizewise_prep.shards.splits import Rule

Line = Callable[..., bytes]
Log = Callable[..., Path]


@pytest.mark.parametrize(
    ("rule", "sizes"),
    [
        ("0.8,0.1,0.1", [88, 11, 11]),
        ((0.5, 0.25, 0.25), [55, 27, 28]),
        ("rows:100,3", [100, 3, 7]),
        ("rows:110,0", [110, 0, 0]),
        ("files:1,1", [50, 49, 11]),
        ("files:2,0", [99, 0, 11]),
        ("mlperf", [99, 6, 5]),
    ],
)
def test_every_rule_cuts_in_time_order(rule: str | tuple[float, ...], sizes: list[int]) -> None:
    parsed = Rule.parse(rule)
    assert list(parsed.sizes([50, 49, 11]).values()) == sizes
    assert Rule.parse(parsed.written) == parsed


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("rows:5", "give three fractions"),
        ("rows:a,b", "give three fractions"),
        ("files:0,1", "at least one to train on"),
        ("days:1,1", "give three fractions"),
        ("0.5,0.5", "give three fractions"),
        ("", "give three fractions"),
    ],
)
def test_other_rules_are_refused(rule: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rule.parse(rule)


def test_a_rule_that_the_log_is_too_short_for_is_named(tmp_path: Path, line: Line, log: Log) -> None:
    path = log(*[line()] * 10)
    with pytest.raises(InputError, match=r"split mlperf: needs 2 files, in time order; 1 are given"):
        prepare(path, tmp_path / "out", split="mlperf")
    with pytest.raises(InputError, match=r"split files:2,1: needs 3 files"):
        prepare(path, tmp_path / "out", split="files:2,1")
    with pytest.raises(InputError, match=r"split rows:9,2: needs 11 rows; 10 are good"):
        prepare(path, tmp_path / "out", split="rows:9,2")


def test_splits_by_file_hold_the_rows_of_the_files(tmp_path: Path, line: Line, log: Log) -> None:
    paths = [log(*[line(I1=str(day))] * (5 + day), name=f"day_{day}") for day in range(4)]
    manifest = prepare(paths, tmp_path / "out", split="mlperf", shard_rows=4)
    held = {
        name: np.concatenate(
            [read(tmp_path / "out" / shard.file).dense[:, 0] for shard in split.shards]
        ).tolist()
        for name, split in manifest.splits.items()
        for read in [read_shard]
    }
    assert held == {"train": [0] * 5 + [1] * 6 + [2] * 7, "validation": [3] * 4, "test": [3] * 4}
    assert manifest.settings.split == "mlperf"


def rows_of(folder: Path, files: list[str]) -> list[Rows]:
    return [read_shard(folder / file) for file in files]


def test_shuffled_shards_hold_the_same_rows_in_another_order(tmp_path: Path, line: Line, log: Log) -> None:
    path = log(*(line(j % 2, I1=str(j), C1=f"{j + 1:x}") for j in range(200)))
    plain = prepare(path, tmp_path / "plain", shard_rows=50)
    shuffled = prepare(path, tmp_path / "shuffled", shard_rows=50, shuffle=7)
    other = prepare(path, tmp_path / "other", shard_rows=50, shuffle=8)
    names = [shard.file for split in plain.splits.values() for shard in split.shards]
    orders = []
    for name in names:
        before, after = (read_shard(tmp_path / folder / name) for folder in ("plain", "shuffled"))
        order = after.dense[:, 0] - before.dense[0, 0]
        assert sorted(after.dense[:, 0]) == before.dense[:, 0].tolist()
        assert np.array_equal(after.ids[:, 0], after.dense[:, 0] + 1)
        assert np.array_equal(after.labels, after.dense[:, 0] % 2)
        orders.append(order.tolist())
    assert orders[0] != sorted(orders[0])
    assert orders[0] != orders[1]  # every shard has an order of its own
    assert [s.sha256 for s in shuffled.files] != [s.sha256 for s in other.files]
    assert shuffled.cardinalities == plain.cardinalities


def test_mlperf_takes_ids_modulo_forty_million_and_logarithms(tmp_path: Path, line: Line, log: Log) -> None:
    lines = [
        line(1, I1="-5", I2="", I3="99", C1=f"{40_000_000 * j + 7:x}", C2="ffffffff") for j in range(100)
    ]
    raw = prepare(log(*lines), tmp_path / "raw")
    treated = prepare(log(*lines), tmp_path / "out", tokens="mlperf")
    rows = read_shard(tmp_path / "out" / "train-00000.arrow")
    assert rows.ids[:, 0].tolist() == [7] * 80
    assert rows.ids[0, 1] == 0xFFFFFFFF % 40_000_000
    assert rows.dense[0, 0] == 0
    assert np.isnan(rows.dense[0, 1])
    assert rows.dense[0, 2] == np.log1p(np.float32(99))
    assert (raw.cardinalities[0], treated.cardinalities[0]) == (100, 1)
    # The trainer takes both folders' dense values to be the same.
    batches = [Split.open(tmp_path / name, "train").batch(0, 0, 16, seed=1) for name in ("raw", "out")]
    assert batches[0].dense.equal(batches[1].dense)
    values = read_shard(tmp_path / "raw" / "train-00000.arrow").dense
    assert np.array_equal(np.nan_to_num(rows.dense, nan=0.0), log_dense(values, fill=True))


@pytest.mark.parametrize("words", [1, 40, 10**6])
def test_the_memory_allowed_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Line, log: Log, words: int
) -> None:
    lines = [line(C1=f"{j * j % 997:x}", C2=f"{j % 7:x}") for j in range(300)]
    expected = prepare(log(*lines), tmp_path / "expected", tokens="contiguous", min_count=2, shard_rows=40)
    monkeypatch.setattr(
        "sizewise_prep.pipeline.steps.shard_steps._ShardSteps._words", lambda self, runs: words
    )
    bounded = prepare(log(*lines), tmp_path / "bounded", tokens="contiguous", min_count=2, shard_rows=40)
    assert bounded == expected
    raw = prepare(log(*lines), tmp_path / "raw", shard_rows=40)
    assert raw.cardinalities[:2] == [len({j * j % 997 for j in range(300)}), 7]
