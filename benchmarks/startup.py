"""What a trial costs beside its training: from its start to its first evaluation, after one iteration.

    python benchmarks/startup.py                    # three to five minutes on two cores

Both sides run the same study of tiny trials through the same search, ledger and engine, on local Ray clusters.
"plain" is Ray's documented way to train under Tune, with its public switches for speed (reports polled every
0.2 s, trial processes reused): one Ray Train run a trial, started by Tune's trainable. "shared" is Sizewise: a
worker group serves one trial after another, so only a study's first trial waits for a group.
CPU seconds are of all processes of the local cluster, from psutil.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import ray.train
from ray import tune as ray_tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from sizewise import config
from sizewise.config.trial import TrialConfig
from sizewise.embedding import full_bytes
from sizewise.engine.deciding.decisions import Engine
from sizewise.engine.messages import Evaluated, Finished, Message, to_result
from sizewise.engine.ray_tune import cluster, tune
from sizewise.search.suggest import Search
from sizewise.store.records import Record
from sizewise.store.trials.ledger import Ledger
from sizewise.training.loop import Worker, train
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest

STUDY = """\
name: startup
data: {data}
model: {{dim: 4, bottom_mlp: [8], top_mlp: [8]}}
embedding: {{method: robe, block_len: 4}}
search: {{memory_budget: 2kB, epochs: 1}}
train: {{batch_size: 4096, evaluate_every: 1}}
sampler: random
trials: {trials}
resources: {{workers: {workers}}}
"""


def plain_worker(payload: dict[str, Any]) -> dict[str, Any]:
    outcome = train(
        TrialConfig.model_validate(payload["config"]),
        Path(payload["folder"]),
        lambda row: ray.train.report(_metrics(Evaluated(row)) if row else {}),
        worker=Worker(ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()),
    )
    return {"evaluations": outcome.evaluations, "test": outcome.test}


def plain_trial(payload: dict[str, Any]) -> None:
    result = TorchTrainer(
        plain_worker,
        train_loop_config=payload,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=payload["resources"]["workers"]),
        run_config=ray.train.RunConfig(
            name=payload["attempt"], storage_path=payload["logs"], callbacks=[TuneReportCallback()]
        ),
    ).fit()
    ray_tune.report(_metrics(Finished(**result.return_value)))


def _metrics(message: Message) -> dict[str, Any]:
    """A message as those who report from a function give it to Tune, which sets `done` itself."""
    return {key: value for key, value in to_result(message).items() if key != "done"}


def plain_run(engine: Engine) -> None:
    ray_tune.Tuner(
        ray_tune.with_resources(plain_trial, {"memory": tune.WAITING_BYTES}),
        tune_config=ray_tune.TuneConfig(
            search_alg=tune.EngineSearcher(engine),
            num_samples=engine.remaining,
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=ray_tune.RunConfig(storage_path=str(engine.folder / "logs" / "tune"), verbose=0),
    ).fit()


class CpuSeconds(threading.Thread):
    """CPU seconds of this process's descendants, those included that end while it watches."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.of: dict[tuple[int, float], float] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        """Watch until told to stop."""
        while not self.stop.wait(0.2):
            self.look()

    def look(self) -> float:
        """Seconds so far."""
        for process in psutil.Process().children(recursive=True):
            try:
                times = process.cpu_times()
                self.of[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                pass
        return sum(self.of.values())


def measure(run: Callable[[Engine], None], data: Path, folder: Path, trials: int, workers: int) -> list[str]:
    """Cells of one row: seconds from start to first evaluation, of later trials to the next start too, and CPU's."""
    path = folder.with_suffix(".yaml")
    path.write_text(STUDY.format(data=data, trials=trials, workers=workers))
    manifest = Manifest.load(data)
    asked = config.resolve(config.load(path), manifest, "startup")
    (folder / "logs").mkdir(parents=True)
    started: list[float] = []
    first: list[float] = []
    used: list[float] = []
    evaluated: list[float] = []
    watch = CpuSeconds()

    def on_event(event: str, record: Record, values: dict[str, Any] | None) -> None:
        now = time.monotonic()
        if event == "started":
            started.append(now)
            used.append(watch.look())
        elif event == "evaluated":
            first.append(now - started[-1])
            evaluated.append(watch.look())
        elif event == "failed":
            raise SystemExit(f"a trial failed: {record.error}")

    with cluster.connect(asked):
        watch.start()
        search = Search(asked, Ledger(folder), full_bytes(manifest.cardinalities, asked.model.dim))
        run(Engine(asked, folder, search, on_event))
        watch.stop.set()
        watch.join()
    whole = [later - earlier for earlier, later in pairwise(started)]
    cpu = (used[-1] - used[1]) / (len(used) - 2)
    cold = f"{first[0]:.1f}", f"{evaluated[0] - used[0]:.1f}"
    return [*cold, f"{mean(first[1:]):.2f}", f"{mean(whole[1:]):.2f}", f"{cpu:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=5, help="trials of each study")
    parser.add_argument("--sides", nargs="+", choices=["plain", "shared"], default=["plain", "shared"])
    given = parser.parse_args()
    trials, sides = given.trials, {"plain": plain_run, "shared": tune.run_trials}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        planted.generate(folder / "raw", 5_000, seed=1)
        prepare([folder / "raw" / "day_0.tsv"], folder / "shards")
        print(
            "| workers | | first trial: s to first iteration | first trial: CPU s to it "
            "| later trials: s to first iteration | later trials: s in all | later trials: CPU s |"
        )
        print("| --- " * 7 + "|")
        for workers in (1, 2):
            for name in given.sides:
                cells = measure(sides[name], folder / "shards", folder / f"{name}-{workers}", trials, workers)
                print(f"| {workers} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
