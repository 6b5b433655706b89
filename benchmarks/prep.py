"""How fast and in how much memory raw logs become shards, beside what else there is; every figure from this run.

    sizewise generate logs --rows 25000000 --files 25
    python benchmarks/prep.py all    logs/day_*.tsv        # everything below, one after another
    python benchmarks/prep.py speed  logs/day_{0..4}.tsv
    python benchmarks/prep.py memory logs/day_*.tsv        # the first 1, 5 and 25 of them
    python benchmarks/prep.py read   SHARDS
    python -m benchmarks.prep formats --rows 300000        # every format beside text, see `prep_formats`

`benchmarks/prep_memory.py` has the memory of all formats, and of `--sort`.

`speed` takes turns, so that what else the machine does hits all alike, and reports medians of wall-clock rows a
second and of CPU-seconds a million rows (children included). The limit is Polars: scan the same files, parse all 40
columns and reduce each to one number, without writing. `dlrm` is what facebookresearch/dlrm's data_utils.py does
with each row (split, int, int(token, 16), a dictionary a column), `torchrec` is TorchRec's own
`BinaryCriteoUtils.tsv_to_npys`; both on a part of the first file, and on one core, as they are written. From the raw
figures follow, on paper, the hours and dollars of Criteo's 4.4 billion rows.

TorchRec is not among Sizewise's dependencies. `--torchrec FOLDER` names where it was put, with releases that fit the
installed PyTorch:

    pip install --no-deps --target FOLDER torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 tensordict torchmetrics==1.0.3 \\
        iopath portalocker pyre-extensions typing-inspect mypy-extensions tqdm pyvers lightning-utilities \\
        cloudpickle orjson
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import numpy as np

PART_ROWS = 100_000  # that the row-wise rivals are given
MEMORY = 2 * 10**9  # bytes that all workers together may take
CRITEO_ROWS = 4_373_472_329
DOLLARS_AN_HOUR = (
    4.61  # of a machine of 96 virtual cores (c7i.24xlarge at its list price, us-east-1), taken as given
)
INTEGERS = [f"I{column}" for column in range(1, 14)]
TOKENS = [f"C{column}" for column in range(1, 27)]


def prepared(files: list[str], out: str, tokens: str, workers: int) -> int:
    from sizewise_prep.pipeline.prep import prepare

    return prepare(files, out, tokens=tokens, workers=workers, memory=MEMORY).rows_out  # type: ignore[arg-type]


def limit(files: list[str], decoded: bool) -> int:
    """Polars: integers added up, and of tokens their lengths or (decoded) their values."""
    import polars as pl

    schema = {"label": pl.UInt8()} | dict.fromkeys(INTEGERS, pl.Int64()) | dict.fromkeys(TOKENS, pl.String())
    token = pl.col(TOKENS)
    reduced = (
        token.str.to_integer(base=16, dtype=pl.UInt32, strict=False).cast(pl.UInt64).sum()
        if decoded
        else token.str.len_bytes().cast(pl.UInt64).sum()
    )
    scan = pl.scan_csv(files, separator="\t", has_header=False, schema=schema, quote_char=None)
    sums = scan.select(pl.len(), pl.col(["label", *INTEGERS]).cast(pl.Int64).sum(), reduced)
    return int(sums.collect(engine="streaming").row(0)[0])


def dlrm(files: list[str]) -> int:
    """A transcription of `process_one_file` in facebookresearch/dlrm's data_utils.py (MIT), a row at a time."""
    days: list[dict[int, int]] = [{} for _ in TOKENS]
    y = np.zeros(PART_ROWS, "i4")
    x_int, x_cat = np.zeros((PART_ROWS, 13), "i4"), np.zeros((PART_ROWS, 26), "i4")
    with open(files[0]) as stream:
        for i, text in enumerate(stream):
            if i == PART_ROWS:
                break
            line = text.split("\t")
            for j in range(len(line)):
                if (line[j] == "") or (line[j] == "\n"):
                    line[j] = "0"
            y[i] = np.int32(line[0])
            x_int[i] = np.array(line[1:14], dtype=np.int32)
            words = [int(word, 16) for word in line[14:]]
            x_cat[i] = np.array(words, dtype=np.uint32).view(np.int32)
            for j, word in enumerate(words):
                days[j][word] = 1
    for j in range(26):
        for number, word in enumerate(days[j]):
            days[j][word] = number
        column = x_cat[:, j].view(np.uint32)
        x_cat[:, j] = [days[j][int(word)] for word in column]
    return PART_ROWS


