"""How fast rows of every format become arrays, and shards, beside the same rows as Criteo's text.

    python benchmarks/prep.py formats --rows 300000

Planted rows of Criteo's 40 columns are written once in each format. Then all formats take turns in this one process:
a file is read and parsed, nothing written (`read`); in some turns it is prepared, shards and manifest included
(`prepared`, one worker, in this process). What counts is processor time, so that other programs matter less, and the
median of the turns. `times text` compares with the same rows as tab-separated text with the same kinds of tokens:
hexadecimal ones as Criteo's logs have them, or hashed ones. Beside them: what TorchRec's `BinaryCriteoUtils` does with
the rows of text, without TorchRec (see `with_numpy`), and what it takes PyArrow and Polars to decode and hash or number
the Parquet file alone.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted.generate import generate
from sizewise_prep.raw.files.reader import BLOCK_BYTES
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.row_readers import found_as, layout_as, open_rows, stretches
from sizewise_prep.raw.values.row_splits import RowSplit

INTEGERS = [f"I{column}" for column in range(1, 14)]
TOKENS = [f"C{column}" for column in range(1, 27)]


def layout(kind: str, quotes: bool = False, header: bool = False) -> Layout:
    """Criteo's columns with tokens of that kind, separated by commas where there are quotes or a header."""
    columns = {**CRITEO.columns, **dict.fromkeys(TOKENS, kind)}
    separator = "," if quotes or header else "\t"
    return Layout(columns=columns, quotes=quotes, header=header, separator=separator)


@dataclass(frozen=True)
class Format:
    """A format of the rows.

    Attributes:
        like: the text that has the same rows and tokens.
        write: makes the file of a table of integers and hexadecimal texts.
        layout: of the file; None where its format says it.
        key: split by this column.
        form: `--format`, where one is needed.
    """

    like: str
    write: Callable[[pa.Table, Path], None]
    layout: Layout | None
    key: str | None = None
    form: str | None = None


def as_text(table: pa.Table, path: Path, separator: str = "\t", quoted: bool = False) -> None:
    style = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator, quoting=style, lineterminator="\n")
        if separator == ",":
            writer.writerow(table.column_names)
        columns = [column.to_pylist() for column in table.columns]
        writer.writerows(
            ["" if value is None else value for value in row] for row in zip(*columns, strict=True)
        )


def as_parquet(table: pa.Table, path: Path, integers: bool = False) -> None:
    pq.write_table(with_integers(table) if integers else table, path)


def with_integers(table: pa.Table) -> pa.Table:
    """Tokens as 64-bit integers."""
    columns = {name: table[name] for name in table.column_names}
    for name in TOKENS:
        words = pl.Series(table[name]).str.to_integer(base=16, dtype=pl.Int64)
        columns[name] = words.to_arrow()
    return pa.table(columns)


