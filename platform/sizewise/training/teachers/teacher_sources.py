"""What a teacher is made of, as plain records that go to workers, and the teacher out of them.

sources = [Source(kind="trial", name="criteo/0007", path=..., digest=..., config=...)]
teacher = teacher_of(sources, Path("data/criteo"))          # the mean of all of them
"""

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from sizewise.config.trial import TrialConfig
from sizewise.training.checkpoints import checkpoint
from sizewise.training.input.batches import Split
from sizewise.training.memory import reset_peak_memory
from sizewise.training.teachers.teacher import Numbers, Teacher, TeacherScores, digest_once, mean_of
from sizewise.training.teachers.teacher_files import file_teacher
from sizewise.training.teachers.teacher_models import model_teacher
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError, JsonObject
from sizewise_core.machine import allocator
from sizewise_core.stores.storage import place
from sizewise_prep.shards.cache import local_shards
from sizewise_prep.shards.manifest import Manifest

log = logging.getLogger(__name__)
_PROGRAM = "model.pt2"  # of an exported model's folder, which a room above this one writes


class Source(BaseModel):
    """One model, or one file or column of scores, that a student learns from.

    Attributes:
        kind: a trial's weights, an exported model's folder, a file of scores, or a column of the shards.
        name: what messages and tables call it.
        path: of the weights, the folder or the file.
        digest: of the content.
        config: all settings of a trial, flat.
        rows: of the training split, for a file of scores.
        iterations: that it was trained for, over all of it; None where that is not known.
        train_seconds: what its training took; None where that is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["trial", "export", "scores", "column"]
    name: str
    path: str
    digest: str
    config: JsonObject = {}
    rows: int = 0
    iterations: int | None = None
    train_seconds: float | None = None


Opener = Callable[[Source, Path], Teacher]


def teacher_of(
    sources: Sequence[Source],
    data: Path,
    device: torch.device | None = None,
    openers: Mapping[str, Opener] | None = None,
) -> Teacher:
    """The mean of some sources.

    Args:
        sources: at least one.
        data: the shards whose rows it scores, on this machine.
        device: where models compute; the CPU where it is left out.
        openers: for kinds that this room cannot open; without one, their scores must have been computed before.
    """

    def one(source: Source) -> Teacher:
        if openers and source.kind in openers:
            return openers[source.kind](source, data)
        if source.kind == "scores":
            return file_teacher(Path(source.path), source.rows, source.digest)
        if source.kind == "column":
            return Teacher(source.name, source.digest, lambda: _of_column)
        if source.kind == "trial":
            config = TrialConfig.from_flat(source.config)
            return model_teacher(source.name, config, place(source.path), source.digest, data, device)
        return Teacher(source.name, source.digest, lambda: _not_here(source))

    return mean_of([one(source) for source in sources])


def with_scores(split: Split, config: TrialConfig, sources: Sequence[Source], device: torch.device) -> Split:
    """The training split with its teacher's scores, computed now as far as they have not been.

    Args:
        split: of the trial's data.
        config: of the trial.
        sources: what its teacher consists of.
        device: where models compute.

    Raises:
        InputError: there are no sources, or one cannot be used.
    """
    if not sources:
        raise InputError(f"distill.teacher: {', '.join(config.train.distill_teacher)} was not found")
    data = local_shards(config.data)
    scores = TeacherScores.of(teacher_of(sources, data, device), config.data, Manifest.load(data), split)
    if scores.missing():
        scores.complete()
        gc.collect()
        allocator.give_back()
        reset_peak_memory(device)  # the trial's own peak comes without its teacher's
    return split.with_teacher(scores.shard)


def scored(sources: Sequence[Source], data: str) -> int:
    """How many shards have the scores of some sources, as far as this machine sees; 0 of data in an object store."""
    scores = _scores_here(sources, data)
    return len(scores.shards) - len(scores.missing()) if scores else 0


def incomplete(sources: Sequence[Source], data: str) -> str:
    """Why a teacher's scores cannot be completed; nothing where they are complete, or its sources are what they were.

    Args:
        sources: what the teacher consists of.
        data: the student's shards.
    """
    for source in sources:
        why = _lost(source)
        scores = _scores_here(sources, data) if why else None
        if scores and scores.missing():
            return (
                f"distill.teacher: {source.name} {why}, and has yet to score training rows: bring back {source.path}, "
                "or start another study"
            )
    return ""


def _scores_here(sources: Sequence[Source], data: str) -> TeacherScores | None:
    """The scores of some sources beside the shards; None for data in an object store."""
    folder = place(data)
    if not isinstance(folder, Path):
        return None
    split = Split.open(folder, "train")
    return TeacherScores.of(teacher_of(sources, folder), data, Manifest.load(folder), split)


def _lost(source: Source) -> str:
    """What has become of a source that is not what it was; nothing where it is, as far as a glance can tell."""
    try:
        if source.kind in ("export", "scores"):
            path = Path(source.path) / (_PROGRAM if source.kind == "export" else "")
            same = digest_once(path) == source.digest
        else:
            same = source.kind == "column" or checkpoint.digest_of(place(source.path)) == source.digest
    except (OSError, DamagedError):
        return "is gone"
    return "" if same else "was replaced since the study began"


def _of_column(shard: Split, first: int) -> Numbers:
    scores = shard.stored().scores
    assert scores is not None  # the manifest was asked for the column
    return scores


def _not_here(source: Source) -> Any:
    raise InputError(
        f"distill.teacher: the scores of {source.name} are not on this machine, which cannot run it: share the data's "
        "folder between machines"
    )
