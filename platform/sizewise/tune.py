"""Ray's side of a study: the only room that knows Ray Tune.

Tune asks `EngineSearcher` for configurations and tells it what the trials report; every trial runs in a
`TrialActor`, which owns the trial's Ray Train workers (`sizewise.workers`).
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from sizewise.engine import Engine
from sizewise.workers import Workers

# What a trial's own process takes while it waits for its workers. No CPU, however small a fraction: its workers
# could then never have all of a machine's.
WAITING_BYTES = 500_000_000


def run_trials(engine: Engine) -> None:
    """Run the remaining trials under Ray Tune; returns early, leaving trials open, when interrupted."""
    with _terminate_as_interrupt():
        tune.Tuner(
            tune.with_resources(TrialActor, {"memory": WAITING_BYTES}),
            tune_config=tune.TuneConfig(
                search_alg=EngineSearcher(engine),
                num_samples=engine.remaining,
                max_concurrent_trials=engine.spec.resources.concurrent_trials,
                reuse_actors=True,  # the next trial's processes are the last one's: starting them costs seconds
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}",
                storage_path=str(engine.scratch / "tune"),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are in checkpoints/
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
        """The next trial's payload for its `TrialActor`."""
        record = self.engine.next_trial()
        self.trial_ids[trial_id] = record.trial_id
        return {
            **self.engine.payload(record),
            "resources": self.engine.spec.resources.model_dump(),
            "attempt": f"{record.key}-{record.attempts}",
            "logs": str(self.engine.scratch / "train"),
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


class TrialActor(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """Tune's trainable: a trial on this actor's workers, whose messages pass through.

    Tune reuses the actor for trial after trial, and the actor its workers. A failure is a result like any other.
    """

    workers: Workers | None = None

    def setup(self, payload: dict[str, Any]) -> None:
        """Begin the first trial."""
        self.reset_config(payload)

    def reset_config(self, payload: dict[str, Any]) -> bool:
        """End the trial before, where Tune stopped it, and begin the next."""
        if self.workers:
            self.workers.stop()
            if not self.workers.usable or self.workers.resources != payload["resources"]:
                self.workers.close()
                self.workers = None
        if self.workers is None:
            self.workers = Workers(payload["resources"], payload["attempt"], payload["logs"])
        self.workers.begin(payload)
        return True

    def step(self) -> dict[str, Any]:
        """What the trial says next."""
        assert self.workers is not None  # setup came first
        message = self.workers.next()
        return {**message, "done": "evaluated" not in message}

    def cleanup(self) -> None:
        """End the workers."""
        if self.workers:
            self.workers.close()
