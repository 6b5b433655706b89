"""How the pool that a trained model needs grows with the number of rows that its full tables would have.

    python benchmarks/growth_trained.py --jobs 2      # an hour on two cores

Eight features of n / 8 values each, value v with probability ~ (v + 10)^-s.  What clicks depend on does not grow
with n: every value is of one of 32 kinds, drawn once, and the log-odds are the sum of an effect of each feature's
kind and of the dot products of neighbouring features' vectors, which are their kinds'.  A DLRM (dim 4, MLPs 1-8-4 and
32-16-1, Adam from 0.01 down to 0, batch 1,024) passes once over 1,000,000 rows, or 10 n where that is more, with full
tables and with pools of 4, 2, 1, 1/2, ... times their numbers, until one loses more than asked; all models of one seed
see the same rows.  Losses are of AUC in expectation, over 200,000 fresh rows whose click probabilities are known, so
no noise of drawn labels enters.  `cce` clusters after each quarter of the training, and its pointers are not counted.

The table shows the fewest numbers of a pool, relative to those of full tables, that lose at most ``--loss`` AUC
against full tables (between sizes by linear interpolation in the logarithm), geometric mean over seeds, and the
exponent b of pool ~ n^b with its 95 % interval over seeds (Student's t).
"""

import argparse
import json
import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

SIZES = (160, 1_600, 16_000, 160_000)  # rows of the full tables: three decades
POOLS = tuple(2.0**-k for k in range(-2, 11))  # times the full tables
FEATURES, DIM, KINDS, BATCH = 8, 4, 32, 1024
LEAST_ROWS, ROWS_PER_VALUE, FRESH = 1_000_000, 10, 200_000
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "hash": ("hash", {}),
    "robe": ("robe", {"block_len": 1}),
    "qr": ("qr", {"contiguous_ids": True}),
    "cce": ("cce", {"contiguous_ids": True, "count_pointers": False}),
}


class Cell(NamedTuple):
    """One training: rows of the full tables, a method, its pool relative to them, a seed."""

    n: int
    arm: str
    pool: float
    seed: int


