"""What a trial's workers do: train each trial that the group's `Mailbox` hands out, until it says to shut down.

Where one worker without a GPU trains, PyTorch is in its process alone. A trial leaves nothing behind for the next one:
models and data are its own, and peaks of memory start at zero.
"""

import gc
import os
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import ray.train
import ray.train.torch
import sklearn.metrics  # noqa: F401  # now and not at the first evaluation, where memory may be short
import torch
import torch.distributed

from sizewise.config.trial import TrialConfig
from sizewise.engine.failures import failed, memory_kills
from sizewise.engine.messages import Assignment, Evaluated, Finished, Message, Resumed, Started
from sizewise.metrics.evaluation import Evaluation
from sizewise.models import is_own
from sizewise.store import code
from sizewise.store.study_folder import StudyFolder
from sizewise.training.loop import DivergedError, Worker, train
from sizewise.training.memory import reset_peak_memory
from sizewise.training.teachers.teacher_sources import Source
from sizewise_core.machine import allocator
from sizewise_core.stores.storage import place


def serve(config: Mapping[str, Any]) -> None:
    """What every Train worker of a group does."""
    context = ray.train.get_context()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    # A step's arrays have the sizes of the last step's; asking the kernel for them again takes a third of a wide
    # model's time.
    allocator.keep_freed()
    mailbox, number = config["mailbox"], 0
    ray.get(mailbox.register.remote(ray.get_runtime_context().current_actor))
    while (assignment := ray.get(mailbox.next_trial.remote(number))) is not None:
        _train(assignment, mailbox, context.get_world_rank(), context.get_world_size())
        number += 1


class _StoppedError(Exception):
    """The trial is to end at the evaluation that it has just reported."""


def _train(assignment: Assignment, mailbox: Any, rank: int, world: int) -> None:
    """One trial on this worker."""
    device = ray.train.torch.get_device()
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "this node offers a GPU that PyTorch cannot use: install its driver and a CUDA build of torch"
        )
    _tidy(device)
    os.environ.update(assignment.get("credentials", {}))

    def report(evaluation: Evaluation | None) -> None:
        go_on = [evaluation is not None and ray.get(mailbox.send_and_wait.remote(Evaluated(evaluation)))]
        if world > 1:
            torch.distributed.broadcast_object_list(go_on)
        if not go_on[0]:
            raise _StoppedError

    def send(message: Message) -> None:
        if rank == 0:
            ray.get(mailbox.send.remote(message))

    # Before anything that could hang, so that whoever keeps the time can end this process.
    node = ray.get_runtime_context().get_node_id()
    send(Started(os.getpid(), node, memory_kills()))
    trial, folder = TrialConfig.model_validate(assignment["config"]), place(assignment["folder"])
    if is_own(trial.model.kind):
        code.use(StudyFolder.of_checkpoints(folder).path)
    _score_by_exports(
        [Source.model_validate(one) for one in assignment["how"].get("teacher", ())], trial.data
    )
    try:
        outcome = train(
            trial,
            folder,
            report,
            worker=Worker(rank, world, device, assignment.get("uses", {})),
            resumed=lambda evaluations, damage: send(Resumed(evaluations, damage)),
            **assignment["how"],
        )
    except _StoppedError:
        return
    except DivergedError as error:
        if world > 1:
            raise  # the other ranks wait for this one in the middle of an exchange
        send(failed(error, traceback.format_exc()))
    else:
        send(Finished(outcome.evaluations, outcome.test, outcome.pruned))


def _score_by_exports(sources: Sequence[Source], data: str) -> None:
    """Complete the scores of a teacher that is, or contains, an exported model, which `train` cannot run."""
    if any(source.kind == "export" for source in sources):
        from sizewise.engine.preparing import teachers  # few trials have such a teacher

        teachers.prepare(sources, data)


def _tidy(device: torch.device) -> None:
    """Give back what the trial before held, so that this one's peak of memory is its own."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    allocator.give_back()
    reset_peak_memory(device)
