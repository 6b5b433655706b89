"""Commands for one trial, as text: the one that exports its model, and the one that trains it for longer.

export(study, 7)        # "sizewise export mine --trial 7 --out mine-trial7"
run_longer(study, 7)    # "sizewise run runs/mine/study.yaml --set name=mine-trial7-longer --set trials=1 ..."
"""

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

import polars as pl

from sizewise.results.columns.rounded import STORED_AS
from sizewise.results.reading import Study
from sizewise.store.study_folder import StudyFolder

_TEACHER = (
    *("distill_teacher", "distill_teachers", "distill_epochs", "distill_learning_rate"),
    "distill_memory_budget",
)
# Settings that the study file has already, unless its trials differ in them.
_OF_THE_STUDY = ("dim", "bottom_mlp", "top_mlp", "evaluate_every", "checkpoint_seconds", "model", *_TEACHER)


def export(study: Study, trial_id: int, stored_as: str | None = None, iteration: int | None = None) -> str:
    """`sizewise export` of a trial's model into a folder named after both.

    Args:
        study: the trial's.
        trial_id: the trial.
        stored_as: the storage to round the model to, as `--storage` takes it; None: as it was trained.
        iteration: of the evaluation; None for the trial's best one.
    """
    best = study.trials.filter(trial_id=trial_id)["iteration"].to_list()
    at = "" if iteration is None or iteration in best else f" --iteration {iteration}"
    out = (
        f"{study.name}-trial{trial_id}"
        + (f"-{iteration}" if at else "")
        + (f"-{stored_as}" if stored_as else "")
    )
    storage = f" --storage {stored_as}" if stored_as else ""
    return f"sizewise export {study.name}{_where(study)} --trial {trial_id}{at}{storage} --out {out}"


def resume(study: Study) -> str:
    """`sizewise resume` of the study."""
    return f"sizewise resume {study.name}{_where(study)}"


def trial_report(study: Study, trial_id: int) -> str:
    """`sizewise status` of one trial: its error and its log."""
    return f"sizewise status {study.name}{_where(study)} --trial {trial_id}"


def problems(study: Study) -> str:
    """`sizewise results` of everything that could not be read."""
    return f"sizewise results {study.name}{_where(study)} --problems"


def _where(study: Study) -> str:
    runs = str(study.folder.parent)
    return "" if runs == "runs" else f" --runs {shlex.quote(runs)}"


def run_longer(study: Study, trial_id: int, factor: float = 2.0) -> str:
    """`sizewise run` with everything that the trial was, and `factor` times its epochs.

    Args:
        study: the trial's.
        trial_id: one of the study's trials.
        factor: what its epochs are multiplied by; the product is rounded up.
    """
    # Which load PyTorch, for which the other commands need not wait.
    from sizewise.config.trial import dotted_names, model_options, reserved_names
    from sizewise.embedding import METHODS
    from sizewise.models import DEFAULT, MODELS, is_own

    row = study.trials.filter(pl.col("trial_id") == trial_id).row(0, named=True)
    settings: dict[str, object] = {
        "name": f"{study.name}-trial{trial_id}-longer",
        "trials": 1,
        "first_trials": [],
    }
    options = [name for name in study.config_columns if name not in reserved_names()]
    kind = row.get("model") or DEFAULT
    method = row.get("method")
    known = kind in MODELS or (is_own(kind) and method in METHODS)
    of_model = model_options(kind, str(method), options) if known else set()
    embedding = {name: row[name] for name in options if row[name] is not None and name not in of_model}
    if method is not None:
        settings["embedding"] = {"method": method, **embedding, **_rounded(study, row)}
    settings |= {f"model.{name}": row[name] for name in options if row[name] is not None and name in of_model}
    places = {name: place for name, place in dotted_names().items() if name in study.config_columns}
    for name, place in places.items():
        given = name in _OF_THE_STUDY and study.trials[name].drop_nulls().n_unique() == 1
        if name not in ("method", "epochs") and row[name] is not None and not given:
            settings[place] = row[name]
    if row.get("role") == "teacher":  # which learned from labels alone
        settings["train.distill"] = None
    settings["search.epochs"] = math.ceil((row.get("epochs") or row.get("epoch") or 1) * factor)
    words = [f"--set {shlex.quote(f'{place}={_text(value)}')}" for place, value in settings.items()]
    file = shlex.quote(str(StudyFolder(study.folder).study_yaml))
    return f"sizewise run {file}{_where(study)} {' '.join(words)}"


def _rounded(study: Study, row: Mapping[str, Any]) -> dict[str, object]:
    """The storages that a trial trained in float32 is rounded to as well."""
    if STORED_AS not in study.rounded.columns or row.get("storage") not in (None, "float32"):
        return {}
    return {"also_stored_as": study.rounded[STORED_AS].unique(maintain_order=True).to_list()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
