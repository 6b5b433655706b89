import json

import pytest

from sizewise.figures.elements.reference import is_criteo_tb, marks
from sizewise.figures.searches import by_setting
from sizewise.figures.searches import searching as figures
from sizewise.results import hypervolume, load
from sizewise.results.quality import searching
from study_folder import StudyWriter, finished_study


def test_the_hypervolume_grows_to_that_of_the_whole_study(tmp_path):
    finished_study(tmp_path, "demo", trials=8)
    study = load(tmp_path, "demo")
    history = searching.hypervolume_history(study)
    assert history["place"].to_list() == list(range(1, 9))
    assert history["hypervolume"].is_sorted()
    assert history["hypervolume"][-1] == pytest.approx(hypervolume(study).value)
    assert searching.hypervolume_history(study, most=3)["place"].to_list() == [1, 4, 8]


@pytest.mark.parametrize("evaluator", list(searching.EVALUATORS))
def test_the_setting_that_decides_is_found(tmp_path, evaluator):
    writer = StudyWriter(tmp_path, "demo", trials=40)
    for trial in range(40):
        budget, other = 2_000 * 10 ** (trial % 5), (trial * 7) % 11
        writer.evaluation(trial, 40, 0.7 + 0.01 * (trial % 5), embedding_bytes=budget)
        writer.ledger(
            trial, config={"memory_budget": budget, "epochs": other, "seed": trial, "method": "robe"}
        )
    study = load(tmp_path, "demo")
    assert searching.searched(study) == ["memory_budget", "epochs"]  # seeds are never searched
    shares = searching.importances(study, "auc", evaluator)
    assert shares["memory_budget"] > 0.7
    assert sum(shares.values()) == pytest.approx(1)


def test_too_few_trials_have_no_importance(tmp_path):
    finished_study(tmp_path, "demo", trials=2)
    assert searching.importances(load(tmp_path, "demo"), "auc") == {}


def test_trials_that_overlap_have_lanes_of_their_own(tmp_path):
    writer = StudyWriter(tmp_path, "demo", trials=4)
    for trial, (start, end) in enumerate([(0, 60), (30, 90), (60, 120), (100, None)]):
        state = "finished" if end else "running"
        writer.ledger(trial, state, started=1e9 + start, finished=None if end is None else 1e9 + end)
    bars = figures._timeline_info(load(tmp_path, "demo")).bars
    assert bars["lane"].to_list() == [0, 1, 0, 1]
    assert bars["length"].to_list() == pytest.approx([1, 1, 1, 20 / 60])


@pytest.mark.parametrize("kind", ["none", "one", "undefined", "failed", "mixed"])
def test_every_figure_of_an_odd_study_is_drawn(tmp_path, kind):
    writer = StudyWriter(tmp_path, kind, trials=3, objectives={"auc": "maximize"})
    if kind == "one":
        writer.trial(0)
    elif kind == "undefined":
        writer.evaluation(0, 10, None)
        writer.ledger(0)
    elif kind == "failed":
        writer.ledger(0, "failed", error="no", finished=None)
    elif kind == "mixed":
        for trial, method in enumerate(("robe", "tt", "robe", "hash")):
            writer.trial(trial, 2_000 * 50**trial)
            record = json.loads((writer.folder / f"trials/{trial:04d}.json").read_text())
            config = record["config"] | {"method": method, "sign": trial > 1}
            writer.json(f"trials/{trial:04d}.json", record | {"config": config})
    study = load(tmp_path, kind)
    settings = [*searching.searched(study), "trial_id", "trial_id"]
    for figure in (
        figures.hypervolume_history(study),
        figures.objective_history(study, "auc"),
        figures.objective_history(study, "embedding_bytes"),
        figures.distribution(study, "auc"),
        figures.distribution(study, "embedding_bytes"),
        by_setting.ranks(study, *settings[:2], "auc"),
        figures.importance(study, "PED-ANOVA"),
        by_setting.slices(study, "auc"),
        by_setting.contour(study, settings[0], settings[1], "auc"),
        by_setting.parallel_coordinates(study),
        figures.timeline(study),
    ):
        assert figure.to_json()


def test_published_sizes_are_marked_over_criteo_terabyte_only(tmp_path):
    finished_study(tmp_path, "small")
    rows = {"train": 4_195_197_692, "validation": 0, "test": 0}
    StudyWriter(tmp_path, "big", data={"rows": rows, "features": 26, "full_bytes": 104_542_508_000})
    assert marks(load(tmp_path, "small")) == []
    assert is_criteo_tb(load(tmp_path, "big"))
    assert [mark.bytes for mark in marks(load(tmp_path, "big"))] == [10e6, 100e9]


def test_ranks_start_at_the_best_in_the_direction_of_the_objective(tmp_path):
    finished_study(tmp_path, "demo", trials=6)
    study = load(tmp_path, "demo")
    for objective, best in (("auc", study.trials["auc"].arg_max()), ("embedding_bytes", 0)):
        points = by_setting.ranks(study, "memory_budget", "epochs", objective).data[0]
        assert points.marker.color[best] == 1
        assert sorted(points.marker.color) == [1, 2, 3, 4, 5, 6]


def test_the_best_so_far_follows_the_direction_of_the_objective(tmp_path):
    writer = StudyWriter(tmp_path, "demo", trials=4)
    for trial, budget in enumerate([50_000, 2_000_000, 9_000, 300_000]):
        writer.trial(trial, budget, evaluations=2)
    writer.driver("finished")
    values, best = figures.objective_history(load(tmp_path, "demo"), "embedding_bytes").data
    assert list(values.y) == [50_000, 2_000_000, 9_000, 300_000]
    assert list(best.y) == [50_000, 50_000, 9_000, 9_000]
    scores, highest = figures.objective_history(load(tmp_path, "demo"), "auc").data
    assert list(highest.y) == [scores.y[0], *[max(scores.y[0], scores.y[1])] * 3]


def test_the_distribution_ends_with_all_trials_at_the_largest_value(tmp_path):
    finished_study(tmp_path, "demo", trials=6)
    study = load(tmp_path, "demo")
    steps = figures.distribution(study, "auc").data[0]
    assert list(steps.x) == sorted(study.trials["auc"])
    assert list(steps.y) == [place / 6 for place in range(1, 7)]
