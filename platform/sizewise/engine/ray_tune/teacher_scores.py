"""The scores of a study's teacher, computed on the cluster before the first student: a task for each shard."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from sizewise.engine.teachers import scores_of
from sizewise.training.teacher_sources import Source
from sizewise_core.errors import InputError
from sizewise_core.units import format_count

log = logging.getLogger(__name__)


def compute(sources: Sequence[Source], data: str) -> None:
    """Have the cluster's free CPUs compute what is missing. Where machines share no folder, workers compute the rest.

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
    rows = format_count(sum(scores.shards[index].rows for index in missing))
    log.info("teacher %s: scores %s training rows", scores.teacher.name, rows)
    if len(missing) == 1 or ray.cluster_resources().get("CPU", 0) <= 1:
        scores.complete()
        return
    task = ray.remote(num_cpus=1)(_compute)
    records = [source.model_dump() for source in sources]
    try:
        ray.get([task.remote(records, data, index) for index in missing])
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from None
        raise


def _compute(records: Sequence[Mapping[str, Any]], data: str, index: int) -> None:
    scores_of([Source.model_validate(record) for record in records], data).complete([index])
