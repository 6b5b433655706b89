"""Trials that fail, and a trial that only loses its worker: one study lives through all of them."""

import resource
from pathlib import Path

import psutil
import pytest

from real_study import Command, assert_trial_is_calm, wait_until
from sizewise.ledger import Ledger

pytestmark = pytest.mark.slow


def test_no_trial_takes_the_study_with_it(study: Path, tmp_path: Path) -> None:
    """Trial 0 diverges, 1 hangs, 2 runs out of memory, and 3 loses its worker, which is no failure."""
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    settings = [
        "trials=4",
        "train.optimizer=sgd",
        "search.learning_rate={low: 0.01, high: 1.0e+30, log: true}",
        "first_trials=[{learning_rate: 1.0e+30}" + ", {learning_rate: 0.1}" * 3 + "]",
        "failures.silent_seconds=20",
    ]
    with Command("run", study, "--runs", runs, *(f"--set={s}" for s in settings)) as run:

        def training(trial_id: int) -> psutil.Process:
            """The worker of a trial that has saved its first checkpoint."""
            saved = f"checkpoints/{trial_id:04d}-*/*.ckpt"
            wait_until(lambda: list(folder.glob(saved)) and run.workers(), run)
            (worker,) = run.workers()
            return worker

        training(1).suspend()  # nothing in that process runs any more, as where it is stuck in C code
        short = training(2)
        resource.prlimit(short.pid, resource.RLIMIT_AS, (short.memory_info().vms,) * 2)
        training(3).kill()
        code, out, err = run.end()
        assert code == 0, err
        run.leaves_nothing()

    records = Ledger(folder).records()
    assert [r.state for r in records.values()] == ["failed", "failed", "failed", "finished"]
    assert [r.attempts for r in records.values()] == [1, 1, 1, 2]
    assert "search lower learning rates" in str(records[0].error)
    assert records[1].error == "neither evaluated nor saved a checkpoint for failures.silent_seconds (20 s)"
    assert str(records[2].error).startswith("out of memory: ")
    assert "DivergedError" in (folder / "logs" / "0000.txt").read_text()
    lost = "trial 3: lost its worker (its worker process died"
    assert lost in err
    assert lost in (folder / "logs" / "study.log").read_text()
    assert "raylet" not in out  # what Ray says of it is in the logs
    assert_trial_is_calm(study, folder, tmp_path / "calm", 3, settings)

    with Command("status", "killed", "--runs", runs) as status:
        _, out, _ = status.end()
    assert "trial 1 failed: neither evaluated nor saved" in out
    with Command("status", "killed", "--runs", runs, "--trial", 2) as status:
        _, out, _ = status.end()
    assert "out of memory: " in out
    assert "Traceback (most recent call last)" in out
