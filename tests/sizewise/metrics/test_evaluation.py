"""Evaluations and test scores: frozen, and the same after they were rows."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest

from sizewise.metrics.evaluation import Evaluation, TestScores, best
from sizewise.metrics.scores import Scores
from sizewise.store.trials.evaluations import evaluation_line, evaluation_of
from sizewise_core.files.sealed import DamagedError

ROW = {"iteration": 10, "epoch": 0.5, "auc": 0.7, "brier": 0.2}


def test_what_was_measured_stays() -> None:
    evaluation = Evaluation(ROW, "AAAA")
    with pytest.raises(FrozenInstanceError):
        evaluation.auc_parts = ""  # type: ignore[misc]
    assert (evaluation.iteration, evaluation.epoch, evaluation.auc, evaluation["brier"]) == (
        10,
        0.5,
        0.7,
        0.2,
    )
    assert evaluation == ROW
    assert list(evaluation.as_row()) == [*ROW, "auc_parts"]


def test_on_disk_and_back() -> None:
    """Undefined metrics are null there; another trial's line is none of this one's."""
    evaluation = Evaluation(ROW | {"logloss": math.nan}, "AAAA")
    line = evaluation_line(3, evaluation).encode()
    assert json.loads(line)["logloss"] is None
    again = evaluation_of(line, 3)
    assert again.as_row() == evaluation.as_row() | {"logloss": pytest.approx(math.nan, nan_ok=True)}
    with pytest.raises(DamagedError, match="of trial 3"):
        evaluation_of(line, 4)


def test_scores_of_the_test_split() -> None:
    scores = TestScores(10, Scores(0.7, 0.5, 0.9, 1.0), {"brier": 0.2})
    assert TestScores.from_row(scores.as_row()) == scores
    undefined = TestScores.from_row({"iteration": 10, "auc": None, "logloss": 0.5})
    assert math.isnan(undefined.scores.auc)
    assert undefined.scores.logloss == 0.5


def test_the_best_is_the_first_of_equals() -> None:
    rows = [Evaluation(ROW | {"iteration": n, "auc": auc}) for n, auc in ((1, math.nan), (2, 0.7), (3, 0.7))]
    assert best(rows).iteration == 2
