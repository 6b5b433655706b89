"""A trial's workers: one Ray Train worker group that serves trial after trial.

Starting a worker group takes 10 to 20 seconds of CPU time, nearly all of it the imports of its processes
(benchmarks/startup.py), so a group is started once and then given one trial after another. Ray Train places the
workers, joins them into a process group and ends them; what a trial needs and what it reports go through `Desk`,
a small actor of the group's owner.

    workers = Workers(resources, "0000-1a2b3c4d-1", logs)
    workers.begin(payload)
    while "evaluated" in (message := workers.next()): ...     # the trial waits until it is asked to go on
    workers.stop()                                            # or is told to end here

A trial leaves nothing behind for the next one: models and data are its own, peaks of memory are counted anew, and
a trial that ends by anything but its own loss takes its group with it, whose processes nobody then trusts.
"""

import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import os
import threading
import time
import traceback
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.util
import torch
import torch.distributed
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sizewise.study.failures import ending, memory_kills
from sizewise.train import DivergedError, reset_peak_memory, train
from sizewise.trial import TrialConfig
from sizewise_prep.storage import place

# After so long a group makes way between two trials: others who wait for its CPUs get their turn, nothing grows old.
RENEW_SECONDS = 600.0
ENDS = {"outcome", "failure"}  # messages that are a trial's last
WAITING_SECONDS = 30.0  # without a place for new workers, before it is said what they wait for
POLL_SECONDS = 0.5  # how soon the death of a group is noticed


class Desk:
    """Where orders (a trial's payload each) go down to the workers, and messages come up from rank 0."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any] | None] = []  # None: go home
        self.workers: list[Any] = []
        self._ordered = asyncio.Condition()
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[bool] = asyncio.Queue()

    async def sign_in(self, worker: Any) -> None:
        """Take a worker's actor handle, by which a worker that hears nothing can still be ended."""
        self.workers.append(worker)

    async def signed_in(self) -> list[Any]:
        """The workers' handles."""
        return self.workers

    async def give(self, order: dict[str, Any] | None) -> None:
        """Give all workers their next order."""
        async with self._ordered:
            self.orders.append(order)
            self._ordered.notify_all()

    async def order(self, number: int) -> dict[str, Any] | None:
        """The order of that number, as soon as there is one."""
        async with self._ordered:
            await self._ordered.wait_for(lambda: len(self.orders) > number)
            return self.orders[number]

    async def tell(self, message: dict[str, Any]) -> None:
        """Pass a message up."""
        self._messages.put_nowait(message)

    async def ask(self, message: dict[str, Any]) -> bool:
        """Pass a message up and wait for the answer: whether to go on."""
        self._messages.put_nowait(message)
        return await self._answers.get()

    async def listen(self) -> dict[str, Any]:
        """The next message."""
        return await self._messages.get()

    async def answer(self, go_on: bool) -> None:
        """Answer the message that waits."""
        self._answers.put_nowait(go_on)


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
                return _failure(self._error, self._traceback)
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
            TorchTrainer(
                serve,
                train_loop_config={"desk": self._desk},
                torch_config=TorchConfig(backend=_backend(wanted)),
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


def serve(config: dict[str, Any]) -> None:
    """What every Train worker of a group does: train what is ordered, until there is nothing more."""
    context = ray.train.get_context()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    desk, number = config["desk"], 0
    ray.get(desk.sign_in.remote(ray.get_runtime_context().current_actor))
    while (payload := ray.get(desk.order.remote(number))) is not None:
        _train(payload, desk, context.get_world_rank(), context.get_world_size())
        number += 1


class _StoppedError(Exception):
    """The trial is to end at the evaluation that it has just reported."""


def _train(payload: dict[str, Any], desk: Any, rank: int, world: int) -> None:
    """One trial on this worker."""
    device = ray.train.torch.get_device()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "this node offers a GPU that PyTorch cannot use: install its driver and a CUDA build of torch"
        )
    _tidy(device)

    def report(row: dict[str, Any]) -> None:
        go_on = [rank == 0 and ray.get(desk.ask.remote({"evaluated": [row]}))]
        if world > 1:
            torch.distributed.broadcast_object_list(go_on)
        if not go_on[0]:
            raise _StoppedError

    def tell(**message: Any) -> None:
        if rank == 0:
            ray.get(desk.tell.remote(message))

    # Before anything that could hang, so that whoever keeps the time can end this process.
    node = ray.get_runtime_context().get_node_id()
    tell(started=[{"pid": os.getpid(), "node": node, "memory_kills": memory_kills()}])
    try:
        outcome = train(
            TrialConfig.model_validate(payload["config"]),
            place(payload["folder"]),
            report,
            rank=rank,
            world=world,
            device=device,
            uses=payload.get("uses"),
            resumed=lambda evaluations, damage: tell(
                resumed=[{"evaluations": evaluations, "damage": damage}]
            ),
            **payload["how"],
        )
    except _StoppedError:
        return
    except DivergedError as error:
        if world > 1:
            raise  # the other ranks wait for this one in the middle of an exchange
        tell(**_failure(error, traceback.format_exc()))
    else:
        tell(outcome=[dataclasses.asdict(outcome)])


def _tidy(device: torch.device) -> None:
    """Give back what the trial before held, so that this one's peak of memory is its own."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # a C library without it keeps what it has
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak_memory(device)


def _failure(error: BaseException | None, text: str) -> dict[str, Any]:
    kind, why = ending(error)
    return {"failure": why, "kind": kind, "traceback": text}
