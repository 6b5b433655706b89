"""Whole studies on real Ray, real Optuna and real processes: killed, resumed, and equal to the calm one."""

import signal
from functools import partial
from pathlib import Path

import pytest

from real_study import STUDY, Command, prepare_data, wait_until
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


def test_an_interrupted_study_says_how_to_continue(study: Path, tmp_path: Path) -> None:
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    for sent, command in (
        (signal.SIGTERM, ("run", study, "--set=trials=9")),
        (signal.SIGINT, ("resume", "killed")),
    ):
        with Command(*command, "--runs", runs) as run:
            wait_until(lambda run=run: run.workers() and list(folder.glob("checkpoints/0000-*/*.ckpt")), run)
            with Command("resume", "killed", "--runs", runs) as second:
                code, _, err = second.end()
            assert f"process {run.pid} on" in err
            assert code == 2
            run.process.send_signal(sent)
            code, _, err = run.end(60)
            assert code == 128 + sent, err
            assert f"continue with `sizewise resume killed --runs {runs}`" in err
            run.leaves_nothing()
        status = results.status(runs, "killed")
        assert status["state"] == "stopped"
        assert status["trials"]["finished"] < 9


def test_a_study_can_be_interrupted_while_it_starts(study: Path, tmp_path: Path) -> None:
    """As soon as there is one, also in the background of a script, where SIGINT is ignored; and while Ray starts, which
    would end the process in its own way.
    """
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    background = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    for begun, command, before in (
        (lambda run: (folder / "study.yaml").exists(), ("run", study), background),
        (lambda run: len(run.family()) > 1, ("resume", "killed"), ()),
    ):
        with Command(*command, "--runs", runs, before=before) as run:
            wait_until(partial(begun, run), run)
            run.process.send_signal(signal.SIGTERM)
            code, _, err = run.end(60)
            assert code == 128 + signal.SIGTERM, err
            assert f"continue with `sizewise resume killed --runs {runs}`" in err
            run.leaves_nothing()


def test_a_study_that_the_cluster_cannot_place_is_refused_and_leaves_nothing(
    study: Path, tmp_path: Path
) -> None:
    with Command("run", study, "--runs", tmp_path / "runs", "--set=resources.workers=4000") as run:
        code, out, err = run.end(120)
    assert (code, out) == (2, "")
    assert "resources: one trial needs 4000 CPU (4000 workers x 1), and this cluster has" in err
    assert list((tmp_path / "runs").iterdir()) == []
