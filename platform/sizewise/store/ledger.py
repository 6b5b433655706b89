"""The ledger: one atomic record a trial, the truth about configurations, states and values.

A record is written "running" before its trial starts and rewritten when the trial ends; nothing else is ever
needed to resume a study. Every record and every evaluation is sealed (see `sealed`), and the record before the
newest is kept beside it, so that damage is noticed and repaired. Only the driver writes here; everyone else reads.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sizewise_core.errors import InputError, first_problem
from sizewise_core.local_files import TooLargeError
from sizewise_core.names import PlainName
from sizewise_core.sealed import DamagedError, has_seal, sealed, unsealed
from sizewise_core.storage import (
    Place,
    append_line,
    entries,
    make_folder,
    read,
    remove,
    rename,
    write,
)
from sizewise_core.storage_contents import read_entries

log = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")  # what a study, and so its folder, may be called
MOST_BYTES = 16 << 20
"""Of a record, which has a few thousand."""
MOST_CURVE_BYTES = 128 << 20
"""Of a trial's evaluations."""
MOST_LINE_BYTES = 1 << 20
"""Of one evaluation, which has some hundreds."""

Identity = Annotated[int, Field(ge=0, le=10**9)]  # of a trial, a configuration, a replicate, an attempt


class Record(BaseModel):
    """One trial: its configuration, how it ended, and its outcome."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial_id: Identity
    configuration: Identity  # which suggestion this is of; replicates share it
    replicate: Identity = 0
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
    reuses: Identity | None = (
        None  # the trial whose training this one continues, or whose evaluations answer it
    )
    trained_epochs: float | None = None  # epochs that it was trained for
    started: float
    finished: float | None = None
    attempts: Identity = 1
    lost: dict[
        Identity, str
    ] = {}  # why an attempt lost its worker, by its number; the next attempt continued
    evaluations: int | None = None  # how many were written; unknown while it runs, and to older versions
    tested: bool | None = None  # whether test scores were written
    teacher: Identity | None = None  # its number among the teachers that the study trains for its students

    @model_validator(mode="before")
    @classmethod
    def _older(cls, data: Any) -> Any:
        """Before there were replicates, every trial was a configuration of its own."""
        return {"configuration": data["trial_id"], **data} if "trial_id" in data else data


class _Closed(Protocol):
    """The fields of a record by which its evaluations are counted; readers have records of their own."""

    @property
    def state(self) -> str: ...
    @property
    def values(self) -> Mapping[str, float | None] | None: ...
    @property
    def trained_epochs(self) -> float | None: ...
    @property
    def evaluations(self) -> int | None: ...


# Called with what happens, as it happens: ("started", "began" once its workers train, "evaluated" or a record's state,
# record, metrics or None).
Event = Callable[[str, Record, dict[str, Any] | None], None]


class Ledger:
    """The records of one study, in `folder`, and beside it the trials' evaluations and test scores.

    `check` is called before anything is written, and raises where this process is not to write any more.
    """

    def __init__(self, study: Place, check: Callable[[], None] = lambda: None) -> None:
        self.study, self.check = study, check
        self._counts: dict[int, int] = {}  # evaluations of a trial, as far as they were written here
        for folder in ("trials", "evaluations", "test"):
            make_folder(study / folder)

    def write(self, record: Record) -> None:
        """Write one record, atomically: after a crash there is the old one or the new one, never half."""
        self.check()
        path = self._path("trials", record.trial_id, ".json")
        silent = {"teacher"} if record.teacher is None else None  # as in most studies, and in those of before
        new = sealed(record.model_dump_json(indent=1, exclude=silent)).encode()
        old = _content(path)
        # Needed only where the record itself is damaged, which a power cut does not do to it.
        write(path.with_suffix(".before"), old if _readable(path, old) else new, durable=False)
        write(path, new)
        if record.evaluations is not None:
            remove(self._path("evaluations", record.trial_id, ".count"))

    def records(self) -> dict[int, Record]:
        """All records by trial id.

        A damaged one is set aside, saying so, and the one before it takes its place: its trial runs again from
        its last checkpoint. Where that one is damaged too, the trial counts as never started.

        Raises:
            InputError: a record that cannot be read, or that a newer version wrote: neither is damaged.
        """
        listed = entries(self.study / "trials")
        found = {}
        for path, content in read_entries(
            [entry for entry in listed if entry.path.name.endswith(".json")], MOST_BYTES
        ).items():
            _refuse(path, content)
            record = _readable(path, content) or self._before(path, "is damaged: set aside as .damaged")
            if record:
                found[record.trial_id] = record
        names = {entry.path.name for entry in listed}
        for entry in listed:
            path = entry.path.with_suffix(".json")
            if entry.path.name.endswith(".before") and path.name not in names:
                record = self._before(path, "is missing")
                if record:
                    found[record.trial_id] = record
        return dict(sorted(found.items()))

    def _before(self, path: Place, what: str) -> Record | None:
        """The record before a damaged or missing one, which takes its place; None where that is no better."""
        before = _content(path.with_suffix(".before"))
        record = _readable(path, before)
        instead = "the record before it is used" if record else "its trial starts anew"
        log.warning("%s %s, %s", path, what, instead)
        if what != "is missing":
            rename(path, f"{path.stem}.damaged")
        if record:
            write(path, before)
        elif what == "is missing":  # that has now been said
            remove(path.with_suffix(".before"))
        return record

    def evaluations(self, trial_id: int) -> list[dict[str, Any]]:
        """A trial's evaluations as far as they are readable, undefined metrics as NaN."""
        rows: dict[int, dict[str, Any]] = {}  # a resumed trial may have written an iteration twice
        for line in self._lines(trial_id):
            try:
                row = evaluation_of(line, trial_id)
            except DamagedError:
                continue
            del row["trial_id"]
            rows[row["iteration"]] = {k: math.nan if v is None else v for k, v in row.items()}
        return [rows[iteration] for iteration in sorted(rows)]

    def test(self, trial_id: int) -> dict[str, Any] | None:
        """A trial's test scores, to copy and never to decide by."""
        try:
            scores = unsealed(read(self._path("test", trial_id, ".json"), MOST_BYTES))
        except (OSError, DamagedError):
            return None
        return scores if scores.pop("trial_id", None) == trial_id else None

    def append_evaluation(self, trial_id: int, row: Mapping[str, Any]) -> None:
        """Add one evaluation as it happens; a crash may cut this line short, and readers skip such a line."""
        self.check()
        line = json_line({"trial_id": trial_id, **row}).encode()
        append_line(self._path("evaluations", trial_id, ".jsonl"), line)
        self._counted(trial_id, self._counts.get(trial_id, 0) + 1)

    def write_evaluations(self, trial_id: int, rows: list[dict[str, Any]]) -> None:
        """Replace a trial's evaluations by the complete list that its checkpoint carries."""
        self.check()
        text = "".join(json_line({"trial_id": trial_id, **row}) for row in rows)
        write(self._path("evaluations", trial_id, ".jsonl"), text.encode())
        self._counted(trial_id, len(rows))

    def count(self, trial_id: int) -> int | None:
        """How many evaluations of a trial were written; None where that is not known."""
        if trial_id not in self._counts:
            known = counted(_content(self._path("evaluations", trial_id, ".count")), trial_id)
            if known is None:
                return None
            self._counts[trial_id] = known
        return self._counts[trial_id]

    def _counted(self, trial_id: int, count: int) -> None:
        """Keep how many evaluations there are, so that lines which vanish are missed; the record does so in the end."""
        self._counts[trial_id] = count
        line = json_line({"trial_id": trial_id, "evaluations": count}).encode()
        # A power cut may cost this file or the newest lines: then they are unknown, or missed for a while.
        write(self._path("evaluations", trial_id, ".count"), line, durable=False)

    def intact(self, record: Record) -> bool:
        """Whether the evaluations of a trial that has ended can all be read, and are its own up to its end."""
        try:
            rows = [evaluation_of(line, record.trial_id) for line in self._lines(record.trial_id)]
        except DamagedError:
            return False
        return not missing_evaluations(record, [(row["iteration"], row.get("epoch")) for row in rows])

    def incomplete(self, records: Iterable[Record]) -> list[int]:
        """Trials that have ended with evaluations of which some are damaged or gone."""
        ended = [record for record in records if record.state in ("finished", "pruned")]
        return [record.trial_id for record in ended if not self.intact(record)]

    def _lines(self, trial_id: int) -> list[bytes]:
        try:
            text = read(self._path("evaluations", trial_id, ".jsonl"), MOST_CURVE_BYTES)
        except (FileNotFoundError, TooLargeError):
            return []
        return [line for line in text.split(b"\n") if line.strip()]

    def _path(self, part: str, trial_id: int, ending: str) -> Place:
        return self.study / part / f"{trial_id:04d}{ending}"

    def write_test(self, trial_id: int, scores: Mapping[str, Any]) -> None:
        """Keep a trial's test scores where no decision reads them."""
        self.check()
        line = json_line({"trial_id": trial_id, **scores})
        write(self._path("test", trial_id, ".json"), line.encode())


