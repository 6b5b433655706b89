"""Rows with columns of lists: written in every format, parsed, and read again from shards."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sizewise_prep.raw.files.sources import resolve
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.parser import BadRow
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.raw.row_readers import check, open_rows, stretches
from sizewise_prep.shards.files import read_shard
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify

Row = dict[str, Any]
FORMS: dict[str, dict[str, str]] = {"token": {}, "string": {"of": "string"}, "hex": {"of": "hex"}}


def lists_of(rows: Rows) -> list[list[list[int]]]:
    """The lists of each column of each row."""
    columns = []
    for column in rows.lists:
        ends = column.offsets.tolist()
        columns.append([column.values[low:high].tolist() for low, high in pairwise(ends)])
    return columns


def shards_of(folder: Path) -> Rows:
    manifest = Manifest.load(folder)
    assert verify(folder) == []
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    return Rows.concatenated([read_shard(folder / shard.file, manifest.shape(shard)) for shard in shards])


def parsed(path: Path, layout: Layout) -> tuple[Rows, list[BadRow]]:
    """A file's rows, and those that are bad."""
    (raw,) = resolve(path)
    check([raw], layout)
    found = [
        part
        for stretch in stretches(raw, layout, 1 << 20, 1 << 20)
        for block in open_rows(raw, layout, stretch, 1 << 20)
        for part in block.parsed(first=1)
    ]
    return Rows.concatenated([part.rows for part in found]), [bad for part in found for bad in part.bad]


def cell(value: Any) -> str:
    """A field of text; a list's values with bars between."""
    if isinstance(value, list):
        value = "|".join("" if one is None else str(one) for one in value)
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\n') else text


def write_text(path: Path, rows: list[Row], _: list[str]) -> None:
    lines = [",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def write_json(path: Path, rows: list[Row], _: list[str]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def table_of(rows: list[Row], kinds: list[str]) -> pa.Table:
    types = [pa.int64(), *(pa.list_(pa.int64() if kind == "token" else pa.string()) for kind in kinds)]
    schema = pa.schema([pa.field(name, kind) for name, kind in zip(rows[0], types, strict=True)])
    return pa.Table.from_pylist(rows, schema=schema)


def write_parquet(path: Path, rows: list[Row], kinds: list[str]) -> None:
    pq.write_table(table_of(rows, kinds), path, row_group_size=7)


def write_arrow(path: Path, rows: list[Row], kinds: list[str]) -> None:
    with pa.ipc.new_file(path, table_of(rows, kinds).schema) as file:
        file.write_table(table_of(rows, kinds), max_chunksize=5)


WRITERS: dict[str, Callable[[Path, list[Row], list[str]], None]] = {
    "log.csv": write_text,
    "log.jsonl": write_json,
    "log.parquet": write_parquet,
    "log.arrow": write_arrow,
}
