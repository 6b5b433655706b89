"""Batches: every row once an epoch, in an order that seed and position alone decide."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from sizewise import batches
from sizewise.batches import Split, transform_dense
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
