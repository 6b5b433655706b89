"""Workers that do the jobs of a preparation: this process, or several local ones (`on_ray` has those on Ray).

    with Local(4) as workers:
        for result in workers.run(parse, jobs, memory): ...

A job's function is a generator of results and must be idempotent: a job whose worker is lost is done again by
another. Results are yielded as jobs end, in any order, with None about every second in between.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from sizewise_core.machine import allocator

Job = TypeVar("Job")
Result = TypeVar("Result")
Function = Callable[[Job], Iterator[Result]]

_ATTEMPTS = 4
_TICK = 1.0  # seconds


class Workers(Protocol):
    """Something that does jobs."""

    def run(
        self, function: Function[Job, Result], jobs: Sequence[Job], memory: int
    ) -> Iterator[Result | None]:
        """The results of all jobs.

        Args:
            function: does one job; idempotent.
            jobs: its arguments.
            memory: bytes that a job may take.

        Yields:
            Results as jobs end, in any order, and None about every second.
        """
        ...

    def share(self, memory: int) -> int:
        """How many bytes one of several jobs may take when all together may take `memory`."""
        ...


class Local:
    """This process, or `count` processes beside it. Several need a main module that can be imported."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(at_once=kind is not None)

    def share(self, memory: int) -> int:
        """An equal share for each process."""
        return memory // self._count

    def run(
        self, function: Function[Job, Result], jobs: Sequence[Job], memory: int
    ) -> Iterator[Result | None]:
        """The results of all jobs.

        Args:
            function: does one job; idempotent.
            jobs: its arguments.
            memory: bytes that a job may take; `Local` relies on the caller having counted the workers by it.

        Yields:
            Results as jobs end, in any order, and None about every second.

        Raises:
            RuntimeError: workers were lost repeatedly.
            Exception: what a job raises.
        """
        if self._count == 1 or (len(jobs) == 1 and self._executor is None):
            for job in jobs:
                yield from function(job)
            return
        left, attempts = list(jobs), _ATTEMPTS
        while left:
            running: dict[Future[list[Result]], Job] = {}
            try:
                with (
                    _interrupted_afterwards()
                ):  # else a process that just starts would not be known, and go on
                    running = {self._processes().submit(_results, function, job): job for job in left}
                while running:
                    done, _ = wait(running, timeout=_TICK, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
                        del running[future]
                    yield None
                return
            except BrokenProcessPool:
                left, attempts = list(running.values()) or left, attempts - 1
                self._stop(at_once=True)
                if not attempts:
                    what = "a worker process was killed again and again (out of memory?)"
                    raise RuntimeError(
                        f"{what}: use fewer workers; the same command continues from here"
                    ) from None

    def _processes(self) -> ProcessPoolExecutor:
        if self._executor is None:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["sizewise_prep.pipeline.preloaded"])
            _start_server()
            self._executor = ProcessPoolExecutor(self._count, context, initializer=_begin)
        return self._executor

    def _stop(self, at_once: bool) -> None:
        if self._executor is None:
            return
        processes = list((self._executor._processes or {}).values()) if at_once else []
        for process in processes:
            process.terminate()
        self._executor.shutdown(cancel_futures=True)
        self._executor = None


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Ctrl+C within the block takes effect at its end."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(came[0], None)


def _start_server() -> None:
    """Start the process that workers are forked from with SIGINT blocked, which they inherit.

    Ctrl+C reaches every process of the terminal. This one ends its workers; by themselves they would print tracebacks.
    """
    resource_tracker.ensure_running()  # which would unblock it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Use one thread a process, and end with the parent."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # read when Polars is imported, which no import so far has done
    allocator.keep_freed(below=12 << 20)  # a shard's arrays would not fit every gap
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


_last: Any = None


def _results(function: Function[Job, Result], job: Job) -> list[Result]:
    """`all_results`, in a process that does several steps: freed memory of one is returned to the system at the next.

    Otherwise a step's largest buffers would add to those of the step before.
    """
    global _last
    if function is not _last:
        _last = function
        allocator.give_back()
    return all_results(function, job)


def all_results(function: Function[Job, Result], job: Job) -> list[Result]:
    """All that a job yields, as a list."""
    return list(function(job))
