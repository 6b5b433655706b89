"""Columns of lists in shards: their counts, ids and figures, after interruptions and damage too."""

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.prep.lists.formats import lists_of, shards_of

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.rows import ListColumn, Rows
from sizewise_prep.raw.values import hashing
from sizewise_prep.shards.files import Shape, list_names, read_shard, write_shard
from sizewise_prep.shards.values.counts import training_counts
from sizewise_prep.shards.values.vocabulary import Vocabulary

LAYOUT = Layout(columns={"click": "label", "user": "token", "seen": "tokens", "ids": "tokens"})


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows whose lists have 0 to 6 values, most of them frequent ones."""
    draw = np.random.default_rng(5)
    seen = [(draw.pareto(1.0, draw.integers(0, 7)) * 3).astype(np.int64).tolist() for _ in range(600)]
    columns = {
        "click": draw.integers(0, 2, 600),
        "user": draw.integers(-9, 9, 600),
        "seen": [None if len(one) == 3 else one for one in seen],
        "ids": [[f"v{value % 5}" for value in one[:2]] for one in seen],
    }
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def training_lists(log: Path, column: str, rows: int = 480) -> tuple[Counter[int], Counter[int]]:
    """How often the training rows hold each token, and in rows with a click."""
    frame = pl.read_parquet(log)[:rows]
    held, clicked = Counter[int](), Counter[int]()
    for click, values in zip(frame["click"], frame[column], strict=True):
        tokens = [hashing.token(str(value)) for value in (values if values is not None else [])]
        held.update(tokens)
        clicked.update(tokens if click else [])
    return held, clicked


def test_counts_and_figures_of_lists(log: Path, tmp_path: Path) -> None:
    manifest = prepare(log, tmp_path / "out", layout=LAYOUT, shard_rows=100)
    lengths = [0 if one is None else len(one) for one in pl.read_parquet(log)["seen"]]
    seen, ids = manifest.lists
    assert (seen.name, seen.column, ids.name, ids.column) == ("seen", "seen", "ids", "ids_list")
    assert (seen.values, seen.longest, seen.cut) == (sum(lengths), 6, 0)
    assert seen.mean_length == sum(lengths) / 600
    assert manifest.token_missing[1] == lengths.count(0) / 600
    frame = pl.read_ipc(tmp_path / "out" / "train-00000.arrow")
    assert frame.schema["seen"] == frame.schema["ids_list"] == pl.List(pl.UInt32)
    counts = training_counts(str(tmp_path / "out"))
    for column, found in zip(("seen", "ids"), counts[1:], strict=True):
        held, clicked = training_lists(log, column)
        assert dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True)) == held
        assert {
            key: count for key, count in zip(found.ids.tolist(), found.clicks.tolist(), strict=True) if count
        } == clicked


def test_contiguous_ids_of_lists(log: Path, tmp_path: Path) -> None:
    manifest = prepare(log, tmp_path / "out", layout=LAYOUT, shard_rows=100, tokens="contiguous", min_count=3)
    held, _ = training_lists(log, "seen")
    known = sorted(token for token, count in held.items() if count >= 3)
    assert manifest.cardinalities[1] == len(known) + 1
    vocabulary = Vocabulary.load(tmp_path / "out")
    tokens = [[hashing.token(str(v)) for v in one or []] for one in pl.read_parquet(log)["seen"].to_list()]
    numbered = [[known.index(token) + 1 if token in known else 0 for token in one] for one in tokens]
    assert lists_of(shards_of(tmp_path / "out"))[0] == numbered
    flat = np.array([token for one in tokens for token in one], np.uint32)
    assert vocabulary.ids_of(1, flat).tolist() == [number for one in numbered for number in one]


def test_the_latest_values_are_kept(log: Path, tmp_path: Path) -> None:
    whole = prepare(log, tmp_path / "whole", layout=LAYOUT)
    manifest = prepare(log, tmp_path / "out", layout=LAYOUT, max_list=2)
    everything = lists_of(shards_of(tmp_path / "whole"))
    assert lists_of(shards_of(tmp_path / "out")) == [[one[-2:] for one in column] for column in everything]
    for before, after in zip(whole.lists, manifest.lists, strict=True):
        assert after.values + after.cut == before.values
    assert manifest.lists[0].longest == 2
    assert manifest.lists[0].cut > 0
    with pytest.raises(InputError, match="no columns of lists"):
        prepare(
            log, tmp_path / "none", layout=Layout(columns={"click": "label", "user": "token"}), max_list=2
        )


def test_shuffled_shards_and_mlperf_tokens(log: Path, tmp_path: Path) -> None:
    prepare(log, tmp_path / "raw", layout=LAYOUT, shard_rows=100)
    prepare(log, tmp_path / "out", layout=LAYOUT, shard_rows=100, tokens="mlperf", shuffle=4)
    before, after = shards_of(tmp_path / "raw"), shards_of(tmp_path / "out")

    def joined(rows: Rows, first: int, modulus: int) -> list[tuple[int, int, tuple[int, ...]]]:
        lists = lists_of(rows)[0]
        return [
            (int(rows.labels[row]), int(rows.ids[row, 0]) % modulus, tuple(v % modulus for v in lists[row]))
            for row in range(first, first + 100)
        ]

    assert joined(after, 0, 2**32) != joined(before, 0, 40_000_000)
    assert sorted(joined(after, 0, 2**32)) == sorted(joined(before, 0, 40_000_000))


@pytest.mark.parametrize("tokens", ["raw", "contiguous"])
def test_interrupted_at_any_step_it_ends_with_the_same_bytes(
    log: Path, tmp_path: Path, tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted when a file of any step is about to get its name, each time a few files later."""
    layout = Layout(columns={**LAYOUT.columns, "user": "skip"})
    options: dict[str, Any] = {
        "layout": layout,
        "tokens": tokens,
        "shard_rows": 100,
        "max_list": 4,
        "shuffle": 2,
    }
    prepare(log, tmp_path / "whole", **options)
    rename, interruptions = os.rename, 0
    while True:
        left = 2 + 6 * interruptions

        def stop(*arguments: Any, **named: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            rename(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", stop)
            patch.setattr(os, "replace", stop)
            try:
                prepare(log, tmp_path / "out", **options)
                break
            except KeyboardInterrupt:
                interruptions += 1
    assert interruptions >= 3
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "whole")).read_bytes()


