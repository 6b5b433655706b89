"""How much memory `prep` takes at two sizes of a log in every format and with `--sort`: it should be the same.

    python -m benchmarks.prep_memory --scratch /tmp/memory                   # 1 and 25 million rows
    python -m benchmarks.prep_memory --rows 500000 10000000 --only parquet "text --sort"

Rows are planted ones of users: label, price, user, item, history (at most three items) and time, out of order. They
are written once as Parquet and from there in each format, prepared in a process of their own with two workers that may
take 2 GB together, and removed. 25 million rows take some 6 GB of disk at a time. Two figures of each: the largest of
its processes at its peak (VmHWM of /proc), files that are mapped into memory included; and what all its processes
together had of their own (anonymous memory) at most, both looked at five times a second.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import open_memmap

from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import Dials, World
from sizewise_prep.planted.output.files import frame
from sizewise_prep.raw.layout import Layout

MEMORY, WORKERS = 2 * 10**9, 2
CHUNK = 1 << 14
COLUMNS = ["label", "N2", "user", "item", "history", "time"]
SINGLE = {"label": "label", "N2": "number", "user": "decimal", "item": "decimal", "time": "time"}
LISTS: dict[str, Any] = {"columns": SINGLE | {"history": "tokens"}, "lists": {"history": {"of": "decimal"}}}
BETWEEN = {"columns": LISTS["columns"], "lists": {"history": {"of": "decimal", "separator": " "}}}
PLAIN = {"columns": SINGLE | {"N2": "skip"}}


@dataclass(frozen=True)
class Format:
    """A format: how rows are written to a folder, and how they are read back."""

    write: Callable[[Iterator[pl.DataFrame], int, Path], None]
    layout: dict[str, Any] | None
    options: dict[str, Any]


def source(rows: int, path: Path) -> None:
    """The rows as Parquet, blocks of them in an order of their own."""
    world = World(1, rows, Dials(users=rows // 20, history=3, numbers=2))
    starts = np.random.default_rng(1).permutation(np.arange(0, rows, CHUNK))
    writer = None
    for start in starts:
        table = frame(world.chunk(int(start), min(int(start) + CHUNK, rows))).select(COLUMNS).to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def blocks(path: Path) -> Iterator[pl.DataFrame]:
    for batch in pq.ParquetFile(path).iter_batches(1 << 16):
        yield pl.DataFrame(pl.from_arrow(batch))


def _text(found: Iterator[pl.DataFrame], stream: BinaryIO | gzip.GzipFile) -> None:
    for block in found:
        stream.write(block.select(list(SINGLE)).write_csv(separator="\t", include_header=False).encode())


def text(found: Iterator[pl.DataFrame], _: int, folder: Path) -> None:
    with (folder / "rows.tsv").open("wb") as stream:
        _text(found, stream)


def zipped(found: Iterator[pl.DataFrame], _: int, folder: Path) -> None:
    with gzip.open(folder / "rows.tsv.gz", "wb", compresslevel=1) as stream:
        _text(found, stream)


def quoted(found: Iterator[pl.DataFrame], _: int, folder: Path) -> None:
    with (folder / "rows.csv").open("wb") as stream:
        for number, block in enumerate(found):
            lists = pl.col("history").cast(pl.List(pl.String)).list.join(" ")
            text = block.with_columns(lists).write_csv(include_header=not number, quote_style="always")
            stream.write(text.encode())


def json_lines(found: Iterator[pl.DataFrame], _: int, folder: Path) -> None:
    with (folder / "rows.jsonl").open("wb") as stream:
        for block in found:
            block.write_ndjson(stream)


def parquet(found: Iterator[pl.DataFrame], _: int, folder: Path) -> None:
    first = next(found).to_arrow()
    with pq.ParquetWriter(folder / "rows.parquet", first.schema) as writer:
        writer.write_table(first)
        for block in found:
            writer.write_table(block.to_arrow())


def arrow(found: Iterator[pl.DataFrame], _: int, folder: Path) -> None:
    first = next(found).to_arrow()
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        writer.write_table(first)
        for block in found:
            writer.write_table(block.to_arrow())


def libffm(found: Iterator[pl.DataFrame], _: int, folder: Path) -> None:
    with (folder / "rows.ffm").open("wb") as stream:
        for block in found:
            fields = [
                f"{n}:" + pl.col(name).cast(pl.String) + ":1" for n, name in enumerate(("user", "item"))
            ]
            lines = pl.concat_str(pl.col("label").cast(pl.String), *fields, separator=" ")
            stream.write(block.select(lines).write_csv(include_header=False, quote_style="never").encode())


def torchrec(found: Iterator[pl.DataFrame], rows: int, folder: Path) -> None:
    shapes = {"labels": (1, "i4"), "dense": (1, "f4"), "sparse": (2, "i4")}
    arrays = {
        name: open_memmap(folder / f"day_0_{name}.npy", "w+", dtype=kind, shape=(rows, width))
        for name, (width, kind) in shapes.items()
    }
    done = 0
    for block in found:
        end = done + block.height
        arrays["labels"][done:end, 0] = block["label"]
        arrays["dense"][done:end, 0] = block["N2"].fill_null(0)
        arrays["sparse"][done:end] = block.select("user", "item").to_numpy() & 0x7FFF_FFFF
        done = end


FORMATS = {
    "text": Format(text, PLAIN, {}),
    "text, gzip": Format(zipped, PLAIN, {}),
    "CSV, quotes and lists": Format(quoted, BETWEEN | {"separator": ",", "header": True, "quotes": True}, {}),
    "JSON lines": Format(json_lines, LISTS, {}),
    "parquet": Format(parquet, LISTS, {}),
    "arrow": Format(arrow, LISTS, {}),
    "libffm": Format(libffm, None, {"format": "libffm"}),
    "torchrec": Format(torchrec, None, {"format": "torchrec"}),
    "parquet, contiguous ids": Format(parquet, LISTS, {"tokens": "contiguous"}),
    "text --sort": Format(text, PLAIN, {"sort": True}),
    "parquet --sort": Format(parquet, LISTS, {"sort": True}),
}


def one(name: str, folder: str) -> None:
    """Prepare, and print the rows and the seconds."""
    wanted, began = FORMATS[name], time.perf_counter()
    layout = Layout(**wanted.layout) if wanted.layout else None
    files = sorted(map(str, Path(folder).joinpath("raw").iterdir()))
    manifest = prepare(
        files[:1], f"{folder}/out", layout=layout, workers=WORKERS, memory=MEMORY, **wanted.options
    )
    print(json.dumps({"rows": manifest.rows_out, "seconds": time.perf_counter() - began}))


def memory_of(process: psutil.Process) -> tuple[int, int, int]:
    """Of a process and all below it, in bytes: the largest one's peak, its own, and the anonymous memory of all."""
    peaks, own = dict[int, int](), 0
    for each in (process, *process.children(recursive=True)):
        try:
            status = Path(f"/proc/{each.pid}/status").read_text()
        except OSError:  # it has ended
            continue
        found = dict(line.split(":", 1) for line in status.splitlines())
        peaks[each.pid] = int(found.get("VmHWM", "0").split()[0])
        own += int(found.get("RssAnon", "0").split()[0])
    return max(peaks.values(), default=0) * 1024, peaks.get(process.pid, 0) * 1024, own * 1024


