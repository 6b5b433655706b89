"""Many trainings one after another or in processes beside each other, each kept as soon as it is finished."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.quality.arms import made
from benchmarks.quality.once import Make, trained
from benchmarks.scale.runs import Training
from benchmarks.scale.table import Record

from sizewise_core.errors import InputError


@dataclass(frozen=True)
class Source:
    """Rows, and how models are trained on them.

    Attributes:
        source: `planted`, or a path of raw rows.
        rows: of a planted log.
        batch: rows of a step.
        rate: Adagrad's.
        device: `cpu` or `cuda`.
        looks: evaluations on validation rows in each epoch.
        make: makes the embeddings; a function of a module, so that processes can be given it.
    """

    source: str
    rows: int
    batch: int
    rate: float
    device: str
    looks: int = 4
    make: Make = made


def complete(
    record: Record, of: Source, own: list[Training], students: list[Training], jobs: int, until: float
) -> None:
    """Train what the record does not have yet: teachers, then students in their order.

    Args:
        record: in a folder, where teachers' scores lie as well.
        of: the rows.
        own: the teachers.
        students: all else.
        jobs: trainings at a time; 0: two, or one on a GPU.
        until: no training starts after that (`time.monotonic`).
    """
    assert record.folder is not None
    files = [record.folder / f"teacher-{teacher.seed}.npy" for teacher in own]
    once = partial(
        trained,
        source=of.source,
        rows=of.rows,
        batch=of.batch,
        rate=of.rate,
        device=of.device,
        looks_an_epoch=of.looks,
        make=of.make,
    )
    first = [t for t, file in zip(own, files, strict=True) if not (record.has(t.key) and file.exists())]
    jobs = jobs or (1 if of.device == "cuda" else 2)
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
