"""Small planted data, prepared once for all tests of the platform."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sizewise.config.trial import TrialConfig
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 planted rows in shards of 700, so that splits span several and batches cross them."""
    folder = tmp_path_factory.mktemp("planted")
    planted.generate(folder / "raw", 4_000, seed=3)
    prepare([folder / "raw" / "day_0.tsv"], folder / "shards", shard_rows=700)
    return folder / "shards"


@pytest.fixture(scope="session")
def contiguous_shards(shards: Path) -> Path:
    """The same rows with contiguous ids."""
    folder = shards.parent / "contiguous"
    prepare([shards.parent / "raw" / "day_0.tsv"], folder, shard_rows=700, tokens="contiguous")
    return folder


@pytest.fixture
def trial_config(shards: Path) -> Callable[..., TrialConfig]:
    """A small trial; keyword arguments replace settings by their flat names, and `options` of the method or model."""

    def make(**changes: Any) -> TrialConfig:
        fields: dict[str, Any] = {
            "data": str(shards),
            "dim": 8,
            "bottom_mlp": [16],
            "top_mlp": [16],
            "method": "robe",
            "options": {"block_len": 8},
            "memory_budget": 20_000,
            "learning_rate": 0.02,
            "epochs": 2,
            "batch_size": 128,
            "optimizer": "adagrad",
            "evaluate_every": 0.5,
            "checkpoint_seconds": 60.0,
            "seed": 5,
        }
        fields |= changes
        options = fields.pop("options") | fields.pop("model_options", {})
        return TrialConfig.from_flat({**fields, **options})

    return make


@pytest.fixture(autouse=True)
def _shared_shards_stay_as_they_are(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test keeps a teacher's scores beside shards that others use, too: these would depend on their order."""
    yield
    if "shards" in request.fixturenames:
        shared = request.getfixturevalue("shards").parent
        assert not [*shared.glob("*/teachers")], "copy the shards first"
