"""Ray's side of a study: the only module that knows Ray Tune.

Tune asks `EngineSearcher` for configurations and passes on what the trials report; every trial runs in a
`TrialActor`, which owns the trial's Ray Train workers (`sizewise.engine.ray_tune.worker_group`).
"""

import logging
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import cloudpickle, tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sizewise.engine.deciding.decisions import Engine
from sizewise.engine.driving.study_log import scratch
from sizewise.engine.failures import NO_MEMORY, ending, memory_kills, no_room
from sizewise.engine.messages import (
    Assignment,
    Ending,
    Evaluated,
    Failed,
    Finished,
    Resumed,
    Started,
    Waiting,
    from_result,
)
from sizewise.engine.ray_tune.actor import TrialActor
from sizewise.engine.ray_tune.cluster import credentials
from sizewise.engine.time_limits import Watch
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import place

log = logging.getLogger(__name__)

# What a trial's own process takes while it waits for its workers. No CPU, however small a fraction: its workers
# could then never have all of a machine's.
WAITING_BYTES = 500_000_000
ASKING_SECONDS = 20.0  # how long a node may take to report its kernel's count


def run_trials(engine: Engine) -> None:
    """Run the remaining trials under Ray Tune; returns early, leaving trials open, when interrupted or paused."""
    searcher = EngineSearcher(engine)
    try:
        # As a parameter, because Tune writes configurations to files, and runtime environments go into Ray's logs.
        actor = tune.with_parameters(TrialActor, credentials=credentials())
        tune.Tuner(
            tune.with_resources(actor, {"memory": WAITING_BYTES}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,  # as many as the searcher suggests: a trial that is lost is started again
                max_concurrent_trials=engine.spec.resources.concurrent_trials,
                reuse_actors=True,  # the next trial's processes are the last one's: starting them costs seconds
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}",
                storage_path=str(scratch(engine.spec, engine.folder) / "tune"),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # ours are in checkpoints/
                stop=_Paused(engine),
                callbacks=[_Errors(searcher)],
                verbose=0,
            ),
        ).fit()
    except Exception as error:
        if not engine.paused and not no_room(error):
            raise
        engine.pause(f"{scratch(engine.spec, engine.folder)}: {error}")
    finally:
        searcher.watch.close()


class _Paused(tune.Stopper):  # type: ignore[misc]  # Ray is untyped
    """Ends Tune's run when the engine is paused."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """No single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether nothing is to go on."""
        return self._engine.paused is not None

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles what it is given, and never reads this again."""
        return {}


