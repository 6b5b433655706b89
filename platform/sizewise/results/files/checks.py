"""What a study's files say of each other: which are missing, though another one shows that they were there.

Each function adds a line to `problems` for what it finds. What changes an answer must not be lost without a word; a
study of an older version, which kept fewer counts, is checked as far as these go.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from sizewise.store.facts import yaml_before
from sizewise.store.files import StudyFiles, batches
from sizewise.store.records import VERSION, StudyRecord, TrialRecord
from sizewise.store.study_folder import MOST_BYTES, MOST_YAML_BYTES, file_name
from sizewise.store.trials.evaluations import counted, missing_evaluations
from sizewise_core.files.sealed import is_cut_short, last_line_holds
from sizewise_core.stores.storage import read
from sizewise_core.stores.storage_contents import read_entries

_ENDED = ("finished", "pruned")


def study(files: StudyFiles, record: StudyRecord, problems: list[str]) -> None:
    """The study's own files: `study.yaml`, and whether this version can read it all.

    Args:
        files: the study's.
        record: `study.json`.
        problems: gets a line for each file that is missing, damaged, or of a newer version.
    """
    if record.schema_version > VERSION:
        problems.append(
            f"study.json was written by a newer version (schema_version {record.schema_version}): what is new in it is "
            "left out; update Sizewise"
        )
    paths = files.paths
    if paths.study_yaml in files:
        try:
            text = read(paths.study_yaml, MOST_YAML_BYTES)
            if not last_line_holds(text) or is_cut_short(text, yaml_before(files.folder)):
                problems.append(
                    "study.yaml is not what was written: `sizewise resume` says how to bring it back"
                )
        except OSError as error:
            problems.append(f"study.yaml was skipped ({error.strerror or error})")
    elif paths.study_before in files:
        problems.append("study.yaml is missing: bring it back from study.before")
    if paths.driver not in files and paths.driver_lock in files:
        problems.append("driver.json is missing, so it is not known how the study stands")


def ledger(files: StudyFiles, problems: list[str]) -> None:
    """Records of the ledger that are gone; the one before each is still there."""
    names = {entry.path.name for entry in files.listed("trials")}
    for name in sorted(names):
        stem, dot, ending = name.rpartition(".")
        if dot and ending == "before" and f"{stem}.json" not in names:
            problems.append(
                f"trials/{stem}.json is missing, and its trial with it: `sizewise resume` has another copy"
            )


def counts(files: StudyFiles, trials: Sequence[TrialRecord]) -> dict[int, int]:
    """How many evaluations running trials had so far; to be read before these are, for they grow."""
    running = {files.paths.count(trial.trial_id).name for trial in trials if trial.evaluations is None}
    listed = [entry for entry in files.listed("evaluations") if entry.path.name in running]
    found = {}
    for batch in batches(listed):
        for path, content in read_entries(batch, MOST_BYTES).items():
            count = None if isinstance(content, OSError) else counted(content, int(path.stem))
            if count is not None:
                found[int(path.stem)] = count
    return found


def curves(
    trials: Sequence[TrialRecord], evaluations: pl.DataFrame, known: Mapping[int, int], problems: list[str]
) -> None:
    """Evaluations that are gone: fewer than were counted, or without those that the record speaks of.

    Args:
        trials: those that are checked.
        evaluations: all that can be read of them, with the columns trial_id, iteration and epoch.
        known: how many evaluations a trial has, by its number, where its record does not say.
        problems: gets a line for each thing that is missing or cannot be read.
    """
    found: dict[int, list[tuple[int, float | None]]] = {}
    for trial_id, iteration, epoch in evaluations.select("trial_id", "iteration", "epoch").iter_rows():
        found.setdefault(trial_id, []).append((iteration, epoch))
    for trial in trials:
        lack = missing_evaluations(trial, found.get(trial.trial_id, []), known.get(trial.trial_id))
        if lack:
            problems.append(
                f"evaluations/{file_name('evaluations', trial.trial_id)} {lack}: `sizewise resume` restores what it can"
            )


def orphans(files: StudyFiles, trials: Sequence[TrialRecord], growing: bool, problems: list[str]) -> None:
    """Evaluations without a record.

    Args:
        files: the study's.
        trials: all whose records can be read.
        growing: a driver is at work, so that the record of a trial that began just now may not have been read.
        problems: gets a line for each thing that is missing or cannot be read.
    """
    known = {file_name("evaluations", trial.trial_id) for trial in trials}
    newest = max((trial.trial_id for trial in trials), default=-1)
    for entry in files.evaluations:
        name = entry.path.name
        if name in known or (growing and entry.path.stem.isdecimal() and int(entry.path.stem) > newest):
            continue
        problems.append(f"evaluations/{name} has no readable ledger record, so it counts for nothing")


def listed(files: StudyFiles, trials: Sequence[TrialRecord], problems: list[str]) -> None:
    """What a look at the listings alone shows to be missing: evaluations and test scores.

    Args:
        files: the study's, listed.
        trials: all whose records can be read.
        problems: gets a line for each thing that is missing or cannot be read.
    """
    sizes = {entry.path.name: entry.size for entry in files.evaluations}
    for trial in trials:
        name = file_name("evaluations", trial.trial_id)
        expected = trial.evaluations is None or trial.evaluations > 0
        if trial.state in _ENDED and expected and not sizes.get(name):
            problems.append(f"evaluations/{name} is {'empty' if name in sizes else 'missing'}")
    tests(files, trials, problems)


def tests(files: StudyFiles, trials: Sequence[TrialRecord], problems: list[str]) -> None:
    """Test scores that are gone.

    Args:
        files: the study's, listed.
        trials: all whose records can be read.
        problems: gets a line for each thing that is missing or cannot be read.
    """
    names = {entry.path.name for entry in files.test}
    for trial in trials:
        name = file_name("test", trial.trial_id)
        if trial.tested and name not in names:
            problems.append(f"test/{name} is missing")
