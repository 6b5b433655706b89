"""Whole studies for tests: small data, the command as a process of its own, and the calm study to compare with.

Every process that a command starts, Ray's included, inherits a mark in its environment, so that a test can find
them, hurt the right one, and see that none is left behind:

    with Command("run", study, "--runs", runs) as run:
        wait_until(lambda: run.workers(), run)
        run.workers()[0].kill()
"""

import fcntl
import os
import random
import secrets
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from ruamel.yaml import YAML

from sizewise import config as study_file
from sizewise.embedding import full_bytes
from sizewise.engine.deciding.decisions import Engine
from sizewise.search.pruning import Rule
from sizewise.search.suggest import Search
from sizewise.store.trials.ledger import Ledger
from sizewise.training.loop import train
from sizewise_core.files.sealed import unsealed
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest

STUDY = """\
name: killed
data: {data}
model: {{dim: 8, bottom_mlp: [32], top_mlp: [32]}}
embedding: {{method: robe, block_len: 8}}
search: {{memory_budget: {{low: 1000x, high: 10x}}, epochs: {{low: 5, high: 6}}}}
train: {{batch_size: 64, evaluate_every: 0.5, checkpoint_seconds: 0.5}}
trials: 3
"""
# what a clock or the machine decides
TIMED = ("train_seconds", "cpu_seconds", "gpu_seconds", "samples_per_second", "peak_memory_bytes")
T = TypeVar("T")
MARK = "SIZEWISE_TEST_MARK"


def prepare_data(folder: Path, rows: int = 25_000) -> Path:
    """Shards of planted rows."""
    planted.generate(folder / "raw", rows, seed=4)
    prepare([folder / "raw" / "day_0.tsv"], folder / "shards")
    return folder / "shards"


class Command:
    """`sizewise` with some arguments, in a process group of its own, as a shell starts it."""

    def __init__(
        self,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        before: tuple[str, ...] = (),
        cwd: Path | None = None,
        terminal: int | None = None,
    ) -> None:
        """`terminal` is the descriptor of one, for all streams in place of pipes; it becomes the group's own."""
        self.mark = secrets.token_hex(8)
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "sizewise.cli", *map(str, arguments)],
            cwd=cwd,
            stdin=terminal,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.PIPE if terminal is None else terminal,
            text=True,
            start_new_session=True,
            preexec_fn=None if terminal is None else lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            # A Ray of its own, and not one that happens to run on this machine.
            env={**os.environ, "RAY_ADDRESS": "local", **(environment or {}), MARK: self.mark},
        )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.family():
            process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        return self.process.pid

    def family(self) -> list[psutil.Process]:
        """Every living process that this command started, itself included."""
        return marked(self.mark)

    def workers(self) -> list[psutil.Process]:
        """The processes that train."""
        return [process for process in self.family() if title(process).startswith("ray::RayTrainWorker")]

    def end(self, seconds: float = 600) -> tuple[int, str, str]:
        """Exit code, standard output and standard error, once it has ended by itself."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err

    def kill(self) -> None:
        """SIGKILL to the process group, which is what a lost machine does to the driver."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.communicate()

    def signal_group(self, number: signal.Signals) -> None:
        """A signal to the process group, as terminals and batch systems send it."""
        os.killpg(self.pid, number)

    def leaves_nothing(self, seconds: float = 120) -> None:
        """Fail unless every process that this command started is gone before long.

        What Ray was just starting when its driver was killed looks for its head for a minute.
        """
        end = time.monotonic() + seconds
        while left := self.family():
            assert time.monotonic() < end, [(process.pid, title(process)) for process in left]
            time.sleep(0.2)


