"""The effects that dials plant are there for models to learn: a column of the crosses makes a model better."""

from pathlib import Path

import pytest

from real_study import one_thread
from sizewise.config.trial import TrialConfig
from sizewise.training.loop import train
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout

pytestmark = pytest.mark.slow


def best_auc(data: Path, folder: Path) -> float:
    """The best validation AUC of a small MLP over two epochs."""
    settings = {
        "data": str(data), "model": "mlp", "method": "robe", "dim": 8, "bottom_mlp": [], "top_mlp": [32],
        "memory_budget": 1_000_000, "learning_rate": 0.03, "epochs": 2, "batch_size": 128, "optimizer": "adagrad",
        "evaluate_every": 0.5, "checkpoint_seconds": 600.0, "seed": 1,
    }  # fmt: skip
    folder.mkdir()
    rows = one_thread(lambda: train(TrialConfig.from_flat(settings), folder, report=lambda row: None))
    return max(float(row["auc"]) for row in rows.evaluations)


def test_a_model_with_the_crosses_column_beats_one_without(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    dials = planted.Dials(crosses=1, cross_signal=1.5)
    truth = planted.generate(raw, 12_000, seed=2, dials=dials)
    layouts = {"with": Layout.load(raw / planted.SCHEMA), "without": None}
    found = {}
    for name, layout in layouts.items():
        prepare([raw / "day_0.tsv"], tmp_path / name, layout=layout, workers=1)
        found[name] = best_auc(tmp_path / name, tmp_path / f"trained-{name}")
    assert truth.added is not None
    assert found["without"] + 0.02 < found["with"] < truth.bayes_auc
    assert truth.added.auc_without["crosses"] + 0.1 < truth.bayes_auc
