"""Many trainings one after another or in processes beside each other, each kept as soon as it is finished."""

import multiprocessing
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.quality.once import Source, trained
from benchmarks.scale.runs import Training
from benchmarks.scale.table import Record

from sizewise_core.errors import InputError


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
    first = [t for t, file in zip(own, files, strict=True) if not (record.has(t.key) and file.exists())]
    jobs = jobs or (1 if of.device == "cuda" else 2)
    for group in (first, [student for student in students if not record.has(student.key)]):
        for number, (training, found) in enumerate(_all(of, group, files, jobs, until), 1):
            if isinstance(found, Exception):
                # Input: a budget that has no room for the least of a method. Else: the machine's.
                said = "left out" if isinstance(found, InputError) else f"failed: {type(found).__name__}"
                print(f"{number}/{len(group)} {training.key}: {said}: {found}", flush=True)
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
    of: Source, group: list[Training], files: list[Path], jobs: int, until: float
) -> Iterator[tuple[Training, Record | Exception]]:
    if jobs == 1:
        for training in group:
            if time.monotonic() < until:
                try:
                    yield training, trained(training, of, files)
                except (InputError, RuntimeError) as error:  # one that fails leaves the others
                    if not isinstance(error, InputError):
                        traceback.print_exc()
                    yield training, error
        return
    # Spawned: PyTorch's threads do not survive a fork.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        left = iter(group)
        running = {}

        def start() -> None:
            training = next(left, None)
            if training is not None and time.monotonic() < until:
                running[pool.submit(trained, training, of, files)] = training

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
