"""A trial's workers: one Ray Train worker group that serves trial after trial.

Starting a worker group takes 14 seconds of CPU time or more, nearly all of it the imports of its processes
(benchmarks/startup.py), so a group is started once and then given one trial after another. Ray Train places the
workers, joins them into a process group and ends them; what a trial needs and what it reports go through `Desk`,
a small actor of the group's owner.

    workers = Workers(resources, "0000-1a2b3c4d-1", logs)
    workers.begin(payload)
    while "evaluated" in (message := workers.next()): ...     # the trial waits until it is asked to go on
    workers.stop()                                            # or is told to end here

A trial that ends by anything but its own loss takes its group with it, whose processes nobody then trusts.
"""

import threading
import time
import traceback
from typing import Any

import ray
import ray.train
import ray.util
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sizewise.engine.failures import failure
from sizewise.engine.ray_tune.mailbox import Desk

# After so long a group makes way between two trials: others who wait for its CPUs get their turn, nothing grows old.
RENEW_SECONDS = 600.0
ENDS = {"outcome", "failure"}  # messages that are a trial's last
WAITING_SECONDS = 30.0  # without a place for new workers, before it is said what they wait for
POLL_SECONDS = 0.5  # how soon the death of a group is noticed


class Workers:
    """The owner's side of one worker group. All of it ends with the owner's process, however that ends."""

    def __init__(self, resources: dict[str, Any], name: str, logs: str) -> None:
        self.resources, self.name, self.logs = resources, name, logs
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._desk = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here).remote()
        self._error: BaseException | None = None
        self._traceback = ""
        self._waits = self._trains = False  # the trial waits for an answer; a trial is under way
        self._started = self._looked = time.monotonic()
        self._heard: Any = None  # a message that is awaited already
        self._unplaced = True  # nothing was heard of the workers yet
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"workers-{name}")
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether another trial may begin here."""
        young = time.monotonic() - self._started < RENEW_SECONDS
        return self._thread.is_alive() and not self._trains and young

    def begin(self, payload: dict[str, Any]) -> None:
        """Begin a trial."""
        self._trains = True
        ray.get(self._desk.give.remote(payload))

    def next(self) -> dict[str, Any]:
        """Let the trial go on, and wait for what it says next.

        Returns:
            `started` (a list of one: process id and node of the worker that trains, and its machine's
            `memory_kills`), `resumed` (a list of one: `evaluations` and `damage`),
            `evaluated` (a list of one evaluation: the trial now waits),
            `waiting` (what new workers wait for, once), or its end:
            `outcome` (a list of one: all evaluations and test scores), or `failure` (why), `kind` (see
            `failures`) and `traceback`.
        """
        if self._waits:
            self._desk.answer.remote(True)
        self._waits = False
        heard = self._heard or self._desk.listen.remote()
        self._heard = None
        while not ray.wait([heard], timeout=POLL_SECONDS)[0]:
            if not self._thread.is_alive() and not ray.wait([heard], timeout=POLL_SECONDS)[0]:
                self._trains = False
                return failure(self._error, self._traceback)
            if self._unplaced and time.monotonic() - self._looked > WAITING_SECONDS:
                self._looked = time.monotonic()
                if self._waits_for_place():
                    self._unplaced, self._heard = False, heard
                    return {"waiting": _asked(self.resources)}
        message: dict[str, Any] = ray.get(heard)
        self._unplaced = False
        self._waits, self._trains = "evaluated" in message, not ENDS & message.keys()
        return message

    def stop(self) -> None:
        """End the trial under way where it waits; one that does not wait is ended with its whole group."""
        if self._waits:
            self._desk.answer.remote(False)
            self._waits = self._trains = False
        elif self._trains:
            self.close()

    def close(self, seconds: float = 10.0) -> None:
        """End the group and wait, at most so long, until its resources are free."""
        if self._trains:
            for worker in ray.get(self._desk.signed_in.remote()):
                ray.kill(worker)
        self._trains = self._waits = False
        self._desk.give.remote(None)
        self._thread.join(seconds)

    def _waits_for_place(self) -> bool:
        """Whether there is a group of such workers, this one or its equal, that has no place yet."""
        bundles = [_per_worker(self.resources)] * self.resources["workers"]
        tables = ray.util.placement_group_table().values()
        return any(t["state"] == "PENDING" and list(t["bundles"].values()) == bundles for t in tables)

    def _run(self) -> None:
        wanted = self.resources
        try:
            _trainer(
                wanted,
                train_loop_config={"desk": self._desk},
                scaling_config=ray.train.ScalingConfig(
                    num_workers=wanted["workers"],
                    resources_per_worker=_per_worker(wanted),
                    use_gpu=bool(wanted["gpus_per_worker"]),
                ),
                # A fresh name each time: Train must not restore what it thinks it knows.
                run_config=ray.train.RunConfig(
                    name=self.name,
                    storage_path=self.logs,
                    # Nor is it to try again by itself: what is to be done about a loss, the study decides.
                    failure_config=ray.train.FailureConfig(
                        max_failures=0, max_preemption_failures=0, controller_failure_limit=0
                    ),
                ),
            ).fit()
        except BaseException as error:
            self._error, self._traceback = error, traceback.format_exc()


def _trainer(wanted: dict[str, Any], **settings: Any) -> DataParallelTrainer:
    if wanted["workers"] == 1 and not wanted["gpus_per_worker"]:
        # Ray's TorchTrainer without PyTorch, whose import costs two more processes seconds: one CPU joins nothing.
        return DataParallelTrainer(_serve, **settings)
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(_serve, torch_config=TorchConfig(backend=_backend(wanted)), **settings)


def _serve(config: dict[str, Any]) -> None:
    from sizewise.engine.ray_tune.worker import serve  # PyTorch is for the workers alone

    serve(config)


def _per_worker(wanted: dict[str, Any]) -> dict[str, float]:
    asked = {"CPU": wanted["cpus_per_worker"], "GPU": wanted["gpus_per_worker"]}
    return {kind: count for kind, count in asked.items() if count}


def _backend(wanted: dict[str, Any]) -> str:
    """How workers exchange tensors: NCCL between whole cards; it refuses two on one, and one alone needs none."""
    return "nccl" if wanted["workers"] > 1 and wanted["gpus_per_worker"] >= 1 else "gloo"


def _asked(wanted: dict[str, Any]) -> str:
    gpus = f" and {wanted['gpus_per_worker']:.4g} GPU" if wanted["gpus_per_worker"] else ""
    many = f"{wanted['workers']} workers of " if wanted["workers"] > 1 else ""
    return f"{many}{wanted['cpus_per_worker']:g} CPU{gpus}"
