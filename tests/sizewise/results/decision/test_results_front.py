import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise.figures import accuracy_against_iterations
from sizewise.results import answer, hypervolume, load
from sizewise.results.columns.front import nondominated
from study_folder import StudyWriter, finished_study

Point = tuple[float, int, int]
DEFAULT = {"auc": "maximize", "embedding_bytes": "minimize", "iterations": "minimize"}


def _table(points: list[Point]) -> pl.DataFrame:
    schema = {"auc": pl.Float64, "embedding_bytes": pl.Int64, "iteration": pl.Int64}
    return pl.DataFrame(points, schema=schema, orient="row")


def _beats(one: Point, other: Point) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1] and one[2] <= other[2]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.5, 0.6, 0.7, 0.75]), st.integers(1, 5), st.integers(1, 5)),
        min_size=1,
        max_size=30,
    )
)
def test_the_front_is_what_no_other_point_beats(points: list[Point]) -> None:
    front = nondominated(_table(points), DEFAULT).rows()  # type: ignore[arg-type]
    assert sorted(front) == sorted({p for p in points if not any(_beats(q, p) for q in points)})


def test_directions_are_the_studys(tmp_path: Path) -> None:
    for name, way in (("least", "minimize"), ("most", "maximize")):
        writer = StudyWriter(tmp_path, name, trials=1, objectives={"auc": "maximize", "iterations": way})
        for iteration in (10, 20):
            writer.evaluation(0, iteration, 0.7)
        writer.ledger(0)
        assert load(tmp_path, name).front["iteration"].to_list() == [10 if name == "least" else 20]


def test_failed_trials_are_off_the_front_and_running_ones_on_it(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=3)
    for trial_id, state in enumerate(("finished", "running", "failed")):
        writer.evaluation(trial_id, 10, 0.7 + trial_id / 100, embedding_bytes=1_000 * (trial_id + 1))
        writer.ledger(trial_id, state)
    assert load(tmp_path, "s").front["trial_id"].to_list() == [0, 1]


def test_hypervolume_of_known_boxes(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=2, data={"full_bytes": 1_000_000})
    writer.evaluation(
        0, 10, 0.75, embedding_bytes=10_000
    )  # 2 decades below the tables, 1 below the iterations
    writer.evaluation(1, 100, 0.80, embedding_bytes=1_000)  # 3 decades, 0 below: on the reference's edge
    for trial_id in range(2):
        writer.ledger(trial_id)
    study = load(tmp_path, "s")
    volume = hypervolume(study)
    assert volume.reference == {"auc": 0.5, "embedding_bytes": 1_000_000, "iterations": 100}
    assert volume.value == pytest.approx(0.25 * 2 * 1)
    wider = hypervolume(study, {"iterations": 1_000})
    # both boxes, less where they overlap
    assert wider.value == pytest.approx(0.25 * 2 * 2 + 0.30 * 3 * 1 - 0.25 * 2 * 1)


def test_hypervolume_of_a_study_agrees_with_sampling(tmp_path: Path) -> None:
    finished_study(tmp_path, "s", trials=6)
    study = load(tmp_path, "s")
    volume = hypervolume(study)
    front = study.front.select("auc", "embedding_bytes", "iteration").to_numpy()
    corner = np.array(
        [0.5, np.log10(study.record.data.full_bytes or 1), np.log10(volume.reference["iterations"])]
    )
    best = np.array([front[:, 0].max(), *np.log10(front[:, 1:].min(axis=0))])
    points = np.random.default_rng(0).uniform(size=(40_000, 3)) * (best - corner) + corner
    covered = np.zeros(len(points), dtype=bool)
    for auc, size, iteration in front:
        covered |= (
            (points[:, 0] <= auc) & (points[:, 1] >= np.log10(size)) & (points[:, 2] >= np.log10(iteration))
        )
    share = covered.mean()
    expected = share * float(np.prod(np.abs(best - corner)))
    error = 5 * np.sqrt(share * (1 - share) / len(points)) * float(np.prod(np.abs(best - corner)))
    assert volume.value == pytest.approx(expected, abs=error)


def test_an_empty_front_covers_nothing(tmp_path: Path) -> None:
    StudyWriter(tmp_path, "s")
    assert hypervolume(load(tmp_path, "s")).value == 0.0


def test_front_rows_carry_what_a_reader_needs(tmp_path: Path) -> None:
    finished_study(tmp_path, "s", trials=4)
    front = load(tmp_path, "s").front
    assert {"trial_id", "iteration", "auc", "embedding_bytes", "model_bytes", "memory_budget"} <= set(
        front.columns
    )
    sizes = front["embedding_bytes"].to_list()
    assert all(one <= other for one, other in itertools.pairwise(sizes))


def test_iterations_are_those_of_models_that_have_cooled_down(tmp_path: Path) -> None:
    """Two sizes whose rate falls over the last fifth of two epochs, and over 40 iterations from 100 on."""
    writer = StudyWriter(tmp_path, "cooled", trials=3, objectives=DEFAULT)
    falls = {"decay": "cosine", "decay_share": 0.2, "epochs": 2}
    fixed = {"decay": "linear", "decay_start": 100, "decay_share": 40, "epochs": 2}
    curves = {0: (9_000_000, falls, 0.701), 1: (20_000, falls, 0.7), 2: (50_000, fixed, 0.69)}
    for trial_id, (size, schedule, last) in curves.items():
        for step in range(1, 9):  # of 39 iterations; all that a rate of its own gives is there from step 3 on
            auc = last if step == 8 else min(last - 0.001, 0.6 + 0.04 * step)
            writer.evaluation(trial_id, 39 * step, auc, embedding_bytes=size)
        writer.ledger(trial_id, config={"memory_budget": size, "method": "robe", **schedule}, evaluations=8)
    study = load(tmp_path, "cooled")
    cooled = study.evaluations.filter("cooled_down").group_by("trial_id").agg(pl.col("iteration").min())
    assert dict(cooled.sort("trial_id").rows()) == {0: 312, 1: 312, 2: 156}
    front = study.cooled_front.select("embedding_bytes", "iteration").rows()
    assert front == [(20_000, 312), (50_000, 156), (9_000_000, 312)]
    assert (20_000, 117) in study.front.select("embedding_bytes", "iteration").rows()  # it can be shipped
    drawn = accuracy_against_iterations(study)
    assert {float(x) for x in drawn.data[-1].x} == {156.0, 312.0}
    assert "Pareto front of models whose learning rate has fallen" in drawn.layout.title.subtitle.text
    # The smallest one is good enough at iteration 117: at a rate that has not fallen, unlike that of the best one.
    sentence = answer(study, tolerance=0.0021).sentence
    assert "450x smaller" in sentence
    assert "iterations" not in sentence
    assert answer(study, tolerance=0.0011).sentence.count("for the same number of iterations") == 1


def test_without_a_decay_every_evaluation_is_compared(tmp_path: Path) -> None:
    finished_study(tmp_path)
    study = load(tmp_path, "finished")
    assert study.cooled_front is study.front
    assert "cooled_down" not in study.evaluations.columns
