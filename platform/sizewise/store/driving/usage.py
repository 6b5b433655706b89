"""What a study uses: the seconds for which its trials hold CPUs and GPUs, every attempt counted.

An attempt holds from the moment that its worker begins to the moment that it ends, evaluations included. Attempts
that ended are lines of `usage.jsonl`; those under way are in `holding.json`, so that a driver that is killed loses
no second of them: the next one closes them at the last sign of life that the killed one gave. The two files are
written one after the other; an attempt that is in both counts as ended. `holding.json` also says how many attempts
have ended, so that lines which vanish are missed.

Lengths are of the driver's monotonic clock, which nobody can set: what a study costs never depends on the time of
day. Its readings mean nothing to another process, so an attempt under way is as long as its own driver's last
heartbeat says.
"""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sizewise.store.driving.heartbeat import DriverFacts, claim
from sizewise.store.study_folder import MOST_BYTES, MOST_CURVE_BYTES, StudyFolder
from sizewise_core.files.sealed import DamagedError, sealed, unsealed
from sizewise_core.stores.storage import Place, append_line, read, write

_MOST = 1e12  # seconds and processors, beyond which nothing was measured


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


class Held(NamedTuple):
    """What `holding.json` says: the attempts under way, of which driver, and how many have ended by its count."""

    driver: object
    attempts: list[Attempt]
    ended: int


NOTHING = Held(None, [], 0)  # where there is no such file, or a damaged one


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
        self._ended: int | None = None  # how many attempts have; unknown until first asked for

    def settle(self, last_seen: Sign | None) -> None:
        """Close what a driver that died was holding, at its last sign of life."""
        ended = {attempt[:2] for attempt, _ in _lines(self.folder, [], False)}
        for attempt, seconds in under_way(self.folder, last_seen):
            if attempt[:2] not in ended:
                self._end(attempt, seconds)
        self._write()

    def begin(self, trial_id: int, attempt: int, cpus: float, gpus: float) -> None:
        """An attempt's workers have begun.

        Args:
            trial_id: the trial.
            attempt: the number of the attempt.
            cpus: CPU cores that its workers hold.
            gpus: GPUs that they hold.
        """
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
        before = self._before()
        append_line(StudyFolder(self.folder).usage, (sealed(json.dumps(line)) + "\n").encode())
        self._ended = before + 1

    def _before(self) -> int:
        """How many attempts had ended before this: as was counted, even where their lines are gone since."""
        if self._ended is None:
            self._ended = max(_held(self.folder).ended, len(_lines(self.folder, [], False)))
        return self._ended

    def _write(self) -> None:
        self._check()
        held = [attempt._asdict() for attempt in self._under_way.values()]
        content = {"driver": self._claim, "attempts": held, "ended": self._before()}
        write(StudyFolder(self.folder).holding, sealed(json.dumps(content)).encode())


def last_seen(folder: Place) -> Sign | None:
    """The last sign of life of the study's last driver."""
    driver = claim(StudyFolder(folder).driver) or DriverFacts()
    at: Any = driver.get("monotonic")
    measured = isinstance(at, int | float) and abs(at) <= _MOST
    return Sign(str(driver.get("claim")), float(at)) if measured else None


def under_way(folder: Place, seen: Sign | None) -> list[tuple[Attempt, float]]:
    """The attempts that hold something, or did when their driver died, and for how many seconds by then.

    What is damaged is left out; an attempt of another driver than the one `seen` is of no known length.
    """
    held = _held(folder)
    own = seen is not None and held.driver == seen.claim
    return [
        (attempt, max(seen.at - attempt.since, 0.0) if own and seen else 0.0) for attempt in held.attempts
    ]


def used(
    folder: Place, seen: Sign | None, problems: list[str] | None = None, growing: bool = False
) -> dict[int, Used]:
    """What each trial has used so far; attempts under way count up to their driver's last sign of life.

    Args:
        folder: the study's.
        seen: the last sign of life, from `last_seen`.
        problems: gets a line for what could not be read or is gone.
        growing: a driver is at work.

    Returns:
        By trial: seconds, CPU seconds and GPU seconds.
    """
    problems = [] if problems is None else problems
    known = len(problems)
    held = _held(folder, problems)
    unsaid = held is NOTHING and len(problems) == known
    seconds = {attempt[:2]: (attempt, length) for attempt, length in under_way(folder, seen)}
    lines = _lines(folder, problems, growing)
    if len(lines) < held.ended:
        problems.append(f"usage.jsonl holds {len(lines):,} of {held.ended:,} attempts: the cost is too low")
    if lines and unsaid:
        problems.append("holding.json is missing: the cost of attempts under way is not counted")
    for attempt, length in lines:
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


def _held(folder: Place, problems: list[str] | None = None) -> Held:
    """What `holding.json` says; nothing, with a line in `problems`, where it cannot be read."""
    try:
        fields = unsealed(read(StudyFolder(folder).holding, MOST_BYTES))
        listed, ended = fields.get("attempts", []), fields.get("ended")
        if not isinstance(listed, list):
            raise DamagedError("attempts: not a list")
        # An older version did not count those that ended.
        return Held(fields.get("driver"), [_attempt(a) for a in listed], ended if type(ended) is int else 0)
    except FileNotFoundError:
        return NOTHING
    except OSError as error:
        why = error.strerror or str(error)
    except DamagedError as error:
        why = str(error)
    if problems is not None:
        problems.append(f"holding.json was skipped ({why})")
    return NOTHING


def _attempt(fields: Any) -> Attempt:
    """One attempt, its numbers as they can be. Raises DamagedError."""
    try:
        attempt = Attempt(**fields)
    except TypeError:
        raise DamagedError("not an attempt at a trial") from None
    if not all(isinstance(value, int | float) and abs(value) <= _MOST for value in attempt):
        raise DamagedError("not an attempt at a trial")
    if type(attempt.trial_id) is not int or type(attempt.attempt) is not int:
        raise DamagedError("not an attempt at a trial")
    return attempt


def _lines(folder: Place, problems: list[str], growing: bool) -> list[tuple[Attempt, float]]:
    """Attempts that have ended, and how many seconds they took; `problems` gets a line for each that is damaged."""
    try:
        text = read(StudyFolder(folder).usage, MOST_CURVE_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"usage.jsonl was skipped ({error.strerror or error})")
        return []
    found = []
    lines = text.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = unsealed(line)
            length = fields.pop("seconds", None)
            if not isinstance(length, int | float) or not 0 <= length <= _MOST:
                raise DamagedError("seconds: not a length")
            found.append((_attempt(fields), float(length)))
        except DamagedError:  # a crash may have cut it short
            if not (growing and number == len(lines)):
                problems.append(f"usage.jsonl: line {number} is damaged and was left out")
    return found
