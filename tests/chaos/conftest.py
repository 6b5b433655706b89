"""One small data set and one study file for all of the chaos."""

import os
import random
from pathlib import Path

import pytest

from real_study import STUDY, prepare_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_data(tmp_path_factory.mktemp("chaos"))


@pytest.fixture
def study(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "killed.yaml"
    path.write_text(STUDY.format(data=data))
    return path


@pytest.fixture
def seed() -> int:
    drawn = int(os.environ.get("SIZEWISE_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"SIZEWISE_CHAOS_SEED={drawn}")
    return drawn
