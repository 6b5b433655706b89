"""What a trial's surroundings cost: rows per second inside a Ray Train worker, and what evaluations take.

    python -m benchmarks.trial             # two minutes on two cores
    python -m benchmarks.trial --rows 1500000 --split 0.96,0.02,0.02 --rounds 3    # a larger log: five minutes

The quickstart's model and data (planted rows, dim 16, batch 512, a pool of 2 MB, Adagrad, an evaluation every quarter
of an epoch), trained for one epoch in turns: by `sizewise.training.loop.train` alone in a process without Ray, and by
a worker group as studies have it, both on as many threads. `training` is the time of the steps; `the rest` is
evaluation, checkpoint and report, from the first evaluation's report to the last one's.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from benchmarks.results import kept
from benchmarks.timing import machine

from sizewise import config as spec
from sizewise.config.trial import TrialConfig
from sizewise.engine.messages import Evaluated, Failed, Finished, Started
from sizewise.engine.ray_tune import cluster
from sizewise.engine.ray_tune.worker_group import Workers
from sizewise.engine.resources import asked_for
from sizewise.metrics.evaluation import Evaluation
from sizewise.training.loop import train
from sizewise_core.machine import allocator
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest

STUDY = """\
name: trial
data: {data}
resources: {{cpus_per_worker: {cpus}}}
"""

Times = tuple[float, float, float]  # rows per second, seconds of training, seconds of all


def alone(config: dict[str, Any], folder: str, threads: int) -> Times:
    """One trial in this process."""
    torch.set_num_threads(threads)
    allocator.keep_freed()  # as workers do
    reports: list[tuple[float, Evaluation]] = []
    started = time.monotonic()

    def report(evaluation: Evaluation | None) -> None:
        assert evaluation is not None  # of the only worker
        reports.append((time.monotonic(), evaluation))

    train(TrialConfig.model_validate(config), Path(folder), report)
    return _times(started, reports)


def in_worker(workers: Workers, config: dict[str, Any], folder: str) -> Times:
    """One trial by the worker group."""
    workers.begin({"config": config, "folder": folder, "how": {"continues": None, "pruning": None}})
    reports: list[tuple[float, Evaluation]] = []
    started = time.monotonic()
    while not isinstance(message := workers.next(), Finished):
        if isinstance(message, Failed):
            raise SystemExit(message.traceback)
        if isinstance(message, Started):
            started = time.monotonic()
        if isinstance(message, Evaluated):
            reports.append((time.monotonic(), message.evaluation))
    return _times(started, reports)


def _times(started: float, reports: list[tuple[float, Evaluation]]) -> Times:
    # From the first report on: before it lie the opening of the data and the making of the model, once a trial.
    (begun, first), (ended, last) = reports[0], reports[-1]
    training = last["train_seconds"] - first["train_seconds"]
    return (last["samples"] - first["samples"]) / training, training, ended - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=150_000)
    parser.add_argument("--split", default="0.8,0.1,0.1", help="as of `sizewise prep`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpus", type=int, default=1, help="of the worker, and threads of both")
    parser.add_argument(
        "--results", type=Path, help="file to keep the table in, such as benchmarks/RESULTS.md"
    )
    arguments = parser.parse_args()
    times = _measured(arguments.rows, arguments.split, arguments.rounds, arguments.cpus)
    rates = {name: statistics.median(rate for rate, _, _ in rounds) for name, rounds in times.items()}
    with kept("Last run: benchmarks.trial", arguments.results):
        print(
            f"{arguments.rows:,} rows split {arguments.split}; {machine()}, {arguments.cpus} threads, medians of "
            f"{arguments.rounds} rounds\n"
        )
        print(
            "| | rows/s of training | times alone | the rest, share of the time |\n| --- | --- | --- | --- |"
        )
        for name, rounds in times.items():
            rest = statistics.median(1 - training / whole for _, training, whole in rounds)
            print(f"| {name} | {rates[name]:,.0f} | {rates[name] / rates['alone']:.2f} | {rest:.1%} |")
        print()


def _measured(rows: int, split: str, rounds: int, cpus: int) -> dict[str, list[Times]]:
    """Of both sides, in turns."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        planted.generate(folder / "raw", rows, seed=1)
        prepare([folder / "raw" / "day_0.tsv"], folder / "shards", split=split)
        (folder / "study.yaml").write_text(STUDY.format(data=folder / "shards", cpus=cpus))
        asked = spec.resolve(spec.load(folder / "study.yaml"), Manifest.load(folder / "shards"), "trial")
        settings = {
            "data": asked.data,
            "dim": 16,
            "bottom_mlp": [128, 64],
            "top_mlp": [256, 128],
            "method": "robe",
            "memory_budget": 2_000_000,
            "learning_rate": 0.02,
            "epochs": 1,
            "batch_size": 512,
            "optimizer": "adagrad",
            "evaluate_every": 0.25,
            "checkpoint_seconds": 60.0,
            "seed": 1,
        }
        config = TrialConfig.from_flat(settings).model_dump()
        times: dict[str, list[Times]] = {"alone": [], "in a Ray Train worker": []}
        context = multiprocessing.get_context("spawn")
        # As nice as Ray makes its workers, or other work on the machine would slow only those.
        with ProcessPoolExecutor(1, mp_context=context, initializer=os.nice, initargs=(15,)) as process:
            process.submit(alone, config, str(folder / "warm"), cpus).result()
            with cluster.connect(asked):
                workers = Workers(asked_for(asked.resources, 0), "bench", str(folder / "logs"))
                in_worker(workers, config, str(folder / "warm-ray"))
                for turn in range(rounds):
                    plain = process.submit(alone, config, str(folder / f"plain-{turn}"), cpus)
                    times["alone"].append(plain.result())
                    times["in a Ray Train worker"].append(
                        in_worker(workers, config, str(folder / f"ray-{turn}"))
                    )
                workers.close()
    return times


if __name__ == "__main__":
    main()
