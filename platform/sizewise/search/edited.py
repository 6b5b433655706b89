"""Whether a study file that was edited still agrees with the trials on record, so that its study may be resumed."""

import warnings
from collections.abc import Iterable
from typing import Any

import optuna

from sizewise.config import Choices, StudySpec
from sizewise.config.fields import within
from sizewise.config.trial import later_defaults
from sizewise.search.space import as_param, configure, seed_of
from sizewise.search.teachers import teacher_config, wanted
from sizewise.store.records import Record

FREE = {"data", "checkpoint_seconds"}  # settings of a trial that change nothing about what it learns


def disagreement(spec: StudySpec, records: Iterable[Record], full_bytes: int) -> str:
    """Where the study file and the settings of a trial on record differ.

    Args:
        spec: the study as its file is now.
        records: of the trials, teachers included.
        full_bytes: bytes of the full tables at the longest searched vector (`spec.model.largest_dim`).

    Returns:
        The first difference, in words; empty where they agree.
    """
    searched = dict(spec.searched())
    for record in records:
        if record.teacher is not None:
            if problem := _other_teacher(spec, record, full_bytes):
                return problem
            continue
        for name, value in record.params.items():
            if name in searched and not _within(value, searched[name]):
                return f"{name}: trial {record.trial_id} has {value}, outside what is searched now"
        had = {**later_defaults(), **record.config}
        known = {name: as_param(value) for name, value in had.items()} | record.params
        asked = optuna.trial.FixedTrial(known)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Optuna, whose answer is compared below
            config = configure(spec, asked, full_bytes, seed_of(spec, record.replicate)).complete()
        for name in asked.params.keys() - record.params.keys():
            return f"{name}: is searched now, and was {known[name]} for trial {record.trial_id}"
        for name, value in had.items():
            if name not in FREE and config.get(name) != value:
                return f"{name}: was {value} for trial {record.trial_id}, and is {config.get(name)} now"
    return ""


def _other_teacher(spec: StudySpec, record: Record, full_bytes: int) -> str:
    """How a teacher on record differs from those that the file asks for."""
    if (record.teacher or 0) >= wanted(spec):
        return f"distill: trial {record.trial_id} is a teacher, and no longer wanted"
    config = teacher_config(spec, seed_of(spec, record.replicate), full_bytes).complete()
    for name, value in {**later_defaults(), **record.config}.items():
        if name not in FREE and config.get(name) != value:
            return (
                f"{name}: was {value} for trial {record.trial_id}, a teacher, and is {config.get(name)} now"
            )
    return ""


def _within(param: Any, domain: Any) -> bool:
    if isinstance(domain, Choices):
        return param in map(as_param, domain.choices)
    return within(param, domain)
