"""Trials that fail, and trials that only lose their worker: one study lives through all of them."""

from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from real_study import Command, assert_trial_is_calm, wait_until
from sizewise import cli
from sizewise.store.trials.ledger import Ledger

pytestmark = pytest.mark.slow


def kill_for_memory(process: psutil.Process) -> bool:
    """Have the kernel kill a process for want of memory; False where nobody may limit it so (cgroups, version 1)."""
    group = Path("/sys/fs/cgroup/memory") / f"sizewise-{process.pid}"
    try:
        group.mkdir()
        # Not a page more: steps take none, checkpoints do.
        (group / "memory.limit_in_bytes").write_text("0")
        (group / "cgroup.procs").write_text(str(process.pid))
    except OSError:
        return False
    process.wait(60)
    wait_until(lambda: not (group / "cgroup.procs").read_text().strip())
    group.rmdir()
    return True


def test_no_trial_takes_the_study_with_it(study: Path, tmp_path: Path) -> None:
    """Trial 0 diverges, 1 hangs, 2 asks for more memory than it may have; 3 and 4 are killed, which is no failure:
    3 by nobody knows whom, 4 by the kernel, for want of memory.
    """
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    budgets = ("50kB", "60kB", "8GB", "70kB", "80kB")
    rates = (1.0e18, 0.1, 0.1, 0.1, 0.1)
    first = (
        f"{{learning_rate: {rate}, memory_budget: {budget}}}"
        for rate, budget in zip(rates, budgets, strict=True)
    )
    settings = [
        "trials=5",
        "train.optimizer=sgd",
        "search.learning_rate={low: 0.01, high: 1.0e+18, log: true}",
        "search.memory_budget={low: 2kB, high: 8GB}",
        f"first_trials=[{', '.join(first)}]",
        "failures.silent_seconds=20",
    ]
    limited = ("prlimit", "--data=6000000000")  # bytes that each process may hold
    with Command("run", study, "--runs", runs, *(f"--set={s}" for s in settings), before=limited) as run:

        def training(trial_id: int) -> psutil.Process:
            """The worker of a trial that has saved its first checkpoint."""
            saved = f"checkpoints/{trial_id:04d}-*/*.ckpt"
            wait_until(lambda: list(folder.glob(saved)) and run.workers(), run)
            (worker,) = run.workers()
            return worker

        training(1).suspend()  # nothing in that process runs any more, as where it is stuck in C code
        training(3).kill()
        killed = kill_for_memory(training(4))
        code, out, err = run.end()
        assert code == 0, err
        run.leaves_nothing()

    records = Ledger(folder).records()
    assert [r.state for r in records.values()] == ["failed", "failed", "failed", "finished", "finished"]
    assert [r.attempts for r in records.values()] == [1, 1, 1, 2, 1 + killed]
    assert "search lower learning rates" in str(records[0].error)
    assert records[1].error == "neither evaluated nor saved a checkpoint for failures.silent_seconds (20 s)"
    assert str(records[2].error).startswith("out of memory: ")
    assert "DivergedError" in (folder / "logs" / "0000.txt").read_text()
    lost = "trial 3: lost its worker (its worker process died"
    assert lost in err
    assert lost in (folder / "logs" / "study.log").read_text()
    if killed:
        assert (
            "trial 4: lost its worker (its machine ran out of memory: lower resources.concurrent_trials"
            in err
        )
    assert "raylet" not in out  # what Ray says of it is in the logs
    assert_trial_is_calm(study, folder, tmp_path / "calm", 3, settings)

    out = CliRunner().invoke(cli.app, ["status", "killed", "--runs", str(runs)]).stdout
    assert "trial 1 failed: neither evaluated nor saved" in out
    assert "lost a worker in trial 3: its worker process died" in out
    if killed:
        assert "lost a worker in trial 4: its machine ran out of memory: " in out
    out = CliRunner().invoke(cli.app, ["status", "killed", "--runs", str(runs), "--trial", "2"]).stdout
    assert "out of memory: " in out
    assert "Traceback (most recent call last)" in out
