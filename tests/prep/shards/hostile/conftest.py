"""Shards that tests damage."""

from pathlib import Path

import pytest
from tests.prep.shards.hostile.damage import ROWS

from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import generate


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with contiguous ids, so that there is a vocabulary as well."""
    folder = tmp_path_factory.mktemp("hostile")
    generate(folder / "log", 300)
    prepare([folder / "log" / "day_0.tsv"], folder / "shards", shard_rows=ROWS, tokens="contiguous")
    return folder / "shards"
