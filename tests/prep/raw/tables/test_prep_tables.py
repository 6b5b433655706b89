"""Logs in other formats than Criteo's text: Parquet, CSV with quotes, JSON lines, Arrow; all give the same rows."""

import bz2
import csv
import datetime
import gzip
import io
import lzma
import math
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.prep.raw.tables.table_logs import (
    LAYOUT,
    WRITERS,
    Row,
    as_csv,
    as_parquet,
    blake,
    contents,
    rows_of,
    shard,
)

from killed_at_rename import KILLED_AT_RENAME
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.files.sources import resolve
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.records import records
from sizewise_prep.shards.verifying import verify


def test_every_format_gives_the_same_shards(tmp_path: Path, small_pieces: None) -> None:
    rows = rows_of(400)
    shards = {}
    for name, write in WRITERS.items():
        (tmp_path / name).write_bytes(write(rows))
        out = tmp_path / f"{name}-out"
        manifest = prepare(tmp_path / name, out, layout=LAYOUT, shard_rows=150)
        assert (manifest.rows_in, manifest.rows_out) == (400, 400)
        assert manifest.time_order is not None
        assert (manifest.time_order.column, manifest.time_order.out_of_order) == ("at", 0)
        assert verify(out) == []
        assert prepare(tmp_path / name, out, layout=LAYOUT, shard_rows=150) == manifest  # nothing to do
        shards[name] = {file.name: file.read_bytes() for file in out.glob("*.arrow")}
    assert len(shards["log.csv"]) == 5
    assert all(found == shards["log.csv"] for found in shards.values())
    train = shard(tmp_path / "log.parquet-out")
    assert train.labels.tolist() == [0, 1] * 75
    assert train.ids[1].tolist() == [blake(str(rows[1]["user"])), blake(rows[1]["title"])]
    assert train.ids[0].tolist() == [blake(str(rows[0]["user"])), 0]
    assert train.dense[1].tolist() == [0.125, 21]
    assert math.isnan(train.dense[0, 0])


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, "zstd"])
def test_compressed_text(tmp_path: Path, small_pieces: None, compress: Any) -> None:
    rows = rows_of(100)
    plain = tmp_path / "log.csv"
    plain.write_bytes(as_csv(rows))
    prepare(plain, tmp_path / "plain", layout=LAYOUT)
    for name in ("log.csv", "log.jsonl"):
        data = WRITERS[name](rows)
        packed = pa.compress(data, codec="zstd", asbytes=True) if compress == "zstd" else compress(data)
        (tmp_path / f"{name}.packed").write_bytes(packed)
        out = tmp_path / f"{name}-out"
        prepare(tmp_path / f"{name}.packed", out, layout=LAYOUT)
        assert (out / "train-00000.arrow").read_bytes() == (
            tmp_path / "plain" / "train-00000.arrow"
        ).read_bytes()
        (tmp_path / f"{name}.packed").write_bytes(packed[: len(packed) // 2])
        with pytest.raises(InputError, match=r"cannot be read as (gzip|bz2|xz|zstd) to its end"):
            prepare(tmp_path / f"{name}.packed", tmp_path / "torn", layout=LAYOUT, max_bad_fraction=1.0)


def test_a_folder_of_parquet_files_is_one_log(tmp_path: Path) -> None:
    rows = rows_of(60)
    folder = tmp_path / "table"
    folder.mkdir()
    for part in range(11):
        (folder / f"part-{part}.parquet").write_bytes(as_parquet(rows[part * 5 : part * 5 + 5]))
    (folder / "_SUCCESS").touch()
    manifest = prepare(folder, tmp_path / "out", layout=LAYOUT)
    assert [Path(source.path).name for source in manifest.sources] == [f"part-{j}.parquet" for j in range(11)]
    assert manifest.rows_out == 55
    assert manifest.time_order is not None
    assert manifest.time_order.out_of_order == 0
    for name in ("day=2", "day=10"):
        (folder / name).mkdir()
        (folder / name / "part.parquet").write_bytes(as_parquet(rows[55:]))
    found = [Path(raw.path).parent.name for raw in resolve(folder)]
    assert found[:2] + found[-1:] == ["day=2", "day=10", "table"]
    (folder / "test").mkdir()
    (folder / "test" / "part.parquet").write_bytes(as_parquet(rows[55:]))
    with pytest.raises(InputError, match="is a folder; name the files in it"):
        prepare(folder, tmp_path / "mixed", layout=LAYOUT)


def test_columns_by_name_nulls_and_rules(tmp_path: Path) -> None:
    """Columns in another order, ones that the schema does not name, texts for missing values, a rule for the label."""
    columns = {"rating": "label >= 4", "movie": "token", "year": "integer"}
    text = "extra;year;movie;rating\nx;1999;7;4.5\ny;NULL;NULL;3\nz;-1;0;4\n"
    (tmp_path / "log.csv").write_text(text)
    layout = Layout(separator=";", header=True, columns=columns, others="skip", nulls=("NULL", "-1"))
    prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout, split="rows:3,0")
    train = shard(tmp_path / "out")
    assert train.labels.tolist() == [1, 0, 1]
    assert train.ids[:, 0].tolist() == [blake("7"), 0, blake("0")]
    assert np.isnan(train.dense[:, 0]).tolist() == [False, True, True]
    strict = layout.model_copy(update={"others": None})
    with pytest.raises(
        InputError, match=r"line 1: has a column 'extra' that the schema does not name: .*others: skip"
    ):
        prepare(tmp_path / "log.csv", tmp_path / "strict", layout=strict)
    absent = layout.model_copy(update={"columns": {**columns, "genre": "token"}})
    with pytest.raises(InputError, match=r"line 1: has no column 'genre'; it has 'extra', 'year'"):
        prepare(tmp_path / "log.csv", tmp_path / "absent", layout=absent)


def test_numbers_that_stand_for_missing_values(tmp_path: Path) -> None:
    """However they are written, and in every format: pandas writes -1 as -1.0 where a column has missing values."""
    names = ("-1", "-999.5", "1e6")
    prices: list[float | None] = [-1.0, -999.5, 1e6, -10.0, 1.5, None, 999.5]
    table = pa.table(
        {"y": [0, 1] * 3 + [1], "u": ["a"] * 7, "p": prices, "n": pa.array([-1, 7, 2, 3, 4, 5, 6])}
    )
    pq.write_table(table, tmp_path / "double.parquet")
    pq.write_table(table.set_column(2, "p", table["p"].cast(pa.float32())), tmp_path / "float.parquet")
    table.to_pandas().to_csv(tmp_path / "log.csv", index=False)
    table.to_pandas().to_json(tmp_path / "log.jsonl", orient="records", lines=True)
    columns = {"y": "label", "u": "token", "p": "number", "n": "integer"}
    layout = Layout(separator=",", header=True, columns=columns, nulls=names)
    for name in ("double.parquet", "float.parquet", "log.csv", "log.jsonl"):
        prepare(tmp_path / name, tmp_path / "out" / name, layout=layout, split="rows:7,0")
        dense = shard(tmp_path / "out" / name).dense
        assert np.array_equal(dense[:, 0], [np.nan] * 3 + [-10, 1.5, np.nan, 999.5], equal_nan=True), name
        assert np.array_equal(dense[:, 1], [np.nan, 7, 2, 3, 4, 5, 6], equal_nan=True), name


def test_types_that_hold_the_same_values(tmp_path: Path) -> None:
    """Decimals, unsigned and small integers, truth values, dates, categories, whole numbers stored as real ones."""
    table = pa.table(
        {
            "y": pa.array([True, False, True]),
            "amount": pa.array([Decimal("1.25"), None, Decimal("-3.00")], pa.decimal128(9, 2)),
            "whole": pa.array([7.0, float("nan"), 9.0]),
            "id": pa.array([1 << 63, 0, None], pa.uint64()),
            "flag": pa.array([True, None, False]),
            "code": pa.array([7.0, None, -1.0], pa.float32()),
            "exact": pa.array([Decimal(5), None, Decimal(6)], pa.decimal128(20, 0)),
            "day": pa.array([datetime.date(2024, 1, 1)] * 3),
            "raw": pa.array([b"x", b"", None], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    kinds = {"y": "label", "amount": "number", "whole": "integer", "day": "time"}
    layout = Layout(columns=kinds | dict.fromkeys(["id", "flag", "code", "exact", "raw"], "token"))
    prepare(tmp_path / "log.parquet", tmp_path / "out", layout=layout, split="rows:3,0")
    train = shard(tmp_path / "out")
    assert train.labels.tolist() == [1, 0, 1]
    assert np.array_equal(train.dense, [[1.25, 7], [np.nan, np.nan], [-3, 9]], equal_nan=True)
    texts = [[str(1 << 63), "true", "7", "5", "x"], ["0", "", "", "", ""], ["", "false", "-1", "6", ""]]
    assert train.ids.tolist() == [[blake(text) if text else 0 for text in row] for row in texts]


KILLED = (
    """
import os, signal, sys
from sizewise_prep.pipeline import prep
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.raw.files import reader
from sizewise_prep.raw.layout import Layout
parts.PIECE_BYTES, reader.BLOCK_BYTES = 8_000, 2_000
"""
    + KILLED_AT_RENAME
    + """
if __name__ == "__main__":
    sys.addaudithook(at)
    layout = Layout.model_validate_json(os.environ["LAYOUT"])
    prep.prepare(sys.argv[2:], sys.argv[1], layout=layout, max_bad_fraction=0.1, shard_rows=150)
"""
)


@pytest.mark.slow
def test_killed_it_ends_with_the_same_bytes(tmp_path: Path, small_pieces: None) -> None:
    rows = rows_of(400)
    rows[150]["clicked"] = rows[390]["clicked"] = 3
    paths = []
    for name, write in WRITERS.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(write(rows))
    prepare(paths, tmp_path / "whole", layout=LAYOUT, max_bad_fraction=0.1, shard_rows=150)
    (tmp_path / "program.py").write_text(KILLED)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "LAYOUT": LAYOUT.model_dump_json(),
    }
    kills = 0
    while True:
        ended = subprocess.run(
            [sys.executable, tmp_path / "program.py", tmp_path / "out", *paths],
            env=environment | {"RENAMES": str(12 + 14 * kills)},
            check=False,
        )
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "user": st.integers(-(1 << 63), (1 << 63) - 1) | st.none(),
    "title": TEXT | st.none(),
    "price": st.floats(-(2.0**100), 2.0**100, width=32) | st.none(),
    "age": st.integers(-(1 << 63), (1 << 63) - 1) | st.none(),
    "clicked": st.sampled_from([0, 1, 0, 1, 2, None]),
    "at": st.integers(0, 10**17) | st.none(),
    "note": st.just("n"),
}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=30), st.integers(1, 9))
def test_random_rows_come_back_equal_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], group_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows.append({"user": 1, "title": "t", "price": 1.0, "age": 1, "clicked": 1, "at": 1, "note": "n"})
    good = [row for row in rows if row["clicked"] in (0, 1)]
    for name, write in WRITERS.items():
        data = as_parquet(rows, group_rows) if name == "log.parquet" else write(rows)
        (folder / name).write_bytes(data)
        manifest = prepare(
            folder / name,
            folder / f"{name}-out",
            layout=LAYOUT,
            max_bad_fraction=1.0,
            split=f"rows:{len(good)},0",
        )
        assert manifest.rows_in == len(rows)
        assert manifest.rows_out == len(good)
        assert manifest.quarantine.reasons == (
            {"label": len(rows) - len(good)} if len(rows) > len(good) else {}
        )
        found = shard(folder / f"{name}-out")
        assert found.labels.tolist() == [row["clicked"] for row in good]
        ids = [
            [
                0 if row["user"] is None else blake(str(row["user"])),
                blake(row["title"]) if row["title"] else 0,
            ]
            for row in good
        ]
        assert found.ids.tolist() == ids
        dense = [[np.nan if row[key] is None else row[key] for key in ("price", "age")] for row in good]
        assert np.array_equal(found.dense, np.array(dense, np.float32), equal_nan=True)


