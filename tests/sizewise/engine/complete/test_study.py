"""Whole studies on real Ray, real Optuna and real processes: killed, resumed, and equal to the calm one."""

import os
import pty
import signal
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from real_study import STUDY, Command, prepare_data, title, wait_until
from sizewise import results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_data(tmp_path_factory.mktemp("study"))


@pytest.fixture
def study(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "killed.yaml"
    path.write_text(STUDY.format(data=data))
    return path


@pytest.fixture
def shadows(tmp_path: Path) -> Path:
    """A working folder with somebody's own files, named like modules."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("torch", "numpy", "random", "pickle", "socket", "polars", "sklearn"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name}.py of the working folder')")
    return folder


def test_a_study_that_is_stopped_says_how_to_continue(study: Path, tmp_path: Path, shadows: Path) -> None:
    """By a signal to all of its process group, by the death of Ray's raylet, and by moving its folder; started in a
    folder whose files are named like modules. Other signals: the next test.
    """
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    folder = runs / "killed"
    resume = f"`sizewise resume killed --runs {runs}`"
    for stop, command, expected, said in (
        (lambda run: run.signal_group(signal.SIGINT), ("run", study, "--set=trials=9"), 130, resume),
        (lambda run: raylet(run).kill(), ("resume", "killed"), 1, resume),
        (lambda run: runs.rename(elsewhere), ("resume", "killed"), 1, resume.replace("runs`", "elsewhere`")),
    ):
        first = not folder.exists()
        with Command(*command, "--runs", runs, cwd=shadows) as run:
            wait_until(lambda run=run: run.workers() and saved_since(run, folder), run)
            if first:
                with Command("resume", "killed", "--runs", runs) as second:
                    code, _, err = second.end()
                assert f"process {run.pid} on" in err
                assert code == 2
            stop(run)
            code, _, err = run.end()
            assert code == expected, err
            assert f"continue with {said}" in err
            assert "Traceback" not in err
            run.leaves_nothing()
        status = results.status(runs if runs.exists() else elsewhere, "killed")
        assert status["state"] == "stopped"
        assert status["trials"]["failed"] == 0
        assert status["trials"]["finished"] < 9
    assert "was moved here" in status["message"]
    assert not runs.exists()


def raylet(run: Command) -> psutil.Process:
    """Ray's process that starts all others of the machine."""
    (found,) = [process for process in run.family() if title(process).partition(" ")[0].endswith("/raylet")]
    return found


def saved_since(run: Command, folder: Path) -> bool:
    """Whether a trial has saved a checkpoint since a command was started."""
    began = psutil.Process(run.pid).create_time()
    return any(path.stat().st_mtime > began for path in folder.glob("checkpoints/*/*.ckpt"))


def test_a_study_can_be_interrupted_while_it_starts(study: Path, tmp_path: Path) -> None:
    """As soon as there is one, also in the background of a script, where SIGINT is ignored; and while Ray starts, which
    would end the process in its own way.
    """
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    background = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    heard = ("env", "--default-signal=HUP")  # these tests may run under `nohup`, which a study respects
    for begun, command, before, sent in (
        (lambda run: (folder / "study.yaml").exists(), ("run", study), background, signal.SIGTERM),
        (lambda run: len(run.family()) > 1, ("resume", "killed"), heard, signal.SIGHUP),
    ):
        with Command(*command, "--runs", runs, before=before) as run:
            wait_until(partial(begun, run), run)
            run.signal_group(sent)
            code, _, err = run.end()
            assert code == 128 + sent, err
            assert f"continue with `sizewise resume killed --runs {runs}`" in err
            run.leaves_nothing()
        assert results.status(runs, "killed")["state"] == "stopped"


def _drain(controller: int) -> None:
    """Read what a command writes to its terminal, until it has gone."""
    with suppress(OSError):
        while os.read(controller, 65536):
            pass


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["every process", "the terminal is closed"])
def test_a_study_stops_however_roughly_it_is_told(study: Path, tmp_path: Path, how: str) -> None:
    """SIGTERM to all processes, Ray's too, as for a batch job's control group; and a terminal that goes away."""
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    controller, terminal = pty.openpty()
    with Command("run", study, "--runs", runs, terminal=terminal) as run:
        os.close(terminal)
        wait_until(lambda: os.read(controller, 65536) and saved_since(run, folder), run)
        if how == "every process":
            # A terminal that nobody reads is full before long, and whoever writes to it then waits.
            threading.Thread(target=_drain, args=(controller,), daemon=True).start()
            for process in run.family():
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
        else:
            os.close(controller)
        assert run.process.wait(400) == 128 + (signal.SIGTERM if how == "every process" else signal.SIGHUP)
        run.leaves_nothing()
    assert results.status(runs, "killed")["state"] == "stopped"
    with Command("resume", "killed", "--runs", runs) as run:
        code, _, err = run.end()
        assert code == 0, err
