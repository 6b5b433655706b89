"""A preparation on a Ray cluster: one task for each piece of work, and a driver that needs no access to the data.

    manifest = prepare_on_ray(["/data/day_*"], "/data/criteo", Options(), address="auto")

The tasks and the one that coordinates them read the raw files and write the folder, so every node must be able to
reach both (on a shared file system; raw files may also be in an object store). Shards for an object store are made in
the cache folder of the coordinator's node, by all nodes that share that folder, and sent from there (see `remote`). The
driver only receives the coordinator's messages. Every task requests the memory that it takes, so a node never gets more
tasks than fit. A task whose worker or node is lost is done again elsewhere, and so is the coordinator, which continues
with what is done.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray

from sizewise_core.clusters.private_ray import private_ray
from sizewise_core.clusters.ray_address import RefusedError, joinable
from sizewise_core.clusters.ray_internals import InstalledCode
from sizewise_core.errors import InputError
from sizewise_core.files.atomic import BusyError
from sizewise_core.stores.storage import StorageError, place
from sizewise_prep.pipeline import ray_nodes
from sizewise_prep.pipeline.options import Options
from sizewise_prep.pipeline.prep import steps_to
from sizewise_prep.pipeline.steps.progress import Progress
from sizewise_prep.pipeline.workers import Function, Job, Result, all_results
from sizewise_prep.shards.cache import cache_folder
from sizewise_prep.shards.manifest import Manifest

_COORDINATOR_MEMORY = 500 * 10**6
_ATTEMPTS = 4
# How long the coordinator waits for a folder that another process holds. After a driver was killed, Ray lets a
# coordinator that does not answer run for five more seconds, and its user may give the command again at once.
_BUSY_SECONDS = 15.0
_WAITING = 512  # tasks that are submitted before their turn
_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.OwnerDiedError,
)


class RayWorkers:
    """`Workers` on the Ray cluster that this process is connected to; on some of its nodes, where they are named."""

    def __init__(self, nodes: frozenset[str] | None = None) -> None:
        self._nodes = nodes

    def share(self, memory: int) -> int:
        """All of it: Ray shares out each node by what tasks request."""
        return memory

    def run(
        self, function: Function[Job, Result], jobs: Sequence[Job], memory: int
    ) -> Iterator[Result | None]:
        """The results of all jobs, each done by a task.

        Args:
            function: does one job; see `workers`.
            jobs: arguments of the function.
            memory: bytes that a task may take, beside one CPU.

        Yields:
            Results, and None at least every second.

        Raises:
            InputError: no node has that much memory.
            Exception: what a job raises.
        """
        if jobs and memory > (largest := max(ray_nodes.memories(self._nodes), default=0)):
            what = f"one task needs {memory:,} bytes of memory, and the largest node offers {largest:,}"
            raise InputError(f"{what}: lower --memory or --shard-rows, or use larger nodes")
        task = ray.remote(all_results).options(
            num_cpus=1,
            memory=memory,
            max_retries=_ATTEMPTS - 1,
            runtime_env=_environment(),
            scheduling_strategy="DEFAULT" if self._nodes is None else ray_nodes.only(self._nodes),
        )
        waiting, running = deque(jobs), set[Any]()
        while waiting or running:
            while waiting and len(running) < _WAITING:
                running.add(task.remote(function, waiting.popleft()))
            done, _ = ray.wait(list(running), timeout=1.0)
            for reference in done:
                running.remove(reference)
                yield from _got(reference)
            yield None


def prepare_on_ray(
    raw: str | Path | Sequence[str | Path],
    out: str | Path,
    options: Options,
    *,
    address: str | None = None,
    memory: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Manifest:
    """As `prep.prepare`, with the workers of a Ray cluster.

    Args:
        raw, out: as for `prep.prepare`; paths are relative to this process's working directory and must exist on the
            nodes, which must be able to reach an object store that is named.
        options: as for `prep.prepare`.
        address: of a cluster ("auto" for one on this machine); None: the one this process is connected to.
        memory: bytes that a task may take; half of the smallest node's if None.
        progress: as for `prep.prepare`.

    Raises:
        InputError: as `prep.prepare`, or there is no such cluster.
    """
    options.settings()
    names = [str(one) for one in ([raw] if isinstance(raw, str | Path) else raw)]
    files = [name if "://" in name else os.path.abspath(name) for name in names]
    with nullcontext() if ray.is_initialized() else _joined(address or "auto"):
        target = place(str(out))
        where = os.path.abspath(target) if isinstance(target, Path) else str(out)
        return _coordinated(files, where, options, memory, progress)


@contextmanager
def _joined(named: str) -> Iterator[None]:
    """Join the cluster of an address for the block; `local` starts one for this command."""
    try:
        found = named if named.startswith("ray://") else joinable(named)
        if found:
            ray.init(address=found, log_to_driver=False, logging_level="ERROR", job_config=InstalledCode())
    except RefusedError as error:
        raise InputError(f"--ray {named}: {error}") from None
    except (OSError, ValueError) as error:
        fix = "name another with --ray or RAY_ADDRESS, or leave both out to work on this machine alone"
        raise InputError(f"Ray cluster {named}: cannot be reached ({error}): {fix}") from None
    if found:
        try:
            yield
        finally:
            ray.shutdown()
    else:
        with private_ray(lambda text: print(text, file=sys.stderr)):
            yield


def _coordinated(
    raw: list[str],
    out: str,
    options: Options,
    memory: int | None,
    progress: Callable[[Progress], None] | None,
) -> Manifest:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            task = ray.remote(_coordinate).options(
                num_cpus=0,
                memory=_COORDINATOR_MEMORY,
                num_returns="streaming",
                max_retries=0,
                runtime_env=_environment(),
                scheduling_strategy=ray_nodes.first() if "://" in out else "DEFAULT",
            )
            for reference in task.remote(raw, out, options, memory):
                message = _got(reference)
                if isinstance(message, str):
                    return Manifest.model_validate_json(message)
                if isinstance(message, ray_nodes.Unshared):
                    print(f"sizewise: {out}: {message}", file=sys.stderr, flush=True)
                elif progress:
                    progress(message)
        except _LOST:
            if attempt == _ATTEMPTS:
                raise
    raise RuntimeError("the Ray task that runs the preparation ended without a result")


def _coordinate(
    raw: list[str], out: str, options: Options, memory: int | None
) -> Iterator[Progress | ray_nodes.Unshared | str]:
    """Do the steps from within the cluster; yields their progress, and at last the manifest as JSON.

    For an object store, the first that it yields is which nodes take no part, if there are any.
    """
    nodes = None if isinstance(place(out), Path) else ray_nodes.sharing(cache_folder() / "prep")
    if nodes is not None and len(nodes) < (all_nodes := len(ray_nodes.memories())):
        yield ray_nodes.Unshared(len(nodes), all_nodes, str(cache_folder()))
    limit = memory or min(ray_nodes.memories(nodes)) // 2
    begun = time.monotonic()
    while True:
        try:
            manifest = yield from steps_to(raw, out, options, RayWorkers(nodes), limit)
        except BusyError:
            if time.monotonic() - begun > _BUSY_SECONDS:
                raise
            time.sleep(0.5)
        else:
            yield manifest.model_dump_json()
            return


def _environment() -> dict[str, dict[str, str]]:
    """Of tasks: as many threads as they have cores, and this process's cache folder, if it was chosen."""
    chosen = {name: os.environ[name] for name in ("SIZEWISE_CACHE",) if name in os.environ}
    return {"env_vars": {"POLARS_MAX_THREADS": "1", **chosen}}


def _got(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError | StorageError):
            raise error.cause from None
        raise
