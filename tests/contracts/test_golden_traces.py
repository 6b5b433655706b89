"""Every embedding method and every model trains as it did: 200 steps, and the log-loss and AUC that they gave.

A change that is not meant to change numbers leaves these curves alone. One that is meant to writes them anew, and
says so in its commit:

    SIZEWISE_WRITE_GOLDEN=1 pytest tests/contracts/test_golden_traces.py
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sizewise.config.trial import TrialConfig
from sizewise.embedding import METHODS
from sizewise.training.loop import train
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout

GOLDEN = Path(__file__).parents[1] / "data" / "golden_traces.json"
STEPS = 200
CASES = {
    **{method: {"method": method, "options": {}} for method in METHODS.own},
    "robe-signed-unaligned": {"method": "robe", "options": {"block_len": 4, "align": 1, "sign": True}},
    "robe-int8": {"method": "robe", "options": {"storage": "int8"}},
    "hash-bfloat16": {"method": "hash", "options": {"storage": "bfloat16"}},
    "hash-narrow": {"method": "hash", "options": {"width": 1}},
    "robe-narrow": {"method": "robe", "options": {"width": 4}},
    "robe-decayed": {"method": "robe", "options": {"decay": "linear"}},
    "robe-student": {
        "method": "robe",
        "options": {"decay": "linear", "distill_teacher": ["scores.npy"], "distill_temperature": 2.0},
    },
    "robe-dcn": {"method": "robe", "options": {"model": "dcn", "layers": 2, "rank": 8}},
    "robe-deepfm": {"method": "robe", "options": {"model": "deepfm", "bottom_mlp": []}},
    "hash-wide-deep": {"method": "hash", "options": {"model": "wide_deep", "bottom_mlp": []}},
    "robe-din": {"method": "robe", "options": {"model": "din", "bottom_mlp": [], "target": "item"}},
    "full-mlp": {"method": "full", "options": {"model": "mlp", "bottom_mlp": []}},
    "hot-chi2-pool": {"method": "hot", "options": {"by": "chi2", "hashed_share": 0.3, "width": 4}},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,200 training rows with contiguous ids, which every method takes: 25 steps an epoch."""
    folder = tmp_path_factory.mktemp("golden")
    planted.generate(folder / "raw", 4_000, seed=9)
    prepare([folder / "raw" / "day_0.tsv"], folder / "shards", shard_rows=1_100, tokens="contiguous")
    return folder / "shards"


@pytest.fixture(scope="module")
def list_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many rows with histories: a click is likelier where what is shown is of a kind that the history has."""
    folder, random = tmp_path_factory.mktemp("golden lists"), np.random.default_rng(9)
    items, lengths = random.integers(0, 60, 4_000), random.integers(0, 8, 4_000)
    histories = [random.integers(0, 60, length) for length in lengths]
    alike = np.array([(past % 6 == item % 6).any() for past, item in zip(histories, items, strict=True)])
    frame = {
        "clicked": (random.random(4_000) < np.where(alike, 0.7, 0.2)).astype(np.int64),
        "age": random.integers(0, 90, 4_000),
        "item": items,
        "history": [past.tolist() for past in histories],
    }
    pl.DataFrame(frame).write_parquet(folder / "log.parquet")
    columns = {"clicked": "label", "age": "integer", "item": "token", "history": "tokens"}
    prepare(folder / "log.parquet", folder / "shards", layout=Layout(columns=columns), tokens="contiguous")
    return folder / "shards"


def trace(case: dict[str, Any], shards: Path, folder: Path) -> list[list[float]]:
    """(iteration, log-loss, AUC) at every evaluation."""
    settings = {
        "data": str(shards),
        "dim": 8,
        "bottom_mlp": [16],
        "top_mlp": [16],
        "memory_budget": 4_000_000 if case["method"] == "full" else 100_000,
        "learning_rate": 0.005,
        "epochs": STEPS // 25,
        "batch_size": 128,
        "optimizer": "adagrad",
        "evaluate_every": 25,
        "checkpoint_seconds": 600.0,
        "seed": 5,
    }
    config = TrialConfig.from_flat({**settings, "method": case["method"], **case["options"]})
    rows = train(
        config,
        folder,
        report=lambda row: None,
        teacher=scores(folder) if config.train.distill_teacher else (),
    ).evaluations
    return [[row["iteration"], row["logloss"], row["auc"]] for row in rows]


def scores(folder: Path) -> list[dict[str, Any]]:
    """A teacher that is a file: a wave over the 3,200 training rows."""
    np.save(folder / "scores.npy", np.sin(np.arange(3_200) / 7, dtype=np.float32) * 2 - 1)
    path = str(folder / "scores.npy")
    return [{"kind": "scores", "name": "scores.npy", "path": path, "digest": "wave", "rows": 3_200}]


@pytest.mark.parametrize("name", CASES)
def test_a_method_trains_as_it_did(
    name: str, shards: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if CASES[name]["options"].get("model") == "din":
        shards = request.getfixturevalue("list_shards")
    found = trace(CASES[name], shards, tmp_path)
    assert found[-1][0] == STEPS
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("SIZEWISE_WRITE_GOLDEN"):
        golden[name] = found
        GOLDEN.write_text(json.dumps(dict(sorted(golden.items())), indent=1) + "\n")
    # Processors differ in the order of their sums: the last digits of float32 are not promised, the others are.
    assert [iteration for iteration, *_ in found] == [iteration for iteration, *_ in golden[name]]
    assert [loss for _, loss, _ in found] == pytest.approx([loss for _, loss, _ in golden[name]], rel=2e-5)
    assert [auc for *_, auc in found] == pytest.approx([auc for *_, auc in golden[name]], abs=2e-4)


def test_every_case_is_on_record_and_no_other() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == CASES.keys()
