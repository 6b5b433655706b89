"""From raw files to a folder of shards."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import FileProgress, Progress, prepare
from sizewise_prep.raw.files import reader
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify

Line = Callable[..., bytes]
Log = Callable[..., Path]


def rows_of(folder: Path, manifest: Manifest, *splits: str) -> list[Rows]:
    return [read_shard(folder / shard.file) for name in splits for shard in manifest.splits[name].shards]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("shard_rows", "shards"), [(1, 100), (7, 16), (80, 3), (1000, 3)])
def test_rows_keep_their_order_and_splits_are_exact(
    tmp_path: Path, line: Line, log: Log, shard_rows: int, shards: int
) -> None:
    paths = [
        log(*(line(int(j % 3 == 0), I1=str(j)) for j in range(start, stop)), name=name)
        for name, start, stop in (("a.tsv", 0, 33), ("b.tsv", 33, 34), ("c.tsv", 34, 100))
    ]
    manifest = prepare(paths, tmp_path / "out", shard_rows=shard_rows)

    assert {name: split.rows for name, split in manifest.splits.items()} == {
        "train": 80,
        "validation": 10,
        "test": 10,
    }
    read = rows_of(tmp_path / "out", manifest, "train", "validation", "test")
    assert len(read) == shards
    assert np.concatenate([rows.dense[:, 0] for rows in read]).tolist() == list(range(100))
    assert [source.rows for source in manifest.sources] == [33, 1, 66]
    clicks = [
        sum(int(rows.labels.sum()) for rows in rows_of(tmp_path / "out", manifest, n))
        for n in manifest.splits
    ]
    assert [split.click_rate for split in manifest.splits.values()] == [
        clicks[0] / 80,
        clicks[1] / 10,
        clicks[2] / 10,
    ]
    assert manifest.click_rate == 0.34
    assert verify(tmp_path / "out") == []
    written = {shard.file for shard in manifest.files} | {"manifest.json"}
    assert set(contents(tmp_path / "out")) == written
    assert Manifest.load(tmp_path / "out") == manifest


def test_splits_may_be_empty(tmp_path: Path, line: Line, log: Log) -> None:
    manifest = prepare([log(line(), line(1))], tmp_path / "out", split=(1.0, 0.0, 0.0))
    assert [split.rows for split in manifest.splits.values()] == [2, 0, 0]
    assert manifest.splits["test"].click_rate is None
    assert manifest.splits["test"].shards == []


def test_figures_of_columns(tmp_path: Path, line: Line, log: Log) -> None:
    path = log(line(C1="a", I1=""), line(C1="A"), line(C1="0000000b", I1=""), line(C1="", I2=""))
    manifest = prepare([path], tmp_path / "out", shard_rows=1)
    assert manifest.cardinalities == [3] + [1] * 25  # missing counts as a value
    assert manifest.full_rows == 28
    assert manifest.token_missing == [0.25] + [0.0] * 25
    assert manifest.dense_missing[:3] == [0.5, 0.25, 0.0]


def test_polars_and_pyarrow_read_shards_as_they_are(tmp_path: Path, line: Line, log: Log) -> None:
    prepare([log(*(line(1, I1="", C1="ff") for _ in range(10)))], tmp_path / "out")
    shard = tmp_path / "out" / "train-00000.arrow"
    frame = pl.read_ipc(shard)
    assert frame.schema == {
        "label": pl.UInt8,
        "dense": pl.Array(pl.Float32, 13),
        "ids": pl.Array(pl.UInt32, 26),
    }
    assert frame["ids"][0].to_list()[:2] == [255, 15]
    with pa.memory_map(str(shard)) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.schema.field("dense").type == pa.list_(pa.float32(), 13)
    assert table["dense"][0].as_py()[1:3] == [2.0, 3.0]
    assert table["dense"].null_count == 0


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, line: Line, log: Log) -> None:
    path = log(*(line(j % 2, I1=str(j)) for j in range(50)))
    for out in ("one", "two"):
        prepare([path], tmp_path / out, shard_rows=7)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_formats_and_endings_give_the_same_shards(tmp_path: Path, line: Line, log: Log) -> None:
    lines = [line(j % 2, I1=str(j)) for j in range(20)]
    plain = log(*lines, name="plain")
    others = [log(*lines, name="crlf", ending=b"\r\n"), tmp_path / "bom", tmp_path / "gz"]
    others[1].write_bytes(b"\xef\xbb\xbf" + plain.read_bytes()[:-1])
    others[2].write_bytes(gzip.compress(plain.read_bytes()))
    expected = [shard.sha256 for shard in prepare([plain], tmp_path / "out").files]
    for path in others:
        assert [shard.sha256 for shard in prepare([path], tmp_path / f"out_{path.name}").files] == expected


def test_a_finished_folder_is_not_made_again(tmp_path: Path, line: Line, log: Log) -> None:
    path, out = log(line(), line(1)), tmp_path / "out"
    manifest = prepare([path], out)
    before = (out / "manifest.json").stat().st_mtime_ns
    assert prepare([path], out) == manifest
    assert (out / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="made with other settings"):
        prepare([path], out, shard_rows=10)
    path.write_bytes(path.read_bytes().replace(b"1", b"0", 1))
    with pytest.raises(InputError, match="made from other raw files"):
        prepare([path], out)
    assert verify(out) == []


def test_a_folder_with_other_things_is_refused(tmp_path: Path, line: Line, log: Log) -> None:
    path = log(line(), line())
    (tmp_path / "out").mkdir()
    prepare([path], tmp_path / "out")  # an empty folder is fine
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="notes: is not empty"):
        prepare([path], tmp_path / "notes")
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"day_0\.tsv: is a file"):
        prepare([path], path)
    with pytest.raises(InputError, match=r"below: cannot be written"):
        prepare([path], path / "below")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"shard_rows": 0}, "shard_rows = 0"),
        ({"shard_rows": 10**12}, "shard_rows = 1000000000000"),
        ({"tokens": "hashed"}, "tokens = 'hashed'"),
        ({"min_count": 2}, "min_count = 2"),
        ({"min_count": 0, "tokens": "contiguous"}, "min_count = 0"),
        ({"max_bad_fraction": 1.5}, "max_bad_fraction = 1.5"),
        ({"split": (0.5, 0.5, 0.5)}, "must add up to 1"),
        ({"split": (float("nan"), 0.5, 0.5)}, "three fractions between 0 and 1"),
        ({"split": (0.0, 0.5, 0.5)}, "first"),
    ],
)
def test_impossible_settings_are_named(
    tmp_path: Path, line: Line, log: Log, setting: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare([log(line())], tmp_path / "out", **setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("block_bytes", [16 << 20, 1000])
def test_the_first_bad_row_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Line, log: Log, block_bytes: int
) -> None:
    monkeypatch.setattr(reader, "BLOCK_BYTES", block_bytes)
    path = log(*[line()] * 30, line(I3="x"), *[line()] * 5)
    with pytest.raises(
        InputError, match=r"day_0\.tsv, line 31: field 4 \(I3\): 'x' is not an integer; fix the row"
    ):
        prepare([path], tmp_path / "out", shard_rows=4)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", [b"\x7fELF\0\0\0\n\0\1\2", b"\0" * 5000, bytes(range(256)) * 9, b"\n", b"\xef\xbb\xbf"]
)
def test_a_binary_or_blank_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.raw"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"photo\.raw"):
        prepare([path], tmp_path / "out")
    with pytest.raises(InputError, match=r"photo\.raw"):
        prepare([path], tmp_path / "out", max_bad_fraction=1.0)
    assert list(tmp_path.iterdir()) == [path]


def test_bad_rows_are_set_aside_as_they_were(tmp_path: Path, line: Line, log: Log) -> None:
    first = log(line(), b"torn\tline", line(1), line(I1="?"), name="a.tsv")
    second = log(line(I2="x\0"), *[line()] * 5, b"", name="b.tsv", ending=b"\r\n")
    manifest = prepare([first, second], tmp_path / "out", max_bad_fraction=0.4)

    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (11, 7, 4)
    assert manifest.quarantine.reasons == {"field_count": 2, "not_an_integer": 1, "nul_bytes": 1}
    kept = (tmp_path / "out" / "quarantine" / "rows.tsv").read_bytes().split(b"\n")
    assert kept == [
        bytes(first) + b"\t2\tfield_count\ttorn\tline",
        bytes(first) + b"\t4\tnot_an_integer\t" + line(I1="?"),
        bytes(second) + b"\t1\tnul_bytes\t" + line(I2="x\0"),
        bytes(second) + b"\t7\tfield_count\t",
        b"",
    ]
    assert verify(tmp_path / "out") == []
    with pytest.raises(
        InputError, match=r"4 of 11 rows are bad, more than --max-bad-fraction 0\.3 .*a\.tsv, line 2"
    ):
        prepare([first, second], tmp_path / "out2", max_bad_fraction=0.3)
    assert not (tmp_path / "out2").exists()


@pytest.mark.slow
@given(
    kinds=st.lists(
        st.sampled_from(["good", "good", "good", "short", "label", "hex", "nul", "blank"]),
        min_size=1,
        max_size=60,
    ),
    shard_rows=st.integers(1, 20),
    split=st.sampled_from([(0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]),
    data=st.data(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_in_are_rows_out_and_rows_set_aside(
    tmp_path_factory: pytest.TempPathFactory,
    line: Line,
    kinds: list[str],
    shard_rows: int,
    split: tuple[float, float, float],
    data: st.DataObject,
) -> None:
    spoilt = {
        "good": lambda j: line(j % 2, I1=str(j), C1=f"{j:x}"),
        "short": lambda j: line(j % 2).rsplit(b"\t", 1 + j % 30)[0],
        "label": lambda j: line("7", I1=str(j)),
        "hex": lambda j: line(0, C3="0x1f"),
        "nul": lambda j: b"\0" * (j + 1),
        "blank": lambda j: b"",
    }
    lines = [spoilt[kind](j) for j, kind in enumerate(kinds)]
    good = [j for j, kind in enumerate(kinds) if kind == "good"]
    folder = tmp_path_factory.mktemp("prep")
    cut = data.draw(st.integers(0, len(lines) - 1), label="rows in the first file")
    paths = []
    for name, part in (("a", lines[:cut]), ("b", lines[cut:])):
        if part:
            paths.append(folder / name)
            paths[-1].write_bytes(b"".join(text + b"\n" for text in part))
    if not good:
        with pytest.raises(InputError):
            prepare(paths, folder / "out", shard_rows=shard_rows, split=split, max_bad_fraction=1.0)
        return
    manifest = prepare(paths, folder / "out", shard_rows=shard_rows, split=split, max_bad_fraction=1.0)

    assert manifest.rows_in == len(lines) == manifest.rows_out + manifest.rows_quarantined
    assert manifest.rows_out == len(good) == sum(s.rows for s in manifest.splits.values())
    read = rows_of(folder / "out", manifest, "train", "validation", "test")
    assert np.concatenate([rows.labels for rows in read]).tolist() == [j % 2 for j in good]
    assert np.concatenate([rows.dense[:, 0] for rows in read]).tolist() == good
    assert np.concatenate([rows.ids[:, 0] for rows in read]).tolist() == good
    assert manifest.cardinalities[0] == len(good)
    bad = [text for j, text in enumerate(lines) if j not in good]
    kept = folder / "out" / "quarantine" / "rows.tsv"
    kept_lines = [entry.split(b"\t", 3)[3] for entry in kept.read_bytes().split(b"\n")[:-1]] if bad else []
    assert kept_lines == bad
    assert sum(manifest.quarantine.reasons.values()) == len(bad)


def test_progress_counts_up_to_the_whole(tmp_path: Path, line: Line, log: Log) -> None:
    paths = [log(*[line()] * 5, name="a"), log(*[line()] * 3, name="b")]
    reported: list[Progress] = []
    prepare(paths, tmp_path / "out", progress=reported.append)
    reading = [step for step in reported if step.step == "read"]
    assert [step.rows for step in reading] == [0, 5, 8]
    size_a, size_b = (path.stat().st_size for path in paths)
    assert reading[1].files == (FileProgress("a", size_a, size_a), FileProgress("b", 0, size_b))
    assert reading[-1].done == reading[-1].total == size_a + size_b
    assert [(step.step, step.done, step.total) for step in reported[-1:]] == [("distinct", 26, 26)]


def test_a_killed_run_leaves_no_folder_and_the_next_one_clears_up(
    tmp_path: Path, line: Line, log: Log
) -> None:
    path = log(*[line()] * 200_000)
    code = (
        "import os, signal, sys\n"
        "from sizewise_prep.pipeline.prep import prepare\n"
        "def stop(step): os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare([sys.argv[1]], sys.argv[2], shard_rows=1000, progress=stop)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "out"], env=os.environ | _path(), check=False
    )
    assert run.returncode == -9
    assert not (tmp_path / "out").exists()
    left = {entry.name for entry in tmp_path.iterdir()}
    assert ".out.partial" in left
    manifest = prepare([path], tmp_path / "out", shard_rows=100_000)
    assert manifest.rows_out == 200_000
    assert {entry.name for entry in tmp_path.iterdir()} == {"day_0.tsv", "out"}
    assert set(contents(tmp_path / "out")) == {shard.file for shard in manifest.files} | {"manifest.json"}


def _path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


@pytest.mark.parametrize(
    ("file", "rows", "clicks"),
    [("criteo_kaggle_sample.tsv.gz", 137_139, 35_213), ("criteo_tb_day_0_head.tsv", 500, 14)],
)
def test_real_rows(tmp_path: Path, real_data: Path, file: str, rows: int, clicks: int) -> None:
    manifest = prepare([real_data / file], tmp_path / "out")
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (rows, rows, 0)
    assert round(manifest.click_rate * rows) == clicks
    text = pl.read_csv(
        real_data / file, separator="\t", has_header=False, quote_char=None, infer_schema=False
    )
    tokens = [text[column] for column in text.columns[14:]]
    assert manifest.cardinalities == [column.n_unique() for column in tokens]
    assert manifest.token_missing == [column.null_count() / rows for column in tokens]
