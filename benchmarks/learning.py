"""Test AUC of every embedding method at every size, over several seeds, as a Markdown table.

    python benchmarks/learning.py planted --jobs 2                     # a planted log, made on the spot
    python benchmarks/learning.py day.tsv.gz --work runs/learning-day  # a log of yours

Every run has the same DLRM, optimizer and learning rate; only how vectors are stored differs.  `full` reads
contiguous ids, all others raw tokens.  The weights that score best on the validation split are scored once on
the test split.  Finished runs are kept in the work folder and skipped next time.  About 130 MB and 15 s a run
on one core.
"""

import argparse
import json
import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import t as student

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import generate
from sizewise_prep.shards.manifest import Manifest

RATIOS = (1, 10, 100, 1_000, 10_000)
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "hash": ("hash", {}),
    "robe": ("robe", {}),
    "robe, sign": ("robe", {"sign": True}),
    "robe, int8": ("robe", {"storage": "int8"}),
    "qr, product": ("qr", {}),
    "qr, sum": ("qr", {"combine": "sum"}),
    "tt": ("tt", {}),
    "cce": ("cce", {}),
    "cce, clusterings: 0": ("cce", {"clusterings": 0}),
    "cce, pointers free": ("cce", {"count_pointers": False}),
    "cce, pointers free, clusterings: 0": ("cce", {"count_pointers": False, "clusterings": 0}),
}


class Run(NamedTuple):
    """One training."""

    arm: str
    ratio: int
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", help="'planted', or raw rows in Criteo's layout")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/learning"), help="folder for shards and results"
    )
    parser.add_argument("--rows", type=int, default=137_139, help="rows of the planted log")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--ratios", nargs="+", type=int, default=list(RATIOS), help="full bytes over bytes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one core each")
    arguments = parser.parse_args()
    source, truth = arguments.log, ""
    if source == "planted":
        folder = arguments.work / "log"
        made = generate(folder, rows=arguments.rows, seed=1)
        source, truth = str(folder / "*.tsv"), f"; Bayes-optimal test AUC {made.splits['test'].bayes_auc:.4f}"
    for tokens in ("raw", "contiguous"):
        prepare([source], arguments.work / tokens, tokens=tokens)
    runs = [
        Run(arm, ratio, seed)
        for arm in arguments.arms
        for ratio in (arguments.ratios if arm != "full" else (1,))
        for seed in range(1, arguments.seeds + 1)
    ]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        tasks = [
            pool.submit(measure, run, arguments.work, arguments.epochs, arguments.learning_rate)
            for run in runs
        ]
        outcomes = {run: task.result() for run, task in zip(runs, tasks, strict=True)}
    print(table(outcomes, arguments.arms, arguments.ratios))
    print(
        f"\n{arguments.seeds} seeds, best of {arguments.epochs} epochs, learning rate {arguments.learning_rate}{truth}"
    )


def measure(run: Run, work: Path, epochs: int, learning_rate: float) -> dict[str, Any] | None:
    """Train once, or read what an earlier call left; None where the method cannot be that small."""
    import torch

    from sizewise.config.trial import TrialConfig
    from sizewise.embedding import full_bytes, smallest_budget
    from sizewise.training.loop import train

    torch.set_num_threads(1)
    method, options = ARMS[run.arm]
    data = work / ("contiguous" if method == "full" else "raw")
    cardinalities = Manifest.load(data).cardinalities
    budget = full_bytes(cardinalities, 16) // run.ratio
    if budget < smallest_budget(method, cardinalities, 16, **options):
        return None
    settings = {
        "data": str(data),
        "dim": 16,
        "bottom_mlp": [128, 64],
        "top_mlp": [256, 128],
        "method": method,
        "memory_budget": budget,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": 512,
        "optimizer": "adagrad",
        "evaluate_every": 0.5,
        "checkpoint_seconds": 600.0,
        "seed": run.seed,
    }
    config = TrialConfig.from_flat({**settings, **options})
    kept = work / "results" / f"{config.digest()}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    outcome = train(config, work / "trials" / config.digest(), report=lambda row: None)
    last = outcome.evaluations[-1]
    result = {
        "run": run,
        "auc": outcome.test.scores.auc,
        "iteration": outcome.test.iteration,
        "embedding_bytes": last["embedding_bytes"],
        "train_seconds": last["train_seconds"],
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(result))
    return result


def table(outcomes: dict[Run, dict[str, Any] | None], arms: list[str], ratios: list[int]) -> str:
    """A row for each arm: mean test AUC and the half width of its 95 % interval (Student's t)."""
    lines = [
        "| | " + " | ".join(f"{ratio:,}x" for ratio in ratios) + " |",
        "| --- " * (len(ratios) + 1) + "|",
    ]
    for arm in arms:
        cells = []
        for ratio in ratios:
            found = [o["auc"] for run, o in outcomes.items() if o and (run.arm, run.ratio) == (arm, ratio)]
            cells.append(interval(found))
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(values: list[float]) -> str:
    """Mean +- half width; '-' without values."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.4f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.4f} ± {half:.4f}"


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from None
