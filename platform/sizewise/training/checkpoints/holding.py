"""A trial's folder of checkpoints, in which one process at a time works."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch.distributed
from filelock import FileLock

from sizewise.store.study_folder import TrialFolder
from sizewise.training.checkpoints import checkpoint
from sizewise_core.stores.claims import Claim
from sizewise_core.stores.storage import Place, place

ORPHAN_SECONDS = 300.0  # how long a worker whose driver died may hold its trial's folder


@contextmanager
def held(folder: Place, rank: int, world: int) -> Iterator[tuple[Place, Claim | None]]:
    """The folder to work in, which no other process works in: a worker orphaned by a killed driver may train on.

    A folder is locked: wait until the kernel has freed the orphan's lock. An object store has none: leave the
    orphan its files, work on copies, and hold a claim by which this worker learns that it has become an orphan.

    Args:
        folder: the trial's.
        rank: of this worker.
        world: workers in all.

    Raises:
        Timeout: another process has been training this trial for minutes.
    """
    if isinstance(folder, Path):
        checkpoint.make(folder)
        lock = FileLock(str(TrialFolder(folder).lock), timeout=ORPHAN_SECONDS)
        with lock if rank == 0 else nullcontext():
            yield folder, None
        return
    own, claim = checkpoint.take_over(folder) if rank == 0 else (folder, None)
    shared = [str(own)]
    if world > 1:
        torch.distributed.broadcast_object_list(shared)
    yield place(shared[0]), claim
