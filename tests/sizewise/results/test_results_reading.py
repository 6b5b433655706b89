import os
import re
import time
from pathlib import Path

import polars as pl
import pytest

from sizewise.results import answer, fingerprint, load, status, studies
from sizewise.store.driving.usage import Usage
from sizewise_core.errors import InputError
from study_folder import StudyWriter, finished_study


def test_trials_hold_ledger_configuration_best_evaluation_and_test_score(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "one", trials=1)
    for iteration, auc in ((10, 0.70), (20, 0.74), (30, 0.72)):
        writer.evaluation(0, iteration, auc, embedding_bytes=1_000)
    writer.ledger(0, config={"memory_budget": 1_000, "sign": False, "bottom_mlp": [128, 64], "auc": "mine"})
    writer.json(
        "test/0000.json",
        {"trial_id": 0, "iteration": 20, "auc": 0.73, "logloss": 0.5, "normalized_entropy": 0.9},
    )
    study = load(tmp_path, "one")
    trial = study.trials.row(0, named=True)
    assert (trial["auc"], trial["iteration"], trial["evaluations"]) == (0.74, 20, 3)
    assert trial["test_auc"] == 0.73
    assert (trial["memory_budget"], trial["sign"], trial["bottom_mlp"]) == (1_000, False, "[128, 64]")
    assert trial["config_auc"] == "mine"  # a configuration cannot pass for a score
    assert study.problems == []


def test_evaluations_carry_the_configuration_and_are_sorted(tmp_path: Path) -> None:
    finished_study(tmp_path, "demo", trials=3)
    study = load(tmp_path, "demo")
    assert study.evaluations.height == 4 + 7 + 10
    assert study.evaluations.select("trial_id", "iteration").is_sorted(["trial_id", "iteration"])
    assert study.evaluations.filter(pl.col("memory_budget") != pl.col("embedding_bytes")).is_empty()
    assert not [name for name in study.evaluations.columns if name.startswith("test_")]


def test_an_iteration_that_appears_twice_counts_once_and_the_last_wins(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "resumed", trials=1)
    for iteration, auc in ((10, 0.60), (20, 0.61), (20, 0.66), (30, 0.67)):
        writer.evaluation(0, iteration, auc)
    writer.ledger(0)
    assert load(tmp_path, "resumed").evaluations["auc"].to_list() == [0.60, 0.66, 0.67]


@pytest.mark.parametrize("running", [True, False])
def test_a_half_written_last_line_is_left_out(tmp_path: Path, running: bool) -> None:
    writer = StudyWriter(tmp_path, "cut", trials=1)
    writer.evaluation(0, 10, 0.7)
    with (writer.folder / "evaluations/0000.jsonl").open("a") as file:
        file.write('{"trial_id": 0, "iteration": 20, "au')
    writer.ledger(0, "running")
    if running:
        writer.driver("running")
    study = load(tmp_path, "cut")
    assert study.evaluations["iteration"].to_list() == [10]
    # while a driver writes, that is how a growing file looks; afterwards it says that something was lost
    assert study.problems == (
        [] if running else ["evaluations/0000.jsonl: its last line is half-written and was left out"]
    )


def test_a_whole_last_line_without_its_line_end_counts(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "whole", trials=1)
    writer.evaluation(0, 10, 0.7)
    path = writer.folder / "evaluations/0000.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    writer.ledger(0)
    assert load(tmp_path, "whole").evaluations.height == 1


def test_damaged_lines_and_records_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    writer = finished_study(tmp_path, "hurt", trials=4)
    lines = (writer.folder / "evaluations/0001.jsonl").read_text().splitlines()
    lines[2] = lines[2][:30]
    lines[4] = '["not", "a", "record"]'
    (writer.folder / "evaluations/0001.jsonl").write_text("\n".join(lines) + "\n")
    (writer.folder / "trials/0002.json").write_text('{"trial_id": 2, "state":')
    (writer.folder / "trials/0003.json").write_text('{"trial_id": 3, "state": "asleep"}')
    (writer.folder / "test/0000.json").write_text("")
    (writer.folder / "driver.json").write_bytes(b"\xff\x00")
    (writer.folder / "trials/0004.json").write_bytes((writer.folder / "trials/0001.json").read_bytes())
    study = load(tmp_path, "hurt")
    assert study.evaluations.group_by("trial_id").len().sort("trial_id")["len"].to_list() == [4, 5, 10, 13]
    assert study.trials["trial_id"].to_list() == [0, 1]
    assert set(study.front["trial_id"]) == {0, 1}  # a trial without a readable record cannot be recommended
    text = "\n".join(study.problems)
    for part in (
        "evaluations/0001.jsonl: line 3 is damaged",
        "evaluations/0001.jsonl: line 5 is damaged",
        "trials/0002.json was skipped (not valid JSON)",
        "trials/0003.json was skipped (state:",
        "trials/0004.json was skipped (it is of trial 1)",
        "test/0000.json was skipped (empty)",
        "hurt/driver.json was skipped (not valid JSON)",
    ):
        assert part in text