def json_line(row: Mapping[str, Any]) -> str:
    """One sealed line of strict JSON; NaN and infinities, which JSON lacks, become null."""
    finite = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
    return sealed(json.dumps(finite, allow_nan=False)) + "\n"


def evaluation_of(line: bytes, trial_id: int) -> dict[str, Any]:
    """The evaluation in a line of a trial's file.

    Raises:
        DamagedError: not what was written, or nothing that an evaluation can be, or another trial's.
    """
    if len(line) > MOST_LINE_BYTES:
        raise DamagedError("longer than an evaluation can be")
    row = unsealed(line)
    if type(row.get("trial_id")) is not int or type(row.get("iteration")) is not int:
        raise DamagedError("no evaluation")
    if row["trial_id"] != trial_id:
        raise DamagedError(f"of trial {row['trial_id']}")
    auc = row.get("auc")
    if not all(map(_is_measurable, row.values())) or (
        isinstance(auc, int | float) and not (0 <= auc <= 1 or auc != auc)
    ):
        raise DamagedError("holds what was never measured")
    return row


def _is_measurable(value: Any) -> bool:
    """Whether a table can hold it. NaN is what an older version wrote where a metric was undefined."""
    if isinstance(value, int | float):
        return value != value or abs(value) <= 2**62
    return value is None or isinstance(value, str)


