"""Do intervals cover, and is a choice as good as it promises? Simulated studies whose true AUCs are known.

    python -m benchmarks.choosing --studies 1000

Scores of clicks are normal around a mean, those of other rows around 0, so that a model's true AUC is known exactly.
Models of a study score the same rows; most of their noise is common to them, as in trained models. Each study goes
through `results.answer` as one from disk does.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import ndtri

from sizewise.metrics.errors import encoded
from sizewise.metrics.scores import auc_parts
from sizewise.results import Study, answer
from sizewise.results.columns.kept_errors import KeptErrors
from sizewise.results.decision.intervals import difference, interval, point
from sizewise.store.records import DataRecord, Rows, StudyRecord

Floats = npt.NDArray[np.float64]
TOLERANCE = 0.002


@dataclass(frozen=True)
class Setting:
    """What the simulated studies are like.

    Attributes:
        models: of a study.
        rows: of its validation split.
        common: the share of the scores' variance that all models share; the rest makes their errors differ.
        luck: the standard deviation of what settings other than the size cost in AUC.
        near: how many of the models are all worse than promised, by a tenth, and the smallest: the hardest case.
    """

    models: int = 40
    rows: int = 10_000
    common: float = 0.98
    luck: float = 0.001
    near: int = 0


@dataclass
class Found:
    """Shares of the studies; of those that chose a smaller model, where there is a choice to be right or wrong.

    Attributes:
        usual: intervals of the same that take the two for named beforehand.
        single, pair: intervals that cover the true AUC of a model, and the true difference of two picked beforehand.
        answers: intervals that cover what the answer truly loses to the named best.
        worse, worse_than_any: answers that truly lose more than promised to the named best, and to the truly best.
        sure, sure_worse: confident answers that are smaller than the best, and that truly lose more than promised.
        flattery, true_flattery: of the best one's AUC, as estimated and as it is.
    """

    single: float = 0.0
    pair: float = 0.0
    answers: float = 0.0
    usual: float = 0.0
    smaller: float = 0.0
    worse: float = 0.0
    worse_than_any: float = 0.0
    sure: float = 0.0
    sure_worse: float = 0.0
    flattery: float = 0.0
    true_flattery: float = 0.0


def simulated(setting: Setting, rng: np.random.Generator) -> tuple[Study, Floats]:
    """A study, and the true AUCs of its trials."""
    decades = np.sort(rng.uniform(0, 4, setting.models))
    true = 0.75 - 0.00052 * decades**2.7 - np.abs(rng.normal(0, setting.luck, setting.models))
    if setting.near:
        true[:] = 0.75 - TOLERANCE * (np.arange(setting.models) >= setting.models - setting.near) * 1.1
    labels = (rng.random(setting.rows) < 0.25).astype(np.float64)
    shared = rng.standard_normal(setting.rows) * math.sqrt(setting.common)
    aucs, texts, errors = [], [], []
    for auc in true:
        own = rng.standard_normal(setting.rows) * math.sqrt(1 - setting.common)
        scores = shared + own + labels * ndtri(auc) * math.sqrt(2)
        parts = auc_parts(labels, scores)
        order = np.argsort(scores)
        ranks = np.flatnonzero(labels[order] == 1) + 1.0
        clicks = len(ranks)
        aucs.append((ranks.sum() - clicks * (clicks + 1) / 2) / (clicks * (setting.rows - clicks)))
        texts.append(encoded(parts))
        errors.append(math.sqrt((parts**2).sum()))
    return _study(setting, decades, aucs, texts, errors), true


def _study(
    setting: Setting, decades: Floats, aucs: list[float], texts: list[str], errors: list[float]
) -> Study:
    trial = np.arange(setting.models)
    evaluations = pl.DataFrame(
        {
            "trial_id": trial,
            "replicate": 0,
            "iteration": 100,
            "epoch": 1.0,
            "auc": aucs,
            "logloss": 0.5,
            "auc_error": errors,
            "logloss_error": pl.Series([None] * setting.models, dtype=pl.Float64),
            "embedding_bytes": (1e8 / 10**decades).astype(np.int64),
            "model_bytes": (1e8 / 10**decades).astype(np.int64),
            "compression_ratio": 10**decades,
            "configuration": trial,
            "state": "finished",
        }
    )
    kept = pl.DataFrame(
        {
            "trial_id": trial,
            "iteration": np.full(setting.models, 100),
            "stored_as": "",
            "auc_parts": texts,
            "logloss_parts": pl.Series([None] * setting.models, dtype=pl.String),
            "configuration": trial,
        }
    )
    record = StudyRecord(data=DataRecord(rows=Rows(validation=setting.rows), validation_click_rate=0.25))
    trials = evaluations.select("trial_id", "configuration", "state")
    return Study(
        "simulated",
        Path(),
        record,
        "finished",
        trials,
        evaluations,
        {"auc": "maximize"},
        [],
        errors=KeptErrors(kept),
    )


def measured(setting: Setting, studies: int, seed: int = 0) -> Found:
    """What so many studies come to."""
    found = Found()
    for study, true in _studies(setting, studies, seed):
        first, last = point(study, 0, 100), point(study, setting.models - 1, 100)
        alone, pair = interval(study, first), difference(study, last, first)
        found.single += alone.low <= true[0] <= alone.high
        found.pair += pair.low <= true[-1] - true[0] <= pair.high
        usual, sure = answer(study, TOLERANCE), answer(study, TOLERANCE, confident=True)
        assert usual.best
        assert usual.smallest
        assert usual.loss
        assert sure.smallest
        assert sure.best
        best, chosen = true[usual.best.trial_id], true[usual.smallest.trial_id]
        if usual.smallest.trial_id != usual.best.trial_id:
            found.smaller += 1
            found.answers += usual.loss.low <= chosen - best <= usual.loss.high
            assert usual.paired
            found.usual += usual.paired.low <= chosen - best <= usual.paired.high
            found.worse += best - chosen > TOLERANCE
        found.worse_than_any += true.max() - chosen > TOLERANCE
        if sure.smallest.trial_id != sure.best.trial_id:
            found.sure += 1
            found.sure_worse += true.max() - true[sure.smallest.trial_id] > TOLERANCE
        if usual.selection:
            found.flattery += usual.selection.best
        found.true_flattery += usual.best.auc - best
    smaller = max(found.smaller, 1.0)
    shares = {
        name: value / (smaller if name in ("answers", "usual") else studies)
        for name, value in asdict(found).items()
    }
    return Found(**shares)


def _studies(setting: Setting, studies: int, seed: int) -> Iterator[tuple[Study, Floats]]:
    for number in range(studies):
        yield simulated(setting, np.random.default_rng([seed, number]))


SETTINGS = {
    "differences known to 0.001": Setting(),
    "to 0.0003": Setting(common=0.998),
    "to 0.0001": Setting(common=0.9998),
    "100 models": Setting(models=100, common=0.998),
    "half just beyond the promise": Setting(common=0.998, near=20),
    "3 models": Setting(models=3),
    "10 equal models, 4,000 rows": Setting(models=10, rows=4_000, common=0.99, luck=0.0001),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--settings", nargs="*", choices=list(SETTINGS), default=list(SETTINGS))
    arguments = parser.parse_args()
    for name in arguments.settings:
        setting = SETTINGS[name]
        started = time.monotonic()
        found = measured(setting, arguments.studies)
        if arguments.json:
            print(json.dumps({"setting": name, "studies": arguments.studies, **asdict(found)}))
        else:
            figures = ", ".join(f"{key} {value:.4f}" for key, value in asdict(found).items())
            print(f"{name}: {figures} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
