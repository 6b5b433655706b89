"""Runs it all: see the package's docstring."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch

if torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported

from benchmarks.quality import tables
from benchmarks.quality.arms import teachers, trainings
from benchmarks.quality.once import SEED_OF_THE_WORLD, trained
from benchmarks.quality.rows import REAL, load
from benchmarks.scale.runs import Training
from benchmarks.scale.table import Record
from benchmarks.timing import machine

from sizewise_core.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description="Test AUC of every method and size, over seeds.")
    parser.add_argument(
        "--data", nargs="+", default=["real", "planted"], help="real, planted, or paths of raw rows"
    )
    parser.add_argument("--rows", type=int, default=137_139, help="of the planted log")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--epochs", type=int, nargs="+", help="of students (default: more, the smaller they are)"
    )
    parser.add_argument("--labels-epochs", type=int, help="of all others, at most")
    parser.add_argument("--teachers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--only", default="", help="students whose key has this text")
    parser.add_argument("--jobs", type=int, default=0, help="trainings at a time; left out: 2, or 1 on a GPU")
    parser.add_argument("--work", type=Path, default=Path("build/quality"))
    parser.add_argument("--minutes", type=float, default=1e9, help="no training starts after that")
    parser.add_argument("--show", action="store_true", help="only the tables of what is finished")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    until = time.monotonic() + 60 * arguments.minutes
    for data in arguments.data:
        source = str(REAL) if data == "real" else data
        if source != "planted" and not Path(source).exists():
            print(f"{source}: there are no such rows: left out", file=sys.stderr)
            continue
        name = f"planted-{arguments.rows}" if data == "planted" else Path(data).name.partition(".")[0]
        record = Record.open(arguments.work / name)
        if not arguments.show:
            run(arguments, source, record, device, until)
        _, known = load(source, arguments.rows, SEED_OF_THE_WORLD, torch.device("cpu"))
        heading = [f"## {name}", "", "; ".join(filter(None, [known, machine()]))]
        kind = "planted" if data == "planted" else "real" if "kaggle_sample" in source else ""
        text = tables.written(record, kind if arguments.rows == 137_139 else "", heading)
        (arguments.work / name / "tables.md").write_text(text)
        print(text, flush=True)


def run(arguments: argparse.Namespace, source: str, record: Record, device: str, until: float) -> None:
    """Train what is not finished: teachers, then students."""
    assert record.folder is not None
    own = teachers(arguments.teachers)
    files = [record.folder / f"teacher-{teacher.seed}.npy" for teacher in own]
    once = partial(
        trained, source=source, rows=arguments.rows, batch=arguments.batch, rate=arguments.rate, device=device
    )
    students = [
        training
        for training in trainings(arguments.seeds, arguments.epochs, arguments.labels_epochs)
        if arguments.only in training.key
    ]
    first = [t for t, file in zip(own, files, strict=True) if not (record.has(t.key) and file.exists())]
    jobs = arguments.jobs or (1 if device == "cuda" else 2)
    for group in (first, [student for student in students if not record.has(student.key)]):
        for number, (training, found) in enumerate(_all(once, group, files, jobs, until), 1):
            if isinstance(found, InputError):  # a budget that has no room for the least of a method
                print(f"{number}/{len(group)} {training.key}: left out: {found}", flush=True)
                continue
            if not record.has(training.key):
                for row in (*found.evaluations, *found.results):
                    record.add(row)
            last = found.results[-1]
            print(
                f"{number}/{len(group)} {training.key}: validation {last.validation_auc:.4f}, "
                f"test {last.test_auc:.4f} ({last.float_test_auc:.4f} in float32), {last.shipped_bytes:,} bytes, "
                f"{last.seconds:.1f} s; {last.note}",
                flush=True,
            )


def _all(
    once: "partial[Record]", group: list[Training], files: list[Path], jobs: int, until: float
) -> Iterator[tuple[Training, Record | InputError]]:
    if jobs == 1:
        for training in group:
            if time.monotonic() < until:
                try:
                    yield training, once(training, taught_by=files)
                except InputError as error:
                    yield training, error
        return
    # Spawned: PyTorch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        left = iter(group)
        running = {}

        def start() -> None:
            training = next(left, None)
            if training is not None and time.monotonic() < until:
                running[pool.submit(once, training, taught_by=files)] = training

        for _ in range(jobs):
            start()
        while running:
            done = next(as_completed(running))
            training = running.pop(done)
            start()
            error = done.exception()
            if error is not None and not isinstance(error, InputError):
                raise error
            yield training, error or done.result()


if __name__ == "__main__":
    main()
