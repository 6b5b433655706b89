"""The same rows as text, Parquet, JSON lines and Arrow, for tests of formats with named columns."""

import csv
import datetime
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.shards.files import read_shard
from sizewise_prep.shards.manifest import Manifest

COLUMNS = {
    "user": "token",
    "title": "string",
    "price": "number",
    "age": "integer",
    "clicked": "label",
    "at": "time",
    "note": "skip",
}
LAYOUT = Layout(separator=",", header=True, quotes=True, columns=COLUMNS)
Row = dict[str, Any]


def rows_of(count: int) -> list[Row]:
    return [
        {
            "user": (j * 7919) % 50 - 9_000_000_000_000_000_000,
            "title": f'say "{j % 9}", twice\nor more' if j % 3 else None,
            "price": j / 8 if j % 5 else None,
            "age": 20 + j % 60,
            "clicked": j % 2,
            "at": f"2024-05-01 00:{j // 60 % 60:02d}:{j % 60:02d}",
            "note": None,
        }
        for j in range(count)
    ]


def as_csv(rows: list[Row]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows([{name: "" if value is None else value for name, value in row.items()} for row in rows])
    return stream.getvalue().encode()


def as_parquet(rows: list[Row], group_rows: int = 100) -> bytes:
    stream = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    title = table["title"].cast(pa.string()).dictionary_encode()
    table = table.set_column(table.schema.get_field_index("title"), "title", title)
    if all(str(row["at"]).startswith("2024") for row in rows):
        at = pa.array([datetime.datetime.fromisoformat(row["at"]) for row in rows], pa.timestamp("ms"))
        table = table.set_column(table.schema.get_field_index("at"), "at", at)
    pq.write_table(table.select(list(reversed(table.column_names))), stream, row_group_size=group_rows)
    return stream.getvalue()


def as_json(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_arrow(rows: list[Row]) -> bytes:
    stream = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    return stream.getvalue()


WRITERS: dict[str, Callable[[list[Row]], bytes]] = {
    "log.csv": as_csv,
    "log.parquet": as_parquet,
    "log.jsonl": as_json,
    "log.arrow": as_arrow,
}


def shard(folder: Path, name: str = "train-00000.arrow") -> Rows:
    manifest = Manifest.load(folder)
    (found,) = (one for split in manifest.splits.values() for one in split.shards if one.file == name)
    return read_shard(folder / name, manifest.shape(found))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def blake(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") or 1
