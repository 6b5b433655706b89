from pathlib import Path

import pytest

from sizewise.results import Study, answer, choose, load
from sizewise_core.errors import InputError
from study_folder import FULL_BYTES, StudyWriter

# trial, iteration, AUC, bytes of the embeddings
Row = tuple[int, int, float | None, int]
ROWS: list[Row] = [
    (0, 1_000, 0.7512, 22_000_000),
    (0, 2_000, 0.7400, 22_000_000),
    (1, 1_000, 0.7480, 220_000),
    (1, 2_100, 0.7500, 220_000),
    (2, 1_000, 0.7400, 22_000),
    (2, 2_100, 0.7498, 22_000),
    (2, 3_000, 0.7499, 22_000),
    (3, 500, 0.7300, 2_200),
]


def _study(
    runs: Path, rows: list[Row], state: str = "finished", asked: int | None = None, **record: object
) -> Study:
    trials = sorted({row[0] for row in rows})
    writer = StudyWriter(runs, "s", trials=len(trials) if asked is None else asked, **record)
    for trial_id, iteration, auc, size in rows:
        writer.evaluation(trial_id, iteration, auc, embedding_bytes=size, model_bytes=size + 400_000)
    for trial_id in trials:
        writer.ledger(trial_id)
    writer.driver(state)
    return load(runs, "s")


def test_without_limits_the_best_auc_is_chosen(tmp_path: Path) -> None:
    choice = choose(_study(tmp_path, ROWS))
    assert (choice.trial_id, choice.iteration, choice.auc, choice.embedding_bytes) == (
        0,
        1_000,
        0.7512,
        22_000_000,
    )


def test_equal_aucs_go_to_the_smaller_then_the_sooner(tmp_path: Path) -> None:
    rows: list[Row] = [(0, 10, 0.7, 2_000), (1, 30, 0.7, 1_000), (2, 20, 0.7, 1_000)]
    assert choose(_study(tmp_path, rows)).trial_id == 2


@pytest.mark.parametrize(
    ("limits", "trial", "iteration"),
    [
        ({"max_bytes": 220_000}, 1, 2_100),
        ({"max_bytes": 219_999}, 2, 3_000),
        ({"max_iterations": 999}, 3, 500),
        ({"max_bytes": 30_000, "max_iterations": 2_100}, 2, 2_100),
        ({"min_auc": 0.7498}, 2, 2_100),  # the smallest that reaches it, then the fewest iterations
        ({"min_auc": 0.7500}, 1, 2_100),
        ({"min_auc": 0.7480, "max_iterations": 1_000}, 1, 1_000),
        ({"min_auc": 0.7}, 3, 500),
    ],
)
def test_limits_are_inclusive_and_all_hold(
    tmp_path: Path, limits: dict[str, float], trial: int, iteration: int
) -> None:
    choice = choose(_study(tmp_path, ROWS), **limits)  # type: ignore[arg-type]
    assert (choice.trial_id, choice.iteration) == (trial, iteration)


