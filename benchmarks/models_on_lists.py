"""The same question where rows have lists: what `din` loses with its embeddings, beside models that pool histories.

    python -m benchmarks.models_on_lists --work build/models-on-lists     # a run that was ended goes on where it was
    python -m benchmarks.models_on_lists --work build/models-on-lists --show

Planted rows of users who come back, with an item, the user's last items and the time (`sizewise generate --users`),
prepared as its schema says. One robe pool at every size, 1x too, which reads raw tokens without a term for the feature:
so an item has the same vector where it is shown and in histories. Tuned as `benchmarks.models` does, but each training
counts with the epoch that its own validation rows choose, as a trial of a study does.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.models import RATES, Training, missing, table
from benchmarks.scale.methods import BOTTOM, TOP
from benchmarks.scale.table import Record, Result
from benchmarks.timing import machine

from sizewise.config.trial import TrialConfig
from sizewise.embedding import full_bytes
from sizewise.training.loop import train
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import Dials, generate
from sizewise_prep.raw.layout import Layout
from sizewise_prep.shards.manifest import Manifest

MODELS: dict[str, dict[str, Any]] = {
    "dlrm": {"bottom_mlp": BOTTOM, "top_mlp": TOP},
    "mlp": {"top_mlp": TOP},
    "wide_deep": {"top_mlp": TOP},
    "din": {"top_mlp": TOP, "target": "item", "history": "history"},
}
USERS = Dials(users=5_000, user_signal=2)
ROWS, BATCH, EPOCHS, DIM = 137_139, 512, 2, 16


def shards(work: Path) -> Path:
    """The planted rows, prepared once."""
    folder = work / "shards"
    if not folder.exists():
        generate(work / "raw", ROWS, seed=1, dials=USERS, format="parquet")
        prepare(
            sorted((work / "raw").glob("day_*")), folder, layout=Layout.load(work / "raw" / "schema.yaml")
        )
    return folder


def config_of(training: Training, data: Path) -> TrialConfig:
    """The trial that such a training is."""
    settings: dict[str, Any] = {
        "data": str(data), "seed": training.seed, "model": training.kind, "dim": DIM, "bottom_mlp": [],
        "method": "robe", "block_len": DIM, "feature_term": False,
        "memory_budget": full_bytes(Manifest.load(data).cardinalities, DIM) // training.ratio,
        "learning_rate": training.rate, "epochs": EPOCHS, "batch_size": BATCH, "optimizer": "adagrad",
        "evaluate_every": 1.0, "checkpoint_seconds": 3_600.0,
    }  # fmt: skip
    return TrialConfig.from_flat({**settings, **MODELS[training.kind]})


def trained(training: Training, data: Path, folder: Path) -> Result:
    """What a training came to."""
    begun = time.monotonic()
    outcome = train(config_of(training, data), folder, lambda row: None)
    best = max(outcome.evaluations, key=lambda row: row["auc"])
    return Result(
        training.key, training.kind, training.ratio, training.seed, 0, training.rate, False, BATCH,
        int(best["embedding_bytes"]), EPOCHS, int(best["iteration"]), time.monotonic() - begun, best["auc"],
        outcome.test.scores.auc, outcome.test.scores.logloss, outcome.test.scores.auc,
        note=f"epoch {best['epoch']:g}; {int(best['model_bytes'])} bytes with its layers",
    )  # fmt: skip


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/models-on-lists"))
    parser.add_argument("--minutes", type=float, default=1e9, help="no training starts after that")
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * arguments.minutes
    record = Record.open(arguments.work / "results")
    for training in () if arguments.show else missing(record, MODELS):
        if record.has(training.key):
            continue
        if time.monotonic() > until:
            break
        data = shards(arguments.work)
        record.add(trained(training, data, arguments.work / "checkpoints" / training.key.replace(" ", "-")))
        print(training.key, f"{record.results[-1].validation_auc:.4f}", flush=True)
    print("\n".join([f"Learning rates {RATES}; {machine()}", "", *table(record, MODELS)]))


if __name__ == "__main__":
    main()
