import numpy as np
import pytest

from sizewise.results import comparing, load
from study_folder import StudyWriter, curve, finished_study


def test_what_is_attained_is_the_best_auc_at_each_size_or_below(tmp_path):
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    sizes = comparing.span([study])
    found = comparing.attained(study, sizes)
    for size, best in zip(sizes, found.best, strict=True):
        within = study.candidates.filter(study.candidates["embedding_bytes"] <= size)["auc"]
        assert best == within.max()
    low, high = found.ends
    known = np.isfinite(low)
    assert known.any()
    assert (low[known] <= high[known]).all()
    assert (high[known] <= found.best[known]).all()  # a resample attains nothing that the study did not


def test_a_study_does_not_differ_from_itself_and_a_better_one_does(tmp_path):
    for name, gain in (("plain", 0.0), ("better", 0.1)):
        writer = StudyWriter(tmp_path, name, trials=10)
        for trial in range(10):
            budget = 2_000 * 2**trial
            writer.evaluation(trial, 40, curve(budget, 1) + gain, embedding_bytes=budget)
            writer.ledger(trial)
        writer.driver("finished")
    plain, better = load(tmp_path, "plain"), load(tmp_path, "better")
    sizes = comparing.span([plain, better])
    same, *_ = comparing.difference(*(comparing.attained(plain, sizes, seed=s) for s in (0, 1)))
    assert (same == 0).all()
    value, low, _ = comparing.difference(
        comparing.attained(better, sizes), comparing.attained(plain, sizes, seed=1)
    )
    assert value == pytest.approx(0.1)
    assert (low[np.isfinite(low)] > 0).all()  # a gain larger than all else that differs is told apart


def test_hypervolumes_share_a_reference_point_and_hold_their_value(tmp_path):
    finished_study(tmp_path, "all")
    finished_study(tmp_path, "few", trials=3)
    studies = [load(tmp_path, name) for name in ("all", "few")]
    every, few = comparing.volumes(studies)
    assert every.value > few.value > 0
    for volume in (every, few):
        assert volume.low <= volume.high <= volume.value
    empty = StudyWriter(tmp_path, "empty")
    empty.driver("running")
    assert comparing.volumes([studies[0], load(tmp_path, "empty")])[1].value == 0
