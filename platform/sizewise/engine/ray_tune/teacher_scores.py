"""The scores of a study's teacher, computed by the cluster's free CPUs: tasks that share the shards among them.

Before the first student starts where the teacher is there already (`compute`); while the first one starts where the
study has just trained its teachers (`begin`): the student's worker takes shards as well, so nobody waits for a CPU
that never becomes free. A task that comes too late finds nothing to do.
"""

import logging
from collections.abc import Sequence
from typing import Any

import ray

from sizewise.engine.preparing.teachers import scores_of
from sizewise.training.teachers.teacher import TeacherScores
from sizewise.training.teachers.teacher_sources import Source
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import JsonObject
from sizewise_core.units import format_count

log = logging.getLogger(__name__)


def compute(sources: Sequence[Source], data: str) -> None:
    """Have the cluster compute what is missing. Where machines share no folder, workers compute the rest.

    Args:
        sources: of the teacher.
        data: the folder of shards.

    Raises:
        InputError: the teacher cannot be used.
    """
    scores = scores_of(sources, data)
    missing = scores.missing()
    if not missing:
        return
    _report(scores, missing)
    groups = _groups(missing)
    if len(groups) == 1:
        scores.complete()
        return
    try:
        ray.get(_started(sources, data, groups))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None
        raise


def begin(sources: Sequence[Source], data: str) -> None:
    """Have the cluster help the first student's worker to compute what is missing; returns at once.

    Args:
        sources: of the teacher.
        data: the folder of shards.
    """
    scores = scores_of(sources, data)
    missing = scores.missing()
    if missing:
        _report(scores, missing)
    if len(missing) > 1:
        _started(sources, data, _groups(missing))  # what fails there fails in the worker too, which says so


def _report(scores: TeacherScores, missing: Sequence[int]) -> None:
    rows = format_count(sum(scores.shards[index].rows for index in missing))
    log.info("teacher %s: scores %s training rows", scores.teacher.name, rows)


def _groups(missing: Sequence[int]) -> list[list[int]]:
    """The shards in as many groups as the cluster has CPUs: each task loads the teacher once."""
    count = max(1, min(len(missing), int(ray.cluster_resources().get("CPU", 1))))
    return [list(missing[number::count]) for number in range(count)]


def _started(sources: Sequence[Source], data: str, groups: Sequence[Sequence[int]]) -> list[Any]:
    task = ray.remote(num_cpus=1)(_compute)
    records = [source.model_dump() for source in sources]
    return [task.remote(records, data, list(group)) for group in groups]


def _compute(records: list[JsonObject], data: str, shards: list[int]) -> None:
    scores_of([Source.model_validate(record) for record in records], data).complete(shards)