def test_a_nan_or_missing_auc_is_no_candidate(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "nan", trials=1)
    writer.evaluation(0, 10, None)
    writer.evaluation(0, 20, float("nan"))  # json writes NaN, which is not JSON
    writer.evaluation(0, 30, 0.7)
    writer.evaluation(0, 40, 0.8, embedding_bytes=None)
    writer.ledger(0)
    study = load(tmp_path, "nan")
    assert study.evaluations["auc"].to_list() == [None, None, 0.7, 0.8]
    assert study.candidates["iteration"].to_list() == [30]
    assert study.trials["auc"].to_list() == [0.8]
    assert answer(study).best is not None


def test_a_study_that_has_only_just_started_is_empty_not_broken(tmp_path: Path) -> None:
    StudyWriter(tmp_path, "new", trials=5)
    study = load(tmp_path, "new")
    assert (study.state, study.trials.height, study.evaluations.height, study.front.height) == (
        "created",
        0,
        0,
        0,
    )
    (tmp_path / "bare" / "trials").mkdir(parents=True)
    assert "bare/study.json was skipped" in load(tmp_path, "bare").problems[0]


def test_an_objective_without_a_column_is_named(tmp_path: Path) -> None:
    finished_study(tmp_path, "odd", trials=2)
    writer = StudyWriter(tmp_path, "odd", trials=2, objectives={"auc": "maximize", "latency": "minimize"})
    study = load(tmp_path, writer.folder.name)
    assert list(study.objectives) == ["auc"]
    assert any("latency" in problem for problem in study.problems)
    assert study.front.height == 1


@pytest.mark.parametrize("name", ["../etc", "a/b", ".", "..", "", "a.b", "a b", "/tmp", "a\n"])
def test_names_that_could_reach_out_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    finished_study(tmp_path, "etc", trials=1)
    with pytest.raises(InputError, match="letters, digits"):
        load(tmp_path / "runs", name)


def test_a_missing_study_names_the_folder_and_those_that_exist(tmp_path: Path) -> None:
    finished_study(tmp_path, "here", trials=1)
    with pytest.raises(InputError, match=r"gone: no such study; studies there: here"):
        load(tmp_path, "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no studies there yet"):
        load(tmp_path / "empty", "gone")
    with pytest.raises(InputError, match="--runs"):
        studies(tmp_path / "nowhere")


def test_states_follow_the_drivers_heartbeat(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=2)
    assert status(tmp_path, "s")["state"] == "created"
    writer.driver("running")
    assert status(tmp_path, "s")["state"] == "running"
    writer.driver("running", age=31)
    assert status(tmp_path, "s")["state"] == "interrupted"
    writer.driver("running", pid=2**22 + 1)  # above the kernel's largest process id
    assert status(tmp_path, "s")["state"] == "interrupted"
    writer.driver("running", host="another-machine", pid=2**22 + 1)  # whose processes cannot be seen
    assert status(tmp_path, "s")["state"] == "running"
    writer.driver("stopped", age=1_000, message="stopped by the user")
    assert (status(tmp_path, "s")["state"], status(tmp_path, "s")["message"]) == (
        "stopped",
        "stopped by the user",
    )


