"""Batches: every row once an epoch, in an order that seed and position alone decide."""

import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from sizewise import batches
from sizewise.batches import Split, transform_dense
from sizewise.embedding.kernels.rows import permutation
from sizewise_prep.errors import InputError


def keys(batch: object) -> list[tuple[int, ...]]:
    return [tuple(row.tolist()) for row in batch.ids]  # type: ignore[attr-defined]


def epoch_of(split: Split, epoch: int, seed: int = 1, batch_size: int = 256) -> list[tuple[int, ...]]:
    return [
        key
        for position in range(split.iterations(batch_size))
        for key in keys(split.batch(epoch, position, batch_size, seed))
    ]


def test_an_epoch_holds_every_row_once(shards: Path) -> None:
    split = Split.open(shards, "train")
    raw = pl.concat([pl.read_ipc(file) for file in sorted(shards.glob("train-*.arrow"))])
    expected = sorted(tuple(row) for row in raw["ids"].to_list())
    assert split.rows == 3_200
    assert len(split.files) > 1
    assert sorted(epoch_of(split, 0)) == expected


def test_blocks_within_shards_are_shuffled_too(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks smaller than a shard, the last one short: every row once, others near in another epoch."""
    whole = sorted(epoch_of(Split.open(shards, "train"), 0))
    monkeypatch.setattr(batches, "BLOCK_ROWS", 150)
    split = Split.open(shards, "train")
    first = epoch_of(split, 0)
    assert sorted(first) == whole
    assert set(first[:150]) != set(epoch_of(split, 1)[:150])
    shares = [keys(split.batch(0, 3, 256, 1, rank, 3)) for rank in range(3)]
    assert sorted(key for share in shares for key in share) == sorted(first[768:1024])
    alone = Split.open(shards, "train").batch(0, 9, 256, 1)
    assert keys(alone) == first[9 * 256 : 10 * 256]


def test_order_changes_with_epoch_and_seed_and_with_nothing_else(shards: Path) -> None:
    split = Split.open(shards, "train")
    first = epoch_of(split, 0)
    assert epoch_of(Split.open(shards, "train"), 0) == first
    assert epoch_of(split, 1) != first
    assert epoch_of(split, 0, seed=2) != first


def test_a_batch_is_the_same_whether_or_not_earlier_ones_were_read(shards: Path) -> None:
    read_all = epoch_of(Split.open(shards, "train"), 3)
    alone = Split.open(shards, "train").batch(epoch=3, position=7, batch_size=256, seed=1)
    assert keys(alone) == read_all[7 * 256 : 8 * 256]


@pytest.mark.parametrize("world", [2, 3])
def test_workers_share_out_the_global_batch(shards: Path, world: int) -> None:
    split = Split.open(shards, "train")
    whole = keys(split.batch(0, 12, 256, seed=1))  # the last, short batch
    shares = [keys(split.batch(0, 12, 256, 1, rank, world)) for rank in range(world)]
    assert len(whole) == 3_200 - 12 * 256
    assert sorted(key for share in shares for key in share) == sorted(whole)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_scoring_reads_in_time_order(shards: Path) -> None:
    split = Split.open(shards, "validation")
    raw = pl.concat([pl.read_ipc(f) for f in sorted(shards.glob("validation-*.arrow"))])
    scored = list(split.in_order(150))
    assert torch.cat([batch.label for batch in scored]).tolist() == raw["label"].to_list()
    assert [key for batch in scored for key in keys(batch)] == [tuple(row) for row in raw["ids"].to_list()]


def test_dense_values_are_logged_and_missing_ones_are_zero() -> None:
    values = np.array([[np.nan, -2.0, 0.0, np.e - 1]], dtype=np.float32)
    np.testing.assert_allclose(transform_dense(values), [[0.0, 0.0, 0.0, 1.0]], rtol=1e-6)


def test_a_missing_shard_is_named(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((shards / "manifest.json").read_bytes())
    with pytest.raises(InputError, match=r"train-00000\.arrow: this shard is missing"):
        Split.open(tmp_path, "train")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1_000, 65_536])
def test_the_order_is_that_of_numpys_generator(size: int) -> None:
    """As of 2.4: studies begun with it go on in the same order."""
    for seed in range(20 if size < 65_536 else 3):
        expected = np.random.Generator(np.random.Philox([seed, 1])).permutation(size)
        np.testing.assert_array_equal(permutation(np.random.Philox([seed, 1]), size), expected)


def test_an_order_whose_draws_are_rejected_more_often_than_expected() -> None:
    bits = np.random.Philox(1)
    expected = np.random.Generator(np.random.Philox(1)).permutation(100)

    class Slow:
        """Gives words one at a time, whatever is asked for."""

        def random_raw(self, count: int) -> np.ndarray:
            return bits.random_raw(1)

    np.testing.assert_array_equal(permutation(Slow(), 100), expected)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_stream_begins_anywhere_and_goes_on_through_epochs(shards: Path, ahead: bool) -> None:
    split = Split.open(shards, "train")
    streamed = list(split.stream(9, 30, 256, seed=1, ahead=ahead))
    assert len(streamed) == 21
    for number, batch in enumerate(streamed, start=9):
        alone = split.batch(*divmod(number, split.iterations(256)), 256, seed=1)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch, alone, strict=True))
    assert list(split.stream(5, 5, 256, seed=1, ahead=ahead)) == []


def test_a_stream_that_is_left_ends_its_thread(shards: Path) -> None:
    stream = Split.open(shards, "train").stream(0, 30, 256, seed=1, ahead=True)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sizewise-batches")]


def test_what_fails_while_reading_ahead_is_raised(shards: Path) -> None:
    split = Split.open(shards, "train")
    broken = Split((*split.files[:-1], shards / "gone.arrow"), split.rows_per_file)
    with pytest.raises(FileNotFoundError, match=r"gone\.arrow"):
        list(broken.stream(0, 30, 256, seed=1, ahead=True))
