"""The teachers of a study's students: found and checked before anything starts, scored before the first student.

    sources = find(["criteo/0007"], place("runs"), spec.data, manifest)
    prepare(sources, spec.data)              # computes their scores, on the cluster where there is one

A teacher is named as it is written in the study file: `STUDY/NUMBER` for a finished trial, the folder of an exported
model, or a file of scores.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sizewise import results
from sizewise.config.fields import did_you_mean
from sizewise.config.sections.train import COLUMN
from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS
from sizewise.export.deployed import DESCRIPTION, Deployed, Description
from sizewise.export.exporting import weights_file
from sizewise.models import is_own
from sizewise.store import facts
from sizewise.store.data_identity import fingerprint
from sizewise.training.checkpoints import checkpoint
from sizewise.training.input.batches import Split
from sizewise.training.teachers.teacher import Scorer, Teacher, TeacherScores, replaced
from sizewise.training.teachers.teacher_files import FORMATS, check_labels, file_teacher
from sizewise.training.teachers.teacher_sources import Source, teacher_of
from sizewise_core.errors import InputError, shown
from sizewise_core.files.sealed import DamagedError
from sizewise_core.stores.storage import Place, exists, place
from sizewise_prep.shards.cache import local_shards
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.vocabulary import Vocabulary

log = logging.getLogger(__name__)
_TRIAL = re.compile(r"([A-Za-z0-9_-]{1,255})/([0-9]{1,9})")
_ENDED = ("finished", "pruned")
_FORMS = "use STUDY/NUMBER of a finished trial, an exported model's folder, a file of scores, {column: NAME} or `full`"


def find(names: Sequence[str], runs: Place, data: str, manifest: Manifest, own: str) -> list[Source]:
    """The sources that a study file names.

    Args:
        names: as written there.
        runs: the folder of studies.
        data: the student's shards.
        manifest: of these.
        own: the student's study.

    Raises:
        InputError: one that is not there, has not ended, was trained on other data, or has no usable scores.
    """
    found: dict[str, Source] = {}
    for name in names:
        try:
            source = _find(name, runs, data, manifest, own)
        except InputError as error:
            raise InputError(f"distill.teacher: {str(error).removeprefix('distill.teacher: ')}") from None
        if source.digest in found:
            raise InputError(f"distill.teacher: {source.name} is named twice: name each teacher once")
        found[source.digest] = source
    return list(found.values())


def prepare(sources: Sequence[Source], data: str) -> None:
    """Compute what is missing of the scores, in this process."""
    scores_of(sources, data).complete()


def scores_of(sources: Sequence[Source], data: str) -> TeacherScores:
    """The mean scores of some sources for the training rows."""
    folder = local_shards(data)
    teacher = teacher_of(sources, folder, openers={"export": _exported})
    return TeacherScores.of(teacher, data, Manifest.load(folder), Split.open(folder, "train"))


def _column(name: str, data: str, manifest: Manifest) -> Source:
    """The column of the shards that holds another model's scores."""
    held = manifest.layout.score
    if name != held:
        has = f"whose column of scores is {shown(held)}" if held else "which has no column of scores"
        raise InputError(
            f"{shown(name)} is no column of scores of the data, {has}: prepare it with a schema file that calls "
            "the column a `score` (log-odds) or a `probability`"
        )
    if manifest.layout.kinds[name] == "score" and _are_probabilities(data):
        raise InputError(
            f"all scores of column {shown(name)} lie between 0 and 1, as probabilities do: call the column "
            "`probability` in the schema file, and prepare the data again"
        )
    return Source(
        kind="column", name=f"column {name}", path="", digest=hashlib.sha256(name.encode()).hexdigest()
    )


def _are_probabilities(data: str) -> bool:
    """Whether the scores beside all training rows are from 0 to 1; those of data in an object store are not read."""
    folder = place(data)
    if not isinstance(folder, Path):
        return False
    split, ends = Split.open(folder, "train"), set[float]()
    for index in range(len(split.files)):
        scores = split.stored(index).scores
        if scores is None or not 0 <= scores.min() <= scores.max() <= 1:
            return False
        ends |= {float(scores.min()), float(scores.max())}
    return len(ends) > 1


def _labels(data: str) -> npt.NDArray[np.uint8]:
    """Of the training rows (rows,), in the shards' order."""
    split = Split.open(local_shards(data), "train")
    return np.concatenate([split.stored(index).labels for index in range(len(split.files))])


def _find(name: str, runs: Place, data: str, manifest: Manifest, own: str) -> Source:
    if name.startswith(COLUMN):
        return _column(name.removeprefix(COLUMN), data, manifest)
    if "://" in name:
        raise InputError(f"{shown(name)} is no path on this machine: copy it here, and name the copy")
    path = Path(name)
    if path.suffix in FORMATS or path.is_file():
        rows = manifest.splits["train"].rows
        teacher = file_teacher(path, rows)
        check_labels(path, lambda: _labels(data))
        return Source(kind="scores", name=name, path=str(path.absolute()), digest=teacher.digest, rows=rows)
    if (path / DESCRIPTION).exists():
        return _export(path, data, manifest)
    match = _TRIAL.fullmatch(name)
    if match is None:
        what = (
            f"{shown(name)} is no exported model" if name and path.is_dir() else f"there is no {shown(name)}"
        )
        raise InputError(f"{what}{did_you_mean(name, METHODS)}: {_FORMS}")
    return _trial(match[1], int(match[2]), runs, data, manifest, own)