class _Errors(tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Passes on what Tune's searchers do not get: why the process of a trial ended."""

    def __init__(self, searcher: "EngineSearcher") -> None:
        self._searcher = searcher

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass it on."""
        error = None
        with suppress(Exception):  # what Ray did not write, or cannot be read here, stays unknown
            # Its own `get_pickled_error` reads a copy that is made only later.
            error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        self._searcher.on_trial_error(trial.trial_id, error)


class EngineSearcher(Searcher):  # type: ignore[misc]  # Ray is untyped
    """Tune's side of `Engine`.

    Ray's own OptunaSearch does not fit: it reports stopped trials as complete, leaves undefined objectives running
    for ever, and keeps its state in a pickle that a crash can leave half written.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()  # no metric: Tune would demand it in every report
        self.engine = engine
        self.trial_ids: dict[str, int] = {}  # Tune's name of a trial -> ours
        self._processes: dict[int, _Process] = {}  # which train, by trial
        self._broken: set[str] = set()  # Tune's names of trials whose own process died
        self._helped = False  # the study's first student to score for its teachers
        self.watch = Watch(engine.spec.failures, _end, engine.progress)

    def suggest(self, trial_id: str) -> Assignment | str | None:
        """The next trial's assignment for its `TrialActor`; None while others may still come, else FINISHED."""
        record = self.engine.next_trial() if self.engine.waiting else None
        if record is None:
            done = self.engine.paused or not self.engine.remaining
            return str(Searcher.FINISHED) if done else None
        self.trial_ids[trial_id] = record.trial_id
        return {
            **self.engine.payload(record),
            # Never the name of another attempt, not even of one that the ledger has lost.
            "attempt": f"{record.key}-{record.attempts}-{secrets.token_hex(2)}",
            "logs": str(scratch(self.engine.spec, self.engine.folder) / "train"),
        }

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Pass a trial's message on to the engine, as it comes."""
        number = self.trial_ids[trial_id]
        match from_result(result):
            case Waiting(resources):
                log.warning(
                    "trial %d waits for %s: others hold them, or the nodes are still to come",
                    number,
                    resources,
                )
            case Started() as started:
                self._processes[number] = _Process(started)
                self.watch.begin(number, self._processes[number])
                self.engine.began(number)
                self._help_to_score(number)
            case Resumed(evaluations, damage):
                self.engine.resumed(number, evaluations, damage)
            case Evaluated(evaluation):
                self.watch.extend(number)
                self.engine.evaluated(number, evaluation)

    def _help_to_score(self, number: int) -> None:
        """Have free CPUs score for teachers that the study has trained itself, when its first student begins."""
        search = self.engine.search
        if self._helped or not search.teachers or search.records[number].teacher is not None:
            return
        self._helped = True
        from sizewise.engine.ray_tune import teacher_scores  # few studies have teachers

        if isinstance(place(self.engine.spec.data), Path):  # else each machine has a copy of its own
            with suppress(InputError, OSError):  # the student's worker meets and reports the same
                teacher_scores.begin(self.engine.teacher, self.engine.spec.data)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass on how a trial ended.

        Args:
            trial_id: Tune's name of it.
            result: its last one.
            error: its own process died; `on_trial_error` follows, and has the reason.
        """
        number, message = self.trial_ids[trial_id], from_result(result)
        late = self.watch.forget(number)
        match message:
            case Finished(evaluations, test, pruned):
                self.engine.finished(number, evaluations, test, pruned)
            case Failed(_, traceback) if late:
                self.engine.failed(number, late, traceback)
            case _ if error and late:
                self.engine.failed(number, late)
            case _ if error:
                self._broken.add(trial_id)
            case Failed(ended, traceback):
                self._ended(number, ended, traceback)
            # Anything else was stopped from outside: it stays open, for `resume`.

    def on_trial_error(self, trial_id: str, error: BaseException | None) -> None:
        """Pass on why a trial's own process, which only passes on the workers' messages, died."""
        if trial_id in self._broken:
            self._broken.remove(trial_id)
            self._ended(self.trial_ids[trial_id], ending(error), str(error))

    def _ended(self, number: int, how: Ending, text: str) -> None:
        process = self._processes.pop(number, None)
        if how.kind == "failed":
            self.engine.failed(number, how.reason, text)
        elif how.kind == "lost":
            reason = NO_MEMORY if process and _killed_for_memory(process.started) else how.reason
            self.engine.lost(number, reason, text)
        else:
            self.engine.pause(f"trial {number}: {how.reason}")

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles its searcher again and again, and the ledger already has all there is to keep."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def _name(trial: Any) -> str:
    return str(trial.config["attempt"])


@dataclass
class _Process:
    """The process that trains a trial."""

    started: Started
    ended: bool = False  # it was killed once, as far as is known


def _killed_for_memory(started: Started) -> bool:
    """Whether a machine's kernel has killed for want of memory since a trial began there. Ray does not report it."""
    if not any(node["Alive"] and node["NodeID"] == started.node for node in ray.nodes()):
        return False
    there = NodeAffinitySchedulingStrategy(started.node, soft=False)
    kills = ray.remote(memory_kills).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()
    try:
        return bool(ray.get(kills, timeout=ASKING_SECONDS) > started.memory_kills)
    except ray.exceptions.RayError:  # the node went away, or is too busy to answer
        return False


def _end(process: _Process) -> None:
    """Have a process killed on its own node; nothing less reaches one that is stuck in C code, or suspended.

    Where that was of no use, its `TrialActor` too, which would pass on that the worker has died.
    """
    started = process.started
    _have_killed(started.node, started.pid, "RayTrainWorker")
    if process.ended:
        _have_killed(started.actor_node, started.actor_pid, "Trainable")
    process.ended = True


def _have_killed(node: str, pid: int, title: str) -> None:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    ray.remote(_kill).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(pid, title)


def _kill(pid: int, title: str) -> None:
    """SIGKILL to a process with that in its title, and to nothing else that may have its number by now."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if title in " ".join(process.cmdline()):
            process.kill()
