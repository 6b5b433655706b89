"""Which trials are teachers and which their students, and what the teachers took."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from sizewise.store.records import StudyRecord, TrialRecord
from sizewise_core.units import format_count, format_seconds

COLUMNS = ("role", "teacher_iterations", "teacher_seconds")
"""Of the table of trials, in studies with students: `teacher` or `student`, and what a student's teachers took."""


@dataclass(frozen=True)
class Teachers:
    """What the students of a study learn from.

    Attributes:
        names: a study's own teachers as `trial 0`, others as the study file names them.
        iterations: of all of them together; None where that is not known, as for a file of scores.
        train_seconds: of all of them together; None where that is not known.
    """

    names: list[str]
    iterations: int | None
    train_seconds: float | None


def teachers_of(
    record: StudyRecord, ledger: Sequence[TrialRecord], evaluations: pl.DataFrame
) -> Teachers | None:
    """A study's teachers; None where it has none.

    Args:
        record: `study.json`.
        ledger: its trials.
        evaluations: of all trials.
    """
    own = [trial.trial_id for trial in ledger if trial.teacher is not None and trial.state != "failed"]
    if own:
        rows = evaluations.filter(pl.col("trial_id").is_in(own)).group_by("trial_id")
        taken = rows.agg(pl.col("iteration", "train_seconds").max())
        names = [f"trial {number}" for number in own]
        return Teachers(names, int(taken["iteration"].sum()), float(taken["train_seconds"].sum()))
    if not record.teacher:
        return None
    iterations = [one.iterations for one in record.teacher]
    seconds = [one.train_seconds for one in record.teacher]
    return Teachers(
        [one.name for one in record.teacher],
        None if None in iterations else sum(count or 0 for count in iterations),
        None if None in seconds else sum(count or 0.0 for count in seconds),
    )


def with_roles(
    trials: pl.DataFrame, ledger: Sequence[TrialRecord], teachers: Teachers | None
) -> pl.DataFrame:
    """The table of trials with `COLUMNS`, where the study has teachers.

    Args:
        trials: a row a trial, with the column trial_id.
        ledger: the same trials' records.
        teachers: the study's; None where it has none, or all of those that it trained have failed.

    Returns:
        The table; as it was where no trial is a teacher and none has one.
    """
    if teachers is None and all(trial.teacher is None for trial in ledger):
        return trials
    roles = {
        trial.trial_id: "teacher"
        if trial.teacher is not None
        else "student"
        if trial.config.get("distill_teacher")
        else None
        for trial in ledger
    }
    role = pl.Series("role", [roles.get(trial) for trial in trials["trial_id"]], pl.String)
    taken = {
        "teacher_iterations": pl.lit(teachers and teachers.iterations, pl.Int64),
        "teacher_seconds": pl.lit(teachers and teachers.train_seconds, pl.Float64),
    }
    return trials.with_columns(role).with_columns(
        pl.when(pl.col("role") == "student").then(value).alias(name) for name, value in taken.items()
    )


def all_failed(trials: pl.DataFrame) -> bool:
    """Whether every teacher that a study has trained failed, so that its students have none to learn from.

    Args:
        trials: the study's table.
    """
    if "role" not in trials.columns:
        return False
    states = trials.filter(role="teacher")["state"]
    return bool(len(states) and (states == "failed").all())


def taken(teachers: Teachers) -> str:
    """What teachers took, in words: "312 iterations (16 s)"; empty where that is not known."""
    if teachers.iterations is None:
        return ""
    seconds = teachers.train_seconds or 0.0
    measured = f" ({format_seconds(seconds)})" if seconds >= 1 else ""
    own = "iteration" if teachers.iterations == 1 else "iterations"
    return f"{format_count(teachers.iterations)} {own}{measured}"


def sentence(teachers: Teachers, who: str = "It") -> str:
    """What the teachers took beside those who learned from them."""
    several = len(teachers.names) > 1
    whom = f"{len(teachers.names)} teachers" if several else f"a teacher ({teachers.names[0]})"
    if teachers.iterations is None:
        return f" {who} learned from {whom}, whose training is not counted."
    return f" {who} learned from {whom}, which took {taken(teachers)} on top."
