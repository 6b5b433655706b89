"""What decides in a study: which configuration is next, and what a trial's evaluations and its end mean. No Ray here.

A backend carries the decisions out and says what happened: `tune` on Ray's workers. It asks for `next_trial`,
and reports with `resumed`, `evaluated`, `finished`, `failed` and `lost`; everything that must survive goes into
the ledger before the call returns. What cannot be written (a full disk) pauses the study, as `pause` does for
whatever else is no trial's fault: the backend starts nothing more and stops, and the study can be resumed.
"""

import getpass
import logging
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sizewise import checkpoint
from sizewise.ledger import Event, Record
from sizewise.search import Search
from sizewise.spec import StudySpec
from sizewise.usage import Usage
from sizewise_prep.storage import Place, make_folder, write

log = logging.getLogger(__name__)


class Engine:
    """One study's decisions, for whichever backend runs its trials."""

    def __init__(self, spec: StudySpec, folder: Place, search: Search, on_event: Event) -> None:
        self.spec, self.folder, self.search, self.on_event = spec, folder, search, on_event
        self.paused: str | None = None  # why nothing goes on
        self.usage = Usage(folder)
        self._open: set[int] = set()  # trials that the backend has
        self._again: deque[int] = deque()  # trials to be started once more
        self._losses: Counter[int] = Counter()  # of a trial, since it last got on

    @property
    def remaining(self) -> int:
        """Trials still to run, interrupted ones included."""
        return self.search.remaining

    @property
    def scratch(self) -> Path:
        """Where Ray may keep files of its own: see `scratch`."""
        return scratch(self.spec, self.folder)

    @property
    def waiting(self) -> int:
        """Trials that the backend could start now."""
        return 0 if self.paused else self.remaining - len(self._open)

    def next_trial(self) -> Record | None:
        """The next trial, in the ledger as running; None where the study is paused."""
        record = None
        with self._or_pause():
            record = self.search.again(self._again.popleft()) if self._again else self.search.ask()
            self._open.add(record.trial_id)
            self.on_event("started", record, None)
        return record

    def payload(self, record: Record) -> dict[str, Any]:
        """What a worker needs to train a trial."""
        return {
            "config": self.search.config(record).model_dump(),
            "folder": str(self.folder / "checkpoints" / record.key),
            "resources": self.spec.resources.model_dump(),
            "uses": self._uses(),
        }

    def began(self, trial_id: int) -> None:
        """Take that a trial's workers have begun, and hold what they asked for."""
        uses = self._uses()
        with self._or_pause():
            attempts = self.search.records[trial_id].attempts
            self.usage.begin(trial_id, attempts, uses["cpu_seconds"], uses["gpu_seconds"])

    def progress(self, trial_id: int) -> Any:
        """What of a trial changes while it gets on without a word."""
        return checkpoint.newest(self.folder / "checkpoints" / self.search.records[trial_id].key)

    def resumed(self, trial_id: int, evaluations: list[dict[str, Any]], damage: list[str]) -> None:
        """Take what a trial's checkpoint carried: the crash may have come before its report."""
        for line in damage:
            log.warning("trial %d: %s", trial_id, line)
        with self._or_pause():
            self.search.ledger.write_evaluations(trial_id, evaluations)

    def evaluated(self, trial_id: int, evaluation: dict[str, Any]) -> None:
        """Take an evaluation, as it happens."""
        del self._losses[trial_id]
        with self._or_pause():
            self.search.ledger.append_evaluation(trial_id, evaluation)
            self.on_event("evaluated", self.search.records[trial_id], evaluation)

    def finished(self, trial_id: int, evaluations: list[dict[str, Any]], test: dict[str, Any]) -> None:
        """Close a trial that ran to its end: all its evaluations, and the test scores of its best one."""
        with self._or_pause():
            self.search.ledger.write_evaluations(trial_id, evaluations)
            self.search.ledger.write_test(trial_id, test)
            self._closed(self.search.finish(trial_id, evaluations))

    def failed(self, trial_id: int, reason: str, traceback: str = "") -> None:
        """Close a trial that failed by its own doing; its traceback goes into the study's logs."""
        with self._or_pause():
            if traceback:
                make_folder(self.folder / "logs")
                write(self.folder / "logs" / f"{trial_id:04d}.txt", traceback.encode())
            self._closed(self.search.fail(trial_id, reason))

    def lost(self, trial_id: int, reason: str, traceback: str = "") -> None:
        """Have a trial go on from its checkpoint elsewhere: its worker or machine went away, which is no failure."""
        self._losses[trial_id] += 1
        with self._or_pause():
            self.usage.end(trial_id)
        if (times := self._losses[trial_id]) > self.spec.failures.retries:
            self.failed(
                trial_id, f"lost its worker {times} times without an evaluation between: {reason}", traceback
            )
            return
        log.warning("trial %d: lost its worker (%s): it goes on from its last checkpoint", trial_id, reason)
        self._open.discard(trial_id)
        self._again.append(trial_id)

    def pause(self, reason: str) -> None:
        """Stop, with everything written that there is, because of something that no trial is to blame for."""
        self.paused = self.paused or reason

    def mend(self) -> None:
        """Write the evaluations of finished trials anew where they are damaged: the checkpoints have them too."""
        for trial_id, record in self.search.records.items():
            if record.state == "finished" and not self.search.ledger.sound(trial_id):
                state = checkpoint.load_newest(checkpoint.current(self.folder / "checkpoints" / record.key))
                mended = "no checkpoint has them" if state is None else "written anew from its checkpoint"
                log.warning("trial %d: its evaluations are damaged: %s", trial_id, mended)
                if state is not None:
                    self.search.ledger.write_evaluations(trial_id, state["evaluations"])

    def _uses(self) -> dict[str, float]:
        """CPUs and GPUs of all workers of a trial."""
        wanted = self.spec.resources
        return {
            "cpu_seconds": wanted.workers * wanted.cpus_per_worker,
            "gpu_seconds": wanted.workers * wanted.gpus_per_worker,
        }

    def _closed(self, record: Record) -> None:
        self.usage.end(record.trial_id)
        self._open.discard(record.trial_id)
        self.on_event(record.state, record, record.values)

    @contextmanager
    def _or_pause(self) -> Iterator[None]:
        """What cannot be written pauses the study: its trials are as the disk last knew them."""
        try:
            yield
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self.pause(f"{where}{error.strerror or error}")


def scratch(spec: StudySpec, folder: Place) -> Path:
    """Where logs go, and Ray's own files, which nothing ever needs again: beside ours, if Ray can write there."""
    if isinstance(folder, Path):
        return folder / "logs"
    return Path(tempfile.gettempdir()) / f"sizewise-{getpass.getuser()}" / spec.name
