"""What a trial's workers ask for: CPUs, and GPUs or a share of one."""

import logging
from collections.abc import Mapping

from sizewise.config.sections.running import ResourcesSpec
from sizewise.config.trial import TrialConfig
from sizewise.engine.messages import Resources
from sizewise.training.footprint import gpu_share, training_bytes
from sizewise_core.units import format_bytes

log = logging.getLogger(__name__)


def asked_for(wanted: ResourcesSpec, gpus_per_worker: float) -> Resources:
    """What a trial's workers ask for, with so many GPUs each, or such a share of one."""
    return Resources(
        workers=wanted.workers, cpus_per_worker=wanted.cpus_per_worker, gpus_per_worker=gpus_per_worker
    )


def held(resources: Resources) -> Mapping[str, float]:
    """CPUs and GPUs of all workers of a trial, by the metric that counts their seconds."""
    return {
        "cpu_seconds": resources["workers"] * resources["cpus_per_worker"],
        "gpu_seconds": resources["workers"] * resources["gpus_per_worker"],
    }


class Sharing:
    """Shares of GPUs, which follow from trials' configurations where they are left to us.

    Args:
        inputs: categorical features and dense values of the data's rows, and values looked up where some are lists.
    """

    def __init__(self, inputs: tuple[int, int] | tuple[int, int, float]) -> None:
        self._inputs = inputs
        self._too_large: set[int] = set()  # trials with a warning that they need more than a GPU has

    def resources(self, wanted: ResourcesSpec, trial_id: int, config: TrialConfig) -> Resources:
        """What a trial's workers ask for.

        Args:
            wanted: what the study file says.
            trial_id: the trial.
            config: its configuration.
        """
        if wanted.gpus_per_worker != "auto":
            return asked_for(wanted, wanted.gpus_per_worker)
        needed = training_bytes(config, *self._inputs)
        share = gpu_share(needed, wanted.gpu_memory or 0)
        if share is None and trial_id not in self._too_large:
            self._too_large.add(trial_id)
            log.warning(
                "trial %d: training takes about %s, and a card has %s: it gets a whole one, and may run out of memory",
                trial_id,
                format_bytes(needed),
                format_bytes(wanted.gpu_memory or 0),
            )
        return asked_for(wanted, share or 1.0)
