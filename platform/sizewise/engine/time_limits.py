"""The time limits of a study's trials, kept in the driver, where a worker that hangs cannot stop the clock.

watch = Watch(spec.failures, end=kill_worker, progress=newest_checkpoint)
watch.begin(7, worker)           # its worker has begun
watch.extend(7)                  # it evaluated
reason = watch.forget(7)         # it is over; a reason, if it was ended here
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sizewise.config.sections.running import FailuresSpec
from sizewise_core.units import format_seconds

log = logging.getLogger(__name__)
TICK_SECONDS = 1.0
SUSPENDED_SECONDS = 10.0  # between two looks: this process was suspended, not busy
AGAIN_SECONDS = 30.0  # how long ending a worker may take before it is tried again


@dataclass
class _Watched:
    worker: Any
    began: float
    last_message: float
    seen: Any = None  # the newest checkpoint that was looked at
    reason: str | None = None
    ended: float = 0.0


class Watch:
    """Ends trials that train for too long or have sent nothing for too long.

    Args:
        limits: the study's section `failures`.
        end: ends the worker that `begin` was given; must not block.
        progress: what changes while a trial makes progress without a message; called only before one is ended.
        clock: seconds, which never go back.
        tick: seconds between two looks, in a thread; None: it looks only when `look` is called.
    """

    def __init__(
        self,
        limits: FailuresSpec,
        end: Callable[[Any], None],
        progress: Callable[[int], Any],
        clock: Callable[[], float] = time.monotonic,
        tick: float | None = TICK_SECONDS,
    ) -> None:
        self._limits, self._end, self._progress = limits, end, progress
        self._clock, self._tick, self._looked = clock, tick, clock()
        self._trials: dict[int, _Watched] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")
        if tick is not None:
            self._thread.start()

    def begin(self, trial_id: int, worker: Any) -> None:
        """From now on the trial's clocks run."""
        with self._lock:
            now = self._clock()
            self._trials[trial_id] = _Watched(worker, began=now, last_message=now)

    def extend(self, trial_id: int) -> None:
        """The trial has sent something."""
        with self._lock:
            if trial_id in self._trials:
                self._trials[trial_id].last_message = self._clock()

    def forget(self, trial_id: int) -> str | None:
        """The trial is over. Returns why it was ended here, if it was."""
        with self._lock:
            watched = self._trials.pop(trial_id, None)
        return watched.reason if watched else None

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._tick is not None:
            self._thread.join()

    def look(self) -> None:
        """End the workers of trials that are over their limits."""
        with self._lock:
            now = self._clock()
            away, self._looked = now - self._looked, now
            if away > SUSPENDED_SECONDS:
                self._was_suspended(away)
            due = [(n, w) for n, w in self._trials.items() if self._overdue(n, w)]
        for trial_id, watched in due:
            watched.ended = self._clock()
            try:
                self._end(watched.worker)
            except Exception as error:  # it is tried again, and must not end this thread
                log.warning("trial %d: its worker cannot be ended: %s", trial_id, error)

    def _run(self) -> None:
        while not self._stop.wait(self._tick):
            self.look()

    def _was_suspended(self, seconds: float) -> None:
        """Stop the clocks for the time in which this process received nothing."""
        for watched in self._trials.values():
            watched.began += seconds
            watched.last_message += seconds

    def _overdue(self, trial_id: int, watched: _Watched) -> bool:
        now, limits = self._clock(), self._limits
        if watched.reason:
            return now - watched.ended > AGAIN_SECONDS
        if limits.trial_seconds is not None and now - watched.began > limits.trial_seconds:
            watched.reason = (
                f"trained for longer than failures.trial_seconds ({format_seconds(limits.trial_seconds)})"
            )
        elif limits.silent_seconds is not None and now - watched.last_message > limits.silent_seconds:
            progress = self._progress(trial_id)
            if progress != watched.seen:
                watched.seen, watched.last_message = progress, now
                return False
            watched.reason = (
                "neither evaluated nor saved a checkpoint for failures.silent_seconds "
                f"({format_seconds(limits.silent_seconds)})"
            )
        return watched.reason is not None
