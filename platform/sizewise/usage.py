"""What a study uses: the seconds for which its trials hold CPUs and GPUs, every attempt counted.

An attempt holds from the moment that its worker begins to the moment that it ends, evaluations included. Attempts
that ended are lines of `usage.jsonl`; those under way are in `holding.json`, so that a driver that is killed loses
no second of them: the next one closes them at the last sign of life that the killed one gave. The two files are
written one after the other; an attempt that is in both counts as ended.
"""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sizewise.sealed import DamagedError, sealed, unsealed
from sizewise.study.driver import claim
from sizewise_prep.storage import Place, append_line, read, write


class Attempt(NamedTuple):
    """One attempt at a trial and what it holds, since when (unix seconds)."""

    trial_id: int
    attempt: int
    cpus: float
    gpus: float
    since: float


class Usage:
    """The writer's side; every call raises OSError as writing does."""

    def __init__(self, folder: Place, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        self._under_way: dict[int, Attempt] = {}

    def settle(self, last_seen: float | None) -> None:
        """Close what a driver that died was holding, at its last sign of life."""
        ended = {(line["trial_id"], line["attempt"]) for line in _lines(self.folder)}
        for attempt in under_way(self.folder):
            if attempt[:2] in ended:
                continue
            self._end(attempt, attempt.since if last_seen is None else last_seen)
        self._write()

    def begin(self, trial_id: int, attempt: int, cpus: float, gpus: float) -> None:
        """An attempt's workers have begun."""
        self._under_way[trial_id] = Attempt(trial_id, attempt, cpus, gpus, self._clock())
        self._write()

    def end(self, trial_id: int) -> None:
        """The trial's attempt, if one is under way, has ended."""
        attempt = self._under_way.pop(trial_id, None)
        if attempt:
            self._end(attempt, self._clock())
            self._write()

    def close(self) -> None:
        """Everything has ended."""
        for trial_id in list(self._under_way):
            self.end(trial_id)

    def _end(self, attempt: Attempt, now: float) -> None:
        seconds = max(now - attempt.since, 0.0)  # clocks may be set back
        line = {**attempt._asdict(), "seconds": seconds}
        append_line(self.folder / "usage.jsonl", (sealed(json.dumps(line)) + "\n").encode())

    def _write(self) -> None:
        held = [attempt._asdict() for attempt in self._under_way.values()]
        write(self.folder / "holding.json", sealed(json.dumps({"attempts": held})).encode())


def last_seen(folder: Place) -> float | None:
    """When the study's last driver gave its last sign of life, in unix seconds."""
    driver = claim(folder / "driver.json")
    beat = driver.get("beat") if driver else None
    return float(beat) if isinstance(beat, int | float) else None


def under_way(folder: Place) -> list[Attempt]:
    """The attempts that hold something, or did when their driver died; what is damaged is left out."""
    try:
        found = unsealed(read(folder / "holding.json"))["attempts"]
        return [Attempt(**attempt) for attempt in found]
    except (OSError, DamagedError, KeyError, TypeError):
        return []


def used(folder: Place, now: float | None) -> dict[int, tuple[float, float]]:
    """CPU seconds and GPU seconds of each trial so far; attempts under way count up to `now` (unix seconds)."""
    seconds: dict[tuple[int, int], tuple[Attempt, float]] = {}
    if now is not None:
        for attempt in under_way(folder):
            seconds[attempt[:2]] = attempt, max(now - attempt.since, 0.0)
    for line in _lines(folder):
        length = line.pop("seconds")
        attempt = Attempt(**line)
        seconds[attempt[:2]] = attempt, length
    totals: dict[int, tuple[float, float]] = {}
    for attempt, length in seconds.values():
        cpu, gpu = totals.get(attempt.trial_id, (0.0, 0.0))
        totals[attempt.trial_id] = cpu + length * attempt.cpus, gpu + length * attempt.gpus
    return totals


def _lines(folder: Place) -> list[dict[str, Any]]:
    try:
        lines = read(folder / "usage.jsonl").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(dict(unsealed(line)))
        except DamagedError:  # a crash cut it short
            continue
    return found
