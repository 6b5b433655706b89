"""The process that Ray Tune starts for each trial. A module of its own, so that it imports no more than it needs."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from sizewise.engine.messages import Assignment, Started, to_result
from sizewise.engine.ray_tune.worker_group import Workers


class TrialActor(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """Tune's trainable: a trial on this actor's workers, whose messages pass through.

    Tune reuses the actor for trial after trial, and the actor its workers. A failure is a result like any other.
    """

    workers: Workers | None = None

    def setup(self, payload: Assignment, credentials: Mapping[str, str]) -> None:
        """Begin the first trial. The credentials are environment variables for all of the actor's workers."""
        self.credentials = credentials
        self.reset_config(payload)

    def reset_config(self, payload: Assignment) -> bool:
        """End the trial before, where Tune stopped it, and begin the next."""
        if self.workers:
            self.workers.stop()
            if not self.workers.usable or self.workers.resources != payload["resources"]:
                self.workers.close()
                self.workers = None
        if self.workers is None:
            self.workers = Workers(payload["resources"], payload["attempt"], payload["logs"])
        self.workers.begin({**payload, "credentials": self.credentials})
        return True

    def step(self) -> dict[str, Any]:
        """The trial's next message."""
        assert self.workers is not None  # setup came first
        message = self.workers.next()
        if isinstance(message, Started):  # for whoever has to end this process
            here = ray.get_runtime_context().get_node_id()
            message = replace(message, actor_pid=os.getpid(), actor_node=here)
        return to_result(message)

    def cleanup(self) -> None:
        """End the workers."""
        if self.workers:
            self.workers.close()
