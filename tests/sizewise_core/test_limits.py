"""What a process may use: control groups of both versions, an affinity mask, `ulimit -u`; real ones where possible."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sizewise_core.machine import limits
from sizewise_prep.pipeline.prep import default_workers, prepare

ASK = "from sizewise_core.machine import limits; print(limits.cpus(), limits.processes())"


def files(folder: Path, **contents: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Says which control group this process is in, and where the files of control groups are."""
    monkeypatch.setattr(limits, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(limits, "_CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda process: set(range(8)))

    def set_group(text: str) -> Path:
        files(tmp_path / "proc" / "self", cgroup=text)
        return tmp_path / "cgroup"

    return set_group


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), ("900000 100000", 8)]
)
def test_a_quota_of_version_2_counts(group: Callable[[str], Path], quota: str, cpus: int) -> None:
    root = group("0::/user/job\n")
    files(root / "user" / "job", cpu_max=quota, memory_max="max\n", pids_max="max\n", pids_current="7\n")
    assert limits.cpus() == default_workers() == cpus
    assert limits.memory() > 10**8
    assert list(limits._control_group_processes()) == []


def test_the_tightest_of_nested_groups_counts(group: Callable[[str], Path]) -> None:
    root = group("0::/user/job/step\n")
    files(root / "user", cpu_max="300000 100000", memory_max="1000000", pids_max="100", pids_current="40")
    files(root / "user" / "job", cpu_max="500000 100000", memory_max="max", pids_max="90", pids_current="10")
    files(root / "user" / "job" / "step", cpu_max="max 100000")
    assert limits.cpus() == 3
    assert limits.memory() == 1_000_000
    found = limits.processes()
    assert found is not None
    assert (found.left, "allows 100 processes and threads, of which 40 run" in found.limit) == (60, True)


def test_a_quota_of_version_1_counts_also_where_a_container_sees_only_its_own_group(
    group: Callable[[str], Path],
) -> None:
    root = group("4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n1:name=systemd:/docker/abc\n")
    files(root / "cpu,cpuacct")
    for name, text in (("cpu.cfs_quota_us", "250000"), ("cpu.cfs_period_us", "100000")):
        (root / "cpu,cpuacct" / name).write_text(text)
    files(root / "memory")
    (root / "memory" / "memory.limit_in_bytes").write_text("2000000\n")
    assert limits.cpus() == 3
    assert limits.memory() == 2_000_000
    (root / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("-1")
    assert limits.cpus() == 8


def test_nothing_is_known_of_control_groups_elsewhere(group: Callable[[str], Path]) -> None:
    assert limits.cpus() == 8
    assert limits.memory() > 10**8


def test_fewer_workers_prepare_where_processes_are_few(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "cpus", lambda: 4)
    for left, workers in ((1000, 4), (44, 2), (30, 1), (5, 1)):
        monkeypatch.setattr(
            limits, "processes", lambda left=left: limits.Processes(left, "pids.max allows 9")
        )
        assert default_workers() == workers
    with pytest.raises(
        limits.TooFewProcessesError, match=r"^preparing needs 24 more .*; pids.max allows 9: raise"
    ):
        prepare([tmp_path / "none.tsv"], tmp_path / "out")


def asked(*before: str) -> str:
    return subprocess.run(
        [*before, sys.executable, "-c", ASK], capture_output=True, text=True, check=True
    ).stdout


def test_an_affinity_mask_counts() -> None:
    assert asked("taskset", "-c", str(min(os.sched_getaffinity(0)))).startswith("1 ")


def test_a_real_quota_counts(tmp_path: Path) -> None:
    folder = Path("/sys/fs/cgroup/cpu") / f"sizewise-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no control groups of version 1 that can be changed here")
    try:
        (folder / "cpu.cfs_quota_us").write_text("50000")
        assert asked("sh", "-c", f'echo $$ > {folder}/cgroup.procs; exec "$@"', "sh").startswith("1 ")
    finally:
        folder.rmdir()


def test_a_limit_on_a_users_processes_counts_for_ordinary_users_only() -> None:
    command = ("prlimit", "--nproc=150")
    if os.getuid() == 0:
        assert asked(*command).endswith(" None\n")  # it does not bind root
        right = "dac_read_search"  # to read this checkout, wherever it lies
        command = ("setpriv", "--reuid=54321", f"--inh-caps=+{right}", f"--ambient-caps=+{right}", *command)
    assert "`ulimit -u` allows this user 150 processes and threads, of which" in asked(*command)


def test_a_user_that_the_machine_does_not_know_has_a_home_folder() -> None:
    """Path.home() raises there, and libraries with it."""
    program = (
        "from sizewise.cli import modules; modules.set_home(); from pathlib import Path; print(Path.home())"
    )
    right = "dac_read_search"
    stranger = ("setpriv", "--reuid=54321", f"--inh-caps=+{right}", f"--ambient-caps=+{right}")
    environment = {k: v for k, v in os.environ.items() if k != "HOME"}
    ran = subprocess.run(
        [*(stranger if os.getuid() == 0 else ()), sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(ran.stdout.strip()).is_absolute()