def _trial(study: str, number: int, runs: Place, data: str, manifest: Manifest, own: str) -> Source:
    """A finished trial of a study under `runs`, by the weights of its best evaluation."""
    name = f"{study}/{number:04d}"

    def refused(why: str) -> InputError:
        return InputError(f"{name} {why}")

    if not exists(runs / study):
        raise refused(f"is gone: there is no study {study} in {runs}: {_FORMS}")
    found = results.load(runs, study)
    rows = found.trials.filter(trial_id=number)
    if rows.is_empty():
        raise refused(f"is gone: study {study} has no such trial: {_ended(found)}")
    row = rows.row(0, named=True)
    if row["state"] == "running":
        raise refused(f"is still training, or was interrupted: `sizewise resume {study}`, or {_ended(found)}")
    if row["state"] not in _ENDED:
        raise refused(f"has not finished (its state is {row['state']}): {_ended(found)}")
    if not row["evaluations"]:
        raise refused(f"({row['state']}) has no evaluation that can be read: {_ended(found)}")
    settings = results.trial_report(runs, study, number).record.config
    if study == own and settings.get("distill_teacher"):
        raise refused("is itself a student of this study: use a trial that learned without it")
    config = TrialConfig.from_flat(settings)
    if study != own and is_own(config.model.kind):
        raise refused(
            "is a model of your own, whose code is with that study: export it, and name the export's folder"
        )
    _check_data(name, config.data, facts.data_fingerprint(runs / study), data, manifest)
    try:
        weights = weights_file(found, row)
        checkpoint.load_weights(weights, checkpoint.identity(config))
        digest = checkpoint.digest_of(weights)
    except (InputError, DamagedError):
        raise refused(f"has no intact weights any more: {_ended(found)}") from None
    return Source(
        kind="trial",
        name=name,
        path=str(weights),
        digest=digest,
        config=settings,
        iterations=row["iteration"],
        train_seconds=row["train_seconds"],
    )


def _ended(study: results.Study) -> str:
    """Which trials of a study may be named instead."""
    ended = study.trials.filter(study.trials["state"].is_in(_ENDED))["trial_id"].cast(str).to_list()
    if not ended:
        return "the study has no finished trial, so use another teacher"
    return (
        f"use a finished one ({', '.join([*ended[:5], *(['...'] if ended[5:] else [])])}) or another teacher"
    )


def _export(folder: Path, data: str, manifest: Manifest) -> Source:
    """An exported model, whose program takes raw rows."""
    deployed = Deployed.open(folder)
    description: Description = deployed.description
    name = f"{description.study}/{description.trial_id:04d} (exported)"
    if wrong := deployed.misfit(manifest):
        raise InputError(f"{folder} {wrong}")
    trained_on = str(description.config.get("data", ""))
    _check_data(str(folder), trained_on, description.data_sha256 or None, data, manifest)
    return Source(
        kind="export",
        name=name,
        path=str(folder.absolute()),
        digest=description.sha256,
        iterations=description.iteration,
    )


def _check_data(name: str, trained_on: str, known: str | None, data: str, manifest: Manifest) -> None:
    """Refuse a teacher of other data: it may have seen the rows that its student is judged by.

    Args:
        name: of the teacher.
        trained_on: the folder of its data.
        known: the fingerprint of that; None where it was not kept: then of what lies in that folder now.
        data, manifest: the student's.
    """
    theirs: Manifest | None = None
    try:
        theirs = Manifest.load(trained_on) if trained_on else None
    except (InputError, OSError):
        log.debug("%s: the data of teacher %s cannot be read", trained_on, name)
    ours = fingerprint(manifest)
    known = known or (fingerprint(theirs) if theirs else None)
    if known is None:
        log.warning(
            "distill.teacher: %s: it is not known which rows it was trained on; were they of the validation or test "
            "split, the student's scores would be too good",
            name,
        )
    elif known != ours:
        other = "other rows or splits"
        if theirs and theirs.settings.tokens != manifest.settings.tokens:
            other = f"{theirs.settings.tokens} tokens instead of {manifest.settings.tokens} ones"
        raise InputError(
            f"{name} was trained on another data set than {data} ({other}): use a teacher of the same shards"
        )


def _exported(source: Source, data: Path) -> Teacher:
    """An exported model as a teacher of shards: it is given raw rows, as far as shards still have them."""
    manifest = Manifest.load(data)

    def load() -> Scorer:
        deployed = Deployed.open(Path(source.path))
        if deployed.description.sha256 != source.digest:
            raise replaced(source.path)
        vocabulary = Vocabulary.load(data) if manifest.settings.tokens == "contiguous" else None

        return lambda shard, _: deployed.of_shard(shard.stored(), manifest, vocabulary)

    return Teacher(source.name, source.digest, load)
