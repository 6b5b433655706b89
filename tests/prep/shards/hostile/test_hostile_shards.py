"""Shards from somebody else, or damaged: refused by name, or read as they are, and nothing in between."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.prep.shards.hostile.damage import ROWS, copied, refusal_of, restated

from arrow_shards import read_shard as read_with_arrow
from sizewise.training.input.batches import Split
from sizewise_core.errors import InputError
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.shards.files import Shape, read_shard, write_shard
from sizewise_prep.shards.verifying import verify


def shard_table(rows: int = ROWS, integers: int = 13, tokens: int = 26, **columns: Any) -> pa.RecordBatch:
    arrays = {
        "label": pa.array(np.zeros(rows, np.uint8)),
        "dense": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows * integers, np.float32)), integers),
        "ids": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows * tokens, np.uint32)), tokens),
    }
    arrays = {**arrays, **columns}
    return pa.record_batch(list(arrays.values()), names=list(arrays))


def written(path: Path, *batches: pa.RecordBatch, **options: Any) -> None:
    with pa.ipc.new_file(str(path), batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as file:
        for batch in batches:
            file.write_batch(batch)


def nulls(kind: str) -> pa.RecordBatch:
    if kind == "label":
        return shard_table(label=pa.array([None] + [0] * (ROWS - 1), pa.uint8()))
    if kind == "item":
        items = pa.array([None] + [1] * (ROWS * 26 - 1), pa.uint32())
        return shard_table(ids=pa.FixedSizeListArray.from_arrays(items, 26))
    lists = pa.array([None] + [[1.0] * 13] * (ROWS - 1), pa.list_(pa.float32(), 13))
    return shard_table(dense=lists)


def label(value: int) -> pa.RecordBatch:
    labels = np.zeros(ROWS, np.uint8)
    labels[ROWS // 2] = value
    return shard_table(label=pa.array(labels))


WRONG: dict[str, tuple[str, Callable[[Path], None]]] = {
    "fewer rows": ("has 40 rows instead of 60", lambda p: written(p, shard_table(40))),
    "no rows": ("has 0 rows instead of 60", lambda p: written(p, shard_table(0))),
    "3 tokens": (r"ids uint32\[3\]", lambda p: written(p, shard_table(tokens=3))),
    "1 integer": (r"dense float\[1\]", lambda p: written(p, shard_table(integers=1))),
    "label 255": ("row 31 has label 255", lambda p: written(p, label(255))),
    "label 2": ("row 31 has label 2", lambda p: written(p, label(2))),
    "other type": (
        "label int8",
        lambda p: written(p, shard_table(label=pa.array(np.zeros(ROWS, np.int8)))),
    ),
    "one more column": ("more", lambda p: written(p, shard_table(more=pa.array([1] * ROWS)))),
    "dictionary": (
        "dictionary",
        lambda p: written(p, shard_table(label=pa.array(np.zeros(ROWS, np.uint8)).dictionary_encode())),
    ),
    "null label": ("has nulls", lambda p: written(p, nulls("label"))),
    "null list": ("has nulls", lambda p: written(p, nulls("list"))),
    "null item": ("has nulls", lambda p: written(p, nulls("item"))),
    "two batches": ("has 2 record batches", lambda p: written(p, shard_table(30), shard_table(30))),
    "no batch": ("has 0 record batches", lambda p: written(p, shard_table().slice(0, 0))),
    "compressed": ("is compressed", lambda p: written(p, shard_table(), compression="zstd")),
    "empty": ("is empty", lambda p: p.write_bytes(b"")),
    "text": ("is no Arrow file", lambda p: p.write_bytes(b"label\tdense\n" * 99)),
    "pipe": ("is no regular file", os.mkfifo),
    "folder": ("is no regular file", Path.mkdir),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_the_manifests_shard_is_named_by_readers_and_by_verify(
    case: str, prepared: Path, tmp_path: Path
) -> None:
    message, make = WRONG[case]
    if case == "no batch":
        message, make = "has 0 record batches", lambda p: _without_batches(p)
    folder = copied(prepared, tmp_path)
    shard = folder / "train-00001.arrow"
    shard.unlink()
    make(shard)
    with pytest.raises(InputError, match=rf"train-00001\.arrow: .*{message}") as refused:
        read_shard(shard, Shape(ROWS, 13, 26))
    assert len(str(refused.value)) < 200 + len(str(folder))
    if shard.is_file():  # and the manifest has its size and digest: it looks as if it had always been so
        restated(folder, shard)
        if shard.stat().st_size < ROWS * 157:
            with pytest.raises(InputError, match=r"train-00001\.arrow has fewer bytes than its rows take"):
                verify(folder)
            return
        with pytest.raises(InputError, match=rf"train-00001\.arrow: .*{message}"):
            list(Split.open(folder, "train").stream(0, 9, 32, seed=1))
        (problem,) = verify(folder)
        assert problem.startswith("train-00001.arrow: ")


def _without_batches(path: Path) -> None:
    pa.ipc.new_file(str(path), shard_table().schema).close()


def test_verify_names_ids_that_tables_have_no_row_for(prepared: Path, tmp_path: Path) -> None:
    folder = copied(prepared, tmp_path)
    shard = folder / "test-00000.arrow"
    rows = read_with_arrow(shard)
    ids = rows.ids.copy()
    ids[3, 5] = 4_000_000_000
    write_shard(shard, Rows(rows.labels.copy(), rows.dense.copy(), ids))
    restated(folder, shard)
    (problem,) = verify(folder)
    assert problem.startswith("test-00000.arrow: token column 6 has id 4000000000, but its cardinality is")


def mutated(random: random.Random, good: bytes, structure: list[int]) -> bytes:
    """A file with one to four changes, most of them outside its numbers."""
    data = bytearray(good)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.choice(structure) if random.random() < 0.9 else random.randrange(len(good))
        at = min(at, len(data) - 1)
        kind = random.random()
        if kind < 0.4:
            data[at] = random.randrange(256)
        elif kind < 0.65:
            data[at] ^= 1 << random.randrange(8)
        elif kind < 0.7:
            del data[at:]
        elif kind < 0.78:
            data[at:at] = random.randbytes(random.choice((1, 4, 8, 64)))
        elif kind < 0.85:
            del data[at : at + random.choice((1, 4, 8, 64))]
        else:
            size = random.choice((4, 8))
            at -= at % size
            number = random.choice((0, -1, 1 << random.randrange(8 * size - 1), 8 * random.randrange(1000)))
            data[at : at + size] = number.to_bytes(size, "little", signed=True)
        data = data or bytearray(b"x")
    return bytes(data)


def fuzz_shards(path: Path, seed: int, times: int) -> tuple[int, int]:
    """Read mutated shards; how many were refused, and how many were read right."""
    numbers, choices = np.random.default_rng(seed), random.Random(seed)
    rows = Rows(
        numbers.integers(0, 2, ROWS).astype(np.uint8),
        numbers.random((ROWS, 13), np.float32),
        numbers.integers(0, 2**32, (ROWS, 26), dtype=np.uint32),
    )
    write_shard(path, rows)
    good, shape = path.read_bytes(), Shape(ROWS, 13, 26)
    arrays = rows.labels, rows.dense, rows.ids
    starts = [good.index(array.tobytes()) for array in arrays]
    end = starts[-1] + rows.ids.nbytes
    structure = [*range(starts[0]), *range(end, len(good))]
    refused = right = 0
    for _ in range(times):
        data = mutated(choices, good, structure)
        path.write_bytes(data)
        found = refusal_of(lambda: read_shard(path, shape), path)
        if isinstance(found, str):
            refused += 1
            continue
        # Where a value itself was changed it is read as it stands: only a digest tells it from another.
        for array, start, was in zip((found.labels, found.dense, found.ids), starts, arrays, strict=True):
            assert array.tobytes() == data[start : start + was.nbytes]
        right += 1
    return refused, right


def test_mutated_shards_are_refused_or_read_right(tmp_path: Path) -> None:
    refused, right = fuzz_shards(tmp_path / "train-00000.arrow", 1, 400)
    assert refused > 200
    assert right > 20


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2, 7))
def test_ten_thousand_mutated_shards(seed: int, tmp_path: Path) -> None:
    fuzz_shards(tmp_path / "train-00000.arrow", seed, 2_000)
