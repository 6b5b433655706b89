import numpy as np
import pytest

from sizewise.results import load
from sizewise.results.quality import comparing
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
    assert (low[known] <= found.best[known]).all()
    assert (found.best[known] <= high[known]).all()


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
    assert (low[np.isfinite(low)] > 0).all()  # a gain larger than all else that differs is distinguished


def test_hypervolumes_share_a_reference_point_and_hold_their_value(tmp_path):
    finished_study(tmp_path, "all")
    finished_study(tmp_path, "few", trials=3)
    studies = [load(tmp_path, name) for name in ("all", "few")]
    every, few = comparing.volumes(studies)
    assert every.value > few.value > 0
    for volume in (every, few):
        assert volume.low <= volume.value <= volume.high
    empty = StudyWriter(tmp_path, "empty")
    empty.driver("running")
    assert comparing.volumes([studies[0], load(tmp_path, "empty")])[1].value == 0


def _with_seeds(tmp_path, name, gains, budgets=(2_000, 20_000)):
    """A study of three seeds a configuration; the AUC of seed `s` is its curve's plus `gains[s]`."""
    writer = StudyWriter(tmp_path, name, trials=3 * len(budgets))
    for trial in range(3 * len(budgets)):
        configuration, replicate = divmod(trial, 3)
        budget = budgets[configuration]
        auc = curve(budget, 1) + gains[replicate]
        for iteration, loss in ((40, 0.0), (80, 0.1)):  # trained for too long
            writer.evaluation(trial, iteration, auc - loss, replicate=replicate, embedding_bytes=budget)
        writer.ledger(trial, configuration=configuration, replicate=replicate)
    writer.driver("finished")
    return load(tmp_path, name)


def test_intervals_are_taken_over_replicates_where_there_are_some(tmp_path):
    one = _with_seeds(tmp_path, "one", (-0.001, 0.0, 0.001))
    other = _with_seeds(tmp_path, "other", (0.019, 0.020, 0.021))
    sizes = np.array([2_000.0, 20_000.0])
    first, second = (comparing.attained(study, sizes) for study in (one, other))
    assert first.best == pytest.approx([curve(2_000, 1), curve(20_000, 1)])
    low, high = first.ends
    half = 4.302653 * 0.001 / np.sqrt(3)  # Student's t with two degrees of freedom
    assert high - first.best == pytest.approx([half, half])
    assert first.best - low == pytest.approx([half, half])
    value, low, high = comparing.difference(second, first)
    assert value == pytest.approx([0.02, 0.02])
    welch = 2.776445 * 0.001 * np.sqrt(2 / 3)  # equal variances: four degrees of freedom
    assert high - value == pytest.approx([welch, welch])
    worse, better = comparing.volumes([one, other])
    assert worse.low < worse.value < worse.high < better.low


def test_a_seed_that_some_configurations_lack_is_no_replicate_of_the_study(tmp_path):
    study = _with_seeds(tmp_path, "one", (0.0, 0.001, 0.002))
    assert [sorted(each.trials["trial_id"]) for each in comparing.replicas(study)] == [[0, 3], [1, 4], [2, 5]]
    lone = StudyWriter(tmp_path, "lone", trials=4)
    for trial, (configuration, replicate) in enumerate([(0, 0), (0, 1), (1, 0)]):
        lone.evaluation(trial, 40, 0.7, replicate=replicate)
        lone.ledger(trial, configuration=configuration, replicate=replicate)
    assert comparing.replicas(load(tmp_path, "lone")) == []