def measured(name: str, folder: Path) -> dict[str, float]:
    program = "import sys; from benchmarks.prep_memory import one; one(*sys.argv[1:])"
    command = [sys.executable, "-c", program, name, str(folder)]
    ran, looks = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), []
    while ran.poll() is None:
        try:
            looks.append(memory_of(psutil.Process(ran.pid)))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.2)
    text, _ = ran.communicate()
    if ran.returncode:
        raise SystemExit(f"{name}: prepare failed")
    largest, parent, own = (max(column) for column in zip(*looks, strict=True))
    return {**json.loads(text), "largest": largest, "parent": parent, "own": own}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 25_000_000])
    parser.add_argument("--only", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--scratch", default=".")
    arguments = parser.parse_args()
    from benchmarks.timing import machine  # imports PyTorch, which is not to count

    print(f"{machine()}; {WORKERS} workers, which may take {MEMORY / 1e9:.0f} GB together\n")
    print(
        "| format | rows | seconds | largest process | the first one | all processes' own |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for rows in arguments.rows:
            rows_file = Path(scratch) / f"{rows}.parquet"
            source(rows, rows_file)
            for name in arguments.only:
                folder = Path(scratch) / "one"
                (folder / "raw").mkdir(parents=True)
                FORMATS[name].write(blocks(rows_file), rows, folder / "raw")
                found = measured(name, folder)
                cells = [name, f"{found['rows']:,}", f"{found['seconds']:,.0f}"]
                cells += [f"{found[what] / 1e6:,.0f} MB" for what in ("largest", "parent", "own")]
                print("| " + " | ".join(cells) + " |", flush=True)
                shutil.rmtree(folder)
            rows_file.unlink()


if __name__ == "__main__":
    main()