@given(st.lists(st.lists(st.text('ab",\n\r '), min_size=1, max_size=4), min_size=1, max_size=6))
def test_rows_of_quoted_text_are_found_where_a_writer_put_them(rows: list[list[str]]) -> None:
    text, ends = b"", []
    for row in rows:
        stream = io.StringIO(newline="")
        csv.writer(stream, lineterminator="\r\n").writerow(row)
        text += stream.getvalue().encode()
        ends.append(len(text))
    found = records(text, b",", quotes=True)
    assert (found.ends.tolist(), found.fields.tolist()) == (ends, [len(row) for row in rows])
    cut = records(text.removesuffix(b"\r\n"), b",", quotes=True)
    assert cut.open_at == (ends[-2] if len(ends) > 1 else 0)


@pytest.mark.parametrize("kind", ["decimal", "token"])
def test_logs_without_numbers(tmp_path: Path, kind: str) -> None:
    """No dense column in the shards, plain lines and tables alike; every other reader finds none."""
    (tmp_path / "log.csv").write_text("".join(f"{j % 2},{j % 3},{j}\n" for j in range(1, 41)))
    layout = Layout(separator=",", columns={"y": "label", "movie": kind, "user": kind})
    manifest = prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout, shard_rows=16, shuffle=1)
    assert (manifest.dense_missing, manifest.dense_inexact) == ([], [])
    assert verify(tmp_path / "out") == []
    rows = shard(tmp_path / "out")
    assert rows.dense.shape == (16, 0)
    assert pa.ipc.open_file(tmp_path / "out" / "train-00000.arrow").schema.names == ["label", "ids"]
    assert set(rows.ids[:, 0]) == ({0, 1, 2} if kind == "decimal" else {blake(text) for text in "012"})


