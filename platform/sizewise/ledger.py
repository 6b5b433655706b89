"""The ledger: one atomic record a trial, the truth about configurations, states and values.

A record is written "running" before its trial starts and rewritten when the trial ends; nothing else is ever
needed to resume a study. Every record and every evaluation is sealed (see `sealed`), and the record before the
newest is kept beside it, so that damage is noticed and mended. Only the driver writes here; everyone else reads.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sizewise.sealed import DamagedError, sealed, unsealed
from sizewise_prep.names import PlainName
from sizewise_prep.storage import Place, append_line, make_folder, read, read_all, rename, write

log = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9_-]+")  # what a study, and so its folder, may be called


class Record(BaseModel):
    """One trial: what was asked, how it went, what it was worth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial_id: int
    configuration: int  # which suggestion this is of; replicates share it
    replicate: int = 0
    # `pruned` was stopped early; `infeasible` was never trained, for its size breaks a constraint
    state: Literal["running", "finished", "pruned", "failed", "infeasible"]
    key: PlainName  # names the trial's checkpoints
    params: dict[str, Any]  # what the sampler chose
    config: dict[str, Any]  # all settings, flat
    values: dict[str, float] | None = None  # metrics of the best evaluation by validation AUC
    error: str | None = None  # why it failed
    reason: str | None = None  # why it was pruned or not trained
    violations: dict[
        str, float
    ] = {}  # by constraint: the share of the limit by which it is broken, if above 0
    reuses: int | None = None  # the trial whose training this one continues, or whose evaluations answer it
    trained_epochs: float | None = None  # how far it was really trained
    started: float
    finished: float | None = None
    attempts: int = 1
    lost: dict[int, str] = {}  # why an attempt lost its worker, by its number; the next one went on

    @model_validator(mode="before")
    @classmethod
    def _older(cls, data: Any) -> Any:
        """Before there were replicates, every trial was a configuration of its own."""
        return {"configuration": data["trial_id"], **data} if "trial_id" in data else data


# What a caller is told as it happens: ("started", "began" once its workers train, "evaluated" or a record's state,
# record, metrics or None).
Event = Callable[[str, Record, dict[str, Any] | None], None]


class Ledger:
    """The records of one study, in `folder`, and beside it the trials' evaluations and test scores.

    `check` is called before anything is written, and raises where this process is not to write any more.
    """

    def __init__(self, study: Place, check: Callable[[], None] = lambda: None) -> None:
        self.study, self.check = study, check
        for folder in ("trials", "evaluations", "test"):
            make_folder(study / folder)

    def write(self, record: Record) -> None:
        """Write one record, atomically: after a crash there is the old one or the new one, never half."""
        self.check()
        path = self.study / "trials" / f"{record.trial_id:04d}.json"
        new = sealed(record.model_dump_json(indent=1)).encode()
        old = _content(path)
        # Needed only where the record itself is damaged, which a power cut does not do to it.
        write(path.with_suffix(".before"), old if _readable(path, old) else new, durable=False)
        write(path, new)

    def records(self) -> dict[int, Record]:
        """All records by trial id.

        A damaged one is set aside, saying so, and the one before it takes its place: its trial runs again from
        its last checkpoint. Where that one is damaged too, the trial counts as never started.
        """
        found = {}
        for path, content in read_all(self.study / "trials", "*.json").items():
            record = _readable(path, content)
            if record is None:
                before = _content(path.with_suffix(".before"))
                record = _readable(path, before)
                instead = "the record before it is used" if record else "its trial starts anew"
                log.warning("%s is damaged: set aside as .damaged, %s", path, instead)
                rename(path, f"{path.stem}.damaged")
                if record:
                    write(path, before)
            if record:
                found[record.trial_id] = record
        return found

    def evaluations(self, trial_id: int) -> list[dict[str, Any]]:
        """A trial's evaluations as far as they are readable, undefined metrics as NaN."""
        try:
            text = read(self.study / "evaluations" / f"{trial_id:04d}.jsonl")
        except FileNotFoundError:
            return []
        rows: dict[int, dict[str, Any]] = {}  # a resumed trial may have written an iteration twice
        for line in text.splitlines():
            try:
                row = unsealed(line)
                if row.pop("trial_id") == trial_id:
                    rows[row["iteration"]] = {k: math.nan if v is None else v for k, v in row.items()}
            except (DamagedError, KeyError):
                continue
        return [rows[iteration] for iteration in sorted(rows)]

    def test(self, trial_id: int) -> dict[str, Any] | None:
        """A trial's test scores, to copy and never to decide by."""
        try:
            scores = unsealed(read(self.study / "test" / f"{trial_id:04d}.json"))
        except (OSError, DamagedError):
            return None
        return scores if scores.pop("trial_id", None) == trial_id else None

    def append_evaluation(self, trial_id: int, row: Mapping[str, Any]) -> None:
        """Add one evaluation as it happens; a crash may cut this line short, and readers skip such a line."""
        self.check()
        line = json_line({"trial_id": trial_id, **row}).encode()
        append_line(self.study / "evaluations" / f"{trial_id:04d}.jsonl", line)

    def write_evaluations(self, trial_id: int, rows: list[dict[str, Any]]) -> None:
        """Replace a trial's evaluations by the complete list that its checkpoint carries."""
        self.check()
        text = "".join(json_line({"trial_id": trial_id, **row}) for row in rows)
        write(self.study / "evaluations" / f"{trial_id:04d}.jsonl", text.encode())

    def sound(self, record: Record) -> bool:
        """Whether the evaluations of a trial that has ended can all be read, and are its own up to its end."""
        try:
            lines = read(self.study / "evaluations" / f"{record.trial_id:04d}.jsonl").splitlines()
            rows = [unsealed(line) for line in lines]
        except (DamagedError, OSError):
            return False
        ended = record.trained_epochs is None or any(
            row.get("epoch") == record.trained_epochs for row in rows
        )
        return bool(rows) and ended and all(row.get("trial_id") == record.trial_id for row in rows)

    def write_test(self, trial_id: int, scores: Mapping[str, Any]) -> None:
        """Keep a trial's test scores where no decision reads them."""
        self.check()
        line = json_line({"trial_id": trial_id, **scores})
        write(self.study / "test" / f"{trial_id:04d}.json", line.encode())


def json_line(row: Mapping[str, Any]) -> str:
    """One sealed line of strict JSON; NaN and infinities, which JSON lacks, become null."""
    finite = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
    return sealed(json.dumps(finite, allow_nan=False)) + "\n"


def _content(path: Place) -> bytes:
    """What a file holds; nothing where there is none."""
    try:
        return read(path)
    except FileNotFoundError:
        return b""


def _readable(path: Place, content: bytes | OSError) -> Record | None:
    """The record that a file holds; None where there is none, a damaged one, or that of another trial."""
    try:
        record = None if isinstance(content, OSError) else Record.model_validate(unsealed(content))
    except (DamagedError, ValidationError):
        return None
    return record if record and path.stem == f"{record.trial_id:04d}" else None
