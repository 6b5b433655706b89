"""What a Ray cluster gets from this driver: its workers import what is installed where they run, nothing else."""

from __future__ import annotations

from ray.job_config import JobConfig


class InstalledCode(JobConfig):  # type: ignore[misc]  # Ray is untyped
    """A job whose workers do not search the driver's working folder or the folder of its script for modules.

    Ray puts both in front of the workers' `sys.path`, where somebody's own `torch.py` or `random.py` would be imported
    in place of the real one. It leaves that be for jobs that bring a working folder of their own.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # asked for this purpose alone
