"""The Ray cluster that a study runs on: the current one, or a local one for as long as the study lasts."""

import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sizewise.config import StudySpec
from sizewise.engine.driving.signals import deferred
from sizewise.engine.ray_tune.placement import PlacementError, check_placement
from sizewise_core.clusters.private_ray import private_ray, temporary_folder
from sizewise_core.clusters.ray_address import RefusedError, joinable
from sizewise_core.clusters.ray_internals import (
    InstalledCode,
    not_propagated,
    own_node,
    processes_in_own_groups,
    sigterm_left_alone,
)
from sizewise_core.files.yaml_files import load_yaml
from sizewise_core.machine import limits
from sizewise_core.units import format_bytes

log = logging.getLogger(__name__)
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how long a report may wait for the controller
    # Workers stay in the queue for resources as long as it takes; Train would leave it after a minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "604800",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger is the log
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # nothing is ever restored from Tune's own state
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


# What Tune copies from the driver's environment for its trials.
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
ROOM = 100 * 10**6  # bytes that Ray's logs and sockets may take
FEW_PROCESSES = 1000  # fewer left of a limit on processes and threads may be why Ray did not start
HEAD_SECONDS = 20.0  # how long a cluster's head may be silent

# Ray's launcher leaves the cluster's file there on the head, where drivers of submitted jobs run.
AUTOSCALER_FILE = Path("~/ray_bootstrap_config.yaml")


class StartError(RuntimeError):
    """Ray did not start, or cannot be joined, although the study asks for nothing that it does not have."""


@contextmanager
def connect(
    spec: StudySpec,
    on_lost: Callable[[str], None] | None = None,
    address: str | None = None,
    failed: Callable[[], bool] = lambda: False,
) -> Iterator[StudySpec]:
    """A Ray cluster, and Ray left again, or a local one ended, when the block ends.

    Args:
        spec: the study.
        on_lost: called with the reason, from a thread of its own, once the cluster's head has not answered for
            `HEAD_SECONDS`, or this node's raylet is gone. It must end the process: Ray would, after minutes, without a
            message.
        address: HOST:PORT of a cluster; `auto` for the one that runs on this machine; `local` for one of this
            study's own; None for `RAY_ADDRESS`, else this user's own on this machine, else one of the study's own.
        failed: asked at the end whether the logs of a Ray of the study's own are to be kept.

    Returns:
        The study file, with what only the cluster knows: the memory of its smallest GPU.

    Raises:
        PlacementError: a trial asks for what the cluster does not have, and could not start; or there is no cluster.
        StartError: Ray did not start.
    """
    os.environ.update({k: v for k, v in ENVIRONMENT.items() if k not in os.environ})
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with nullcontext() if ray.is_initialized() else _joined(address, failed) as folder:
        wanted, nodes = spec.resources, [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if wanted.gpus_per_worker == "auto" and wanted.gpu_memory is None:
            wanted = wanted.model_copy(update={"gpu_memory": _gpu_memory()})
        check_placement(wanted, nodes, _startable() if not _own() else [])
        with _watched(on_lost, folder) if on_lost else nullcontext():
            yield spec.model_copy(update={"resources": wanted})


@contextmanager
def _joined(address: str | None, failed: Callable[[], bool] = lambda: False) -> Iterator[Path | None]:
    """Connect this process, and log to what: two studies on one machine share its resources.

    Yields:
        The folder of a Ray of the study's own.
    """
    cluster = _answering(address)
    with ExitStack() as until_the_end:
        try:
            with _uninterrupted():
                folder = until_the_end.enter_context(_cluster(cluster) if cluster else _own_ray(failed))
        except Exception as error:  # as Ray says that this machine was too slow, or has no room
            message = str(error).strip() or type(error).__name__
            raise StartError(f"Ray did not start: {message}{_fix(message)}") from error
        _log_where()
        # Tune would copy AWS's keys into runtime environments, which Ray writes into its logs on every node.
        until_the_end.enter_context(not_propagated(CREDENTIALS))
        yield folder


@contextmanager
def _own_ray(failed: Callable[[], bool]) -> Iterator[Path]:
    # This machine is not preempted, and the watcher's start takes a second.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    with private_ray(log.warning, failed) as folder:  # which has our environment already, secrets too
        yield folder


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    try:
        ray.init(
            address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
            job_config=InstalledCode(),
            runtime_env={"env_vars": ENVIRONMENT},
        )
        yield
    finally:
        ray.shutdown()


def _log_where() -> None:
    has = ray.cluster_resources()
    kinds = ", ".join(
        f"{has.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU") if has.get(kind) or kind == "CPU"
    )
    if _own():
        log.info("Ray: started for this study alone, %s", kinds)
    else:
        count = sum(node["Alive"] for node in ray.nodes())
        log.info(
            "Ray: joined the cluster at %s, %d node%s, %s (`--ray local` would start one for this study alone)",
            ray.get_runtime_context().gcs_address,
            count,
            "" if count == 1 else "s",
            kinds,
        )


