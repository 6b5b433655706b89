"""The recipes in studies/ of published logs, rehearsed end to end on planted rows: prepared, trained and read.

Rows, batches and MLPs are small; everything else is as the files have it.
"""

import math
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from real_study import calm_study
from sizewise import cli, config, models
from sizewise.embedding import build, full_bytes
from sizewise.embedding.ids.multi_hot import VALUES
from sizewise.store.trials.ledger import Ledger
from sizewise_prep import planted

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {"trials": 2, "train.batch_size": 256, "resources": {"workers": 1}}
MLPS = {"model.bottom_mlp": [32], "model.top_mlp": [32]}
# fmt: off
# Rows of the tables of MLPerf's two models, and rows of the first 23 days of Criteo's log.
MLPERF_V1 = (39_884_406, 39_043, 17_289, 7_420, 20_263, 3, 7_120, 1_543, 63, 38_532_951, 2_953_546, 403_346, 10,
             2_208, 11_938, 155, 4, 976, 14, 39_979_771, 25_641_295, 39_664_984, 585_935, 12_972, 108, 36)
MLPERF_DCNV2 = (40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10,
                2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36)
# fmt: on
CRITEO_ROWS = 4_195_197_692
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


def test_a_rehearsal_changes_sizes_alone() -> None:
    """Models, methods, optimizers, schedules, metrics, lists and precision are those of the files."""
    sizes = {
        *(f"model.{name}" for name in ("dim", "rank", "bottom_mlp", "top_mlp")),
        *("search.memory_budget", "search.epochs", "first_trials", "trials", "resources"),
        *("train.batch_size", "train.evaluate_every", "train.schedule.warmup"),
    }
    for name, changes in EACH.items():
        assert {*SMALL, *changes} <= sizes, name


def header(name: str) -> str:
    """What the comments of a recipe say, on one line."""
    lines = (ROOT / "studies" / f"{name}.yaml").read_text().splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def test_what_headers_say_of_bytes_follows_from_the_code() -> None:
    """MLPerf's tables, budgets as compressions of them, layers, rows on a disk, and iterations of an epoch."""
    model = config.load(ROOT / "studies" / "mlperf_dcnv2.yaml").model
    for rows, said in (
        (MLPERF_V1, "187.8 million rows = 96.1 GB"),
        (MLPERF_DCNV2, "204.2 million rows = 104.5 GB"),
    ):
        found = f"{sum(rows) / 1e6:.1f} million rows = {full_bytes(rows, model.dim) / 1e9:.1f} GB"
        assert found == said
        assert said in header("criteo_tb_dlrm")
    tables, of_tb, of_mlperf = (
        full_bytes(MLPERF_DCNV2, model.dim),
        header("criteo_tb_dlrm"),
        header("mlperf_dcnv2"),
    )
    assert f"10,000x of those {tables / 1e9:.1f} GB (204.2 million rows of {model.dim} numbers" in of_mlperf
    assert f"is {tables / 10_000 / 1e6:.2f} MB" in of_mlperf
    assert f"of which 10,000x is {full_bytes(MLPERF_V1, 128) / 10_000 / 1e6:.1f} MB" in of_tb
    with torch.device("meta"):
        embedding = build("robe", MLPERF_DCNV2, model.dim, tables // 10_000, 1, block_len=32)
        widths = {"bottom_mlp": model.bottom_mlp, "top_mlp": model.top_mlp}
        dcn = models.build("dcn", embedding, 13, {**model.options, **widths})
    layers = dcn.model_bytes - dcn.embedding_bytes
    assert f"The MLPs and crosses weigh {layers / 1e6:.0f} MB" in of_mlperf
    assert f"the look-ups of {VALUES} values a row" in of_mlperf
    a_row = 1 + 4 * 13 + 4 * 26  # as shards hold it
    assert f"gives {round(CRITEO_ROWS * a_row / 1e9, -1):.0f} GB of rows" in of_mlperf
    assert f"{CRITEO_ROWS / 2_048 / 1e6:.2f} million iterations an epoch" in of_tb


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
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
        assert name != "criteo_kaggle" or all("calibration_error" in row for row in rows)
