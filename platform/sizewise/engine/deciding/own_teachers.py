"""The teachers that a study has trained itself: found when its students begin, or a sentence on why there are none."""

import logging
from collections.abc import Sequence

from sizewise.store.study_folder import StudyFolder, number_name
from sizewise.store.trials.ledger import Record
from sizewise.training.checkpoints import checkpoint
from sizewise.training.teachers.teacher_sources import Source
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError
from sizewise_core.stores.storage import Place, exists, place

log = logging.getLogger(__name__)
_SHOWN = 120  # characters of a reason
_ADVICE = ": search lower"  # of a trial that failed, to those who search its settings
# What a study is started with instead, by what the reason of its teachers begins with.
_FIXES = {"DivergedError": "a lower distill.learning_rate", "out of memory": "a smaller teacher"}


def trained(folder: Place, records: Sequence[Record], wanted: int) -> list[Source]:
    """A study's teachers by their last weights, which no validation row has chosen; empty while some still train.

    Args:
        folder: the study's.
        records: of the teachers that have begun.
        wanted: how many teachers it trains.

    Raises:
        InputError: none of them could be trained, or the weights of one are gone or damaged.
    """
    if len(records) < wanted or not records or any(record.state == "running" for record in records):
        return []
    finished = [record for record in records if record.state == "finished"]
    if not finished:
        raise InputError(_none(folder, records))
    for record in records:
        if record.state != "finished":
            log.warning(
                "distill.teacher: trial %d has %s: its students learn from the others",
                record.trial_id,
                record.state,
            )
    return [_by_last_weights(folder, record) for record in finished]


def advised(record: Record, reason: str) -> str:
    """Why a trial failed; what is said to those who search its settings is, of a teacher, said of `distill`."""
    why, advice, _ = reason.partition(_ADVICE)
    return f"{why}: set {_FIXES['DivergedError']}" if advice and record.teacher is not None else reason


def _by_last_weights(folder: Place, record: Record) -> Source:
    name = f"{folder.name}/{number_name(record.trial_id)}"
    newest = checkpoint.newest(StudyFolder(folder).checkpoints_of(record.key).path)
    try:
        if newest is None:
            raise DamagedError("its checkpoint is gone")
        digest = checkpoint.digest_of(place(newest))
    except DamagedError as error:
        raise InputError(
            f"distill.teacher: {name}: {error}: bring it back and resume, or start another study"
        ) from None
    return Source(kind="trial", name=name, path=newest, digest=digest, config=record.config)


def _none(folder: Place, records: Sequence[Record]) -> str:
    """Why no teacher was trained, where its traceback is, and what to do."""
    first = records[0]
    reason = (first.error or first.state).partition(": set ")[0]
    fix = next((fix for sign, fix in _FIXES.items() if reason.startswith(sign)), "another distill.teacher")
    files = StudyFolder(folder)
    traceback = files.traceback(first.trial_id)
    where = f"traceback: {traceback}" if exists(traceback) else f"log: {files.logs / 'study.log'}"
    who = "its only teacher" if len(records) == 1 else f"all of its {len(records)} teachers"
    return f"{folder.name} cannot go on, for {who} failed: {reason:.{_SHOWN}} ({where}): start another study with {fix}"
