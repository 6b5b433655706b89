"""The command imports what is installed, whatever lies in the folder where it is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sizewise.cli import main


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "sizewise.cli"], [str(Path(sys.executable).with_name("sizewise"))]]
)
def test_files_named_like_modules_are_not_imported(command: list[str], tmp_path: Path) -> None:
    """Nor where `PYTHONPATH` has an empty entry, which means the working folder too. What it names is imported."""
    if not Path(command[0]).exists():
        pytest.skip("the console script is not installed")
    for name in ("random", "numpy", "polars", "typer", "click", "json"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name}.py of the working folder')")
    for path, code in (("", 0), (f":{tmp_path / 'nothing'}", 0), (str(tmp_path), 1)):
        done = subprocess.run(
            [*command, "status", "--runs", ".", "--json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        if code == 0:
            assert done.stdout == '{"runs": ".", "studies": []}\n'


def test_a_caller_in_the_same_process_keeps_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["sizewise", "--version"])
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with pytest.raises(SystemExit):
        main()
    assert "PYTHONSAFEPATH" not in os.environ