def part_of(file: str, folder: str) -> str:
    """The first rows of a file, in a file of their own."""
    path = f"{folder}/part.tsv"
    with open(file, "rb") as source, open(path, "wb") as target:
        target.writelines(itertools.islice(source, PART_ROWS))
    return path


def with_torchrec(file: str, folder: str) -> int:
    from torchrec.datasets.criteo import BinaryCriteoUtils

    dense, sparse, labels = (f"{folder}/{name}.npy" for name in ("dense", "sparse", "labels"))
    BinaryCriteoUtils.tsv_to_npys(file, dense, sparse, labels)
    return len(np.load(labels, mmap_mode="r"))


def one(arguments: argparse.Namespace) -> None:
    """One measurement, in a process of its own: rows, seconds, CPU-seconds, and the largest process's memory."""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        if arguments.what == "torchrec":
            part = part_of(arguments.files[0], folder)
            importlib.import_module("torchrec.datasets.criteo")  # before the clock starts
        before, began = time.process_time(), time.perf_counter()
        out = f"{folder}/out"
        do: dict[str, Callable[[], int]] = {
            "raw": lambda: prepared(arguments.files, out, "raw", arguments.workers),
            "contiguous": lambda: prepared(arguments.files, out, "contiguous", arguments.workers),
            "limit": lambda: limit(arguments.files, decoded=False),
            "limit, hex decoded": lambda: limit(arguments.files, decoded=True),
            "dlrm": lambda: dlrm(arguments.files),
            "torchrec": lambda: with_torchrec(part, folder),
        }
        rows = do[arguments.what]()
        seconds = time.perf_counter() - began
        forkserver._forkserver._stop()  # the workers' times count when the process that forked them has ended
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        cpu = time.process_time() - before + children.ru_utime + children.ru_stime
        peak = max(own.ru_maxrss, children.ru_maxrss) * 1024
        print(json.dumps({"rows": rows, "seconds": seconds, "cpu": cpu, "peak": peak}))


def measured(what: str, files: list[str], arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "one", what, str(arguments.workers), arguments.scratch, *files]
    environment = os.environ | {"PYTHONPATH": arguments.torchrec} if what == "torchrec" else None
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def speed(arguments: argparse.Namespace) -> None:
    kinds = [
        "raw",
        "limit",
        "limit, hex decoded",
        "contiguous",
        "dlrm",
        *["torchrec"] * bool(arguments.torchrec),
    ]
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(arguments.turns):
        for kind in kinds:
            found[kind].append(measured(kind, arguments.files, arguments))
    rows = found["raw"][0]["rows"]
    print(f"{rows:,} rows, {arguments.workers} workers, medians of {arguments.turns} turns\n")
    print(
        "| | rows/s | CPU-s per million rows | raw tokens are faster by (wall; CPU) |\n| --- | --- | --- | --- |"
    )
    pace = {k: statistics.median(one["rows"] / one["seconds"] for one in v) for k, v in found.items()}
    cost = {k: statistics.median(one["cpu"] / one["rows"] * 1e6 for one in v) for k, v in found.items()}
    for kind in kinds:
        gain = f"{pace['raw'] / pace[kind]:.2f}; {cost[kind] / cost['raw']:.2f}"
        print(f"| {kind} | {pace[kind]:,.0f} | {cost[kind]:.2f} | {gain} |")
    on_paper(pace["raw"] / arguments.workers, pace["contiguous"] / arguments.workers)


def on_paper(raw: float, contiguous: float) -> None:
    """Hours and dollars for Criteo's rows, if every core does what one did here and the disks keep up."""
    print(f"\n{CRITEO_ROWS:,} rows on paper: as fast a core, and as many megabytes a second as it takes\n")
    print(
        "| 96-core machines | tokens | hours | dollars | read, MB/s each |\n| --- | --- | --- | --- | --- |"
    )
    for machines in (1, 24):
        for tokens, pace in (("raw", raw), ("contiguous", contiguous)):
            hours = CRITEO_ROWS / (pace * 96 * machines) / 3600
            dollars = hours * machines * DOLLARS_AN_HOUR
            megabytes = 243e-6 * pace * 96  # a planted row is 243 bytes of text
            print(f"| {machines} | {tokens} | {hours:.3f} | {dollars:.2f} | {megabytes:,.0f} |")


