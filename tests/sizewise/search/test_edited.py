"""A study file that was edited goes on with the trials on record, or is told what they do not agree with."""

from pathlib import Path
from typing import Any

import pytest

from sizewise.config import StudySpec
from sizewise.search.edited import disagreement
from sizewise.search.suggest import Search
from sizewise.store.trials.ledger import Ledger

FILE = {
    "name": "s",
    "data": "d",
    "embedding": {"method": "robe"},
    "search": {
        "memory_budget": {"low": 1000, "high": 9000},
        "learning_rate": {"low": 0.01, "high": 0.05},
        "epochs": 2,
    },
    "train": {"optimizer": {"choices": ["adagrad", "adam"]}},
    "trials": 2,
}
ROW = {"auc": 0.7, "embedding_bytes": 1000, "model_bytes": 2000, "iteration": 10, "epoch": 2.0}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """That of a study with one trial finished and one under way."""
    search = Search(StudySpec.model_validate(FILE), Ledger(tmp_path), 10_000)
    record = search.ask()
    assert record
    search.finish(record.trial_id, [ROW])
    search.ask()
    return Ledger(tmp_path)


def edited(section: str = "", **fields: Any) -> StudySpec:
    changed = {section: {**FILE[section], **fields}} if section else fields  # type: ignore[dict-item]
    return StudySpec.model_validate({**FILE, **changed})


@pytest.mark.parametrize(
    "spec",
    [
        edited(trials=5, data="elsewhere", sampler="random", name="t"),
        edited(resources={"concurrent_trials": 2}, failures={"retries": 9}),
        edited(objectives={"auc": "maximize", "model_bytes": "minimize"}),
        edited(constraints={"embedding_bytes": {"max": 500}, "gpu_seconds": {"max": 9.0}}),
        edited(replicates={"seeds": 2, "of": "all"}),
        edited("search", learning_rate={"low": 0.001, "high": 1.0}),
        edited("train", optimizer={"choices": ["adam", "sgd", "adagrad"]}),
    ],
)
def test_what_is_wanted_of_a_study_may_change(ledger: Ledger, spec: StudySpec) -> None:
    assert disagreement(spec, ledger.records().values(), 10_000) == ""
    search = Search(spec, ledger, 10_000)
    assert search.remaining
    record = search.ask()
    assert record is not None
    search.finish(record.trial_id, [ROW])


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (edited(model={"dim": 8}), "dim: was 16 for trial 0, and is 8 now"),
        (edited(seed=2), "seed: was 1 for trial 0, and is 2 now"),
        (edited("search", epochs=3), "epochs: was 2 for trial 0, and is 3 now"),
        (edited("search", epochs={"low": 1, "high": 3}), "epochs: is searched now, and was 2 for trial 0"),
        (edited("search", learning_rate={"low": 0.5, "high": 0.6}), "outside what is searched now"),
        (edited("train", optimizer={"choices": ["sgd", "sgd"]}), "outside what is searched now"),
        (edited("train", optimizer="sgd"), "optimizer: was "),
    ],
)
def test_what_trials_were_made_of_may_not(ledger: Ledger, spec: StudySpec, told: str) -> None:
    assert told in disagreement(spec, ledger.records().values(), 10_000)
