"""All that is used of Ray beside its public interface, in one place.

Tried with Ray 2.60.0. A Ray that lacks one of these parts is refused when this module is imported, in one sentence that
names the part: without them a cluster of this user's own would listen on every network interface, or take files of the
working folder for modules. Only `train_failures` can do without: a worker that is lost is then recognised by Ray's
public errors alone.

    with loopback_only(), processes_in_own_groups(), sigterm_left_alone():
        ray.init("local", job_config=InstalledCode())
    own_node().is_head()
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray

from sizewise_core.errors import InputError

TRIED = "2.60"
LOOPBACK_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def _unsupported(part: str) -> InputError:
    return InputError(
        f"Ray {ray.__version__} is installed, which has no {part}: install the version that Sizewise was tried with, "
        f"by pip install 'ray[default,train,tune]=={TRIED}.*'"
    )


try:
    from ray._common.utils import get_ray_address_file
    from ray._private import ray_constants, services, utils, worker
    from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
    from ray.job_config import JobConfig
except ImportError as error:
    raise _unsupported(str(error.name or error)) from None

_NEEDED = {
    AuthenticationTokenLoader: ("instance", "has_token", "reset_cache"),
    Config: ("initialize",),
    JobConfig: ("_runtime_env_has_working_dir",),
    ray_constants: ("ENABLE_RAY_CLUSTER",),
    services: ("ConsolePopen", "canonicalize_bootstrap_address", "find_bootstrap_address"),
    utils: ("set_sigterm_handler",),
    worker: ("_global_node",),
}
for _owner, _names in _NEEDED.items():
    for _name in _names:
        if not hasattr(_owner, _name):
            raise _unsupported(f"{_owner.__name__}.{_name}")


class InstalledCode(JobConfig):  # type: ignore[misc]  # Ray is untyped
    """A job whose workers import what is installed where they run, nothing else.

    Ray puts the driver's working folder and the folder of its script in front of the workers' `sys.path`, where
    somebody's own `torch.py` or `random.py` would be imported in place of the real one. It does not for jobs that bring
    a working folder of their own.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # asked for this purpose alone


def address_file() -> Path:
    """Where Ray notes the address of the cluster that was started on this machine, whoever started it."""
    return Path(get_ray_address_file(None))


def running_address() -> str | None:
    """HOST:PORT of the cluster that was started on this machine, and of no driver's private one; None without one."""
    found: str | None = services.find_bootstrap_address(None)
    return found


def canonical_address(named: str) -> str | None:
    """HOST:PORT of the cluster that `named` means, as Ray understands it; None where it means none."""
    found: str | None = services.canonicalize_bootstrap_address(named)
    return found


def raylet_sockets(address: str, seconds: float) -> list[Path]:
    """The socket of the raylet of every node of a cluster.

    Args:
        address: HOST:PORT of the cluster's head.
        seconds: how long it may take to answer.

    Returns:
        A path for each node, which exists here if the node is this machine.

    Raises:
        ray.exceptions.AuthenticationError: the head asks for another token.
        ray.exceptions.RayError: it does not answer as a Ray cluster.
    """
    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=seconds).values()
        return [Path(node.raylet_socket_name) for node in nodes]
    except AttributeError as error:
        raise _unsupported(str(error)) from None


def has_token() -> bool:
    """Whether this user has a token, by the environment or in Ray's file. Raises AuthenticationError for a bad path."""
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    return bool(loader.has_token(ignore_auth_mode=True))


def read_settings_again() -> None:
    """Let Ray, which reads its settings and its token from the environment once, do so again."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def own_node() -> Any:
    """The node that this process is connected to, or None; `is_head()` where this process has started the cluster."""
    return worker._global_node


@contextmanager
def loopback_only() -> Iterator[None]:
    """A Ray that is started in the block binds to 127.0.0.1, as it does by itself on Windows and macOS only.

    Its processes have to find `LOOPBACK_ENVIRONMENT` in their environment.
    """
    listens_everywhere = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = listens_everywhere


@contextmanager
def sigterm_left_alone() -> Iterator[None]:
    """A Ray that is joined in the block does not handle SIGTERM, which it would with exit code 15 and no message."""
    setting = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = setting


@contextmanager
def processes_in_own_groups() -> Iterator[None]:
    """The processes of a Ray that is started in the block get no signal that is sent to this process's group.

    The kernel ends them with this process, whatever ends it. Where it cannot do that, on no Linux, they stay.
    """
    starting = services.ConsolePopen
    if sys.platform.startswith("linux"):
        services.ConsolePopen = functools.partial(starting, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = starting


@contextmanager
def not_propagated(names: tuple[str, ...]) -> Iterator[None]:
    """Within the block, Tune does not copy these variables of the driver's environment to its trials."""
    try:
        from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
    except ImportError:
        raise _unsupported("ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE") from None
    left_out = ENV_VARS_TO_PROPAGATE & set(names)
    ENV_VARS_TO_PROPAGATE.difference_update(left_out)
    try:
        yield
    finally:
        ENV_VARS_TO_PROPAGATE.update(left_out)


class TrainFailures(NamedTuple):
    """Errors by which Ray Train says that a worker could not start, has died, or does not answer."""

    not_started: type[Exception]
    dead: type[Exception]
    silent: type[Exception]


class _AbsentError(Exception):
    """Stands for an error that this version of Ray does not have; it is never raised."""


def train_failures() -> TrainFailures:
    """Those of the installed Ray."""
    try:
        from ray.train.v2._internal import exceptions
    except ImportError:
        return TrainFailures(_AbsentError, _AbsentError, _AbsentError)
    names = (
        "WorkerGroupStartupFailedError",
        "WorkerHealthCheckFailedError",
        "WorkerHealthCheckTimeoutError",
    )
    return TrainFailures(*(getattr(exceptions, name, _AbsentError) for name in names))
