"""What decides in a study: which configuration is next, and what a trial's evaluations and its end mean. No Ray here.

A backend carries the decisions out and says what happened: `tune` on Ray's workers. It asks for `next_trial`,
and reports with `evaluated`, `finished` and `failed`; everything that must survive goes into the ledger before
the call returns.
"""

import getpass
import tempfile
from pathlib import Path
from typing import Any

from sizewise.ledger import Event, Record
from sizewise.search import Search
from sizewise.spec import StudySpec
from sizewise_prep.storage import Place, make_folder, write


class Engine:
    """One study's decisions, for whichever backend runs its trials."""

    def __init__(self, spec: StudySpec, folder: Place, search: Search, on_event: Event) -> None:
        self.spec, self.folder, self.search, self.on_event = spec, folder, search, on_event

    @property
    def remaining(self) -> int:
        """Trials still to run, interrupted ones included."""
        return self.search.remaining

    @property
    def scratch(self) -> Path:
        """Where Ray may keep files of its own, which nothing ever needs again: beside ours, if Ray can write there."""
        if isinstance(self.folder, Path):
            return self.folder / "logs"
        return Path(tempfile.gettempdir()) / f"sizewise-{getpass.getuser()}" / self.spec.name

    def next_trial(self) -> Record:
        """The next trial, in the ledger as running."""
        record = self.search.ask()
        self.on_event("started", record, None)
        return record

    def payload(self, record: Record) -> dict[str, Any]:
        """What a worker needs to train a trial."""
        return {
            "config": self.search.config(record).model_dump(),
            "folder": str(self.folder / "checkpoints" / record.key),
        }

    def evaluated(self, trial_id: int, evaluation: dict[str, Any]) -> None:
        """Take an evaluation, as it happens."""
        self.search.ledger.append_evaluation(trial_id, evaluation)
        self.on_event("evaluated", self.search.records[trial_id], evaluation)

    def finished(self, trial_id: int, evaluations: list[dict[str, Any]], test: dict[str, Any]) -> None:
        """Close a trial that ran to its end: all its evaluations, and the test scores of its best one."""
        self.search.ledger.write_evaluations(trial_id, evaluations)
        self.search.ledger.write_test(trial_id, test)
        self._closed(self.search.finish(trial_id, evaluations))

    def failed(self, trial_id: int, reason: str, traceback: str = "") -> None:
        """Close a trial that failed; its traceback goes into the study's logs."""
        if traceback:
            make_folder(self.folder / "logs")
            write(self.folder / "logs" / f"{trial_id:04d}.txt", traceback.encode())
        self._closed(self.search.fail(trial_id, reason))

    def _closed(self, record: Record) -> None:
        self.on_event(record.state, record, record.values)
