"""The Ray cluster that a study runs on: the current one, or a local one for as long as the study lasts."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from sizewise.spec import StudySpec
from sizewise_prep.errors import InputError

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how long a report may wait for the controller
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger is the log
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # nothing is ever restored from Tune's own state
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


class PlacementError(InputError):
    """One trial asks for more than the whole cluster has; the message names the field and the figures."""


@contextmanager
def connect(spec: StudySpec) -> Iterator[None]:
    """The current Ray cluster if there is one, else a local one for as long as the block lasts.

    Raises:
        PlacementError: a trial asks for more than the whole cluster has.
    """
    os.environ.update({k: v for k, v in ENVIRONMENT.items() if k not in os.environ})
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
            runtime_env={"env_vars": ENVIRONMENT},
        )
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        _check_resources(spec, ray.cluster_resources())
        yield
    finally:
        if started_here:
            ray.shutdown()


def _check_resources(spec: StudySpec, cluster: dict[str, float]) -> None:
    """Refuse at once what could never be placed, instead of waiting for it without a word."""
    wanted = spec.resources
    for kind, each in (("CPU", wanted.cpus_per_worker), ("GPU", wanted.gpus_per_worker)):
        need, have = each * wanted.workers, cluster.get(kind, 0)
        if need > have:
            raise PlacementError(
                f"resources: one trial needs {need:g} {kind} ({wanted.workers} workers x {each:g}), and this "
                f"cluster has {have:g}: lower resources.workers or resources.{kind.lower()}s_per_worker"
            )