def counted(content: bytes, trial_id: int) -> int | None:
    """How many evaluations a trial had by what is kept of it; None where that cannot be read."""
    try:
        fields = unsealed(content)
    except DamagedError:
        return None
    count = fields.get("evaluations")
    return count if type(count) is int and fields.get("trial_id") == trial_id else None


def missing_evaluations(
    record: _Closed, found: Sequence[tuple[int, float | None]], count: int | None = None
) -> str:
    """What the evaluations of a trial lack, by its record; nothing where they are complete as far as is known.

    Args:
        record: the trial's.
        found: iteration and epoch of those that can be read.
        count: how many there are, where the record does not say.
    """
    there = len({iteration for iteration, _ in found})
    count = count if record.evaluations is None else record.evaluations
    if count is not None and there < count:
        return f"holds {there:,} of {count:,} evaluations"
    if record.state == "running" or record.evaluations is not None:
        return ""
    # An older version did not count: but it kept the best evaluation, and where the trial ended.
    best = (record.values or {}).get("iteration")
    if best is not None and all(iteration != best for iteration, _ in found):
        return f"lacks the evaluation at iteration {best:,.0f}, the best of its trial"
    if record.trained_epochs is not None and all(epoch != record.trained_epochs for _, epoch in found):
        return "does not reach the end of its trial"
    return "" if found or record.state in ("failed", "infeasible") else "holds nothing"


def _content(path: Place) -> bytes:
    """What a file holds; nothing where there is none, or far too much."""
    try:
        return read(path, MOST_BYTES)
    except (FileNotFoundError, TooLargeError):
        return b""


def _refuse(path: Place, content: bytes | OSError) -> None:
    """Refuse a record that is not damaged and yet not readable.

    Raises:
        InputError: its disk or its permissions are at fault, or a newer version wrote it.
    """
    if isinstance(content, OSError):
        if not isinstance(content, TooLargeError):
            raise InputError(f"{path}: cannot be read ({content.strerror or content}): restore the file")
        return
    try:
        Record.model_validate(unsealed(content))
    except ValidationError as error:
        if has_seal(content):
            raise InputError(
                f"{path}: is not what this version writes ({first_problem(error)}): use the newer version that did"
            ) from None
    except DamagedError:
        return


def _readable(path: Place, content: bytes | OSError) -> Record | None:
    """The record that a file holds; None where there is none, a damaged one, or that of another trial."""
    try:
        record = None if isinstance(content, OSError) else Record.model_validate(unsealed(content))
    except (DamagedError, ValidationError):
        return None
    return record if record and path.stem == f"{record.trial_id:04d}" else None
