"""A trial's workers: one Ray Train worker group that serves trial after trial.

Starting a worker group takes 14 seconds of CPU time or more, nearly all of it the imports of its processes
(benchmarks/startup.py), so a group is started once and then given one trial after another. Ray Train places the
workers, joins them into a process group and ends them; what a trial needs and what it reports go through a `Mailbox`,
a small actor of the group's owner.

    workers = Workers(resources, "0000-1a2b3c4d-1", logs)
    workers.begin(assignment)
    while not isinstance(message := workers.next(), Finished | Failed): ...   # at an `Evaluated` the trial waits
    workers.stop()                                            # ends it there; `next` lets it go on

A trial that ends by anything but its own divergence ends its group too: its processes may be in any state.
"""

import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any

import ray
import ray.train
import ray.util
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sizewise.engine.failures import failed
from sizewise.engine.messages import Assignment, Evaluated, Failed, Finished, Message, Resources, Waiting
from sizewise.engine.ray_tune.mailbox import Mailbox

# After so long a group is closed between two trials: others that wait for its CPUs get them, and memory is freed.
RENEW_SECONDS = 600.0
WAITING_SECONDS = 30.0  # without room for new workers, before a message says what they wait for
POLL_SECONDS = 0.5  # how soon the death of a group is noticed


class Workers:
    """The owner's side of one worker group. All of it ends with the owner's process, however that ends.

    Args:
        resources: the study file's section `resources`, with `gpus_per_worker` a number.
        name: of Ray Train's run, which no other run has had.
        logs: the folder of Ray Train's own files.
    """

    def __init__(self, resources: Resources, name: str, logs: str) -> None:
        self.resources, self.name, self.logs = resources, name, logs
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._error: BaseException | None = None
        self._traceback = ""
        self._waits_for_reply = self._training = False  # the trial waits; a trial is under way
        self._started = self._checked = time.monotonic()
        self._receiving: Any = None  # a call of `receive` that an earlier `next` has left
        self._may_be_queued = True  # the workers have sent nothing yet
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"workers-{name}")
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether another trial may begin here."""
        young = time.monotonic() - self._started < RENEW_SECONDS
        return self._thread.is_alive() and not self._training and young

    def begin(self, assignment: Assignment) -> None:
        """Begin a trial."""
        self._training = True
        ray.get(self._mailbox.put_trial.remote(assignment))

    def next(self) -> Message:
        """Let the trial go on, and wait for its next message.

        Returns:
            An `Evaluated`, after which the trial waits for the next call; a `Started`, `Resumed` or `Waiting`; or the
            trial's last, `Finished` or `Failed`.
        """
        if self._waits_for_reply:
            self._mailbox.reply.remote(True)
        self._waits_for_reply = False
        receiving = self._receiving or self._mailbox.receive.remote()
        self._receiving = None
        while not ray.wait([receiving], timeout=POLL_SECONDS)[0]:
            if not self._thread.is_alive() and not ray.wait([receiving], timeout=POLL_SECONDS)[0]:
                self._training = False
                return failed(self._error, self._traceback)
            if self._may_be_queued and time.monotonic() - self._checked > WAITING_SECONDS:
                self._checked = time.monotonic()
                if self._is_queued():
                    self._may_be_queued, self._receiving = False, receiving
                    return Waiting(_in_words(self.resources))
        message: Message = ray.get(receiving)
        self._may_be_queued = False
        self._waits_for_reply = isinstance(message, Evaluated)
        self._training = not isinstance(message, Finished | Failed)
        return message

    def stop(self) -> None:
        """End the trial under way where it waits; one that does not wait is ended with its whole group."""
        if self._waits_for_reply:
            self._mailbox.reply.remote(False)
            self._waits_for_reply = self._training = False
        elif self._training:
            self.close()

    def close(self, seconds: float = 10.0) -> None:
        """End the group and wait, at most so long, until its resources are free."""
        if self._training:
            for worker in ray.get(self._mailbox.registered.remote()):
                ray.kill(worker)
        self._training = self._waits_for_reply = False
        self._mailbox.put_trial.remote(None)
        self._thread.join(seconds)

    def _is_queued(self) -> bool:
        """Whether there is a group of such workers, this one or its equal, that Ray has no room for yet."""
        bundles = [_per_worker(self.resources)] * self.resources["workers"]
        tables = ray.util.placement_group_table().values()
        return any(t["state"] == "PENDING" and list(t["bundles"].values()) == bundles for t in tables)

    def _run(self) -> None:
        wanted = self.resources
        try:
            _trainer(
                wanted,
                train_loop_config={"mailbox": self._mailbox},
                scaling_config=ray.train.ScalingConfig(
                    num_workers=wanted["workers"],
                    resources_per_worker=_per_worker(wanted),
                    use_gpu=bool(wanted["gpus_per_worker"]),
                ),
                # A new name each time: Train must not restore an earlier run.
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


def _trainer(wanted: Resources, **settings: Any) -> DataParallelTrainer:
    if wanted["workers"] == 1 and not wanted["gpus_per_worker"]:
        # Ray's TorchTrainer without PyTorch, whose import costs two more processes seconds: one CPU joins nothing.
        return DataParallelTrainer(_serve, **settings)
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(_serve, torch_config=TorchConfig(backend=_backend(wanted)), **settings)


def _serve(config: Mapping[str, Any]) -> None:
    from sizewise.engine.ray_tune.worker import serve  # PyTorch is for the workers alone

    serve(config)


def _per_worker(wanted: Resources) -> dict[str, float]:
    asked = {"CPU": wanted["cpus_per_worker"], "GPU": wanted["gpus_per_worker"]}
    return {kind: count for kind, count in asked.items() if count}


def _backend(wanted: Resources) -> str:
    """How workers exchange tensors: NCCL between whole GPUs; it refuses two on one, and one alone needs none."""
    return "nccl" if wanted["workers"] > 1 and wanted["gpus_per_worker"] >= 1 else "gloo"


def _in_words(wanted: Resources) -> str:
    gpus = f" and {wanted['gpus_per_worker']:.4g} GPU" if wanted["gpus_per_worker"] else ""
    many = f"{wanted['workers']} workers of " if wanted["workers"] > 1 else ""
    return f"{many}{wanted['cpus_per_worker']:g} CPU{gpus}"
