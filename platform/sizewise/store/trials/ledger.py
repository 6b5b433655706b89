"""The ledger: one atomic record a trial, the truth about configurations, states and values.

A record is written "running" before its trial starts and rewritten when the trial ends; nothing else is ever
needed to resume a study. Every record and every evaluation is sealed (see `sealed`), and the record before the
newest is kept beside it, so that damage is noticed and repaired. Only the driver writes here; everyone else reads.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from sizewise.metrics.evaluation import Evaluation, TestScores
from sizewise.store.records import Record, read_record
from sizewise.store.study_folder import (
    MOST_BYTES,
    MOST_CURVE_BYTES,
    NAME,
    PARTS,
    StudyFolder,
    before,
    damaged,
    number_name,
)
from sizewise.store.trials.evaluations import (
    counted,
    evaluation_line,
    evaluation_of,
    json_line,
    lines_of,
    missing_evaluations,
)
from sizewise_core.errors import InputError, first_problem
from sizewise_core.files.local_files import TooLargeError
from sizewise_core.files.sealed import DamagedError, has_seal, sealed, unsealed
from sizewise_core.stores.storage import Place, append_line, entries, make_folder, read, remove, rename, write
from sizewise_core.stores.storage_contents import read_entries

__all__ = ["NAME", "Event", "Ledger", "Record"]

log = logging.getLogger(__name__)
# Called with what happens, as it happens: ("started", "began" once its workers train, "evaluated" or a record's state,
# record, metrics or None).
Event = Callable[[str, Record, Mapping[str, float] | None], None]


class Ledger:
    """The records of one study, in `folder`, and beside it the trials' evaluations and test scores.

    `check` is called before anything is written, and raises where this process is not to write any more.
    """

    def __init__(self, study: Place, check: Callable[[], None] = lambda: None) -> None:
        self.study, self.check = study, check
        self.files = StudyFolder(study)
        self._counts: dict[int, int] = {}  # evaluations of a trial, as far as they were written here
        for part in PARTS:
            make_folder(self.files.part(part))

    def write(self, record: Record) -> None:
        """Write one record, atomically: after a crash there is the old one or the new one, never half."""
        self.check()
        path = self.files.record(record.trial_id)
        silent = {"teacher"} if record.teacher is None else None  # as in most studies, and in those of before
        new = sealed(record.model_dump_json(indent=1, exclude=silent)).encode()
        old = _content(path)
        # Needed only where the record itself is damaged, which a power cut does not do to it.
        write(before(path), old if _readable(path, old) else new, durable=False)
        write(path, new)
        if record.evaluations is not None:
            remove(self.files.count(record.trial_id))

    def records(self) -> dict[int, Record]:
        """All records by trial id.

        A damaged one is set aside, saying so, and the one before it takes its place: its trial runs again from
        its last checkpoint. Where that one is damaged too, the trial counts as never started.

        Raises:
            InputError: a record that cannot be read, or that a newer version wrote: neither is damaged.
        """
        listed = entries(self.files.part("trials"))
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
        content = _content(before(path))
        record = _readable(path, content)
        instead = "the record before it is used" if record else "its trial starts anew"
        log.warning("%s %s, %s", path, what, instead)
        if what != "is missing":
            rename(path, damaged(path))
        if record:
            write(path, content)
        elif what == "is missing":  # that has now been said
            remove(before(path))
        return record

    def evaluations(self, trial_id: int) -> list[Evaluation]:
        """A trial's evaluations as far as they are readable."""
        found: dict[int, Evaluation] = {}  # a resumed trial may have written an iteration twice
        for evaluation in self._read(trial_id):
            if isinstance(evaluation, Evaluation):
                found[evaluation.iteration] = evaluation
        return [found[iteration] for iteration in sorted(found)]

    def test(self, trial_id: int) -> TestScores | None:
        """A trial's test scores, to copy and never to decide by."""
        try:
            scores = unsealed(read(self.files.test(trial_id), MOST_BYTES))
            return TestScores.from_row(scores) if scores.pop("trial_id", None) == trial_id else None
        except (OSError, DamagedError, KeyError):
            return None

    def append_evaluation(self, trial_id: int, evaluation: Evaluation) -> None:
        """Add one evaluation as it happens; a crash may cut this line short, and readers skip such a line."""
        self.check()
        append_line(self.files.evaluations(trial_id), evaluation_line(trial_id, evaluation).encode())
        self._counted(trial_id, self._counts.get(trial_id, 0) + 1)

    def write_evaluations(self, trial_id: int, evaluations: Sequence[Evaluation]) -> None:
        """Replace a trial's evaluations by the complete list that its checkpoint carries."""
        self.check()
        text = "".join(evaluation_line(trial_id, evaluation) for evaluation in evaluations)
        write(self.files.evaluations(trial_id), text.encode())
        self._counted(trial_id, len(evaluations))

    def count(self, trial_id: int) -> int | None:
        """How many evaluations of a trial were written; None where that is not known."""
        if trial_id not in self._counts:
            known = counted(_content(self.files.count(trial_id)), trial_id)
            if known is None:
                return None
            self._counts[trial_id] = known
        return self._counts[trial_id]

    def _counted(self, trial_id: int, count: int) -> None:
        """Keep how many evaluations there are, so that lines which vanish are missed; the record does so in the end."""
        self._counts[trial_id] = count
        line = json_line({"trial_id": trial_id, "evaluations": count}).encode()
        # A power cut may cost this file or the newest lines: then they are unknown, or missed for a while.
        write(self.files.count(trial_id), line, durable=False)

    def intact(self, record: Record) -> bool:
        """Whether the evaluations of a trial that has ended can all be read, and are its own up to its end."""
        found: list[tuple[int, float | None]] = []
        for evaluation in self._read(record.trial_id):
            if not isinstance(evaluation, Evaluation):
                return False
            found.append((evaluation.iteration, evaluation.epoch))
        return not missing_evaluations(record, found)

    def incomplete(self, records: Iterable[Record]) -> list[int]:
        """Trials that have ended with evaluations of which some are damaged or gone."""
        ended = [record for record in records if record.state in ("finished", "pruned")]
        return [record.trial_id for record in ended if not self.intact(record)]

    def _read(self, trial_id: int) -> Iterator[Evaluation | DamagedError]:
        """What each line of a trial's evaluations holds."""
        for _, line in lines_of(_content(self.files.evaluations(trial_id), MOST_CURVE_BYTES)):
            try:
                yield evaluation_of(line, trial_id)
            except DamagedError as error:
                yield error

    def write_test(self, trial_id: int, scores: TestScores) -> None:
        """Keep a trial's test scores where no decision reads them."""
        self.check()
        write(self.files.test(trial_id), json_line({"trial_id": trial_id, **scores.as_row()}).encode())


def _content(path: Place, most: int = MOST_BYTES) -> bytes:
    """What a file holds; nothing where there is none, or far too much."""
    try:
        return read(path, most)
    except (FileNotFoundError, TooLargeError):
        return b""


def _refuse(path: Place, content: bytes | OSError) -> None:
    """Refuse a record that is not damaged and yet not readable.

    Raises:
        InputError: its disk or its permissions are at fault, or a newer version wrote it.
    """
    try:
        read_record(content, Record)
    except (TooLargeError, DamagedError):
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}): restore the file") from None
    except ValidationError as error:
        if isinstance(content, bytes) and has_seal(content):
            raise InputError(
                f"{path}: is not what this version writes ({first_problem(error)}): use the newer version that did"
            ) from None


def _readable(path: Place, content: bytes | OSError) -> Record | None:
    """The record that a file holds; None where there is none, a damaged one, or that of another trial."""
    try:
        record = read_record(content, Record)
    except (OSError, DamagedError, ValidationError):
        return None
    return record if path.stem == number_name(record.trial_id) else None
