"""A study's own Ray on a machine that others use: who can reach it, what it leaves, and what it counts."""

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray

from real_study import STUDY, Command, prepare_data, wait_until
from sizewise_core.clusters import private_ray

SECRET = "planted-2f6c1b7ad0"
# Not root, so that its limits count; but it may read this checkout and its interpreter, wherever they are.
RIGHT = "dac_read_search"
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups", f"--inh-caps=+{RIGHT}", f"--ambient-caps=+{RIGHT}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, since Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="pr") as name:
        yield Path(name)


@pytest.mark.slow
def test_a_study_on_a_shared_machine(folder: Path) -> None:
    """With one allowed CPU, a home folder that nobody can write to, and a secret in the environment."""
    data, temporary, runs = prepare_data(folder / "data", 8_000), folder / "t", folder / "runs"
    temporary.mkdir()
    study = folder / "killed.yaml"
    study.write_text(STUDY.format(data=data))
    environment = {
        "HOME": "/dev/null/home",
        "TMPDIR": str(temporary),
        "RAY_TMPDIR": str(temporary),
        "AWS_ACCESS_KEY_ID": "planted-id-" + SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "RAY_AUTH_TOKEN": SECRET,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    one = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
    with Command("run", study, "--set=trials=1", "--runs", runs, environment=environment, before=one) as run:
        wait_until(lambda: run.workers() and list(runs.glob("killed/evaluations/*.jsonl")), run)
        family = {*run.family(), *psutil.Process(run.pid).children(recursive=True)}
        listening = listeners(family)
        (own,) = temporary.glob("sizewise-*")
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        assert stat.S_IMODE((own / "token").stat().st_mode) == 0o600
        token = (own / "token").read_text()
        assert token != SECRET
        assert holding(SECRET, folder) == holding(token, folder / "runs") == []
        assert holding(token, folder) == [own / "token"]
        worker = Path(f"/proc/{run.workers()[0].pid}/environ").read_bytes()
        code, _, err = run.end()
        assert code == 0, err
        run.leaves_nothing()
    assert len(listening) > 5  # the test looks at the right processes
    assert {address for _, address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
    assert "Ray: started for this study alone, 1 CPU" in err
    assert SECRET.encode() in worker  # which may need it for the object store
    assert list(temporary.glob("sizewise-*")) == []
    assert holding(SECRET, folder) == holding(token, folder) == []


def listeners(processes: set[psutil.Process]) -> list[tuple[str, str]]:
    """Name and address of each that listens for TCP."""
    found = []
    for process in processes:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.append((process.name(), connection.laddr.ip))
        except psutil.Error:
            continue
    return found


def holding(text: str, folder: Path) -> list[Path]:
    """The files that hold a text."""
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(path)
        except OSError:
            continue  # it has just been replaced
    return found


def left_by(error: type[BaseException], reported: list[str], modified: int) -> Path:
    """The folder of a Ray in whose time an error was raised."""
    with suppress(error), private_ray.private_ray(reported.append) as folder:
        os.utime(folder, (modified, modified))
        raise error
    return folder


def test_what_a_failed_ray_leaves_is_said_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the user's own")
    monkeypatch.setattr(ray, "init", lambda *_, **__: None)
    (tmp_path / "sizewise-other").mkdir()  # not one of ours
    environment, reported = dict(os.environ), []
    with private_ray.private_ray(reported.append) as in_use:
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_TOKEN" not in os.environ
        kept = []
        for number in range(private_ray.KEPT + 2):
            kept.append(left_by(RuntimeError, reported, number))
            assert str(kept[-1]) in reported[-1]
        with private_ray.private_ray(reported.append, failed=lambda: True) as folder:
            kept.append(folder)
        stopped = left_by(KeyboardInterrupt, reported, 0)
        assert not stopped.exists()
        assert in_use.exists()
    assert os.environ == environment
    assert not in_use.exists()
    assert len(reported) == private_ray.KEPT + 3
    left = {path for path in tmp_path.iterdir() if path.name != "sizewise-other"}
    assert left == set(kept[-private_ray.KEPT :])
    assert (tmp_path / "sizewise-other").exists()


def test_a_long_temporary_folder_is_not_used_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/jobs/1234567.cluster.example")
    assert private_ray.temporary_folder() == Path("/tmp")
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/1234567")
    assert private_ray.temporary_folder() == Path("/scratch/1234567")
    monkeypatch.setenv("RAY_TMPDIR", "/scratch/jobs/1234567.cluster.example")  # the user's own choice
    assert private_ray.temporary_folder() == Path("/scratch/jobs/1234567.cluster.example")


@pytest.mark.slow
def test_too_few_processes_are_said_at_once(folder: Path) -> None:
    data = prepare_data(folder / "data", 8_000)
    study = folder / "killed.yaml"
    study.write_text(STUDY.format(data=data))
    folder.chmod(0o777)
    began = time.monotonic()
    before = (*(NOBODY if os.getuid() == 0 else ()), "prlimit", "--nproc=150")
    with Command("run", study, "--runs", folder / "runs", before=before) as run:
        code, _, err = run.end()
    assert code == 1
    assert "`ulimit -u` allows this user 150 processes and threads" in err
    assert "resume killed" in err
    assert "Traceback" not in err
    assert time.monotonic() - began < 120
