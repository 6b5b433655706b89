"""A study that trains a teacher first, killed between teacher and student and in the middle of a student's epoch."""

from pathlib import Path

import pytest

from real_study import Command, assert_equal, calm_study, wait_until
from sizewise.store.trials.ledger import Ledger

pytestmark = pytest.mark.slow
SETTINGS = {
    "trials": 1,
    "search.epochs": 6,
    "train.evaluate_every": 3.0,
    "train.checkpoint_seconds": 0.3,
    "train.distill": {"teacher": "hash"},
}


def test_a_killed_study_neither_trains_nor_scores_anything_twice(study: Path, tmp_path: Path) -> None:
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    data = Path(study.read_text().split("data: ")[1].split("\n")[0])
    settings = [f"--set={name}={str(value).replace(chr(39), '')}" for name, value in SETTINGS.items()]
    with Command("run", study, "--runs", runs, *settings) as run:
        wait_until(lambda: (folder / "trials" / "0001.json").exists(), run)
        run.kill()
        run.leaves_nothing()
    teacher = Ledger(folder).records()[0]
    assert (teacher.state, teacher.teacher, teacher.config["method"]) == ("finished", 0, "hash")
    with Command("resume", "killed", "--runs", runs) as run:
        wait_until(lambda: list(folder.glob("checkpoints/0001-*/*.ckpt")), run)
        run.kill()
        run.leaves_nothing()
    kept = {path: path.stat().st_mtime_ns for path in data.glob("teachers/*/*.f32")}
    assert len(kept) == len(list(data.glob("train-*.arrow")))
    assert Ledger(folder).records()[1].state == "running"
    with Command("resume", "killed", "--runs", runs) as run:
        code, _, err = run.end()
    assert code == 0, err
    calm = tmp_path / "calm"
    calm_study(study, calm, **SETTINGS)
    assert_equal(folder, calm)
    assert Ledger(folder).records()[0] == teacher  # an attempt more would show
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
