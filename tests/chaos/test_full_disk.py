"""A disk without room pauses a study; nothing is torn, and with room it goes on to the calm end."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_study import Command, assert_equal, calm_study, wait_until
from sizewise import results
from sizewise.store.trials.ledger import Ledger
from sizewise_core.files.sealed import unsealed

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no right to mount: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_pauses_the_study(study: Path, tmp_path: Path, disk: Path) -> None:
    runs, folder, ballast = disk / "runs", disk / "runs" / "killed", disk / "ballast"
    with Command("run", study, "--runs", runs, "--set=trials=2") as run:
        wait_until(lambda: list(folder.glob("checkpoints/0000-*/*.ckpt")), run)
        fill(ballast)
        code, _, err = run.end()
        run.leaves_nothing()
    assert (code, "Traceback" in err) == (1, False), err
    assert "sizewise: killed is paused: " in err
    assert "No space left on device" in err
    assert f"continue with `sizewise resume killed --runs {runs}`" in err
    for path in folder.glob("trials/*.json"):
        unsealed(path.read_bytes())
    for path in folder.glob("evaluations/*.jsonl"):
        text = path.read_bytes()
        assert text[-1:] in (b"\n", b"")  # the first line may be what there was no room for
        [unsealed(line) for line in text.splitlines()]
    assert not list(folder.rglob("*.tmp"))
    assert [r.state for r in Ledger(folder).records().values()] == ["running"]

    with Command("resume", "killed", "--runs", runs) as run:  # there still is no room
        code, _, err = run.end()
    assert (code, "Traceback" in err) == (1, False), err
    assert "No space left on device" in err

    ballast.unlink()
    assert results.status(runs, "killed")["state"] in ("stopped", "interrupted")
    with Command("resume", "killed", "--runs", runs) as run:
        code, _, err = run.end()
        assert code == 0, err
        run.leaves_nothing()
    calm_study(study, tmp_path / "calm", trials=2)
    assert_equal(folder, tmp_path / "calm")


def fill(path: Path) -> None:
    """Leave not a byte."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError:
                continue
