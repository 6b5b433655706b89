"""A study whose teachers are trained first, and its data."""

import shutil
from pathlib import Path

import pytest
from tests.sizewise.engine.teachers.distilling import drive, engine_of, load


@pytest.fixture(scope="session")
def made(contiguous_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data, and the runs folder of a study of two teachers and two students that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("distillation")
    data = Path(shutil.copytree(contiguous_shards, folder / "shards"))
    drive(engine_of(load(folder, data), folder / "runs" / "mine"))
    return data, folder / "runs"
