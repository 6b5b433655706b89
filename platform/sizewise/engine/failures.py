"""What an error that ended a trial means, out of the wrappers that Ray puts around it.

`failed`: the trial's configuration or code is to blame (an exception, too little memory): it would happen again.
`lost`: a worker, node or connection went away; the trial can go on from its checkpoint.
`paused`: there is no room to write; nothing can go on until somebody makes some.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import filelock
import ray.exceptions
from ray.train import ControllerError
from ray.train.v2.api.exceptions import PreemptionError

from sizewise.engine.messages import Ending, Failed
from sizewise_core.clusters.ray_internals import train_failures
from sizewise_core.files.sealed import DamagedError
from sizewise_core.stores.claims import SupersededError
from sizewise_core.stores.storage import StorageError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|Cannot allocate memory|Unable to allocate", re.I
)
LOW_MEMORY = re.compile(r"running low on memory|memory monitor", re.I)  # Ray's messages when it frees memory
_NOTHING_LEFT = re.compile(r"^\w*MemoryError\b|^RuntimeError: can't start new thread", re.M)
NODE_GONE = re.compile(r"node has died|node (is|was) (dead|terminated|preempted)", re.I)
# What the other workers raise when one of them is gone.
PEER_GONE = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|remote process exited", re.I
)
_TRAIN = train_failures()
LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.RaySystemError,
    _TRAIN.dead,
    _TRAIN.silent,
    PreemptionError,
    ControllerError,
    filelock.Timeout,
    DamagedError,
    SupersededError,
)


NO_MEMORY = (
    "its machine ran out of memory: lower resources.concurrent_trials, train.batch_size or the memory budget"
)


def ending(error: BaseException | None) -> Ending:
    """What `error`, as it came out of Ray Train, means for its trial."""
    errors = [_own(e) for e in (getattr(error, "worker_failures", None) or {0: error}).values()]
    for cause in errors:
        if isinstance(cause, StorageError):
            return Ending("paused", str(cause))
        if number := no_room(cause):
            name = getattr(cause, "filename", None)
            return Ending(
                "paused", f"its worker cannot write{f' {name}' if name else ''}: {os.strerror(number)}"
            )
    lost = [cause for cause in errors if _is_loss(cause)]
    own = [cause for cause in errors if cause not in lost and not PEER_GONE.search(str(cause))]
    if own and not lost:
        return Ending("failed", _explained(own[0]))
    if not own:
        return Ending("lost", _loss((lost or errors)[0]))
    # A worker that dies takes the others' connections with it, and they raise whatever comes of that.
    return Ending("lost", _loss(lost[0]))


def failed(error: BaseException | None, traceback: str) -> Failed:
    """A trial's last message, where `error` has ended it."""
    return Failed(ending(error), traceback)


def memory_kills() -> int:
    """How many processes the kernel of this machine has killed for want of memory since it started."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0  # not Linux


def _is_loss(error: BaseException | None) -> bool:
    """Whether something went away. An actor that raised while it was made did not: its code cannot run there."""
    return error is None or (isinstance(error, LOST) and not getattr(error, "actor_init_failed", False))


def no_room(error: BaseException | None) -> int | None:
    """The error's number, where it or what it came from says that nothing can be written."""
    for cause in _chain(error):
        number: int | None = getattr(cause, "errno", None)
        if number is None and (found := re.search(r"\[Errno (\d+)\]", str(cause))):
            number = int(found[1])
        if number in NO_ROOM:
            return number
    return None


def starved(error: BaseException | None) -> bool:
    """Whether this process had no memory or no threads left; Tune keeps of an error only its text."""
    return any(_NOTHING_LEFT.search(f"{type(cause).__name__}: {cause}") for cause in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "controller_failure", None) or error.__cause__ or error.__context__


def _own(error: BaseException | None) -> BaseException | None:
    """The exception that was raised, out of its wrappers."""
    for wrapper in ("cause", "_base_exc"):
        inner = getattr(error, wrapper, None)
        if isinstance(inner, BaseException):
            return _own(inner)
    return error


def _explained(error: BaseException | None) -> str:
    line = _last_line(error)
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(line) or "OutOfMemory" in type(error).__name__:
        return f"out of memory: {line}: lower train.batch_size, model.dim or the memory budget"
    return line


def _loss(error: BaseException | None) -> str:
    if error is None:
        return "its process or its node died"
    text = str(getattr(error, "health_check_failure", error))
    if LOW_MEMORY.search(text):
        return NO_MEMORY
    if NODE_GONE.search(text):
        return "its node died"
    if isinstance(getattr(error, "controller_failure", None), _TRAIN.not_started):
        return "its worker process died while it started"
    if isinstance(error, _TRAIN.silent):
        return "its worker does not answer"
    if isinstance(error, _TRAIN.dead | ray.exceptions.RayActorError):
        return "its worker process died"
    return _last_line(error)


def _last_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
