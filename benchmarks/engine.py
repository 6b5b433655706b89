"""What the engine's claims are worth, on simulated learning curves: `sizewise.engine.simulated.Generated`.

    python benchmarks/engine.py pruning    # hypervolume kept and iterations spent, with pruning and without
    python benchmarks/engine.py recorded runs/NAME   # the same on the curves of a real study, in 30 orders
    python benchmarks/engine.py search     # trials that samplers need for random search's hypervolume
    python benchmarks/engine.py window     # hypervolume that TPE loses by being taught a window of the known trials
    python benchmarks/engine.py scale      # the engine's own time a trial, 10,000 trials on 1,000 workers

Each row is the mean over seeds, which draw the study's suggestions and the curves' noise, with its 95 % confidence
interval (Student's t). The hypervolume is of (AUC, decades of bytes, decades of iterations) from one corner for all:
AUC 0.5, the full tables, and the iterations of the longest trial; it is measured on the curves without noise, so
that no search is paid for luck.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import moocore
import numpy as np
from scipy import stats

from sizewise.config import StudySpec
from sizewise.engine.deciding.decisions import Engine
from sizewise.engine.simulated import Generated, Recorded, simulate, simulated_engine

SEARCH = {
    "memory_budget": {"low": 2_000, "high": 20_000_000, "log": True},
    "learning_rate": {"low": 0.003, "high": 0.3, "log": True},
    "epochs": {"low": 1, "high": 4},
}


def study(seed: int, **changes: Any) -> tuple[StudySpec, Generated]:
    raw = {"name": "simulated", "data": "none", "search": SEARCH, "seed": seed, **changes}
    return StudySpec.model_validate(raw), Generated(seed=seed)


def hypervolumes(engine: Engine, curves: Generated) -> list[float]:
    """The hypervolume after each trial, in order of trial ids."""
    corner = [0.5, np.log10(curves.full_bytes), np.log10(4 * curves.iterations_per_epoch)]
    found: list[float] = []
    front = np.empty((0, 3))
    for number, record in sorted(engine.search.records.items()):
        points = [
            (
                curves.auc(row["embedding_bytes"], record.config["learning_rate"], row["epoch"]),
                np.log10(row["embedding_bytes"]),
                np.log10(row["iteration"]),
            )
            for row in engine.search.ledger.evaluations(number)
        ]
        front = np.vstack([front, points])
        front = front[moocore.is_nondominated(front, maximise=[True, False, False])]
        found.append(float(moocore.hypervolume(front, ref=corner, maximise=[True, False, False])))
    return found


def interval(values: list[float], digits: int = 3) -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


def one_pruning(job: tuple[int, str, dict[str, Any] | None, int]) -> tuple[float, int, int]:
    seed, sampler, pruning, rows = job
    spec, _ = study(seed, sampler=sampler, trials=100, pruning=pruning)
    curves = Generated(seed=seed, rows=rows)
    engine = simulated_engine(spec, curves)
    ran = simulate(engine, curves)
    stopped = sum(r.state == "pruned" for r in engine.search.records.values())
    return hypervolumes(engine, curves)[-1], ran.iterations, stopped


def pruning(pool: ProcessPoolExecutor, seeds: int) -> None:
    print(
        "| sampler | validation rows | grace, epochs | hypervolume kept | iterations spent | trials stopped |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for sampler in ("random", "tpe"):
        for rows in (15_000, 500_000):
            calm = list(pool.map(one_pruning, [(s, sampler, None, rows) for s in range(seeds)]))
            for grace in (0.25, 0.5, 1.0):
                jobs = [(s, sampler, {"grace": grace}, rows) for s in range(seeds)]
                cut = list(pool.map(one_pruning, jobs))
                kept = [c[0] / a[0] for c, a in zip(cut, calm, strict=True)]
                spent = [c[1] / a[1] for c, a in zip(cut, calm, strict=True)]
                stopped = interval([c[2] / 100 for c in cut], 2)
                cells = f"{interval(kept, 4)} | {interval(spent)} | {stopped}"
                print(f"| {sampler} | {rows:,} | {grace:g} | {cells} |", flush=True)


def one_replay(job: tuple[int, Path, dict[str, Any] | None]) -> tuple[float, int, float]:
    """Every trial of a recorded study once, in an order of the seed's."""
    seed, folder, pruning = job
    curves = Recorded.of(folder)
    fields = ("memory_budget", "learning_rate", "epochs")
    first = [{field: config[field] for field in fields} for config, _ in curves.trials.values()]
    np.random.default_rng(seed).shuffle(first)  # type: ignore[arg-type]
    raw = {
        "name": "recorded",
        "data": "none",
        "embedding": {"method": next(config["method"] for config, _ in curves.trials.values())},
        "search": {
            field: {"low": min(f[field] for f in first), "high": max(f[field] for f in first)}
            for field in fields
        },
        "first_trials": first,
        "trials": len(first),
        "pruning": pruning,
    }
    engine = simulated_engine(StudySpec.model_validate(raw), curves)
    ran = simulate(engine, curves)
    points = [
        (row["auc"], np.log10(row["embedding_bytes"]), np.log10(row["iteration"]))
        for number in engine.search.records
        for row in engine.search.ledger.evaluations(number)
    ]
    longest = max(rows[-1]["iteration"] for _, rows in curves.trials.values())
    corner = [0.5, np.log10(curves.full_bytes), np.log10(longest)]
    volume = float(moocore.hypervolume(np.array(points), ref=corner, maximise=[True, False, False]))
    stopped = sum(r.state == "pruned" for r in engine.search.records.values())
    return volume, ran.iterations, stopped / len(first)


