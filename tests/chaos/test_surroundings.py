"""What changes around a study while it runs: its data, its folder, its environment, its driver."""

import os
import resource
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from real_study import STUDY, Command, assert_equal, calm_study, title, wait_until
from sizewise import results
from sizewise.store.trials.ledger import Ledger
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

# Whatever a worker needs is broken, and the driver is not.
BROKEN = """
import sys
if any("default_worker" in part for part in sys.orig_argv):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "sizewise.training.loop":
                raise ImportError("libmissing.so.1: cannot open shared object file")
    sys.meta_path.insert(0, Broken())
"""


def test_an_environment_that_fails_every_trial_pauses_the_study(study: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(BROKEN)
    environment = {"PYTHONPATH": str(tmp_path / "broken")}
    with Command("run", study, "--runs", runs, "--set=trials=4", environment=environment) as run:
        code, _, err = run.end()
        run.leaves_nothing()
    assert (code, "Traceback" in err) == (1, False), err
    assert "3 trials of 3 failed before the first evaluation" in err
    assert "ImportError: libmissing.so.1" in err
    assert f"continue with `sizewise resume killed --runs {runs}`" in err
    assert "ImportError" in (runs / "killed" / "logs" / "0000.txt").read_text()
    assert results.status(runs, "killed")["trials"]["failed"] == 0
    with Command("resume", "killed", "--runs", runs) as run:
        code, _, err = run.end()
        assert code == 0, err
    calm_study(study, tmp_path / "calm", trials=4)
    assert_equal(runs / "killed", tmp_path / "calm")


def test_data_that_is_replaced_pauses_the_study(data: Path, tmp_path: Path) -> None:
    runs, shards, aside = tmp_path / "runs", tmp_path / "shards", tmp_path / "aside"
    shutil.copytree(data, shards)
    planted.generate(tmp_path / "raw", 25_000, seed=5)
    prepare([tmp_path / "raw" / "day_0.tsv"], tmp_path / "others")
    study = tmp_path / "killed.yaml"
    study.write_text(STUDY.format(data=shards))
    with Command("run", study, "--runs", runs, "--set=trials=2") as run:
        wait_until(lambda: list(runs.glob("killed/checkpoints/0000-*/*.ckpt")), run)
        shards.rename(aside)
        (tmp_path / "others").rename(shards)
        code, _, err = run.end()
        run.leaves_nothing()
    assert (code, "Traceback" in err) == (1, False), err
    assert f"{shards}: holds other rows than when the study began" in err
    assert "failed" not in {r.state for r in Ledger(runs / "killed").records().values()}
    shutil.rmtree(shards)
    aside.rename(shards)
    with Command("resume", "killed", "--runs", runs) as run:
        code, _, err = run.end()
        assert code == 0, err
    calm_study(study, tmp_path / "calm", trials=2)
    assert_equal(runs / "killed", tmp_path / "calm")


def test_a_folder_that_is_removed_ends_the_study_and_stays_away(study: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Command("run", study, "--runs", runs) as run:
        wait_until(lambda: list(runs.glob("killed/checkpoints/0000-*/*.ckpt")), run)
        shutil.rmtree(runs, ignore_errors=True)
        code, _, err = run.end(60)
        run.leaves_nothing()
    assert (code, "Traceback" in err) == (1, False), err
    assert f"{runs / 'killed'}: the study's folder was removed while it ran" in err
    assert not (runs / "killed").exists()


def test_a_driver_without_memory_leaves_a_study_that_can_be_resumed(study: Path, tmp_path: Path) -> None:
    """Python says so; where a library of Ray's finds out first, it aborts the process, as the kernel would."""
    runs = tmp_path / "runs"
    with Command("run", study, "--runs", runs, "--set=trials=2") as run:
        wait_until(lambda: list(runs.glob("killed/checkpoints/0000-*/*.ckpt")), run)
        resource.prlimit(run.pid, resource.RLIMIT_DATA, (data_bytes(run.pid) + 200_000, -1))
        code, _, err = run.end(200)
        run.leaves_nothing()
    assert code != 0
    if code == 1:
        assert "has no memory or no threads left" in err, err
        assert "Traceback" not in err, err
    assert results.status(runs, "killed")["state"] in ("stopped", "interrupted")
    with Command("resume", "killed", "--runs", runs) as run:
        code, _, err = run.end()
        assert code == 0, err
    calm_study(study, tmp_path / "calm", trials=2)
    assert_equal(runs / "killed", tmp_path / "calm")


def data_bytes(pid: int) -> int:
    """What prlimit(2) counts as a process's data."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmData:")).split()[1])


def test_suspended_processes(study: Path, tmp_path: Path) -> None:
    """The driver, for longer than a trial may be silent: nothing follows. The process between it and a worker: that
    trial has failed as if its worker had hung, and the study goes on.
    """
    runs = tmp_path / "runs"
    settings = ("--set=trials=2", "--set=failures.silent_seconds=15")
    with Command("run", study, "--runs", runs, *settings) as run:
        wait_until(lambda: list(runs.glob("killed/checkpoints/0000-*/*.ckpt")), run)
        os.kill(run.pid, signal.SIGSTOP)
        time.sleep(30)
        os.kill(run.pid, signal.SIGCONT)
        wait_until(lambda: list(runs.glob("killed/checkpoints/0001-*/*.ckpt")) and run.workers(), run)
        between(run).suspend()
        code, _, err = run.end()
        assert code == 0, err
        run.leaves_nothing()
    records = Ledger(runs / "killed").records()
    assert [(r.state, r.attempts) for r in records.values()] == [("finished", 1), ("failed", 1)]
    assert "neither evaluated nor saved a checkpoint" in str(records[1].error)


def between(run: Command) -> psutil.Process:
    (found,) = [process for process in run.family() if "Trainable" in title(process)]
    return found
