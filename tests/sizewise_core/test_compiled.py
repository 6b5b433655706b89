"""Compiled code on disk: shared by processes that start at once, and never another function's or an older one's."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from sizewise_core.machine.code_files import distrust

FUNCTIONS = 40
SUMS = """
from sizewise_core.machine.compiled import jit
from mine.helper import plus

def make(n):
    @jit
    def f(x):
        return plus(x, n)
    return f
"""
HELPER = "from numba import njit\n\n@njit\ndef plus(x, n):\n    return x {} n\n"
MAIN = """
import sys
from mine.kernels.sums import make

hits = 0
for n in range(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
    function = make(n)
    assert function(1000) == {}, n
    hits += sum(function.stats.cache_hits.values())
print(hits)
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that calls functions first, first + step, ... and prints how many it found compiled."""

    def change(operator="+", result="1000 + n"):
        (room := tmp_path / "mine/kernels").mkdir(parents=True, exist_ok=True)
        for package in (room, room.parent):
            (package / "__init__.py").touch()
        (room / "sums.py").write_text(SUMS)
        (room.parent / "helper.py").write_text(HELPER.format(operator))
        (tmp_path / "main.py").write_text(MAIN.format(result))

    def run(first=0, step=1, end=FUNCTIONS, environment=(), **kwargs):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), **dict(environment)}
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "main.py"), *map(str, (first, end, step))],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            **kwargs,
        )

    change()
    run.change = change
    run.files = lambda: [*Path(tmp_path / "cache").rglob("*.nbc")]
    return run


def found(process):
    out, _ = process.communicate()
    assert process.returncode == 0
    return int(out)


@pytest.mark.slow
def test_processes_that_compile_at_once_keep_each_their_own_code(start):
    together = [start(first, step=3) for first in range(3)]
    assert [found(process) for process in together] == [0, 0, 0]
    assert found(start()) == FUNCTIONS  # and each returned its own sum


@pytest.mark.slow
def test_damaged_code_is_compiled_again(start):
    assert found(start(end=3)) == 0
    for file, content in zip(start.files(), (b"", b"\x80\x04damaged", None), strict=True):
        file.write_bytes(content if content is not None else file.read_bytes()[:-100])
    assert found(start(end=3)) == 0
    assert found(start(end=3)) == 3


@pytest.mark.slow
def test_code_is_compiled_again_when_a_module_that_it_imports_changes(start):
    assert found(start(end=2)) == 0
    start.change("-", "1000 - n")
    assert found(start(end=2)) == 0


def test_a_disk_that_takes_no_more_only_costs_time(start):
    limited = start(end=2, preexec_fn=_write_nothing)
    assert found(limited) == 0
    assert start.files() == []


@pytest.mark.slow
def test_code_that_another_user_may_have_put_there_is_not_run(start, tmp_path):
    assert found(start(end=1)) == 0
    (kept,) = start.files()
    folder, planted = kept.parent, tmp_path / "planted"
    assert folder.stat().st_mode & 0o777 == 0o700

    def runs():
        """Whether what lies in the folder is run, and what is said."""
        kept.write_bytes(pickle.dumps(Planted(planted)))
        process = start(end=1, stderr=subprocess.PIPE)
        _, err = process.communicate()
        assert process.returncode == 0
        happened = planted.exists()
        planted.unlink(missing_ok=True)
        return happened, err

    assert runs()[0]  # so that it matters who can write there
    folder.chmod(0o777)
    ran, err = runs()
    assert not ran
    assert f"{folder} can be written to by other users: compiled code is kept in" in err
    assert runs() == (False, "")  # said once
    folder.chmod(0o700)
    folder.parent.chmod(0o777)
    assert distrust(folder) == f"lies in {folder.parent}, which other users can write to"
    folder.parent.chmod(0o1777)
    assert distrust(folder) == ""  # as the temporary folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_trusted(tmp_path):
    folder = tmp_path / "above" / "cache"
    folder.mkdir(parents=True, mode=0o700)
    assert distrust(folder) == ""
    os.chown(folder.parent, 65534, 65534)
    assert distrust(folder) == f"lies in {folder.parent}, which other users can write to"
    os.chown(folder, 65534, 65534)
    assert distrust(folder) == "belongs to another user"


class Planted:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.slow
def test_where_nothing_else_can_be_written_to_code_lies_in_the_temporary_folder(start, tmp_path):
    environment = {
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": "/dev/null/home",
        "NUMBA_CACHE_DIR": "/dev/null/cache",
    }
    (tmp_path / "tmp").mkdir()
    (tmp_path / "mine/kernels/__pycache__").write_text("no folder can be made here")
    for expected in (0, 1):
        process = start(end=1, environment=environment, stderr=subprocess.PIPE)
        assert found(process) == expected
    (folder,) = (tmp_path / "tmp").iterdir()
    assert folder.stat().st_uid == os.getuid()
    assert folder.stat().st_mode & 0o022 == 0


def _write_nothing():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