def _fix(message: str) -> str:
    """What to do about Ray's folder for temporary files or too few processes, where that kept Ray from starting."""
    folder = temporary_folder()
    if "AF_UNIX path length" in message:  # as long as batch systems set TMPDIR
        return ": set RAY_TMPDIR to a short folder, such as /tmp"
    with suppress(OSError):
        if (free := shutil.disk_usage(folder).free) < ROOM:
            return f": {folder} has {format_bytes(free)} left: make room, or set RAY_TMPDIR to another folder"
    allowed = limits.processes()
    if allowed and allowed.left < FEW_PROCESSES and allowed.limit not in message:
        return f": {allowed.limit}: raise that limit, or end other programs"
    return ""


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Start Ray without interruption: in the middle it would abort this process or leave some of its own behind.

    Nor may it handle SIGTERM, which it would do with exit code 15 and no message.
    """
    with sigterm_left_alone(), deferred(), processes_in_own_groups():
        yield


def _answering(address: str | None) -> str | None:
    """HOST:PORT of the cluster that `address` means, None for one of the study's own.

    Looked up first, because Ray waits for minutes for a cluster that is gone.
    """
    named = address or os.environ.get("RAY_ADDRESS") or ""
    try:
        if named.startswith("ray://"):
            raise ValueError("a driver runs on a node of its cluster: submit it with `ray job submit`")
        return joinable(named, log.info)
    except RefusedError as error:
        raise PlacementError(f"--ray {named}: {error}") from None
    except (OSError, ValueError) as error:
        raise PlacementError(
            f"--ray {named}: there is no such Ray cluster ({error}): name another with --ray or RAY_ADDRESS, or "
            "give --ray local to start one for this study alone"
        ) from None


def credentials() -> dict[str, str]:
    """Of this process's environment, what workers on other machines need to reach the object store."""
    return {} if _own() else {name: os.environ[name] for name in CREDENTIALS if name in os.environ}


def _own() -> bool:
    """Whether this process has started the Ray that it is connected to."""
    node = own_node()
    return node is not None and node.is_head()


@contextmanager
def _watched(on_lost: Callable[[str], None], folder: Path | None) -> Iterator[None]:
    """Within the block, look whether what this process cannot do without still answers.

    That is the cluster's head, whose machine may be cut off for a while, and the raylet of this process's own node. One
    that is gone never comes back, and Ray would not report it for minutes: its port refuses.
    The `folder` of a Ray of the study's own stays, for its logs.
    """
    head = ray.get_runtime_context().gcs_address
    node = own_node()
    raylet = f"{node.node_ip_address}:{node.node_manager_port}"
    ended = threading.Event()

    def watch() -> None:
        answered, refused = time.monotonic(), 0
        while not ended.wait(HEAD_SECONDS / 10):
            lost = None
            if _answers(head):
                answered = time.monotonic()
            elif time.monotonic() - answered > HEAD_SECONDS:
                lost = f"the head of the Ray cluster, {head}, does not answer"
            refused = refused + 1 if _refuses(raylet) else 0
            if refused > 1:
                lost = f"the raylet of this machine, {raylet}, which starts Ray's processes, has died"
            if lost and not ended.is_set():
                on_lost(f"{lost} (its logs: {folder})" if folder else lost)
                return

    thread = threading.Thread(target=watch, daemon=True, name="head")
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _answers(address: str) -> bool:
    try:
        _call(address)
    except OSError:
        return False
    return True


def _refuses(address: str) -> bool:
    """Whether nobody listens there, which a machine answers at once; silence may be a busy machine's."""
    try:
        _call(address)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _call(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_SECONDS / 4).close()


def _startable() -> list[dict[str, float]]:
    """The nodes that the autoscaler may start, from the cluster's file; none where this is no head of one."""
    path = AUTOSCALER_FILE.expanduser()
    if not path.exists():
        return []
    config = load_yaml(path, plain=True)
    if not isinstance(config, dict):
        return []
    types, head = config.get("available_node_types") or {}, config.get("head_node_type")
    nodes = []
    for name, kind in types.items():
        if name != head:
            count = min(kind.get("max_workers", 0), config.get("max_workers", 0))
            nodes += [dict(kind.get("resources") or {})] * count
    return nodes


def _gpu_memory() -> int:
    """Bytes of the smallest GPU's memory, from every node that has one."""
    found = []
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("GPU"):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            found.append(ray.remote(_smallest_card).options(num_cpus=0, scheduling_strategy=there).remote())
    cards = [size for size in ray.get(found) if size]
    if not cards:
        raise PlacementError(
            "resources.gpus_per_worker: auto needs the memory of a GPU, and no node of this cluster reports it: write "
            "resources.gpu_memory, such as 24GB"
        )
    return int(min(cards))


def _smallest_card() -> int | None:
    """Asked of the driver's own tool, which sees the cards whatever Ray has given to this process."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return min(int(line) for line in text.split()) * 1024**2
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