class World:
    """The planted truth of one seed, and rows drawn from it."""

    def __init__(self, n: int, s: float, seed: int) -> None:
        random = np.random.default_rng((seed, 0))
        weight = (np.arange(n // FEATURES) + 10.0) ** -s
        self.cumulative = np.cumsum(weight / weight.sum())
        # Drawn before anything whose number depends on n, so that every n has the same kinds.
        self.effect = random.normal(0, 0.45, (FEATURES, KINDS))
        self.vector = random.normal(0, 0.2, (FEATURES, KINDS, 4))
        self.kind = random.integers(0, KINDS, (FEATURES, n // FEATURES))

    def draw(self, rows: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids (rows, features) and click probabilities (rows,)."""
        ids = np.searchsorted(self.cumulative, random.random((rows, FEATURES)))
        ids = ids.clip(max=len(self.cumulative) - 1)  # the last sum may fall short of 1
        every = np.arange(FEATURES)
        kind = self.kind[every, ids]
        vectors = self.vector[every, kind]  # (rows, features, 4)
        pairs = (vectors[:, :-1] * vectors[:, 1:]).sum((1, 2))
        return ids, 1 / (1 + np.exp(1.0 - self.effect[every, kind].sum(1) - pairs))


def expected_auc(score: NDArray[np.floating[Any]], probability: NDArray[np.float64]) -> float:
    """AUC in expectation over labels drawn with ``probability``; ties count one half."""
    _, inverse = np.unique(score, return_inverse=True)
    clicks, others = np.bincount(inverse, probability), np.bincount(inverse, 1 - probability)
    below = np.cumsum(others) - others / 2
    return float((clicks * below).sum() / (clicks.sum() * others.sum()))


def measure(cell: Cell, s: float, work: Path) -> float | None:
    """Expected AUC after one training, or what an earlier call left; None where the method cannot be that small."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from sizewise.embedding import build, smallest_budget
    from sizewise.models.dlrm import DLRM

    torch.set_num_threads(1)
    method, options = ARMS[cell.arm]
    cardinalities = [cell.n // FEATURES] * FEATURES
    budget = round(4 * DIM * cell.n * cell.pool)
    if budget < smallest_budget(method, cardinalities, DIM, **options):
        return None
    iterations = max(LEAST_ROWS, ROWS_PER_VALUE * cell.n) // BATCH
    if method == "cce":
        options = {**options, "cluster_every": iterations // 4}
    kept = work / f"s{s}-{'-'.join(map(str, cell))}.json"
    if kept.exists():
        return float(json.loads(kept.read_text())["auc"])
    world = World(cell.n, s, cell.seed)
    model = DLRM(build(method, cardinalities, DIM, budget, cell.seed, **options), 1, [8], [32, 16])
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    random = np.random.default_rng((cell.seed, 1))
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - iteration / iterations)
        ids, probability = world.draw(BATCH, random)
        label = torch.from_numpy((random.random(BATCH) < probability).astype(np.float32))
        optimizer.zero_grad()
        logits = model(torch.zeros(BATCH, 1), torch.from_numpy(ids))
        binary_cross_entropy_with_logits(logits, label).backward()
        optimizer.step()
    ids, probability = world.draw(FRESH, np.random.default_rng((cell.seed, 2)))
    with torch.no_grad():
        score = model(torch.zeros(FRESH, 1), torch.from_numpy(ids)).numpy()
    auc = expected_auc(score, probability)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"auc": auc}))
    return auc


def losses(n: int, arm: str, seed: int, s: float, limit: float, work: Path) -> dict[float, float]:
    """AUC lost against full tables by pool, from the largest to the first that loses more than ``limit``."""
    full = measure(Cell(n, "full", 1.0, seed), s, work)
    assert full is not None
    found: dict[float, float] = {}
    for pool in POOLS:
        auc = measure(Cell(n, arm, pool, seed), s, work)
        if auc is None:
            break
        found[pool] = full - auc
        # One more than needed where noise may have let the first fail; pools above full tables may be poor.
        if found[pool] > limit and pool < 1:
            break
    return found


def needed(loss: dict[float, float], limit: float) -> float:
    """Least pool that loses at most ``limit``, and all larger ones too; nan where the largest loses more.

    The crossing is interpolated in the logarithm of the size.
    """
    before: float | None = None
    for pool in sorted(loss, reverse=True):
        if loss[pool] > limit:
            if before is None:
                return math.nan
            part = (limit - loss[before]) / (loss[pool] - loss[before])
            return before * (pool / before) ** part
        before = pool
    return min(loss)  # even the smallest is enough


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loss", nargs="+", type=float, default=[0.001, 0.01], help="AUC that may be lost")
    parser.add_argument("--s", type=float, default=1.05, help="skew of the values' frequencies")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="rows of the full tables")
    parser.add_argument("--arms", nargs="+", default=list(ARMS)[1:], choices=list(ARMS)[1:])
    parser.add_argument(
        "--work", type=Path, default=Path("runs/growth"), help="folder for finished trainings"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, one core each")
    asked = parser.parse_args()
    seeds = range(1, asked.seeds + 1)
    every = [(n, arm, seed) for n in asked.sizes for seed in seeds for arm in asked.arms]
    with ProcessPoolExecutor(asked.jobs) as pool:
        full = {
            (n, seed): pool.submit(measure, Cell(n, "full", 1.0, seed), asked.s, asked.work)
            for n in asked.sizes
            for seed in seeds
        }
        below = {key: bayes(key[0], asked.s, key[1]) - (task.result() or 0) for key, task in full.items()}
        tasks = {key: pool.submit(losses, *key, asked.s, max(asked.loss), asked.work) for key in every}
        found = {key: task.result() for key, task in tasks.items()}
    gaps = (f"{n:,}: {statistics.mean(below[n, seed] for seed in seeds):.4f}" for n in asked.sizes)
    print(f"AUC of full tables below the Bayes-optimal one, by n: {', '.join(gaps)}\n")
    print("| loss | method | " + " | ".join(f"n = {n:,}" for n in asked.sizes) + " | exponent of n |")
    print("| --- " * (len(asked.sizes) + 3) + "|")
    for limit in asked.loss:
        for arm in asked.arms:
            pools = np.array([[needed(found[n, arm, seed], limit) for n in asked.sizes] for seed in seeds])
            means = np.exp(np.log(pools).mean(0))
            cells = " | ".join(
                f"more than {POOLS[0]:g}" if np.isnan(mean) else f"{mean:.3g}" for mean in means
            )
            print(f"| {limit} | {arm} | {cells} | {exponent(asked.sizes, pools)} |")


def bayes(n: int, s: float, seed: int) -> float:
    """Expected AUC of the true probabilities on the rows that models are scored on."""
    _, probability = World(n, s, seed).draw(FRESH, np.random.default_rng((seed, 2)))
    return expected_auc(probability, probability)


def exponent(sizes: list[int], relative: NDArray[np.float64]) -> str:
    """b of pool ~ n^b and its 95 % interval over seeds, each of which has its own line."""
    pools = np.log(relative * np.array(sizes))
    if np.isnan(pools).any():
        return "not established"
    slopes = [float(np.polyfit(np.log(sizes), row, 1)[0]) for row in pools]
    if len(slopes) == 1:
        return f"{slopes[0]:.2f}"
    half = student.ppf(0.975, len(slopes) - 1) * statistics.stdev(slopes) / math.sqrt(len(slopes))
    return f"{statistics.mean(slopes):.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()