def some_lists() -> Rows:
    lists = ListColumn(np.array([0, 2, 2, 5]), np.arange(7, 12, dtype=np.uint32))
    return Rows(
        np.array([0, 1, 0], np.uint8), np.empty((3, 0), np.float32), np.empty((3, 0), np.uint32), (lists,)
    )


@pytest.mark.parametrize(
    ("offsets", "match"),
    [
        ([0, 2, 1, 5], "end before they begin"),
        ([0, 2, 2, 6], "do not begin or end"),
        ([1, 2, 2, 5], "do not begin or end"),
        ([0, 2, -(2**31), 5], "end before they begin"),
    ],
)
def test_offsets_that_lead_out_of_the_values_are_refused(
    tmp_path: Path, offsets: list[int], match: str
) -> None:
    path, shape = tmp_path / "train-00000.arrow", Shape(3, 0, 0, lists=("seen",))
    write_shard(path, some_lists(), ["seen"])
    assert lists_of(read_shard(path, shape)) == [[[7, 8], [], [9, 10, 11]]]
    good = path.read_bytes()
    path.write_bytes(
        good.replace(np.array([0, 2, 2, 5], "<i4").tobytes(), np.array(offsets, "<i4").tobytes())
    )
    with pytest.raises(InputError, match=match):
        read_shard(path, shape)
    path.write_bytes(good)
    with pytest.raises(InputError, match="instead of column other"):
        read_shard(path, shape._replace(lists=("other",)))


def test_names_that_shards_have_for_other_columns() -> None:
    assert list_names(["seen", "ids", "label"]) == ["seen", "ids_list", "label_list"]
    assert list_names(["ids", "ids_list"]) == ["ids_list_list", "ids_list"]


def test_mutated_shards_with_lists_are_refused_or_read_right(tmp_path: Path) -> None:
    """Whatever bytes change, offsets stay within the values."""
    path, shape, choices = (
        tmp_path / "train-00000.arrow",
        Shape(60, 2, 3, lists=("seen", "ids_list")),
        random.Random(2),
    )
    numbers = np.random.default_rng(2)
    lists = [
        ListColumn.of_lengths(lengths, numbers.integers(0, 2**32, lengths.sum(), np.uint32))
        for lengths in (numbers.integers(0, 5, 60), numbers.integers(0, 3, 60))
    ]
    dense, ids = numbers.random((60, 2), np.float32), numbers.integers(0, 2**32, (60, 3), np.uint32)
    write_shard(
        path, Rows(numbers.integers(0, 2, 60).astype(np.uint8), dense, ids, tuple(lists)), shape.lists
    )
    good, refused = path.read_bytes(), 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(choices.choice((1, 1, 2, 8))):
            data[choices.randrange(len(data))] = choices.choice((0, 1, 127, 128, 255, choices.randrange(256)))
        if choices.random() < 0.2:
            del data[choices.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            rows = read_shard(path, shape)
        except InputError:
            refused += 1
            continue
        assert len(rows) == 60
        for column in rows.lists:
            assert column.offsets[0] == 0
            assert column.offsets[-1] == len(column.values)
            assert (np.diff(column.offsets) >= 0).all()
    assert 100 < refused < 600
