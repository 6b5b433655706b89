"""The trials of another study, given to this one's sampler before its first suggestion.

Its trials are read once, when a study is created, and kept in the new study's folder (`warm_start.json`): a
resumed study must not depend on what became of the other one since.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna

from sizewise.config import Choices, StudySpec
from sizewise.config.trial import later_defaults
from sizewise.search.space import as_param, configure
from sizewise.store.files import StudyFiles
from sizewise.store.records import TrialRecord
from sizewise.store.study_folder import MOST_BYTES, NAME, StudyFolder
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError, sealed, unsealed
from sizewise_core.stores.storage import Place, exists, place, read, write

# What may differ between two studies without the outcome of a trial becoming another.
INDIFFERENT = {"data", "seed", "checkpoint_seconds", "evaluate_every"}


class Known(NamedTuple):
    """One configuration that is known: parameters as Optuna keeps them, a value for each objective, violations."""

    params: Mapping[str, Any]
    values: list[float]
    violations: dict[str, float]


def find(name: str, runs: Place) -> Place:
    """The folder of the study that `warm_start` names.

    Raises:
        InputError: there is no such study.
    """
    for folder in ([runs / name] if NAME.fullmatch(name) else []) + [place(name)]:
        if exists(StudyFolder(folder).study_yaml):
            return folder
    raise InputError(
        f"warm_start: {name}: no study of that name under {runs}, and no folder with a study.yaml: "
        f"`sizewise status --runs {runs}` lists those there are"
    )


def learn(folder: Place, spec: StudySpec, full_bytes: int) -> tuple[list[Known], Counter[str]]:
    """The trials of another study that fit this one's space.

    Args:
        folder: the other study's.
        spec: this study.
        full_bytes: bytes of the full tables at the longest searched vector (`spec.model.largest_dim`).

    Returns:
        These trials, and how many others do not fit, by the reason.
    """
    known, left_out = [], Counter[str]()
    unreadable: list[str] = []
    for record in StudyFiles(folder).ledger(unreadable):  # as it is: only that study's own driver repairs it
        if record.teacher is not None:
            left_out["is a teacher of that study's"] += 1
            continue
        if record.values is None or record.replicate:
            left_out[f"is {record.state}" if not record.replicate else "is a replicate"] += 1
            continue
        problem, trial = _fit(record, spec, full_bytes)
        if trial is None:
            left_out[problem] += 1
        else:
            known.append(trial)
    if unreadable:
        left_out["has a record that cannot be read"] = len(unreadable)
    return known, left_out


def save(known: list[Known], folder: Place) -> None:
    """Keep what was learnt in the study's own folder."""
    content = {"known": [trial._asdict() for trial in known]}
    write(StudyFolder(folder).warm_start, sealed(json.dumps(content, indent=1)).encode())


def load(folder: Place) -> list[Known]:
    """What `save` kept.

    Raises:
        InputError: it is gone or damaged: without it the sampler would suggest other trials than it began with.
    """
    path = StudyFolder(folder).warm_start
    try:
        content = read(path, MOST_BYTES)
        # An older version wrote the list alone.
        listed = json.loads(content) if content.lstrip()[:1] == b"[" else unsealed(content)["known"]
        return [Known(**trial) for trial in listed]
    except OSError as error:
        why = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = str(error) if isinstance(error, DamagedError) else "it is damaged"
    raise InputError(
        f"{path}: cannot be read ({why}): bring it back, or remove `warm_start` and the last line, the checksum, from "
        "study.yaml"
    )


def _fit(record: TrialRecord, spec: StudySpec, full_bytes: int) -> tuple[str, Known | None]:
    """A record as a trial of this study's space, or why it is none."""
    assert record.values is not None
    searched, had = dict(spec.searched()), {**later_defaults(), **record.config}
    params = {}
    for field, domain in searched.items():
        if field in had:
            value = had[field]
            inside = (
                value in domain.choices
                if isinstance(domain, Choices)
                else isinstance(value, int | float) and domain.low <= value <= domain.high
            )
            if not inside:
                return f"{field} is outside what is searched here", None
            params[field] = as_param(value)
    try:
        asked = optuna.trial.FixedTrial(params)
        here = configure(spec, asked, full_bytes).complete()
    except ValueError:  # Optuna's, where a parameter is missing
        return "has no value for a field that is searched here", None
    for field, value in here.items():
        if field not in INDIFFERENT and had.get(field) != value:
            return f"{field} differs", None
    measured = {metric: value for metric, value in record.values.items() if value is not None}
    missing = [metric for metric in (*spec.objectives, *spec.constraints) if metric not in measured]
    if missing:
        return f"{missing[0]} was not measured", None
    return "", Known(
        asked.params,
        [measured[metric] for metric in spec.objectives],
        {m: limit.violation(measured[m]) for m, limit in spec.constraints.items()},
    )
