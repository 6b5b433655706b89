"""Rows and files to prepare."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Line = Callable[..., bytes]


def make_line(label: object = 0, **fields: str) -> bytes:
    """A good line, with fields replaced by name: make_line(1, I3="-7", C26="")."""
    names = [f"I{j + 1}" for j in range(13)] + [f"C{j + 1}" for j in range(26)]
    values = {name: str(j) if name[0] == "I" else f"{j:08x}" for j, name in enumerate(names, 1)} | fields
    return "\t".join([str(label), *values.values()]).encode()


@pytest.fixture(name="line")
def _line() -> Line:
    return make_line


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    """Writes lines to a raw file and returns its path."""

    def write(*lines: bytes, name: str = "day_0.tsv", ending: bytes = b"\n") -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(line + ending for line in lines))
        return path

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real click rows, which the repository must not hold."""
    default = Path(__file__).parents[2] / ".." / "shared" / "data"
    folder = Path(os.environ.get("SIZEWISE_REAL_DATA", default))
    if not (folder / "criteo_kaggle_sample.tsv.gz").exists():
        pytest.skip(f"no real click rows in {folder}; name their folder in SIZEWISE_REAL_DATA")
    return folder


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few kilobytes are read in several pieces."""
    monkeypatch.setattr("sizewise_prep.pipeline.jobs.parts.PIECE_BYTES", 8_000)
    monkeypatch.setattr("sizewise_prep.raw.files.reader.BLOCK_BYTES", 2_000)
