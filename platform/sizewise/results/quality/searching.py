"""What the search did: its hypervolume trial by trial, and which settings mattered for which objective.

    hypervolume_history(study)               # a row a trial: trial_id, hypervolume
    searched(study)                          # the settings that differ between trials
    importances(study, "auc")                # setting -> share of the objective's variance, by Optuna

Optuna's study is rebuilt from the ledger, each setting over the span of values that was tried.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import moocore
import numpy as np
import optuna
import polars as pl
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from sizewise.metrics.registry import SCORES
from sizewise.results.columns.front import column, nondominated
from sizewise.results.quality.hypervolume import hypervolume, scaled
from sizewise.results.reading import Study

optuna.logging.set_verbosity(optuna.logging.WARNING)
EVALUATORS: dict[str, Callable[[], optuna.importance.BaseImportanceEvaluator]] = {
    "PED-ANOVA": optuna.importance.PedAnovaImportanceEvaluator,
    "fANOVA": lambda: optuna.importance.FanovaImportanceEvaluator(seed=0),
    "mean decrease impurity": lambda: optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0),
}
_MOST_TRIALS = 2_000  # evenly chosen; more change nothing that is seen but the wait
_SLOW = {"fANOVA": 200}  # trials above which an evaluator would keep people waiting
_NEVER = {"seed", "data", "evaluate_every", "checkpoint_seconds"}
# Settings that are an objective in other words, which explain it without saying anything.
_SAME = {
    "memory_budget": ("embedding_bytes", "model_bytes"),
    "epochs": ("iterations", "iteration", "samples"),
}
_DONE = ("finished", "pruned")
_LOG_SPAN = 20.0  # a positive setting whose values span more than this is looked at by its logarithm


def hypervolume_history(study: Study, most: int = 100) -> pl.DataFrame:
    """The hypervolume of all evaluations up to a trial, in the order in which trials ended, at `most` places.

    One reference point for all (that of `hypervolume`), so the line never falls. Columns: place (trials ended
    by then, from 1), trial_id, hypervolume.
    """
    objectives = study.objectives
    reference = hypervolume(study).reference
    corner = [float(scaled(np.array([reference[name]]), name)[0]) for name in objectives]
    directions = [way == "maximize" for way in objectives.values()]
    columns = [column(name) for name in objectives]
    ended = study.trials.filter(pl.col("trial_id").is_in(study.candidates["trial_id"].unique().implode()))
    order = ended.sort("finished", "trial_id", nulls_last=True)["trial_id"].to_list()
    stops = sorted({round(stop) for stop in np.linspace(1, len(order), most)}) if order else []
    points = study.candidates.select("trial_id", *columns)
    front = nondominated(points.head(0), objectives)
    rows, before = [], 0
    for stop in stops:
        # what was beaten once stays beaten
        new = points.filter(pl.col("trial_id").is_in(order[before:stop]))
        front, before = nondominated(pl.concat([front, new]), objectives), stop
        values = np.column_stack([scaled(front[column(n)].to_numpy(), n) for n in objectives])
        volume = moocore.hypervolume(values, ref=corner, maximise=directions) if front.height else 0.0
        rows.append((stop, order[stop - 1], float(volume)))
    schema = {"place": pl.Int64, "trial_id": pl.Int64, "hypervolume": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def searched(study: Study) -> list[str]:
    """The settings that differ between trials, in the order of the study file."""
    return [
        name
        for name in study.config_columns
        if name not in _NEVER and study.trials[name].drop_nulls().n_unique() > 1
    ]


def is_log(study: Study, name: str) -> bool:
    """Whether a setting is better looked at by its logarithm: positive numbers that span decades."""
    values = study.trials[name].drop_nulls()
    if not values.dtype.is_numeric() or values.is_empty():
        return False
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    return low > 0 and high / low > _LOG_SPAN


def evaluators(study: Study) -> list[str]:
    """The evaluators that answer soon enough for a study of this size."""
    return [name for name in EVALUATORS if study.trials.height <= _SLOW.get(name, study.trials.height)]


def importances(study: Study, objective: str, evaluator: str = "PED-ANOVA") -> dict[str, float]:
    """The importance of each searched setting for an objective, by Optuna.

    Args:
        study: its finished and pruned trials are looked at, at most 2,000 of them.
        objective: a metric, as in `study.objectives`.
        evaluator: one of EVALUATORS.

    Returns:
        A share for each setting, largest first; empty with too few trials.

    Raises:
        KeyError: an evaluator that is not among EVALUATORS.
    """
    make = EVALUATORS[evaluator]
    rebuilt = _optuna_study(study, objective)
    if len(rebuilt.trials) < 4 or len({trial.value for trial in rebuilt.trials}) < 2:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings with few values, of which many studies have one
            shares = optuna.importance.get_param_importances(rebuilt, evaluator=make())
        return {name: float(share) for name, share in shares.items()}
    except (RuntimeError, ValueError):  # no setting that all trials have, or nothing to tell them apart by
        return {}


def _optuna_study(study: Study, objective: str) -> optuna.Study:
    """The ended trials with their best evaluation's value of one objective, as Optuna keeps them."""
    value = column(objective)
    done = study.trials.filter(pl.col("state").is_in(_DONE), pl.col(value).is_not_null())
    done = done.gather_every(math.ceil(max(done.height, 1) / _MOST_TRIALS))
    others = [name for name in searched(study) if objective not in _SAME.get(name, ())]
    distributions = {name: _distribution(study, name) for name in others}
    rebuilt = optuna.create_study(direction=study.objectives.get(objective, "maximize"))
    for row in done.iter_rows(named=True):
        params = {name: _value(row[name]) for name in distributions if row[name] is not None}
        rebuilt.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={name: distributions[name] for name in params},
                value=math.log10(row[value]) if _in_decades(row[value], value) else float(row[value]),
            )
        )
    return rebuilt


def _distribution(study: Study, name: str) -> BaseDistribution:
    values = study.trials[name].drop_nulls()
    if not values.dtype.is_numeric():
        return CategoricalDistribution(sorted(values.cast(pl.String).unique().to_list()))
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    return FloatDistribution(low, high, log=is_log(study, name))


def _value(value: Any) -> Any:
    return (
        str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else float(value)
    )


def _in_decades(value: float, name: str) -> bool:
    return value > 0 and name not in SCORES