def test_plain_text_with_its_columns_in_another_order(tmp_path: Path) -> None:
    """The same shards as in the schema's order; one file of each in a log."""
    layout = Layout(
        separator=",", header=True, columns={"y": "label", "n": "integer", "c": "hex", "w": "string"}
    )
    rows = [(j % 2, j, f"{j:x}", f"w{j}") for j in range(40)]
    (tmp_path / "a.csv").write_text("y,n,c,w\n" + "".join(f"{y},{n},{c},{w}\n" for y, n, c, w in rows))
    (tmp_path / "b.csv").write_text("w,c,y,n\n" + "".join(f"{w},{c},{y},{n}\n" for y, n, c, w in rows))
    for name in "ab":
        prepare(tmp_path / f"{name}.csv", tmp_path / name, layout=layout)
    first, second = ((tmp_path / name / "train-00000.arrow").read_bytes() for name in "ab")
    assert first == second
    both = prepare(
        [tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "both", layout=layout, split="files:1,1"
    )
    assert both.splits["train"].click_rate == both.splits["validation"].click_rate == 0.5


def test_names_in_quotes(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('"y","n","c"\n1,2,"x, y"\n')
    layout = Layout(separator=",", header=True, columns={"y": "label", "n": "integer", "c": "token"})
    with pytest.raises(InputError, match=r"line 1: names of columns are in quotes: write `quotes: true`"):
        prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout)


def test_tables_of_an_object_store(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for name in ("log.parquet", "log.arrow", "log.csv"):
        store.pipe(f"/tables/{name}", WRITERS[name](rows_of(50)))
    try:
        made = [
            prepare(f"memory://tables/{name}", tmp_path / name, layout=LAYOUT)
            for name in ("log.parquet", "log.arrow")
        ]
        made.append(prepare("memory://tables/*.csv", tmp_path / "csv", layout=LAYOUT))
    finally:
        store.rm("/tables", recursive=True)
    assert len({shard.sha256 for manifest in made for shard in manifest.splits["train"].shards}) == 1