def test_max_bytes_limits_the_objective_that_the_study_names(tmp_path: Path) -> None:
    objectives = {"auc": "maximize", "model_bytes": "minimize"}
    study = _study(tmp_path, ROWS, objectives=objectives)
    assert choose(study, max_bytes=422_000).trial_id == 2  # 22,000 of embeddings, 400,000 of MLPs
    with pytest.raises(InputError, match="402 kB"):
        choose(study, max_bytes=22_000)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_bytes": 100}, ["no model has at most 100 B", "smallest model is trial 3", "2.2 kB"]),
        ({"max_iterations": 1}, ["at most 1 iteration.", "fewest iterations is trial 3", "500 iterations"]),
        ({"min_auc": 0.9}, ["an AUC of at least 0.9", "highest AUC is trial 0", "0.7512"]),
        (
            {"max_bytes": 30_000, "min_auc": 0.7505},
            [
                "30 kB and an AUC",
                "smallest model within the other limits is trial 0",
                "within the other limits is trial 2 (AUC 0.7499",
            ],
        ),
        (
            {"max_bytes": 1, "max_iterations": 1},
            ["smallest model is trial 3", "fewest iterations is trial 3"],
        ),
    ],
)
def test_when_nothing_fits_the_nearest_is_named(
    tmp_path: Path, limits: dict[str, float], says: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        choose(_study(tmp_path, ROWS), **limits)  # type: ignore[arg-type]
    for part in says:
        assert part in str(caught.value)


def test_test_scores_never_decide(tmp_path: Path) -> None:
    study = _study(tmp_path, ROWS)
    before = choose(study), answer(study).sentence
    for trial_id in range(4):
        score = {"trial_id": trial_id, "iteration": 1, "auc": 0.999 if trial_id == 3 else 0.1}
        (tmp_path / "s" / "test").mkdir(exist_ok=True)
        StudyWriter(tmp_path, "s", trials=4).json(f"test/{trial_id:04d}.json", score)
    study = load(tmp_path, "s")
    assert study.trials["test_auc"].to_list() == [0.1, 0.1, 0.1, 0.999]
    assert (choose(study), answer(study).sentence) == before


def test_the_answer_in_a_sentence(tmp_path: Path) -> None:
    found = answer(_study(tmp_path, ROWS))
    assert found.sentence == (
        "The smallest model within 0.002 AUC of the best (0.7512, 22 MB) is 22 kB (AUC 0.7498): "
        "1,000x smaller, for 2.1x the iterations."
    )
    assert found.best is not None
    assert found.smallest is not None
    assert (found.best.trial_id, found.smallest.trial_id, found.smallest.iteration) == (0, 2, 2_100)


def test_a_wider_tolerance_allows_a_smaller_model(tmp_path: Path) -> None:
    sentence = answer(_study(tmp_path, ROWS), tolerance=0.05).sentence
    assert "within 0.05 AUC" in sentence
    assert "10,000x smaller, for 0.5x the iterations" in sentence


@pytest.mark.parametrize(
    ("rows", "rate", "said"),
    [
        (10, 0.2, "below about 0.22 may"),
        (10_000, 0.25, "below about 0.0061 may"),
        (10**6, 0.25, ""),
        (10, None, ""),
    ],
)
def test_few_validation_rows_make_the_answer_uncertain(
    tmp_path: Path, rows: int, rate: float | None, said: str
) -> None:
    data = {"rows": {"train": 80, "validation": rows}, "validation_click_rate": rate}
    study = _study(tmp_path, ROWS, data=data)
    certain = (
        f" With {rows:,} validation rows, differences {said} be chance: that is the standard error of an AUC."
    )
    assert answer(study).sentence.endswith(certain) == bool(said)
    assert ("may be chance" in answer(study).sentence) == bool(said)


def test_equal_iterations_are_said_so(tmp_path: Path) -> None:
    rows: list[Row] = [(0, 100, 0.75, 20_000), (1, 100, 0.749, 10_000)]
    assert answer(_study(tmp_path, rows)).sentence.endswith(
        "2x smaller, for the same number of iterations, and 2,200x smaller than the full tables."
    )


def test_the_best_may_be_the_smallest(tmp_path: Path) -> None:
    rows: list[Row] = [(0, 100, 0.75, 2_200), (1, 100, 0.70, 1_000)]
    assert answer(_study(tmp_path, rows)).sentence == (
        "The best model (AUC 0.7500, 2.2 kB) is also the smallest: no other model comes within 0.002 AUC "
        f"of it; it is {FULL_BYTES // 2_200:,}x smaller than the full tables."
    )
    (tmp_path / "more").mkdir()
    more = _study(tmp_path / "more", [*rows, (2, 100, 0.7495, 9_000)])
    assert "no smaller model comes within" in answer(more).sentence


def test_one_trial_none_and_only_failures(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in "abcde"]
    for folder in runs:
        folder.mkdir()
    one = answer(_study(runs[0], [(0, 1, 0.75, 22_000)], asked=9, state="running")).sentence
    assert one == (
        "Only one trial has been evaluated so far: AUC 0.7500 at 22 kB after 1 iteration, "
        "1,000x smaller than the full tables."
    )
    over = answer(_study(runs[4], [(0, 10, 0.7495, 22_000), (0, 20, 0.75, 22_000)])).sentence
    assert over.startswith("Only one trial has been evaluated: AUC 0.7500 at 22 kB after 20 iterations, ")
    started = _study(runs[1], [], state="running", asked=2)
    assert answer(started).sentence == "No trial has been evaluated yet."
    assert answer(_study(runs[2], [(0, 10, None, 1_000)])).sentence == "No evaluation has a defined AUC yet."
    writer = StudyWriter(runs[3], "s", trials=3)
    for trial_id, sentence in enumerate(
        ("The only trial failed", "Both trials failed", "All 3 trials failed")
    ):
        writer.ledger(trial_id, "failed", error="out of memory")
        assert answer(load(runs[3], "s")).sentence.startswith(sentence)
    with pytest.raises(InputError, match="All 3 trials failed"):
        choose(load(runs[3], "s"))


def test_an_unfinished_study_says_how_much_the_answer_rests_on(tmp_path: Path) -> None:
    sentence = answer(_study(tmp_path, ROWS, state="running", asked=40)).sentence
    assert sentence.startswith("So far, with 4 of 40 trials finished, the smallest model")


def test_without_known_full_tables_nothing_is_claimed_about_them(tmp_path: Path) -> None:
    sentence = answer(_study(tmp_path, [(0, 100, 0.75, 2_200), (1, 100, 0.70, 1_000)], data={})).sentence
    assert "full tables" not in sentence


def test_a_model_whose_other_seeds_failed_says_so(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=4)
    for trial_id, state in enumerate(["finished", "failed", "finished"]):
        writer.trial(trial_id, memory_budget=2_000_000, state=state, configuration=0, replicate=trial_id)
    writer.trial(3, memory_budget=20_000, configuration=1)
    study = load(tmp_path, "s")
    assert choose(study).why.endswith("that fit; 1 of its 3 seeds failed")
    assert answer(study).sentence.endswith("; 1 of its 3 seeds failed.")
    small = choose(study, max_bytes=20_000)
    assert "seeds" not in small.why