def test_status_counts_trials_and_estimates_what_is_left(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=10)
    clock = iter((0.0, 40.0, 100.0, 200.0, 500.0, 5_000.0, 5_000.0, 5_000.0))
    usage = Usage(writer.folder, "me", clock=lambda: next(clock))
    day = (
        86_400  # by which the driver's wall clock was set while trial 2 ran; and nights between the attempts
    )
    for trial_id, (attempts, epochs) in enumerate(((1, 1.0), (1, 2.0))):
        usage.begin(trial_id, attempts, cpus=4, gpus=0)
        usage.end(trial_id)  # 40 s for one epoch, 100 s for two
        shared = {
            "trained_epochs": epochs + trial_id,
            "inherited_epochs": trial_id or None,
        }  # 1 of another's 3
        writer.trial(trial_id, **shared, started=1.0, finished=1.0 + day)
    usage.begin(2, 1, cpus=4, gpus=0)
    usage.end(2)  # 4,500 s for 45 epochs that go on where trial 1 had ended
    writer.trial(2, trained_epochs=48.0, reuses=1, started=2.0, finished=2.0 - day)
    writer.ledger(3, "failed", started=1.0, finished=day)
    config = {"memory_budget": 20_000, "epochs": 16, "method": "robe"}
    for trial_id in (4, 5):
        writer.ledger(trial_id, "running", config=config, started=1.0)
        usage.begin(trial_id, 2, cpus=4, gpus=0)
    writer.evaluation(4, 10, 0.99, epoch=8.0)
    writer.driver("running", claim="me", monotonic=5_008.0)
    found = status(tmp_path, "s")
    counted = {"finished": 3, "pruned": 0, "failed": 1, "infeasible": 0, "running": 2, "waiting": 4}
    assert found["trials"] == {"asked": 10, **counted}
    assert found["progress"] == pytest.approx(0.4)
    assert found["best_auc"] == 0.99  # a running trial's curve counts too
    assert found["best"]["auc"] == 0.99
    # 4,640 s for 48 epochs, 16 a trial; four trials wait, one is in the middle, one has yet to begin; two at a time
    assert found["seconds_left"] == pytest.approx(4_640 / 48 * (4 * 16 + 8 + 16) / 2)
    assert found["cost"]["cpu_seconds"] == pytest.approx(4 * (4_640 + 2 * 8))
    assert abs(found["last_change"] - time.time()) < 60


def test_no_estimate_before_the_first_evaluation_or_when_nothing_runs(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=3)
    writer.driver("running")
    writer.ledger(0, "running")  # three epochs of it
    assert status(tmp_path, "s")["seconds_left"] is None
    writer.evaluation(0, 10, 0.7, epoch=1.0, train_seconds=6.0)
    assert status(tmp_path, "s")["seconds_left"] == pytest.approx(6 * (2 * 3 + 2))
    writer.driver("stopped")
    assert status(tmp_path, "s")["seconds_left"] is None


def test_studies_lists_all_latest_first_and_skips_other_folders(tmp_path: Path) -> None:
    assert studies(tmp_path).is_empty()
    finished_study(tmp_path, "old", trials=2)
    (tmp_path / "notes").mkdir()
    (tmp_path / ".hidden" / "trials").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for file in (tmp_path / "old").rglob("*"):
        os.utime(file, (1e9, 1e9))
    StudyWriter(tmp_path, "young", trials=4).driver("running")
    table = studies(tmp_path)
    assert table["name"].to_list() == ["young", "old"]
    assert table["progress"].to_list() == [0.0, 1.0]
    assert table["best_auc"].is_null().to_list() == [True, False]


def test_the_fingerprint_moves_with_what_load_would_read(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=2)
    writer.driver("running")
    seen = [fingerprint(tmp_path, "s")]
    writer.driver("running")  # a heartbeat is no news
    assert fingerprint(tmp_path, "s") == seen[0]
    writer.ledger(0, "running")
    seen.append(fingerprint(tmp_path, "s"))
    writer.evaluation(0, 10, 0.7)
    seen.append(fingerprint(tmp_path, "s"))
    writer.driver("finished")
    seen.append(fingerprint(tmp_path, "s"))
    assert len(set(seen)) == 4


@pytest.mark.slow
def test_two_hundred_thousand_evaluations_are_read_in_seconds(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "large", trials=1_000)
    writer.trial(0, evaluations=200)
    curve = re.sub(r', "crc32": "\w+"', "", (writer.folder / "evaluations/0000.jsonl").read_text())
    for trial_id in range(1_000):
        (writer.folder / f"evaluations/{trial_id:04d}.jsonl").write_text(
            curve.replace('"trial_id": 0', f'"trial_id": {trial_id}')
        )
        writer.ledger(trial_id)
    start = time.process_time()
    study = load(tmp_path, "large")
    assert study.evaluations.height == 200_000
    assert study.front.height > 0
    assert time.process_time() - start < 10  # 0.9 s on two idle cores; the margin is for busy ones
