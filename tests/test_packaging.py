"""The wheel works in another folder, and Python's own `platform` module is never hidden."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tests.release_check import environment

from sizewise_prep import planted

ROOT = Path(__file__).parents[1]
IS_STANDARD = "import platform; assert platform.python_version(), platform; print(platform.__file__)"


def run(*command: object, cwd: Path, timeout: float = 800, **environment: str) -> str:
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_platform_is_only_a_folder() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not list((ROOT / "platform").glob("*.py"))
    assert not list((ROOT / "platform").rglob("test_*.py"))


@pytest.mark.parametrize("options", [[], ["-m", "pytest", "--version"], ["-m", "streamlit", "version"]])
def test_in_the_repository_root_platform_is_the_standard_module(options: list[str]) -> None:
    command = options or ["-c", IS_STANDARD]
    out = run(sys.executable, *command, cwd=ROOT)
    if not options:
        assert out.strip() == str(Path(sysconfig.get_path("stdlib")) / "platform.py")


@pytest.fixture(scope="module")
def wheel_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; its dependencies are those of the running one.

    Installing them anew would fetch gigabytes; what is tested is that the wheel holds all of Sizewise and
    that nothing comes from the repository.
    """
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder / "dist",
        ROOT,
        cwd=folder,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    return environment(wheel, folder / "env")


@pytest.mark.slow
def test_the_wheel_prepares_and_runs_a_study_elsewhere(wheel_environment: Path, tmp_path: Path) -> None:
    sizewise = wheel_environment / "sizewise"
    where = run(
        wheel_environment / "python",
        "-c",
        "import sizewise, sizewise_prep, sizewise_dashboard.app as a; print(sizewise.__file__, a.__file__)",
        cwd=tmp_path,
    )
    assert str(ROOT) not in where
    assert "prep" in run(sizewise, "--help", cwd=tmp_path)
    planted.generate(tmp_path / "raw", 3_000, seed=1)
    run(sizewise, "prep", "raw/day_0.tsv", "--out", "shards", cwd=tmp_path)
    (tmp_path / "study.yaml").write_text(
        "name: small\ndata: shards\ntrials: 1\nsearch: {epochs: 1}\n"
        "model: {dim: 8, bottom_mlp: [16], top_mlp: [16]}\nembedding: {block_len: 8}\n"
    )
    out = run(sizewise, "run", "study.yaml", cwd=tmp_path)
    assert "Only one trial has been evaluated" in out
