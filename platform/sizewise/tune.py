"""Ray's side of a study: the only room that knows Ray Tune.

Tune asks `EngineSearcher` for configurations and tells it what the trials report; every trial is one Ray Train
run (`sizewise.train.train_worker`) on its own workers.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
from ray import tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher

from sizewise.engine import Engine
from sizewise.train import train_worker

# What a trial's own process takes while it waits for its workers. No CPU, however small a fraction: its workers
# could then never have all of a machine's.
WAITING_BYTES = 500_000_000


def run_trials(engine: Engine) -> None:
    """Run the remaining trials under Ray Tune; returns early, leaving trials open, when interrupted."""
    with _terminate_as_interrupt():
        tune.Tuner(
            tune.with_resources(_trial, {"memory": WAITING_BYTES}),
            tune_config=tune.TuneConfig(
                search_alg=EngineSearcher(engine),
                num_samples=engine.remaining,
                max_concurrent_trials=engine.spec.resources.concurrent_trials,
                reuse_actors=True,  # the next trial's process is the last one's: imports cost seconds
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}",
                storage_path=str(engine.folder / "logs" / "tune"),
                verbose=0,
            ),
        ).fit()


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the study as cleanly as SIGINT does, which Tune handles."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class EngineSearcher(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Tune's side of `Engine`.

    Ray's own OptunaSearch does not fit: it tells stopped trials as complete, leaves undefined objectives running
    for ever, and keeps what it knows in a pickle that a crash can tear.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()  # no metric: Tune would demand it in every report
        self.engine = engine
        self.trial_ids: dict[str, int] = {}  # Tune's name of a trial -> ours

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial's payload for `_trial`."""
        record = self.engine.next_trial()
        self.trial_ids[trial_id] = record.trial_id
        return {
            **self.engine.payload(record),
            "resources": self.engine.spec.resources.model_dump(),
            "attempt": f"{record.key}-{record.attempts}",
            "logs": str(self.engine.folder / "logs" / "train"),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass an evaluation on, as it happens. (It comes in a list because Tune flattens dictionaries.)"""
        for evaluation in result.get("evaluated", []):
            self.engine.evaluated(self.trial_ids[trial_id], evaluation)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Say how the trial ended."""
        number, result = self.trial_ids[trial_id], result or {}
        if "outcome" in result:
            (outcome,) = result["outcome"]
            self.engine.finished(number, outcome["evaluations"], outcome["test"])
        elif "failure" in result:
            self.engine.failed(number, result["failure"], result["traceback"])
        elif error:
            self.engine.failed(number, "the trial's process died; the reason is in the study's logs/ folder")
        # Otherwise it was stopped from outside: it stays open, for `resume`.

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher again and again, and the ledger already has all there is to keep."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def _name(trial: Any) -> str:
    return str(trial.config["attempt"])


def _trial(payload: dict[str, Any]) -> None:
    """Tune's trainable: one Ray Train run, whose reports pass through; a failure is a result like any other."""
    wanted = payload["resources"]
    per_worker = {"CPU": wanted["cpus_per_worker"]}
    if wanted["gpus_per_worker"]:
        per_worker["GPU"] = wanted["gpus_per_worker"]
    try:
        result = TorchTrainer(
            train_worker,
            train_loop_config=payload,
            torch_config=TorchConfig(backend="nccl" if wanted["gpus_per_worker"] else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=wanted["workers"],
                resources_per_worker=per_worker,
                use_gpu=bool(wanted["gpus_per_worker"]),
            ),
            run_config=ray.train.RunConfig(
                name=payload["attempt"],  # fresh each time: Train must not restore what it thinks it knows
                storage_path=payload["logs"],
                callbacks=[TuneReportCallback()],
            ),
        ).fit()
    except Exception as error:
        tune.report({"failure": _reason(error), "traceback": traceback.format_exc()})
    else:
        tune.report({"outcome": [result.return_value]})


def _reason(error: BaseException) -> str:
    """The worker's own error, out of the wrappers that Ray puts around it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else ''}"
