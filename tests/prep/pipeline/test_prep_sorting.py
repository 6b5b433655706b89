"""Rows sorted by their times, and splits by a key; killed at any instant, with all that schemas can ask for."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrow_shards import read_shard
from killed_at_rename import KILLED_AT_RENAME
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.jobs import sorting
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.shards.cautions import cautions
from sizewise_prep.shards.files import read_shard as stored_shard
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify

SCHEMA = """
separator: ","
header: true
columns:
  at: time
  row: {kind: number, transform: none}
  user: token
  clicked: label
  price: {kind: number, transform: standardize}
  age: {kind: bucket, quantiles: 6}
  weight: weight
  tags: {kind: tokens, separator: "|"}
crosses: {user_age: [user, age]}
"""
ROWS = 900
TIMES = np.random.default_rng(5).integers(0, 120, ROWS)  # many rows share each

# Prepares argv[2] into argv[1] in small pieces, and is killed before the rename that RENAMES counts down to.
PROGRAM = (
    """
import json, os, signal, sys
from sizewise_prep.pipeline import prep
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.raw.files import reader
from sizewise_prep.raw.layout import Layout
parts.PIECE_BYTES, reader.BLOCK_BYTES = 4_000, 1_000
"""
    + KILLED_AT_RENAME
    + """
if __name__ == "__main__":
    sys.addaudithook(at)
    options = json.loads(os.environ["OPTIONS"])
    prep.prepare(sys.argv[3:], sys.argv[1], layout=Layout.load(sys.argv[2]), **options)
