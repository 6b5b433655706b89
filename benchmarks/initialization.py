"""Test AUC by the spread of the initial pool: why values start in U(-0.01, 0.01).

    python benchmarks/initialization.py data/shards --ratios 1 1000 --epochs 1

The pool of `robe` is drawn from U(-bound, bound); model, optimizer and data stay the same.  Columns are test AUC
after the last epoch, mean and range over seeds.
"""

import argparse
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from sizewise.embedding import build, full_bytes
from sizewise.embedding.storage.table import INIT_BOUND
from sizewise.metrics.scores import evaluate_scores
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batches import Split
from sizewise.training.loop import predict
from sizewise_prep.shards.manifest import Manifest

BATCH = 512


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of shards with raw tokens")
    parser.add_argument("--bounds", nargs="+", type=float, default=[0.003, 0.01, 0.03, 0.25])
    parser.add_argument("--ratios", nargs="+", type=int, default=[1, 1000], help="full bytes over bytes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| bound | " + " | ".join(f"{ratio:,}x" for ratio in arguments.ratios) + " |")
    print("| --- " * (len(arguments.ratios) + 1) + "|")
    for bound in arguments.bounds:
        cells = []
        for ratio in arguments.ratios:
            found = [
                test_auc(arguments.data, bound, ratio, seed, arguments.epochs, arguments.learning_rate)
                for seed in range(1, arguments.seeds + 1)
            ]
            cells.append(f"{sum(found) / len(found):.4f} ({min(found):.4f} to {max(found):.4f})")
        print(f"| {bound} | " + " | ".join(cells) + " |", flush=True)


def test_auc(data: Path, bound: float, ratio: int, seed: int, epochs: int, learning_rate: float) -> float:
    """Train one model whose pool starts in U(-bound, bound)."""
    manifest = Manifest.load(data)
    cardinalities = manifest.cardinalities
    embedding = build("robe", cardinalities, 16, full_bytes(cardinalities, 16) // ratio, seed)
    with torch.no_grad():
        for values in embedding.parameters():
            values.mul_(bound / INIT_BOUND)
    model = DLRM(embedding, len(manifest.dense_missing), [128, 64], [256, 128])
    optimizer = torch.optim.Adagrad(model.parameters(), lr=learning_rate)
    train = Split.open(data, "train")
    for epoch in range(epochs):
        for position in range(train.iterations(BATCH)):
            batch = train.batch(epoch, position, BATCH, seed)
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(model(batch.dense, batch.ids), batch.label).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    labels, logits = predict(model, Split.open(data, "test").in_order(16_384), torch.device("cpu"))
    return evaluate_scores(labels, logits).auc


if __name__ == "__main__":
    main()
