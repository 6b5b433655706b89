"""A study's folder as it begins: what must hold before there is one, and what readers need to know of it."""

import logging
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from sizewise import config as study_file
from sizewise.config import StudySpec
from sizewise.embedding import full_bytes
from sizewise.results.decision.baseline import of_figures
from sizewise.search.teachers import method_of
from sizewise.search.with_optuna import warm_start
from sizewise.store import baselines, data_identity, facts
from sizewise.store.records import BaselineRecord
from sizewise.store.study_folder import StudyFolder
from sizewise.training.teachers.teacher_sources import Source
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, exists, place, remove, write
from sizewise_prep.shards.manifest import Manifest

log = logging.getLogger(__name__)


def tables_bytes(spec: StudySpec, manifest: Manifest) -> int:
    """Bytes of the full tables at the longest searched vector."""
    return full_bytes(manifest.cardinalities, spec.model.largest_dim)


def find_teacher(spec: StudySpec, runs: Place, manifest: Manifest, source: str) -> list[Source]:
    """What the study's students learn from, checked.

    Args:
        spec: the study.
        runs: the folder of studies.
        manifest: of the study's data.
        source: the study file's name, for messages.

    Returns:
        The sources; empty where there is no teacher, or the study trains it itself.

    Raises:
        InputError: a source is not there, has not ended, was trained on other data, or has no usable scores.
    """
    names = spec.train.distill_teacher
    if not names or method_of(spec):
        return []
    from sizewise.engine.preparing import teachers  # few studies have some

    try:
        return teachers.find(names, runs, spec.data, manifest, spec.name)
    except InputError as error:
        raise InputError(f"{source}: train.{error}") from None


def known_teacher(folder: Place) -> list[Source]:
    """What its students have learned from so far."""
    known = facts.load(folder) or facts.Facts()
    try:
        return [Source.model_validate(one) for one in known.get("teacher", [])]
    except (ValidationError, TypeError):
        return []


def check_free(folder: Place) -> None:
    """Refuse a folder that holds a study."""
    if exists(StudyFolder(folder).study_yaml):
        raise InputError(
            f"{folder}: a study of this name exists: continue it with `sizewise resume {folder.name} --runs "
            f"{shlex.quote(str(folder.parent))}`, or give another name (`--set name=...`)"
        )


def scorable(spec: StudySpec, manifest: Manifest) -> None:
    """Refuse data on which no trial could be scored; warn of data from which none can learn."""
    train, validation = manifest.splits["train"], manifest.splits["validation"]
    if not train.rows or not validation.rows:
        raise InputError(
            f"{spec.data}: has no training or no validation rows: prepare it with another --split"
        )
    if "auc" in spec.objectives and validation.click_rate in (0.0, 1.0):
        raise InputError(
            f"{spec.data}: all {validation.rows} rows of the validation split have the same label, so their AUC is "
            "undefined: prepare more rows, or with another --split"
        )
    if train.click_rate in (0.0, 1.0):
        log.warning(
            "%s: all %s rows of the training split have the same label, so models learn nothing from it: what tells "
            "them apart is chance: prepare more rows, or with another --split",
            spec.data,
            f"{train.rows:,}",
        )