def memory(arguments: argparse.Namespace) -> None:
    print(f"{arguments.workers} workers, which may take {MEMORY / 1e9:.0f} GB together\n")
    print("| files | rows | raw, largest process | contiguous, largest process |\n| --- | --- | --- | --- |")
    for count in (1, 5, 25):
        if count > len(arguments.files):
            break
        cells = [measured(what, arguments.files[:count], arguments) for what in ("raw", "contiguous")]
        peaks = " | ".join(f"{cell['peak'] / 1e6:,.0f} MB" for cell in cells)
        print(f"| {count} | {cells[0]['rows']:,.0f} | {peaks} |", flush=True)


def read(arguments: argparse.Namespace) -> None:
    """A pass over the training shards, added up, against a copy of the same bytes in memory."""
    import polars as pl
    import pyarrow as pa

    from sizewise.training.input.batches import Split

    folder = Path(arguments.files[0])
    split = Split.open(folder, "train")
    size = sum(file.stat().st_size for file in split.files)
    contents = [np.fromfile(file, np.uint8) for file in split.files]

    def copied() -> None:
        for content in contents:
            content.copy()

    def arrow() -> None:
        for file in split.files:
            with pa.memory_map(str(file)) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
                for name in ("label", "dense", "ids"):
                    column = batch.column(name)
                    (column.flatten() if name != "label" else column).to_numpy().max()

    def polars() -> None:
        pl.scan_ipc(split.files).select(
            pl.col("label").max(), pl.col("dense").arr.max().max(), pl.col("ids").arr.max().max()
        ).collect()

    def trainer() -> None:
        for batch in split.in_order(16_384):
            batch.ids.numpy().max()

    def shuffled() -> None:
        for position in range(split.iterations(16_384)):
            split.batch(0, position, 16_384, seed=1)

    passes = {"memory copy": copied, "PyArrow": arrow, "Polars": polars}
    passes |= {"trainer, in order": trainer, "trainer, shuffled": shuffled}
    found: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(arguments.turns):
        for name, run in passes.items():
            began = time.perf_counter()
            run()
            found[name].append(size / (time.perf_counter() - began))
    print(f"{size / 1e6:,.0f} MB of training shards, medians of {arguments.turns} turns\n")
    print("| a pass by | GB/s | of a memory copy |\n| --- | --- | --- |")
    base = statistics.median(found["memory copy"])
    for name, rates in found.items():
        rate = statistics.median(rates)
        print(f"| {name} | {rate / 1e9:.2f} | {rate / base:.2f} |")


def everything(arguments: argparse.Namespace) -> None:
    """The three of them."""
    files = arguments.files
    arguments.files = files[:5]
    speed(arguments)
    print()
    arguments.files = files
    memory(arguments)  # before `read`: on Linux the peak of a new process begins at the size of its parent
    print()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        prepared(files[:5], f"{folder}/shards", "raw", arguments.workers)
        arguments.files = [f"{folder}/shards"]
        read(arguments)


def every_format(arguments: argparse.Namespace) -> None:
    from benchmarks.prep_formats import measure

    measure(arguments.rows, arguments.turns, arguments.scratch, arguments.only)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, command in (("all", everything), ("speed", speed), ("memory", memory), ("read", read)):
        sub = commands.add_parser(name)
        sub.add_argument("files", nargs="+")
        sub.add_argument("--turns", type=int, default=3)
        sub.add_argument("--workers", type=int, default=2)
        sub.add_argument("--scratch", default=".")
        sub.add_argument("--torchrec", default="", metavar="FOLDER")
        sub.set_defaults(run=command)
    formats = commands.add_parser("formats")
    formats.add_argument("--rows", type=int, default=300_000)
    formats.add_argument("--turns", type=int, default=3)
    formats.add_argument("--scratch", default=".")
    formats.add_argument("--only", nargs="+", default=[], metavar="FORMAT")
    formats.set_defaults(run=every_format)
    single = commands.add_parser("one")
    for name in ("what", "workers", "scratch"):
        single.add_argument(name, type=int if name == "workers" else str)
    single.add_argument("files", nargs="+")
    single.set_defaults(run=one)
    arguments = parser.parse_args()
    if "files" in arguments and "turns" in arguments and shutil.disk_usage(arguments.scratch).free < 30e9:
        print("less than 30 GB free: 25 million rows may not fit", file=sys.stderr)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
