"""Intervals of scores and of their differences: DeLong's, from what evaluations keep; and where they kept nothing."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sizewise.metrics.errors import error_parts
from sizewise.metrics.scores import evaluate_scores
from sizewise.results import Study, load
from sizewise.results.decision.intervals import Interval, difference, differences, interval, intervals, point
from study_folder import StudyWriter

ROWS = 4_000
Floats = npt.NDArray[np.float64]


def _models(count: int, seed: int = 0) -> tuple[Floats, list[Floats]]:
    """Labels, and log-odds of alike models of them."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(-1.2, 1.0, ROWS)
    labels = (rng.random(ROWS) < 1 / (1 + np.exp(-signal))).astype(np.float64)
    return labels, [signal + rng.normal(0, 0.3 + 0.2 * n, ROWS) for n in range(count)]


def _study(runs: Path, labels: Floats, models: list[Floats], kept: bool = True, seeds: int = 1) -> Study:
    rate = float(labels.mean())
    data = {"rows": {"train": 80, "validation": ROWS}, "validation_click_rate": rate}
    writer = StudyWriter(runs, "s", trials=len(models), data=data)
    for trial_id, logits in enumerate(models):
        scores, parts = evaluate_scores(labels, logits), error_parts(labels, logits) if kept else {}
        configuration, replicate = divmod(trial_id, seeds)
        writer.evaluation(
            trial_id,
            100,
            scores.auc,
            logloss=scores.logloss,
            embedding_bytes=1_000 * (10 - configuration),
            replicate=replicate,
            **parts,
        )
        writer.ledger(trial_id, configuration=configuration, replicate=replicate)
    return load(runs, "s")


def _delong(labels: Floats, *models: Floats) -> Floats:
    """The covariance of the models' AUCs, as in DeLong et al. (1988), by comparing every click with every other row."""
    click = labels == 1
    of_clicks, of_others = [], []
    for logits in models:
        above = np.sign(logits[click][:, None] - logits[~click][None, :]) / 2 + 0.5
        of_clicks.append(above.mean(axis=1))
        of_others.append(above.mean(axis=0))
    return np.cov(of_clicks) / click.sum() + np.cov(of_others) / (~click).sum()


def test_paired_intervals_are_delongs(tmp_path: Path) -> None:
    labels, models = _models(3)
    study = _study(tmp_path, labels, models)
    covariance = _delong(labels, *models)
    best = point(study, 0, 100)
    alone = intervals(study, study.candidates)
    assert alone["rows_error"].to_list() == pytest.approx(np.sqrt(np.diag(covariance)).tolist(), rel=0.15)
    assert set(alone["basis"]) == {"paired"}
    found = differences(study, study.candidates, best)
    assert found.row(0, named=True) | {"seeds_error": 0} == {
        **dict.fromkeys(["value", "low", "high", "rows_error", "seeds_error"], 0.0),
        "basis": "paired",
    }
    for number in (1, 2):
        expected = math.sqrt(covariance[0, 0] + covariance[number, number] - 2 * covariance[0, number])
        assert found["rows_error"][number] == pytest.approx(expected, rel=0.15)
        assert found["rows_error"][number] < 0.8 * math.sqrt(covariance[0, 0] + covariance[number, number])
        assert found["high"][number] - found["value"][number] == pytest.approx(1.979 * expected, rel=0.15)
    candidates = study.candidates
    assert candidates["auc_low"].to_list() == pytest.approx(alone["low"].to_list())
    # Of the log-loss, as a paired t-test.
    losses = [np.logaddexp(0, np.where(labels == 1, -z, z)) for z in models]
    expected = (losses[2] - losses[0]).std() / math.sqrt(ROWS)
    assert difference(study, point(study, 2, 100), best, "logloss").rows_error == pytest.approx(
        expected, rel=0.15
    )


def test_without_what_is_kept_models_are_taken_for_independent(tmp_path: Path) -> None:
    labels, models = _models(2)
    study = _study(tmp_path, labels, models, kept=False)
    found = difference(study, point(study, 1, 100), point(study, 0, 100))
    covariance = _delong(labels, *models)
    assert found.basis == "independent"
    assert found.rows_error == pytest.approx(math.sqrt(np.trace(covariance)), rel=0.1)
    assert interval(study, point(study, 0, 100)).basis == "independent"
    unknown = difference(study, point(study, 1, 100), point(study, 0, 100), "logloss")
    assert (unknown.basis, unknown.known) == ("unknown", False)


def test_what_is_damaged_counts_as_not_kept(tmp_path: Path) -> None:
    labels, models = _models(2)
    study = _study(tmp_path, labels, models)
    for text in ("", "AAAA", "no base64!", "A" * 684):
        writer = StudyWriter(tmp_path, "s", trials=2)
        writer.evaluation(0, 200, 0.7, auc_parts=text)
    assert difference(load(tmp_path, "s"), point(study, 1, 100), point(study, 0, 100)).known


def test_seeds_are_given_apart(tmp_path: Path) -> None:
    labels, models = _models(4)
    study = _study(tmp_path, labels, models, seeds=2)
    aucs = [evaluate_scores(labels, logits).auc for logits in models]
    pooled = (np.var(aucs[:2], ddof=1) + np.var(aucs[2:], ddof=1)) / 2
    found = difference(study, point(study, 2, 100), point(study, 0, 100))
    assert found.seeds_error == pytest.approx(math.sqrt(pooled))  # two means of two seeds
    weights = np.array([-0.5, -0.5, 0.5, 0.5])
    expected = math.sqrt(weights @ _delong(labels, *models) @ weights)
    assert found.rows_error == pytest.approx(expected, rel=0.15)
    assert found.high - found.value > 1.979 * math.hypot(found.rows_error, found.seeds_error)


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((-0.0013, -0.0033, 0.0007), "0.0013 lower, between 0.0033 lower and 0.0007 higher"),
        ((-0.0133, -0.0153, -0.0113), "0.0133 lower, between 0.0113 and 0.0153 lower"),
        ((0.0133, 0.0113, 0.0153), "0.0133 higher, between 0.0113 and 0.0153 higher"),
        ((-0.0013, math.nan, math.nan), "0.0013 lower"),
        ((0.0, 0.0, 0.0), "the same"),
    ],
)
def test_differences_in_words(ends: tuple[float, float, float], text: str) -> None:
    assert Interval(*ends).text == text
