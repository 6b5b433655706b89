"""What errors mean for a trial, with the exceptions that Ray and torch really raise."""

import errno
import pickle

import filelock
import pytest
import ray.exceptions
import torch
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupFailedError,
    WorkerHealthCheckFailedError,
)

from sizewise.engine.failures import ending
from sizewise.training.loop import DivergedError
from sizewise_core.files.sealed import DamagedError
from sizewise_core.stores.storage import StorageError

DEAD = WorkerHealthCheckFailedError("poll failed", ray.exceptions.ActorDiedError())
PEER = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [192.0.2.7]:4242")


def group(*errors: BaseException) -> WorkerGroupError:
    """The errors of a group's workers, as they come out of another process."""
    wrapped = {
        rank: e
        if isinstance(e, WorkerHealthCheckFailedError)
        else UserExceptionWithTraceback(e, f"Traceback\n{e}")
        for rank, e in enumerate(errors)
    }
    return pickle.loads(pickle.dumps(WorkerGroupError("it went wrong", wrapped)))  # type: ignore[no-any-return]


def cannot_allocate() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (group(DivergedError("diverged: search lower")), "failed", "DivergedError: diverged: search lower"),
        (group(ValueError("no such thing")), "failed", "ValueError: no such thing"),
        (group(ValueError("first"), PEER), "failed", "ValueError: first"),
        (group(PEER, ValueError("first")), "failed", "ValueError: first"),
        (
            group(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
            "failed",
            "out of memory: ",
        ),
        (group(MemoryError()), "failed", "lower train.batch_size, model.dim or the memory budget"),
        (group(cannot_allocate()), "failed", "out of memory: RuntimeError"),
        (group(DEAD), "lost", "its worker process died"),
        (group(DEAD, PEER), "lost", "its worker process died"),
        (group(PEER, DEAD), "lost", "its worker process died"),
        (group(PEER, PEER), "lost", "Connection closed by peer"),
        (group(filelock.Timeout("lock")), "lost", "lock"),
        (group(DamagedError("best: its content")), "lost", "best: its content"),
        (
            ControllerError(WorkerGroupStartupFailedError("At least one actor")),
            "lost",
            "its worker process died while it started",
        ),
        (ray.exceptions.ActorDiedError(), "lost", "its worker process died"),
        (
            group(OSError(errno.ENOSPC, "No space left on device", "a.ckpt")),
            "paused",
            "No space left on device",
        ),
        (group(OSError(errno.EDQUOT, "Disk quota exceeded")), "paused", "Disk quota exceeded"),
        (group(RuntimeError("[Errno 28] Error writing bytes to file")), "paused", "No space left on device"),
        (group(StorageError("a: cannot be reached", False)), "paused", "a: cannot be reached"),
        (group(FileNotFoundError(errno.ENOENT, "No such file", "shard")), "failed", "No such file"),
    ],
)
def test_what_an_error_means(error: BaseException, kind: str, words: str) -> None:
    found = ending(error)
    assert found.kind == kind, found
    assert words in found.reason
    assert "\n" not in found.reason


def test_a_process_that_cannot_even_begin_is_a_failure() -> None:
    error = ray.exceptions.ActorDiedError(
        ray.exceptions.RayTaskError("f", "Traceback", ImportError("no module"))
    )
    assert error.actor_init_failed
    assert ending(error).kind == "failed"


def test_an_end_without_an_error_is_a_loss() -> None:
    assert ending(None) == ("lost", "its process or its node died")


def test_ray_killing_for_memory_is_told_as_such() -> None:
    text = "1 worker(s) were killed due to the node running low on memory."
    error = WorkerHealthCheckFailedError("poll failed", ray.exceptions.OutOfMemoryError(text))
    found = ending(group(error))
    assert found.kind == "lost"
    assert found.reason.startswith("its machine ran out of memory: lower resources.concurrent_trials")