def recorded(pool: ProcessPoolExecutor, seeds: int, folder: Path) -> None:
    print("| grace, epochs | hypervolume kept | iterations spent | trials stopped |")
    print("| --- | --- | --- | --- |")
    calm = list(pool.map(one_replay, [(s, folder, None) for s in range(seeds)]))
    for grace in (0.25, 0.5, 1.0):
        cut = list(pool.map(one_replay, [(s, folder, {"grace": grace}) for s in range(seeds)]))
        kept = interval([c[0] / a[0] for c, a in zip(cut, calm, strict=True)], 4)
        spent = interval([c[1] / a[1] for c, a in zip(cut, calm, strict=True)])
        print(f"| {grace:g} | {kept} | {spent} | {interval([c[2] for c in cut], 2)} |", flush=True)


def one_search(job: tuple[int, str, int, int | None]) -> list[float]:
    seed, sampler, trials, window = job
    spec, curves = study(seed, sampler=sampler, trials=trials)
    engine = simulated_engine(spec, curves, window=window)
    simulate(engine, curves)
    return hypervolumes(engine, curves)


def search(pool: ProcessPoolExecutor, seeds: int) -> None:
    print(
        "| sampler | trials of random search | share of them needed for its final hypervolume | final / random's |"
    )
    print("| --- | --- | --- | --- |")
    base = list(pool.map(one_search, [(s, "random", 200, None) for s in range(seeds)]))
    for sampler in ("tpe", "nsgaii", "qmc"):
        curves = list(pool.map(one_search, [(s, sampler, 200, None) for s in range(seeds)]))
        for trials in (50, 100, 200):  # no sampler knows how many are still to come
            shares, finals = [], []
            for mine, random in zip(curves, base, strict=True):
                aim = random[trials - 1]
                reached = [i for i, volume in enumerate(mine[:trials], 1) if volume >= aim]
                shares.append(reached[0] / trials if reached else 1.0)  # at least all of them
                finals.append(mine[trials - 1] / aim)
            print(f"| {sampler} | {trials} | {interval(shares)} | {interval(finals, 4)} |", flush=True)


def window(pool: ProcessPoolExecutor, seeds: int) -> None:
    print("| window | hypervolume after 1,000 trials / without a window |")
    print("| --- | --- |")
    whole = list(pool.map(one_search, [(s, "tpe", 1_000, 1_000_000) for s in range(seeds)]))
    for size in (100, 250):
        cut = list(pool.map(one_search, [(s, "tpe", 1_000, size) for s in range(seeds)]))
        print(
            f"| {size} | {interval([c[-1] / w[-1] for c, w in zip(cut, whole, strict=True)], 4)} |",
            flush=True,
        )


@contextmanager
def timed_fsyncs() -> Iterator[list[float]]:
    """The seconds of each fsync of this process, as they come."""
    seconds: list[float] = []
    real = os.fsync

    def timed(descriptor: int) -> None:
        began = time.perf_counter()
        real(descriptor)
        seconds.append(time.perf_counter() - began)

    with mock.patch("os.fsync", timed):
        yield seconds


def scale(trials: int, workers: int, samplers: list[str]) -> None:
    """With a real ledger on disk as well, every write flushed to it."""
    print(
        "| sampler | ledger | engine's milliseconds a trial, by tenth of the study | mean | of them flushing to disk |"
    )
    print("| --- | --- | --- | --- | --- |")
    for sampler in samplers:
        for ledger in ("memory", "disk"):
            spec, curves = study(1, sampler=sampler, trials=trials, pruning={})
            with tempfile.TemporaryDirectory() as folder, timed_fsyncs() as fsyncs:
                began = time.perf_counter()
                engine = simulated_engine(spec, curves, Path(folder) if ledger == "disk" else None)
                ran = simulate(engine, curves, workers=workers)
                wall = time.perf_counter() - began
            tenths = np.array_split(np.array(ran.engine_seconds) * 1e3, 10)
            spread = ", ".join(f"{part.mean():.1f}" for part in tenths)
            mean, flushing = (1e3 * np.mean(ran.engine_seconds), 1e3 * sum(fsyncs) / ran.trials)
            print(f"| {sampler} | {ledger} | {spread} | {mean:.1f} | {flushing:.1f} |", flush=True)
            print(
                f"{sampler}, {ledger}: {ran.trials:,} trials in {wall:.0f} s, {len(fsyncs):,} fsyncs",
                file=sys.stderr,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=["pruning", "recorded", "search", "window", "scale"])
    parser.add_argument("study", type=Path, nargs="?", help="the folder of a recorded study")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--samplers", nargs="+", default=["tpe", "random"])
    given = parser.parse_args()
    if given.table == "scale":
        scale(given.trials, given.workers, given.samplers)
        return
    with ProcessPoolExecutor(given.jobs) as pool:
        if given.table == "recorded":
            recorded(pool, given.seeds, given.study)
            return
        {"pruning": pruning, "search": search, "window": window}[given.table](pool, given.seeds)


if __name__ == "__main__":
    main()
