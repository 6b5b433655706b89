"""The recipes in studies/ of published logs, rehearsed end to end on planted rows: prepared, trained and read.

Rows, batches and MLPs are small; everything else is as the files have it. One of them runs on Ray, by its command.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from real_study import calm_study
from sizewise import cli, config, results
from sizewise.store.trials.ledger import Ledger
from sizewise_prep import planted

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SIZEWISE = str(Path(sys.executable).with_name("sizewise"))
SMALL: dict[str, Any] = {"trials": 2, "train.batch_size": 256, "resources": {"workers": 1}}
MLPS = {"model.bottom_mlp": [32], "model.top_mlp": [32]}
EACH: dict[str, dict[str, Any]] = {
    "mlperf_dcnv2": {
        **MLPS,
        "model.rank": 16,
        "model.dim": 32,
        "search.memory_budget": {"low": "10kB", "high": "1MB", "log": True},
        "first_trials": [{"memory_budget": "10kB"}],
    },
    "criteo_tb_dlrm": {
        **MLPS,
        "model.dim": 32,
        "search.memory_budget": {"choices": ["10kB", "100kB", "1MB"]},
        "first_trials": [{"memory_budget": "10kB", "epochs": 1}, {"memory_budget": "1MB", "epochs": 1}],
        "train.evaluate_every": 20,
        "search.learning_rate": 0.1,
    },
    "criteo_kaggle": {**MLPS, "train.schedule.warmup": 5, "search.epochs": 1},
    "yambda": {**MLPS, "train.schedule.warmup": 5, "model.dim": 16, "search.epochs": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards by recipe, prepared as its header says."""
    folder = tmp_path_factory.mktemp("recipes")
    planted.generate(folder / "raw", 5_000, seed=3, files=2)
    days = sorted((folder / "raw").glob("day_*.tsv"))
    dials = planted.Dials(users=300, items=400, user_signal=2, numbers=2, number_signal=1)
    planted.generate(folder / "visits", 3_000, seed=5, dials=dials, format="parquet")
    listens = pl.read_parquet(folder / "visits" / "day_0.parquet").select(
        uid="user",
        timestamp="time",
        item_id="item",
        is_organic=pl.col("C9"),  # of three values
        played_ratio_pct=pl.when(pl.col("label") == 1).then(100).otherwise(10),
        track_length_seconds="N2",
    )
    listens.sample(fraction=1, shuffle=True, seed=5).write_parquet(folder / "listens.parquet")
    asked = {
        "mlperf_dcnv2": [*map(str, days), "--tokens", "contiguous", "--split", "mlperf"],
        "criteo_tb_dlrm": [*map(str, days), "--split", "mlperf"],
        "criteo_kaggle": [*map(str, days), "--tokens", "contiguous", "--min-count", "10"],
        "yambda": [str(folder / "listens.parquet"), "--schema", str(ROOT / "docs" / "yambda.yaml"), "--sort"],
    }
    for name, arguments in asked.items():
        assert "sizewise prep" in (ROOT / "studies" / f"{name}.yaml").read_text()
        out = ["--out", str(folder / name), "--workers", "1"]
        prepared = CliRunner().invoke(cli.app, ["prep", *arguments, *out])
        assert prepared.exit_code == 0, prepared.output
    return {name: folder / name for name in asked}


@pytest.mark.parametrize("name", ["mlperf_dcnv2", "criteo_tb_dlrm", "yambda"])
def test_a_recipe_trains(name: str, data: dict[str, Path], tmp_path: Path) -> None:
    file, folder = tmp_path / "study.yaml", tmp_path / name
    text = (ROOT / "studies" / f"{name}.yaml").read_text()
    file.write_text(re.sub("^data: .*", f"data: {data[name]}", text, flags=re.MULTILINE))
    folder.mkdir()
    calm_study(file, folder, **SMALL, **EACH[name])
    records = Ledger(folder).records()
    assert [record.state for record in records.values()] == ["finished", "finished"], [
        record.error for record in records.values()
    ]
    wanted = config.load(file).objectives
    for number, record in records.items():
        rows = Ledger(folder).evaluations(number)
        assert all(math.isfinite(rows[-1][metric]) for metric in ("auc", "logloss"))
        assert record.values is not None
        assert set(wanted) <= set(record.values)
        assert max(row["auc"] for row in rows) > 0.5


def test_a_recipe_runs_by_its_command(data: dict[str, Path], tmp_path: Path) -> None:
    """`run` on Ray, then what the study answers."""
    command = [SIZEWISE]
    overrides = {**SMALL, **EACH["criteo_kaggle"], "data": str(data["criteo_kaggle"])}
    sets = [f"--set={key}={json.dumps(value)}" for key, value in overrides.items()]
    file, runs = str(ROOT / "studies" / "criteo_kaggle.yaml"), str(tmp_path / "runs")
    ran = subprocess.run(
        [*command, "run", file, "--runs", runs, "--json", *sets],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    study = results.load(tmp_path / "runs", "criteo-kaggle")
    assert study.problems == []
    assert study.trials["state"].to_list() == ["finished", "finished"]
    assert study.evaluations["calibration_error"].is_not_null().all()
    assert study.front.height > 0
