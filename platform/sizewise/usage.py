"""What a study uses: the seconds for which its trials hold CPUs and GPUs, every attempt counted.

An attempt holds from the moment that its worker begins to the moment that it ends, evaluations included. Attempts
that ended are lines of `usage.jsonl`; those under way are in `holding.json`, so that a driver that is killed loses
no second of them: the next one closes them at the last sign of life that the killed one gave. The two files are
written one after the other; an attempt that is in both counts as ended.

Lengths are of the driver's monotonic clock, which nobody can set: what a study costs never depends on the time of
day. Its readings mean nothing to another process, so an attempt under way is as long as its own driver's last
heartbeat says.
"""

import json
import time
from collections.abc import Callable
from typing import NamedTuple

from sizewise.sealed import DamagedError, sealed, unsealed
from sizewise.study.driver import claim
from sizewise_prep.storage import Place, append_line, read, write


class Attempt(NamedTuple):
    """One attempt at a trial and what it holds, since when (seconds of its driver's monotonic clock)."""

    trial_id: int
    attempt: int
    cpus: float
    gpus: float
    since: float


class Used(NamedTuple):
    """For how long a trial's attempts held something, and how much of it."""

    seconds: float
    cpu_seconds: float
    gpu_seconds: float


class Sign(NamedTuple):
    """A driver's sign of life: its claim, and when it gave it (seconds of its own monotonic clock)."""

    claim: str
    at: float


class Usage:
    """The writer's side, of one driver; every call raises OSError as writing does.

    Args:
        folder: the study's.
        claim: the driver's.
        check: called before anything is written; raises where this process is not to write any more.
        clock: in seconds.
    """

    def __init__(
        self,
        folder: Place,
        claim: str = "",
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self._claim, self._check, self._clock = folder, claim, check, clock
        self._under_way: dict[int, Attempt] = {}

    def settle(self, last_seen: Sign | None) -> None:
        """Close what a driver that died was holding, at its last sign of life."""
        ended = {attempt[:2] for attempt, _ in _lines(self.folder)}
        for attempt, seconds in under_way(self.folder, last_seen):
            if attempt[:2] not in ended:
                self._end(attempt, seconds)
        self._write()

    def begin(self, trial_id: int, attempt: int, cpus: float, gpus: float) -> None:
        """An attempt's workers have begun."""
        self._under_way[trial_id] = Attempt(trial_id, attempt, cpus, gpus, self._clock())
        self._write()

    def end(self, trial_id: int) -> None:
        """The trial's attempt, if one is under way, has ended."""
        attempt = self._under_way.pop(trial_id, None)
        if attempt:
            self._end(attempt, self._clock() - attempt.since)
            self._write()

    def close(self) -> None:
        """Everything has ended."""
        for trial_id in list(self._under_way):
            self.end(trial_id)

    def _end(self, attempt: Attempt, seconds: float) -> None:
        self._check()
        line = {**attempt._asdict(), "seconds": seconds}
        append_line(self.folder / "usage.jsonl", (sealed(json.dumps(line)) + "\n").encode())

    def _write(self) -> None:
        self._check()
        held = [attempt._asdict() for attempt in self._under_way.values()]
        content = {"driver": self._claim, "attempts": held}
        write(self.folder / "holding.json", sealed(json.dumps(content)).encode())


def last_seen(folder: Place) -> Sign | None:
    """The last sign of life of the study's last driver."""
    driver = claim(folder / "driver.json") or {}
    at = driver.get("monotonic")
    return Sign(str(driver.get("claim")), float(at)) if isinstance(at, int | float) else None


def under_way(folder: Place, seen: Sign | None) -> list[tuple[Attempt, float]]:
    """The attempts that hold something, or did when their driver died, and for how many seconds by then.

    What is damaged is left out; an attempt of another driver than the one `seen` is of no known length.
    """
    try:
        held = unsealed(read(folder / "holding.json"))
        found = [Attempt(**attempt) for attempt in held["attempts"]]
    except (OSError, DamagedError, KeyError, TypeError):
        return []
    own = seen is not None and held.get("driver") == seen.claim
    return [(attempt, max(seen.at - attempt.since, 0.0) if own and seen else 0.0) for attempt in found]


def used(folder: Place, seen: Sign | None) -> dict[int, Used]:
    """What each trial has used so far; attempts under way count up to their driver's last sign of life."""
    seconds = {attempt[:2]: (attempt, length) for attempt, length in under_way(folder, seen)}
    for attempt, length in _lines(folder):
        seconds[attempt[:2]] = attempt, length
    totals: dict[int, Used] = {}
    for attempt, length in seconds.values():
        before = totals.get(attempt.trial_id, Used(0.0, 0.0, 0.0))
        totals[attempt.trial_id] = Used(
            before.seconds + length,
            before.cpu_seconds + length * attempt.cpus,
            before.gpu_seconds + length * attempt.gpus,
        )
    return totals


def _lines(folder: Place) -> list[tuple[Attempt, float]]:
    try:
        lines = read(folder / "usage.jsonl").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            fields = unsealed(line)
            length = float(fields.pop("seconds"))
            found.append((Attempt(**fields), length))
        except (DamagedError, KeyError, TypeError, ValueError):  # a crash cut it short
            continue
    return found
