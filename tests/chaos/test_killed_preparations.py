"""Preparations that are killed at random instants: plain, sorted, with lists, and sent to an object store.

The same command goes on, however often it is killed, and ends with the bytes of one that was not killed.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from s3_server import S3Server

ROWS = 12_000
SCHEMAS = {
    "plain": "columns: {click: label, price: number, user: token, item: token, at: time}",
    "sorted": "columns: {click: label, price: {kind: number, transform: standardize}, user: token, item: token, "
    "at: time}",
    "lists": "columns: {click: label, user: token, item: token, seen: tokens, at: time}\nothers: skip",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"tokens": "contiguous", "max_bad_fraction": 0.1},
    "sorted": {"sort": True},
    "lists": {"tokens": "contiguous", "max_list": 5},
    "store": {"tokens": "contiguous", "max_bad_fraction": 0.1},
}
# Prepares what each line of its input says, in a process of its own, which it kills after so many seconds.
PROGRAM = """
import json, os, signal, sys, time
from sizewise_prep.pipeline import prep
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.raw.files import reader
from sizewise_prep.raw.layout import Layout
parts.PIECE_BYTES, reader.BLOCK_BYTES = 60_000, 20_000
for line in sys.stdin:
    raw, out, schema, options, seconds = json.loads(line)
    child = os.fork()
    if not child:
        prep.prepare(raw, out, layout=Layout.load(schema), shard_rows=900, **options)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # it may have ended, but is not collected yet
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows as CSV, with a few bad ones, and with lists as JSON lines; times in no order."""
    folder, draw = tmp_path_factory.mktemp("logs"), random.Random(3)
    rows = [
        {
            "click": draw.randrange(2),
            "price": draw.random(),
            "user": f"u{draw.randrange(900)}",
            "item": draw.randrange(2**40),
            "at": draw.randrange(10**9),
            "seen": [draw.randrange(700) for _ in range(draw.randrange(9))],
        }
        for _ in range(ROWS)
    ]
    (folder / "lists").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [",".join(str(value) for value in list(row.values())[:5]) for row in rows]
    header = "click,price,user,item,at"
    (folder / "sorted").write_text("\n".join([header, *lines]) + "\n")
    (folder / "plain").write_text("\n".join([header, *lines[:700], "7,torn", *lines[700:]]) + "\n")
    for name, schema in SCHEMAS.items():
        form = "" if name == "lists" else 'separator: ","\nheader: true\n'
        (folder / f"{name}.yaml").write_text(form + schema)
    return folder


@contextmanager
def preparing(folder: Path) -> Iterator[Callable[[list[Any], float | None], tuple[int, float]]]:
    """A function that prepares, kills after so many seconds, and returns how it ended and how long it took."""
    (folder / "program.py").write_text(PROGRAM)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with subprocess.Popen(
        [sys.executable, folder / "program.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": path, "POLARS_MAX_THREADS": "1", "SIZEWISE_CACHE": str(folder / "cache")},
    ) as program:
        assert program.stdin
        assert program.stdout
        stdin, stdout = program.stdin, program.stdout

        def prepare(asked: list[Any], seconds: float | None) -> tuple[int, float]:
            began = time.monotonic()
            stdin.write(json.dumps([*asked, seconds]) + "\n")
            stdin.flush()
            return int(stdout.readline()), time.monotonic() - began

        yield prepare
        stdin.close()


def killed(kind: str, logs: Path, tmp_path: Path, seed: int, kills: int) -> None:
    """Kill so many preparations at random instants; each that ends is compared, and the next one begins anew."""
    draw = random.Random(seed)
    rows = "plain" if kind == "store" else kind
    asked = [str(logs / rows), "", str(logs / f"{rows}.yaml"), OPTIONS[kind]]
    store, base = fsspec.filesystem("file"), str(tmp_path / "out")
    if kind == "store":
        base = f"s3://studies/{tmp_path.name}/out"
        store, _ = fsspec.core.url_to_fs(base, use_listings_cache=False)

    def contents(folder: str) -> dict[str, bytes]:
        root = store._strip_protocol(folder)
        return {name.removeprefix(f"{root}/"): store.cat_file(name) for name in store.find(root)}

    with preparing(tmp_path) as prepare:
        asked[1] = f"{base}-warm"
        assert prepare(asked, None)[0] == 0  # compiled code is there from now on
        asked[1] = f"{base}-calm"
        code, seconds = prepare(asked, None)
        assert code == 0
        wanted = contents(asked[1])
        assert len(wanted) > 15
        done = runs = 0
        while done < kills:
            runs += 1
            asked[1], code, attempts = f"{base}-{runs}", 1, 0
            while code:
                left = done < kills
                code, _ = prepare(asked, draw.uniform(0, seconds) if left else None)
                assert code in (0, signal.SIGKILL)
                attempts, done = attempts + 1, done + (code != 0)
            assert contents(asked[1]) == wanted
            print(
                f"{kind}: run {runs} was killed {attempts - 1} times and left {len(wanted)} files as they should be"
            )
        assert done == kills
    print(f"{kind}: {kills} kills, each within the {seconds:.1f} s that the work takes")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sorted", "lists"])
def test_a_few_kills(kind: str, logs: Path, tmp_path: Path) -> None:
    killed(kind, logs, tmp_path, seed=1, kills=3)


@pytest.mark.chaos
@pytest.mark.parametrize("kind", OPTIONS)
def test_twenty_kills_of_a_preparation(
    kind: str, logs: Path, tmp_path: Path, seed: int, s3: S3Server
) -> None:
    killed(kind, logs, tmp_path, seed, kills=20)
