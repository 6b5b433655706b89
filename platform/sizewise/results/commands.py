"""Commands for one trial: what exports its model, and what trains its configuration for longer.

export(study, 7)        # "sizewise export mine --trial 7 --out mine-trial7"
run_longer(study, 7)    # "sizewise run runs/mine/study.yaml --set name=mine-trial7-longer --set trials=1 ..."
"""

import json
import math
import shlex
from typing import Any

import polars as pl

from sizewise.models import DEFAULT, MODELS
from sizewise.results.reading import Study

# settings of a trial by their dotted place in the study file
_PLACES = {
    "memory_budget": "search.memory_budget",
    "learning_rate": "search.learning_rate",
    "batch_size": "train.batch_size",
    "optimizer": "train.optimizer",
    "precision": "train.precision",
    "decay": "train.schedule.decay",
    "distill_weight": "train.distill.weight",
    "distill_temperature": "train.distill.temperature",
}
# what else a trial's configuration holds; the rest are options of its embedding method or model
_OTHERS = (
    "data",
    "dim",
    "bottom_mlp",
    "top_mlp",
    "epochs",
    "evaluate_every",
    "checkpoint_seconds",
    "seed",
    "model",
    "distill_teacher",
    "distill_teachers",
    "distill_epochs",
    "distill_learning_rate",
    "distill_memory_budget",
)


def export(study: Study, trial_id: int) -> str:
    """`sizewise export` of a trial's best model, into a folder named after it."""
    return (
        f"sizewise export {study.name}{_where(study)} --trial {trial_id} --out {study.name}-trial{trial_id}"
    )


def problems(study: Study) -> str:
    """`sizewise results` of everything that could not be read."""
    return f"sizewise results {study.name}{_where(study)} --problems"


def _where(study: Study) -> str:
    runs = str(study.folder.parent)
    return "" if runs == "runs" else f" --runs {shlex.quote(runs)}"


def run_longer(study: Study, trial_id: int, factor: float = 2.0) -> str:
    """`sizewise run` with everything that the trial was, and `factor` times its epochs."""
    row: dict[str, Any] = study.trials.filter(pl.col("trial_id") == trial_id).row(0, named=True)
    settings: dict[str, Any] = {
        "name": f"{study.name}-trial{trial_id}-longer",
        "trials": 1,
        "first_trials": [],
    }
    options = [name for name in study.config_columns if name not in (*_PLACES, *_OTHERS)]
    kind = row.get("model") or DEFAULT
    of_model = MODELS[kind].options.model_fields if kind in MODELS else {}
    embedding = {name: row[name] for name in options if row[name] is not None and name not in of_model}
    if "method" in embedding:
        settings["embedding"] = embedding
    settings |= {f"model.{name}": row[name] for name in options if row[name] is not None and name in of_model}
    settings |= {place: row[name] for name, place in _PLACES.items() if row.get(name) is not None}
    if row.get("role") == "teacher":  # which learned from labels alone
        settings["train.distill"] = None
    settings["search.epochs"] = math.ceil((row.get("epochs") or row.get("epoch") or 1) * factor)
    words = [f"--set {shlex.quote(f'{place}={_text(value)}')}" for place, value in settings.items()]
    return f"sizewise run {shlex.quote(str(study.folder / 'study.yaml'))} " + " ".join(words)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
