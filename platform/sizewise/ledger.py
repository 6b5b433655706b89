"""The ledger: one atomic record a trial, the truth about configurations, states and values.

A record is written "running" before its trial starts and rewritten when the trial ends; nothing else is ever
needed to resume a study. Every record and every evaluation is sealed (see `sealed`), and the record before the
newest is kept beside it, so that damage is noticed and mended. Only the driver writes here; everyone else reads.
"""

import errno
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sizewise.sealed import DamagedError, sealed, unsealed
from sizewise_prep.atomic import write_atomic

log = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9_-]+")  # what a study, and so its folder, may be called


class Record(BaseModel):
    """One trial: what was asked, how it went, what it was worth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial_id: int  # Optuna's trial number
    replicate: int = 0
    state: Literal["running", "finished", "failed"]
    key: str  # names the trial's checkpoints
    params: dict[str, Any]  # what the sampler chose
    config: dict[str, Any]  # all settings, flat
    values: dict[str, float] | None = None  # metrics of the best evaluation by validation AUC
    error: str | None = None
    started: float
    finished: float | None = None
    attempts: int = 1


# What a caller is told as it happens: ("started" | "evaluated" | "finished" | "failed", record, metrics or None).
Event = Callable[[str, Record, dict[str, Any] | None], None]


class Ledger:
    """The records of one study, in `folder`, and beside it the trials' evaluations and test scores."""

    def __init__(self, study: Path) -> None:
        self.study = study
        for folder in ("trials", "evaluations", "test"):
            (study / folder).mkdir(parents=True, exist_ok=True)

    def write(self, record: Record) -> None:
        """Write one record, atomically: after a crash there is the old one or the new one, never half."""
        path = self.study / "trials" / f"{record.trial_id:04d}.json"
        new = sealed(record.model_dump_json(indent=1)).encode()
        write_atomic(path.with_suffix(".before"), path.read_bytes() if _readable(path) else new)
        write_atomic(path, new)

    def records(self) -> dict[int, Record]:
        """All records by trial id.

        A damaged one is set aside, saying so, and the one before it takes its place: its trial runs again from
        its last checkpoint. Where that one is damaged too, the trial counts as never started.
        """
        found = {}
        for path in sorted((self.study / "trials").glob("*.json")):
            record = _readable(path)
            if record is None:
                before = path.with_suffix(".before")
                record = _readable(before)
                instead = "the record before it is used" if record else "its trial starts anew"
                log.warning("%s is damaged: set aside as .damaged, %s", path, instead)
                path.rename(path.with_suffix(".damaged"))
                if record:
                    write_atomic(path, before.read_bytes())
            if record:
                found[record.trial_id] = record
        return found

    def append_evaluation(self, trial_id: int, row: Mapping[str, Any]) -> None:
        """Add one evaluation as it happens; a crash may cut this line short, and readers skip such a line."""
        line = json_line({"trial_id": trial_id, **row}).encode()
        with (self.study / "evaluations" / f"{trial_id:04d}.jsonl").open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end and file.seek(end - 1) and file.read(1) != b"\n":
                line = b"\n" + line  # a crash cut the line before this one short
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
            except OSError:
                file.truncate(end)  # no half line where the disk is full
                raise

    def write_evaluations(self, trial_id: int, rows: list[dict[str, Any]]) -> None:
        """Replace a trial's evaluations by the complete list that its checkpoint carries."""
        text = "".join(json_line({"trial_id": trial_id, **row}) for row in rows)
        write_atomic(self.study / "evaluations" / f"{trial_id:04d}.jsonl", text.encode())

    def sound(self, trial_id: int) -> bool:
        """Whether a trial's evaluations can all be read."""
        try:
            lines = (self.study / "evaluations" / f"{trial_id:04d}.jsonl").read_bytes().splitlines()
            return bool([unsealed(line) for line in lines])
        except (DamagedError, OSError):
            return False

    def write_test(self, trial_id: int, scores: Mapping[str, Any]) -> None:
        """Keep a trial's test scores where no decision reads them."""
        line = json_line({"trial_id": trial_id, **scores})
        write_atomic(self.study / "test" / f"{trial_id:04d}.json", line.encode())


def json_line(row: Mapping[str, Any]) -> str:
    """One sealed line of strict JSON; NaN and infinities, which JSON lacks, become null."""
    finite = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
    return sealed(json.dumps(finite, allow_nan=False)) + "\n"


def _readable(path: Path) -> Record | None:
    """The record in a file; None where there is none, or a damaged one."""
    try:
        return Record.model_validate(unsealed(path.read_bytes()))
    except (DamagedError, ValidationError, OSError):
        return None