def as_json(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def as_libffm(table: pa.Table, path: Path) -> None:
    columns = [table[name].to_pylist() for name in INTEGERS]
    words = [with_integers(table)[name].to_pylist() for name in TOKENS]
    lines = io.StringIO()
    for row, label in enumerate(table["label"].to_pylist()):
        numbers = (f"{f}:0:{of[row]}.5" for f, of in enumerate(columns) if of[row] is not None)
        tokens = (f"{f}:{of[row]}:1" for f, of in enumerate(words, 13) if of[row] is not None)
        lines.write(f"{label} {' '.join((*numbers, *tokens))}\n")
    path.write_text(lines.getvalue())


def as_decimal_text(table: pa.Table, path: Path) -> None:
    as_text(with_integers(table), path)


QUOTED = functools.partial(as_text, separator=",", quoted=True)
NAMED = functools.partial(as_text, separator=",")
NUMBERS = functools.partial(as_parquet, integers=True)
FORMATS = {
    "text": Format("text", as_text, CRITEO),
    "text, `--split key:`": Format("text", as_text, CRITEO, key="C1"),
    "Parquet, hex strings": Format("text", as_parquet, CRITEO),
    "CSV with a header, hex": Format("text", NAMED, layout("hex", header=True)),
    "quoted CSV, hex": Format("text", QUOTED, layout("hex", quotes=True, header=True)),
    "JSON lines, hex": Format("text", as_json, CRITEO),
    "text, decimal": Format("text, decimal", as_decimal_text, layout("decimal")),
    "Parquet, int64 as decimal": Format("text, decimal", NUMBERS, layout("decimal")),
    "text, hashed strings": Format("text, hashed strings", as_text, layout("string")),
    "text of integers, hashed": Format("text of integers, hashed", as_decimal_text, layout("string")),
    "Parquet, int64 hashed": Format("text of integers, hashed", NUMBERS, layout("token")),
    "Parquet, strings hashed": Format("text, hashed strings", as_parquet, layout("token")),
    "quoted CSV, hashed": Format("text, hashed strings", QUOTED, layout("token", quotes=True, header=True)),
    "JSON lines, hashed": Format("text, hashed strings", as_json, layout("token")),
    "libffm, hashed": Format("text of integers, hashed", as_libffm, None, form="libffm"),
}


def parsed(path: Path, form: Format) -> int:
    """Rows of a file that are read, parsed and forgotten."""
    [raw] = found_as(form.form, path)
    columns = form.layout or layout_as(raw)
    split = RowSplit(form.key, shares=(0.8, 0.1, 0.1)) if form.key else None
    rows = 0
    for stretch in stretches(raw, columns, 64 << 20, BLOCK_BYTES):
        for block in open_rows(raw, columns, stretch, BLOCK_BYTES, split=split):
            rows += sum(len(part.rows) for part in block.parsed(first=1))
    return rows


def prepared(path: Path, form: Format) -> int:
    """Rows of a file that become shards."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        options: dict[str, Any] = {"split": f"key:{form.key}"} if form.key else {}
        options |= {"format": form.form} if form.form else {"layout": form.layout}
        return prepare(path, Path(folder) / "out", **options).rows_out


def with_numpy(path: Path) -> int:
    """What `BinaryCriteoUtils.tsv_to_npys` of TorchRec (BSD) does with each row of a file, in its order."""
    labels, dense, sparse = [], [], []
    with path.open() as stream:
        for row in csv.reader(stream, delimiter="\t"):
            labels.append(int(row[0] or "0"))
            dense.append([int(value or "0") for value in row[1:14]])
            sparse.append([int(value or "0", 16) for value in row[14:]])
    return len(
        np.concatenate(
            [np.array(labels, np.int32)[:, None], np.array(dense, np.float32), np.array(sparse, np.int64)],
            axis=1,
        )
    )


def with_pyarrow(path: Path) -> int:
    """PyArrow decodes a Parquet file, one thread, and no more."""
    return sum(len(batch) for batch in pq.ParquetFile(path).iter_batches(32_768, use_threads=False))


def with_polars_hash(path: Path) -> int:
    """Polars reads a Parquet file and hashes its tokens by a hash of its own, which differs between its versions."""
    found = pl.read_parquet(path).select(pl.col(TOKENS).hash(1), pl.col(INTEGERS).cast(pl.Float32))
    return found.height


def dictionary_ids(path: Path) -> int:
    """PyArrow numbers each column's distinct values as they come, which is what NVTabular's Categorify begins with."""
    table = pq.read_table(path, use_threads=False)
    for name in TOKENS:
        pc.dictionary_encode(table[name])
    return len(table)


def written(rows: int, folder: Path) -> dict[str, Path]:
    """The files of all formats."""
    generate(folder / "logs", rows, seed=1, files=1)
    kinds = {"label": pl.Int64()} | dict.fromkeys(INTEGERS, pl.Int64()) | dict.fromkeys(TOKENS, pl.String())
    frame = pl.read_csv(
        folder / "logs/day_0.tsv", separator="\t", has_header=False, schema=kinds, quote_char=None
    )
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    made: dict[str, Path] = {}
    kept: dict[Any, Path] = {}
    for number, (name, form) in enumerate(FORMATS.items()):
        if form.write not in kept:
            kept[form.write] = folder / f"{number}.log"
            form.write(table, kept[form.write])
        made[name] = kept[form.write]
    return made


def measure(rows: int, turns: int, scratch: str, only: list[str]) -> None:
    """Print the table.

    Args:
        rows: in each file.
        turns: of each measurement, of which the median counts.
        scratch: where files are put for the time being.
        only: the formats wanted; none: all.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        files = written(rows, Path(folder))
        forms = {name: form for name, form in FORMATS.items() if not only or name in only}
        ways: dict[str, Callable[[], int]] = {}
        for name, form in forms.items():
            ways[name] = functools.partial(parsed, files[name], form)
            ways[f"{name}, prepared"] = functools.partial(prepared, files[name], form)
        if not only:
            strings, integers = files["Parquet, hex strings"], files["Parquet, int64 hashed"]
            ways["others: TorchRec's way in Python and NumPy, text"] = functools.partial(
                with_numpy, files["text"]
            )
            ways["others: PyArrow decodes Parquet, strings"] = functools.partial(with_pyarrow, strings)
            ways["others: PyArrow decodes Parquet, int64"] = functools.partial(with_pyarrow, integers)
            ways["others: PyArrow numbers the distinct strings"] = functools.partial(dictionary_ids, strings)
            ways["others: Polars hashes, Parquet, strings"] = functools.partial(with_polars_hash, strings)
        pace: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(turns + 1):  # the first is to compile, and to warm up
            for name, way in ways.items():
                if turn == 0 and name.startswith("others"):
                    continue
                began = time.process_time()
                count = way()
                if turn:
                    pace[name].append(count / (time.process_time() - began))
        print_table({name: statistics.median(found) for name, found in pace.items()}, forms, rows, turns)


def print_table(pace: dict[str, float], forms: dict[str, Format], rows: int, turns: int) -> None:
    print(
        f"{rows:,} rows of 40 columns, rows per second of processor time in one process, medians of {turns} turns"
    )
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| format | rows/s, read | times text | rows/s, prepared | times text |")
    print("| --- | --- | --- | --- | --- |")
    for name, form in forms.items():
        cells = []
        for suffix in ("", ", prepared"):
            like = pace.get(form.like + suffix)
            cells.append(
                f"{pace[name + suffix]:,.0f} | {pace[name + suffix] / like:.2f}" if like else "- | -"
            )
        print(f"| {name} | {' | '.join(cells)} |")
    for name in pace:
        if name.startswith("others: "):
            print(
                f"| {name.removeprefix('others: ')} | {pace[name]:,.0f} | {pace[name] / pace['text']:.2f} | | |"
            )
