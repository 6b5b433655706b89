"""One driver a study: real processes, other machines played by namespaces, clocks by libfaketime."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sizewise.engine.driving.driver import only_driver
from sizewise.results import status
from sizewise_core.errors import InputError

DRIVER = """
import sys, time
from pathlib import Path
from sizewise.engine.driving.driver import only_driver
from sizewise_core.errors import InputError
try:
    with only_driver(Path(sys.argv[1])) as driver:
        driver.call(
            lambda reason: print(reason, flush=True), lambda now: print(f"moved to {now}", flush=True)
        )
        print("holds", flush=True)
        time.sleep(600)
except InputError as error:
    print(error, flush=True)
"""
READER = "import sys; from pathlib import Path; from sizewise.results import status;"
READER += "print(status(Path(sys.argv[1]).parent, Path(sys.argv[1]).name)['state'])"
# Another host name, another machine's process ids, the same disk.
ELSEWHERE = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
ELSEWHERE += ('hostname elsewhere; exec "$@"', "sh")
can_unshare = pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*ELSEWHERE, "true"], capture_output=True).returncode != 0,
    reason="no right to make namespaces",
)

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "s" / "trials").mkdir(parents=True)
    return tmp_path / "s"


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Drivers of `folder` as processes of their own; `before` is what they are run by."""
    started = []

    def begin(*before: str) -> subprocess.Popen[str]:
        command = [*before, sys.executable, "-c", DRIVER, str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def read(folder: Path, *before: str) -> str:
    """The study's state as another process sees it."""
    command = [*before, sys.executable, "-c", READER, str(folder)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("locks", [True, False])
def test_a_second_driver_is_refused_with_the_firsts_host_and_process(
    folder: Path, start: Start, locks: bool
) -> None:
    first = start()
    assert line(first) == "holds"
    if not locks:  # as on a file system that has none
        (folder / "driver.lock").unlink()
    with pytest.raises(InputError, match=f"process {first.pid} on {socket.gethostname()} is running"):
        only_driver(folder).__enter__()
    first.kill()
    first.wait()
    with only_driver(folder):  # at once
        assert status(folder.parent, "s")["state"] == "running"
    assert status(folder.parent, "s")["state"] == "stopped"


@pytest.mark.slow
def test_a_folder_that_is_moved_or_removed_is_noticed_and_not_made_anew(folder: Path, start: Start) -> None:
    driver = start()
    assert line(driver) == "holds"
    new = folder.parent.rename(folder.parent.with_name("elsewhere")) / folder.name
    assert line(driver) == f"moved to {new}"
    assert not folder.parent.exists()
    folder.mkdir(parents=True)  # another one in its place
    driver.send_signal(signal.SIGINT)
    driver.wait(200)
    assert list(folder.iterdir()) == []
    assert json.loads((new / "driver.json").read_text())["state"] == "stopped"

    driver = start()
    assert line(driver) == "holds"
    shutil.rmtree(folder)
    assert line(driver) == "moved to None"
    driver.send_signal(signal.SIGINT)
    driver.wait(200)
    assert not folder.exists()


def test_a_copy_is_a_study_of_its_own_though_the_original_runs(
    folder: Path, start: Start, tmp_path: Path
) -> None:
    first = start()
    assert line(first) == "holds"
    copy = tmp_path / "elsewhere" / "other-name"
    shutil.copytree(folder, copy)  # with the lock's file, and what it says of the driver
    assert status(copy.parent, copy.name)["state"] == "interrupted"
    with only_driver(copy):
        assert status(copy.parent, copy.name)["state"] == "running"
        copied = copy / "driver.json"
        assert copied.read_bytes() != (folder / "driver.json").read_bytes()
    assert status(copy.parent, copy.name)["state"] == "stopped"
    assert read(folder) == "running"
    moved = folder.rename(tmp_path / "moved")  # the same folder by another path is no copy
    assert read(moved) == "running"


@pytest.mark.slow
@can_unshare
def test_machines_without_common_locks_go_by_the_heartbeat(folder: Path, start: Start) -> None:
    first = start()
    assert line(first) == "holds"
    (folder / "driver.lock").unlink()
    assert f"process {first.pid} on {socket.gethostname()} is running" in line(start(*ELSEWHERE))
    assert read(folder, *ELSEWHERE) == "running"

    first.send_signal(signal.SIGSTOP)  # a machine that was suspended, and looks dead
    second = start(*ELSEWHERE)
    assert line(second) == "holds"
    first.send_signal(signal.SIGCONT)
    assert line(first) == "process 1 on elsewhere has taken this study over"
    assert status(folder.parent, "s")["state"] == "running"  # the second one's: the first has not touched it


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("faketime"), reason="needs faketime")
@pytest.mark.parametrize("jump", ["+2 days", "-2 days"])
def test_a_clock_that_jumps_does_not_make_status_lie(folder: Path, start: Start, jump: str) -> None:
    driver = start("faketime", jump)
    assert line(driver) == "holds"
    assert read(folder) == "running"
    assert read(folder, "faketime", jump) == "running"
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert read(folder) == "interrupted"
    assert read(folder, "faketime", jump) == "interrupted"  # though its heartbeat is fresh by this clock


@pytest.mark.slow
@can_unshare
@pytest.mark.skipif(not shutil.which("faketime"), reason="needs faketime")
def test_another_machines_clock_may_be_off(folder: Path, start: Start) -> None:
    driver = start()
    assert line(driver) == "holds"
    assert read(folder, *ELSEWHERE, "faketime", "+2 days") == "running"
    driver.kill()
    time.sleep(0.1)
    assert read(folder, *ELSEWHERE, "faketime", "+2 days") == "interrupted"