def check_writable(runs: Place) -> None:
    """Refuse a folder that no study can be written to before anything has started."""
    if not isinstance(runs, Path):
        return  # the first write will show it
    there = next(path for path in (runs, *runs.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{runs}: {there} is not a folder that can be written to: choose another --runs")


def find_baseline(spec: StudySpec, folder: Place, source: str, programs_too: bool) -> BaselineRecord | None:
    """What runs today, scored on the validation rows.

    Args:
        spec: the study, resolved.
        folder: its own, which may have kept what was scored.
        source: the study file's name, for messages.
        programs_too: load programs of others, which can run any code.

    Returns:
        What is known of it; None where the study file names nothing.

    Raises:
        InputError: it cannot be scored.
    """
    if spec.baseline is None:
        return None
    if spec.baseline.path is None:
        return of_figures(spec.baseline)
    from sizewise.export.baseline import Where, recorded  # few studies have a model to be scored

    size = "model_bytes" if "model_bytes" in spec.objectives else "embedding_bytes"
    workers, on_gpus = spec.resources.workers, spec.resources.gpus_per_worker not in (0, 0.0)
    at = Where(folder if exists(folder) else None, place(spec.data), size, workers, on_gpus)
    try:
        return recorded(spec.baseline, at, programs_too)
    except InputError as error:
        raise InputError(f"{source}: baseline: {error}") from None


def known_baseline(spec: StudySpec, folder: Place, source: str) -> BaselineRecord | None:
    """What runs today, for a study that goes on: as it was scored when that began; no program is loaded.

    Args:
        spec: the study as its file is now.
        folder: its own.
        source: the study file's name, for messages.
    """
    known = facts.load(folder) or facts.Facts()
    if spec.baseline and (known.get("baseline") or {}).get("asked") == spec.baseline.model_dump():
        return baselines.of_facts(known)
    try:
        return find_baseline(spec, folder, source, programs_too=False)
    except InputError as error:
        log.warning("%s; the study goes on without it", error)
        return None


def facts_of(
    spec: StudySpec,
    manifest: Manifest,
    teacher: Sequence[Source] = (),
    baseline: BaselineRecord | None = None,
) -> facts.Facts:
    """What readers need to know of the study beside its trials: the content of `study.json`.

    Args:
        spec: the study, resolved.
        manifest: of its data.
        teacher: what its students learn from, where that is found elsewhere.
        baseline: what runs today.
    """
    return {
        "schema_version": 1,
        "name": spec.name,
        "created": time.time(),
        "trials": spec.trials,  # the engine updates it where replicates or a grid's end change it
        **_wanted(spec),
        "data": {
            "path": spec.data,
            "fingerprint": data_identity.fingerprint(manifest),
            "rows": {name: split.rows for name, split in manifest.splits.items()},
            "full_bytes": full_bytes(manifest.cardinalities, spec.model.largest_dim),
            "features": len(manifest.cardinalities),
            "click_rate": manifest.click_rate,
            "validation_click_rate": manifest.splits["validation"].click_rate,
        },
        **_learned_from(teacher),
        **_compared_with(spec, baseline),
    }


def _compared_with(spec: StudySpec, baseline: BaselineRecord | None) -> facts.Facts:
    """What runs today, and as what it was asked for."""
    if baseline is None or spec.baseline is None:
        return {}
    return {"baseline": {**baseline.model_dump(), "asked": spec.baseline.model_dump()}}


def _learned_from(teacher: Sequence[Source]) -> facts.Facts:
    return {"teacher": [source.model_dump() for source in teacher]} if teacher else {}


def _wanted(spec: StudySpec) -> facts.Facts:
    """What is wanted of trials."""
    return {
        "objectives": spec.objectives,
        "prices": spec.prices.model_dump() if spec.prices else None,
        "constraints": {metric: limit.model_dump() for metric, limit in spec.constraints.items()},
    }


def update_facts(
    spec: StudySpec,
    folder: Place,
    manifest: Manifest,
    teacher: Sequence[Source] = (),
    baseline: BaselineRecord | None = None,
) -> None:
    """Bring what readers need to know up to date: the study file may have been edited, or these facts damaged.

    Args:
        spec: the study as its file is now.
        folder: the study's.
        manifest: of its data.
        teacher: what its students learn from, where that is found elsewhere.
        baseline: what runs today.
    """
    known = facts.load(folder)
    wanted: facts.Facts | None = None
    now = {**_wanted(spec), **_learned_from(teacher), **_compared_with(spec, baseline)}
    try:
        if known:
            kept = known.copy()
            kept.pop("baseline", None)  # which the file may name no longer
            kept.pop("teacher", None)
            wanted = cast(facts.Facts, {**kept, **now, "trials": int(known["trials"])})
    except (ValueError, KeyError, TypeError):
        wanted = None
    if wanted is None:
        log.warning("%s is damaged: written again from study.yaml and the data", StudyFolder(folder).facts)
        wanted = facts_of(spec, manifest, teacher, baseline)
    if wanted != known:
        facts.save(folder, wanted)


def learn(spec: StudySpec, runs: Place, manifest: Manifest) -> list[warm_start.Known]:
    """The trials of `warm_start`'s study that the sampler may use; those that do not fit are reported.

    Args:
        spec: the study that begins.
        runs: the folder of studies, where the other one is looked for first.
        manifest: of the study's data.

    Returns:
        The trials that fit; empty without `warm_start`.

    Raises:
        InputError: there is no such study, or none of its trials fits.
    """
    if spec.warm_start is None:
        return []
    source = warm_start.find(spec.warm_start, runs)
    known, left_out = warm_start.learn(source, spec, tables_bytes(spec, manifest))
    reasons = "; ".join(f"{count} whose trial {reason}" for reason, count in left_out.most_common())
    if not known:
        raise InputError(
            f"warm_start: none of the trials of {source} fits this study ({reasons or 'it has none'}): "
            "search the same fields, or drop warm_start"
        )
    report = log.warning if left_out else log.info
    report(
        "warm_start: the sampler learns from %d trials of %s%s",
        len(known),
        source,
        reasons and f", without {reasons}",
    )
    return known


def create(
    spec: StudySpec,
    folder: Place,
    manifest: Manifest,
    known: list[warm_start.Known],
    teacher: Sequence[Source],
    code: bytes | None = None,
    baseline: BaselineRecord | None = None,
) -> None:
    """Create a new study's folder; `study.yaml` comes last, and with it the study exists.

    Args:
        spec: the study, resolved.
        folder: where it is written.
        manifest: of its data.
        known: trials of another study that the sampler may use.
        teacher: what its students learn from, where that is found elsewhere.
        code: modules of its own models.
        baseline: what runs today.

    Raises:
        InputError: the folder holds a study, or cannot be written to.
    """
    check_free(folder)  # again, now that nobody else can begin one here
    try:
        facts.save(folder, facts_of(spec, manifest, teacher, baseline))
        if known:
            warm_start.save(known, folder)
        files = StudyFolder(folder)
        if code is not None:
            write(files.code, code)
        elif exists(files.code):  # of a study that never began
            remove(files.code)
        for path in (files.study_before, files.study_yaml):
            write(path, study_file.to_text(spec))
    except OSError as error:
        raise unwritable(folder, error) from None


def unwritable(folder: Place, error: OSError) -> InputError:
    """What is said of a folder that cannot be written."""
    return InputError(f"{folder}: cannot be written ({error.strerror or error}): choose another --runs")
