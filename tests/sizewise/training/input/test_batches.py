"""Batches: every row once an epoch, in an order that seed and position alone decide."""

import shutil
import tempfile
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise.embedding.kernels.rows import draw_groups
from sizewise.training.input import batches
from sizewise.training.input.batches import Batch, Split
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError
from sizewise_prep.raw.parsing.rows import ListColumn, Rows, log_dense
from sizewise_prep.shards.files import write_shard


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


def test_data_that_is_replaced_is_not_read_in_place_of_the_old(shards: Path, tmp_path: Path) -> None:
    """Shards are first read when they are needed, such as the test split at a trial's end."""
    folder = shutil.copytree(shards, tmp_path / "shards")
    split = Split.open(folder, "test")
    folder.rename(tmp_path / "aside")
    shutil.copytree(shards, folder)
    with pytest.raises(DamagedError, match="the data was replaced"):
        epoch_of(split, 0)
    assert epoch_of(Split.open(folder, "test"), 0) == epoch_of(Split.open(shards, "test"), 0)


def test_blocks_within_shards_are_shuffled_too(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks smaller than a shard, the last one short: every row once, others near in another epoch."""
    whole = sorted(epoch_of(Split.open(shards, "train"), 0))
    monkeypatch.setattr(batches, "BLOCK_ROWS", 150)
    split = Split.open(shards, "train")
    first = epoch_of(split, 0)
    assert sorted(first) == whole
    assert any(set(first[:150]) != set(epoch_of(split, epoch)[:150]) for epoch in (1, 2, 3))
    for rank in range(3):
        assert keys(split.batch(0, 3, 256, 1, rank, 3)) == first[768:1024][rank::3]
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
    assert len(whole) == 3_200 - 12 * 256
    for rank in range(world):
        assert keys(split.batch(0, 12, 256, 1, rank, world)) == whole[rank::world]


def plain_piles(key: int, size: int, first: int, batch_size: int) -> list[int]:
    """The batch of each row of a block. Trials begun with it must go on with it."""

    def drawn(number: int) -> int:
        z = (key + number * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return ((z ^ z >> 31) >> 32) * size >> 32

    wanted = np.bincount((first + np.arange(size)) // batch_size)
    groups = [min(int((first + drawn(row)) * (1 / batch_size)), len(wanted) - 1) for row in range(size)]
    room = (wanted - np.bincount(groups, minlength=len(wanted))).tolist()
    draws = size
    while max(room) > 0:
        row = drawn(draws)
        draws += 1
        if room[groups[row]] < 0:
            room[groups[row]] += 1
            groups[row] = next(group for group, free in enumerate(room) if free > 0)
            room[groups[row]] -= 1
    return groups


def test_every_division_of_a_block_is_equally_likely() -> None:
    """5 rows; the first batch has 1 of 2 already: 30 divisions. Chi-squared's 0.999 quantile is 58.3."""
    counts = Counter(tuple(draw_groups(np.uint64(key * 977), 5, 1, 2).tolist()) for key in range(30_000))
    assert len(counts) == 30
    assert sum((count - 1_000) ** 2 / 1_000 for count in counts.values()) < 58.3


def test_rows_of_a_batch_are_spread_over_the_block_as_by_a_permutation() -> None:
    """Neighbours in one batch, and a batch's rows in each quarter, over real sizes: within five deviations."""
    for batch_size in (512, 16_384):
        near, quarters = [], []
        for key in np.random.SeedSequence(1).generate_state(40, np.uint64):
            groups = draw_groups(key, 65_536, 0, batch_size)
            assert np.bincount(groups).tolist() == [batch_size] * (65_536 // batch_size)
            near.append((groups[1:] == groups[:-1]).mean())
            quarters.append((groups[:16_384] == 0).sum())
        share = (batch_size - 1) / 65_535
        assert abs(np.mean(near) - share) < 5 * np.sqrt(share * (1 - share) / 65_535 / 40)
        variance = batch_size * 0.25 * 0.75 * (65_536 - batch_size) / 65_535
        assert abs(np.mean(quarters) - batch_size / 4) < 5 * np.sqrt(variance / 40)
        assert 0.4 < np.var(quarters) / variance < 2.2


def plain_epoch(parts: list[Rows], block_rows: int, batch_size: int, epoch: int, seed: int) -> list[Rows]:
    """The batches of an epoch, drawn in plain Python; their rows block by block, and in the file's order."""

    def drawn(count: int, *origin: int) -> np.ndarray:
        return np.random.SeedSequence([seed, epoch, *origin]).generate_state(count, np.uint64)

    keys = iter(drawn(sum(-(-len(part) // block_rows) for part in parts), 3).tolist())
    made: list[list[Rows]] = []
    taken = 0
    for index in np.argsort(drawn(len(parts), 1)):
        part = parts[index]
        for block in np.argsort(drawn(-(-len(part) // block_rows), 2, int(index))):
            size = int(min(block_rows, len(part) - block * block_rows))
            batch = taken // batch_size + np.array(
                plain_piles(next(keys), size, taken % batch_size, batch_size)
            )
            for number in np.unique(batch):
                rows = block * block_rows + np.flatnonzero(batch == number)
                if number == len(made):
                    made.append([])
                made[number].append(part.taken(rows))
            taken += size
    return [Rows.concatenated(batch) for batch in made]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    block_rows=st.integers(1, 250),
    batch_size=st.integers(1, 700),
    columns=st.sampled_from([(13, 26), (1, 17), (40, 1)]),  # each is compiled
    lists=st.integers(0, 3),
    world=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    is_log=st.booleans(),
)
def test_batches_are_those_that_plain_python_makes(
    sizes: list[int],
    block_rows: int,
    batch_size: int,
    columns: tuple[int, int],
    lists: int,
    world: int,
    seed: int,
    is_log: bool,
) -> None:
    """Whatever the sizes: blocks and shards smaller than a batch, batches that begin within a block."""
    random = np.random.default_rng(seed)
    parts = [some_rows(random, size, *columns, lists) for size in sizes]
    names = tuple(f"list {number}" for number in range(lists))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BLOCK_ROWS", block_rows)
        files = tuple(Path(folder) / str(index) for index in range(len(parts)))
        for file, part in zip(files, parts, strict=True):
            write_shard(file, part, names)
        split = Split(files, tuple(sizes), *columns, is_log, lists=names)
        expected = plain_epoch(parts, block_rows, batch_size, 1, seed)
        assert split.iterations(batch_size) == len(expected)
        whole = [split.batch(1, position, batch_size, seed) for position in range(len(expected))]
        for batch, rows in zip(whole, expected, strict=True):
            values = np.nan_to_num(rows.dense, nan=0.0) if is_log else log_dense(rows.dense, fill=True)
            np.testing.assert_array_equal(batch.dense.numpy(), values)
            np.testing.assert_array_equal(batch.ids.numpy(), rows.ids)
            np.testing.assert_array_equal(batch.label.numpy(), rows.labels)
            assert bags_of(batch) == bags_of_rows(rows)
        for rank in range(world):
            for position, batch in enumerate(whole):
                share = split.batch(1, position, batch_size, seed, rank, world)
                for mine, of_all in zip(share.tensors()[:3], batch.tensors(), strict=False):
                    assert torch.equal(mine, of_all[rank::world])
                if len(share.label):
                    assert bags_of(share) == [bags[rank::world] for bags in bags_of(batch)]
            ahead = rank % 2 == 0
            in_order = list(split.in_order(batch_size, rank, world, ahead=ahead))
            numbers = [
                (part, np.arange(low, min(low + batch_size, len(part)))[rank::world])
                for part in parts
                for low in range(0, len(part), batch_size)
            ]
            for batch, (part, those) in zip(in_order, numbers, strict=True):
                np.testing.assert_array_equal(batch.ids.numpy(), part.ids[those])
                assert bags_of(batch) == bags_of_rows(part.taken(those))


def bags_of(batch: Batch) -> list[list[list[int]]]:
    """Of each feature the values of each row."""
    if batch.bags is None:
        return []
    rows, ends = len(batch.label), batch.bags.offsets.tolist()
    all_values = batch.bags.values.tolist()
    assert ends[-1] == len(all_values)
    values = [all_values[low:high] for low, high in pairwise(ends)]
    return [values[first : first + rows] for first in range(0, len(values), rows)] if rows else []


def bags_of_rows(rows: Rows) -> list[list[list[int]]]:
    return [
        [column.values[low:high].tolist() for low, high in pairwise(column.offsets.tolist())]
        for column in rows.lists
        if len(rows)
    ]


def some_rows(random: np.random.Generator, count: int, dense: int, ids: int, lists: int = 0) -> Rows:
    """With missing values."""
    values = random.normal(size=(count, dense)).astype(np.float32)
    values[random.random(values.shape) < 0.1] = np.nan
    labels = random.integers(0, 2, count, np.uint8)
    tokens = random.integers(0, 2**32, (count, ids), np.uint32)
    columns = []
    for _ in range(lists):
        lengths = random.integers(0, 5, count) * (random.random(count) < 0.8)
        columns.append(
            ListColumn.of_lengths(lengths, random.integers(0, 2**32, int(lengths.sum()), np.uint32))
        )
    return Rows(labels, values, tokens, tuple(columns))


def test_a_batch_keeps_its_rows_for_as_long_as_anybody_has_it(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are views of their block's memory, which lives as long as any of them, or a part of one."""
    monkeypatch.setattr(batches, "BLOCK_ROWS", 100)
    split = Split.open(shards, "train")
    expected = [
        [column.clone() for column in split.batch(0, position, 20, 1).tensors()] for position in range(160)
    ]
    kept: dict[int, Batch] = {}
    for position in range(160):
        batch = split.batch(0, position, 20, 1)
        if position % 7 == 0:
            kept[position] = Batch(batch.dense[3:], batch.ids[3:].view(torch.int32), batch.label[3:])
    for position, batch in kept.items():
        dense, ids, label = (column[3:] for column in expected[position])
        assert torch.equal(batch.dense, dense)
        assert torch.equal(batch.ids, ids.view(torch.int32))
        assert torch.equal(batch.label, label)


def test_scoring_reads_in_time_order(shards: Path) -> None:
    split = Split.open(shards, "validation")
    raw = pl.concat([pl.read_ipc(f) for f in sorted(shards.glob("validation-*.arrow"))])
    scored = list(split.in_order(150))
    assert torch.cat([batch.label for batch in scored]).tolist() == raw["label"].to_list()
    assert [key for batch in scored for key in keys(batch)] == [tuple(row) for row in raw["ids"].to_list()]


def test_dense_values_are_logged_and_missing_ones_are_zero() -> None:
    values = np.array([[np.nan, -2.0, 0.0, np.e - 1]], dtype=np.float32)
    np.testing.assert_allclose(log_dense(values, fill=True), [[0.0, 0.0, 0.0, 1.0]], rtol=1e-6)


def test_a_missing_shard_is_named(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((shards / "manifest.json").read_bytes())
    with pytest.raises(InputError, match=r"train-00000\.arrow: this shard is missing"):
        Split.open(tmp_path, "train")


@pytest.mark.parametrize("ahead", [False, True])
def test_a_stream_begins_anywhere_and_goes_on_through_epochs(shards: Path, ahead: bool) -> None:
    split = Split.open(shards, "train")
    streamed = list(split.stream(9, 30, 256, seed=1, ahead=ahead))
    assert len(streamed) == 21
    for number, batch in enumerate(streamed, start=9):
        alone = split.batch(*divmod(number, split.iterations(256)), 256, seed=1)
        assert all(
            torch.equal(ours, theirs) for ours, theirs in zip(batch.tensors(), alone.tensors(), strict=True)
        )
    assert list(split.stream(5, 5, 256, seed=1, ahead=ahead)) == []


def test_a_stream_that_is_left_ends_its_thread(shards: Path) -> None:
    stream = Split.open(shards, "train").stream(0, 30, 256, seed=1, ahead=True)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sizewise-batches")]


def test_what_fails_while_reading_ahead_is_raised(shards: Path) -> None:
    split = Split.open(shards, "train")
    broken = Split((*split.files[:-1], shards / "gone.arrow"), split.rows_per_file, split.dense, split.tokens)
    with pytest.raises(FileNotFoundError, match=r"gone\.arrow"):
        list(broken.stream(0, 30, 256, seed=1, ahead=True))