class WallClock:
    """A time of day that a test sets, for every Python process that is started with its `environment`.

    In Python alone: faked for Ray's own programs as well (libfaketime), they do not start.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._offset = folder / "offset"
        self.set(0.0)
        (folder / "sitecustomize.py").write_text(
            "import time\n"
            "real = time.time\n"
            f"time.time = lambda: real() + float(open({str(self._offset)!r}).read())\n"
        )
        self.environment = {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    def set(self, offset: float) -> None:
        """So many seconds from the right time."""
        new = self._offset.with_suffix(".new")
        new.write_text(str(offset))
        new.replace(self._offset)


def marked(mark: str) -> list[psutil.Process]:
    """Living processes with this mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            if wanted in environment.split(b"\0") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def title(process: psutil.Process) -> str:
    """What a process calls itself; Ray's workers say what they run."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_until(happened: Callable[[], Any], command: Command | None = None, seconds: float = 600) -> None:
    """Poll until it happened; fail when `command` ended first, or after `seconds`."""
    end = time.monotonic() + seconds
    while not happened():
        assert command is None or command.process.poll() is None, command.process.communicate()
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def flip_a_bit(path: Path, draw: random.Random) -> None:
    """Change one bit of a file, as a bad disk would."""
    data = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    print(f"flipped bit {bit} of {path}")


def curves(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Every trial's evaluations without what a clock decides."""
    found = {}
    for path in sorted((folder / "evaluations").glob("*.jsonl")):
        found[int(path.stem)] = [untimed(unsealed(line)) for line in path.read_bytes().splitlines()]
    return found


def calm_study(study: Path, folder: Path, **overrides: Any) -> None:
    """The same study without Ray and without interruption: search and training loop called in turn."""
    manifest = Manifest.load(study_file.load(study).data)
    spec = study_file.resolve(study_file.load(study, overrides), manifest, str(study))
    search = Search(spec, Ledger(folder), full_bytes(manifest.cardinalities, spec.model.dim))
    validation = manifest.splits["validation"]
    rule = Rule.of(spec, validation.rows, validation.click_rate or 0.0) if spec.pruning else None
    engine = Engine(spec, folder, search, lambda *_: None, rule)
    while (record := engine.next_trial()) is not None:
        payload, report = engine.payload(record), partial(engine.evaluated, record.trial_id)
        outcome = one_thread(
            lambda r=record, p=payload, report=report: train(
                search.config(r), Path(p["folder"]), report, **p["how"]
            )
        )
        engine.finished(record.trial_id, outcome.evaluations, outcome.test, outcome.pruned)


def assert_trial_is_calm(study: Path, folder: Path, calm: Path, trial_id: int, settings: list[str]) -> None:
    """One trial of a study that was started with `--set settings` has the evaluations of a calm one."""
    manifest = Manifest.load(study_file.load(study).data)
    overrides = {k: YAML(typ="safe").load(v) for k, _, v in (s.partition("=") for s in settings)}
    spec = study_file.resolve(study_file.load(study, overrides), manifest, str(study))
    search = Search(spec, Ledger(folder), full_bytes(manifest.cardinalities, spec.model.dim))
    rows = one_thread(
        lambda: train(search.config(search.records[trial_id]), calm, lambda row: None)
    ).evaluations
    # What errors are made of is kept of trials in studies only.
    found = [{k: v for k, v in row.items() if not k.endswith("_parts")} for row in curves(folder)[trial_id]]
    assert found == [{"trial_id": trial_id, "replicate": 0, **untimed(row)} for row in rows]


def one_thread(call: Callable[[], T]) -> T:
    """Call with as many threads as a worker with one CPU has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(threads)


def untimed(row: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation without what a clock or the machine decides."""
    return {k: v for k, v in row.items() if k not in TIMED}


def assert_equal(folder: Path, calm: Path) -> None:
    """The study in `folder` ended as the calm one: configurations, curves, test scores, whatever came between."""
    records, expected = Ledger(folder).records(), Ledger(calm).records()
    assert "failed" not in {record.state for record in expected.values()}
    for fields in ({"state", "reason", "error"}, {"params", "key"}):
        found, wanted = (
            {i: r.model_dump(include=fields) for i, r in those.items()} for those in (records, expected)
        )
        assert found == wanted
    assert curves(folder) == curves(calm)
    assert scores_of(folder) == scores_of(calm)


def scores_of(folder: Path) -> dict[str, Any]:
    """Every trial's scores on the test split."""
    return {path.name: unsealed(path.read_bytes()) for path in (folder / "test").glob("*.json")}