"""
)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sizewise_prep.pipeline.jobs.parts.PIECE_BYTES", 4_000)
    monkeypatch.setattr("sizewise_prep.raw.files.reader.BLOCK_BYTES", 1_000)


@pytest.fixture
def logs(tmp_path: Path) -> list[str]:
    """Two files of rows in no order of time, with a schema file beside them."""
    (tmp_path / "log.yaml").write_text(SCHEMA)
    lines = [
        f"2024-05-{1 + TIMES[j] // 24:02d} {TIMES[j] % 24:02d}:00:00,{j},u{j % 37},{j % 2},{j % 11},{j * 7 % 101},"
        f"{j},{'|'.join('abcde'[: j % 6])}\n"
        for j in range(ROWS)
    ]
    for name, part in (("a.csv", lines[:500]), ("b.csv", lines[500:])):
        (tmp_path / name).write_text("at,row,user,clicked,price,age,weight,tags\n" + "".join(part))
    return [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]


def column(folder: Path, split: str) -> list[int]:
    """The numbers of a split's rows, as its shards have them."""
    shards = Manifest.load(folder).splits[split].shards
    return [int(row) for shard in shards for row in read_shard(folder / shard.file).dense[:, 0]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_rows_are_sorted_by_time(tmp_path: Path, logs: list[str], small_pieces: None) -> None:
    layout, out = Layout.load(tmp_path / "log.yaml"), tmp_path / "out"
    manifest = prepare(logs, out, layout=layout, sort=True, shard_rows=77)
    order = np.argsort(TIMES, kind="stable").tolist()
    assert [row for split in ("train", "validation", "test") for row in column(out, split)] == order
    assert [split.rows for split in manifest.splits.values()] == [720, 90, 90]
    assert verify(out) == []
    for shard in manifest.splits["train"].shards:
        rows = stored_shard(out / shard.file, manifest.shape(shard))
        assert rows.weights is not None
        assert rows.weights.tolist() == rows.dense[:, 0].tolist()
        assert rows.lists[0].lengths.tolist() == (rows.dense[:, 0].astype(int) % 6).tolist()
    assert manifest.time_order is not None
    assert manifest.time_order.out_of_order > 100
    assert not any("row before them" in text for text in cautions(manifest))
    assert Manifest.load(out).settings.sort
    shuffled = prepare(logs, tmp_path / "shuffled", layout=layout, sort=True, shard_rows=77, shuffle=3)
    assert column(tmp_path / "shuffled", "test") != column(out, "test")
    assert sorted(column(tmp_path / "shuffled", "test")) == sorted(column(out, "test"))
    assert shuffled.fitted == manifest.fitted


@pytest.mark.parametrize("split", ["key:user,0.5,0.2,0.3", "time:2024-05-03,2024-05-04"])
def test_each_split_is_sorted(tmp_path: Path, logs: list[str], small_pieces: None, split: str) -> None:
    prepare(
        logs,
        tmp_path / "out",
        layout=Layout.load(tmp_path / "log.yaml"),
        sort=True,
        split=split,
        shard_rows=60,
    )
    rows = {name: column(tmp_path / "out", name) for name in ("train", "validation", "test")}
    manifest = prepare(logs, tmp_path / "as_given", layout=Layout.load(tmp_path / "log.yaml"), split=split)
    assert manifest.time_order is not None
    assert manifest.time_order.out_of_order > 100
    assert not any("row before them" in text for text in cautions(manifest))  # its place decides of no row
    for held in rows.values():
        assert len(held) > 30
        assert [(TIMES[row], row) for row in held] == sorted((TIMES[row], row) for row in held)
    assert sorted(row for held in rows.values() for row in held) == list(range(ROWS))
    if split.startswith("key:"):
        users = {name: {row % 37 for row in held} for name, held in rows.items()}
        assert not users["train"] & users["validation"] | users["test"] & (
            users["train"] | users["validation"]
        )
    else:
        assert max(TIMES[row] for row in rows["train"]) < 48 <= min(TIMES[row] for row in rows["validation"])


@pytest.mark.slow
def test_more_parts_and_shards_than_files_may_be_open(
    tmp_path: Path, logs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, options = Layout.load(tmp_path / "log.yaml"), {"sort": True, "tokens": "contiguous"}
    prepare(logs, tmp_path / "first", layout=layout, shard_rows=25, **options)
    monkeypatch.setattr("sizewise_prep.pipeline.jobs.parts.PIECE_BYTES", 800)
    monkeypatch.setattr("sizewise_prep.raw.files.reader.BLOCK_BYTES", 400)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(len(taken) + 25) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[24], before[1]))  # so many may be opened
    try:
        prepare(logs, tmp_path / "second", layout=layout, shard_rows=25, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    found = [contents(tmp_path / name) for name in ("first", "second")]
    assert len(found[1]) > 36
    for of_folder in found:  # which says how many pieces the files were read in
        del of_folder["manifest.json"]
    assert found[0] == found[1]


def test_a_key_need_not_be_a_feature(tmp_path: Path, logs: list[str]) -> None:
    layout = Layout.load(tmp_path / "log.yaml")
    columns, lists = {**layout.columns, "user": "skip"}, layout.lists
    bare = Layout(separator=",", header=True, columns=columns, transforms={"row": "none"}, lists=lists)
    held = []
    for name, columns in (("feature", layout), ("key", bare)):
        prepare(logs, tmp_path / name, layout=columns, split="key:user")
        held.append([column(tmp_path / name, split) for split in ("train", "validation", "test")])
    assert held[0] == held[1]
    assert Manifest.load(tmp_path / "key").settings.split == "key:user"


def test_rows_that_cannot_be_sorted_or_split_are_named(tmp_path: Path, logs: list[str]) -> None:
    layout, out = Layout.load(tmp_path / "log.yaml"), tmp_path / "out"
    lines = Path(logs[0]).read_text().splitlines(keepends=True)
    lines[2] = lines[2][lines[2].index(",") :]
    Path(logs[0]).write_text("".join(lines))
    with pytest.raises(InputError, match=r"a\.csv, line 3: column at: '' is no time to sort by"):
        prepare(logs, out, layout=layout, sort=True)
    aside = prepare(logs, out, layout=layout, sort=True, max_bad_fraction=0.1, shard_rows=99)
    assert (aside.rows_out, aside.quarantine.reasons) == (ROWS - 1, {"not_a_time": 1})
    lines[2] = lines[3].replace(",u2,", ",,")
    Path(logs[0]).write_text("".join(lines))
    with pytest.raises(InputError, match=r"a\.csv, line 3: column user: '' is no key to split by"):
        prepare(logs, tmp_path / "key", layout=layout, split="key:user")
    for options, message in [
        ({"sort": True, "split": "files:1,0"}, "--sort: mixes the rows of all files"),
        ({"sort": True, "layout": None}, "--sort: needs a column that holds the time"),
        ({"split": "key:price"}, "split key:price: the schema file makes it a `number`"),
        ({"split": "key:user,1,1"}, "split key:user,1,1"),
        ({"split": "key:user,0.5,0.6,0.1"}, "must add up to 1"),
        ({"split": "key:nobody"}, "has no column 'nobody'"),
    ]:
        with pytest.raises(InputError, match=message):
            prepare(logs, tmp_path / "no", **{"layout": layout, **options})


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    tmp_path: Path, logs: list[str], small_pieces: None
) -> None:
    options = {"tokens": "contiguous", "shard_rows": 120, "shuffle": 3, "sort": True, "split": "key:user"}
    prepare(logs, tmp_path / "intact", layout=Layout.load(tmp_path / "log.yaml"), **options)
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    kills = 0
    while True:
        asked = {"OPTIONS": json.dumps(options), "RENAMES": str(16 * 3**kills // 2**kills)}
        command = [sys.executable, tmp_path / "program.py", tmp_path / "out", tmp_path / "log.yaml", *logs]
        code = subprocess.run(command, env=os.environ | asked | {"PYTHONPATH": path}, check=False).returncode
        if not code:
            break
        assert code == -signal.SIGKILL
        kills += 1
        if kills == 3:  # what a power cut may do
            damaged = sorted((tmp_path / ".out.partial" / "work" / "parts").glob("*.times"))[1]
            damaged.write_bytes(bytes(damaged.stat().st_size))
    assert kills >= 3
    assert contents(tmp_path / "out") == contents(tmp_path / "intact")


@given(
    parts=st.lists(st.lists(st.integers(-5, 30), min_size=1, max_size=40), min_size=1, max_size=6),
    ends=st.lists(st.integers(1, 240), min_size=1, max_size=6),
    step=st.integers(1, 9),
    window=st.sampled_from([1, 7, 40, 1000]),
)
@settings(deadline=None)
def test_rows_of_each_part_are_cut_where_sorting_all_would_cut_them(
    parts: list[list[int]], ends: list[int], step: int, window: int
) -> None:
    total = sum(map(len, parts))
    ends = sorted({min(end, total) for end in ends})
    segments = [sorting.Segment(n, 10, np.sort(np.array(part, np.int64))) for n, part in enumerate(parts)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sorting, "_STEP", step)
        patched.setattr(sorting, "_WINDOW", window)
        found = list(sorting.ranges(segments, ends))
    rows = [(time, n, row) for n, part in enumerate(parts) for row, time in enumerate(sorted(part))]
    order = [(n, 10 + row) for _, n, row in sorted(rows)]
    for group, begin, end in zip(found, [0, *ends], ends, strict=False):
        assert sorted(order[begin:end]) == [(n, row) for n, low, high in group for row in range(low, high)]
