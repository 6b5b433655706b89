"""Tune's process of a trial. Apart from the rest of `tune`, so that it imports no more than it needs."""

import os
from typing import Any

import ray
from ray import tune

from sizewise.engine.ray_tune.worker_group import ENDS, Workers


class TrialActor(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """Tune's trainable: a trial on this actor's workers, whose messages pass through.

    Tune reuses the actor for trial after trial, and the actor its workers. A failure is a result like any other.
    """

    workers: Workers | None = None

    def setup(self, payload: dict[str, Any], credentials: dict[str, str]) -> None:
        """Begin the first trial. The credentials are environment variables for all of the actor's workers."""
        self.credentials = credentials
        self.reset_config(payload)

    def reset_config(self, payload: dict[str, Any]) -> bool:
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
        """What the trial says next."""
        assert self.workers is not None  # setup came first
        message = self.workers.next()
        for place in message.get("started", []):
            place["owner"] = self._place()
        return {**message, "done": bool(ENDS & message.keys())}

    def _place(self) -> dict[str, Any]:
        """Where this process is, for whoever has to end it."""
        return {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}

    def cleanup(self) -> None:
        """End the workers."""
        if self.workers:
            self.workers.close()
