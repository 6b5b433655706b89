"""A trial whose worker was left behind by a killed driver, in an object store, where nothing can be locked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from s3_server import S3Server
from sizewise.config.trial import TrialConfig
from sizewise.training.checkpoints import checkpoint
from sizewise.training.loop import Outcome, train
from sizewise_core.stores.claims import SupersededError
from sizewise_core.stores.storage import Place, place

TIMED = {"train_seconds", "samples_per_second", "peak_memory_bytes"}


@pytest.fixture
def folder(s3: S3Server) -> Place:
    return place("s3://studies/orphans/demo/checkpoints/0000-1a2b3c4d")


class KilledError(Exception):
    """Stands for the end of a worker, or of the driver that it reported to."""


def untimed(outcome: Outcome) -> Any:
    rows = [{k: v for k, v in row.items() if k not in TIMED} for row in outcome.evaluations]
    return rows, outcome.test


def die(row: dict[str, Any]) -> None:
    raise KilledError


def test_a_trial_goes_on_beside_a_worker_that_was_left_behind(
    folder: Place, tmp_path: Any, trial_config: Callable[..., TrialConfig]
) -> None:
    """Neither the orphan nor a killed attempt before it changes a bit of the outcome."""
    config = trial_config()
    calm = train(config, tmp_path / "calm", lambda row: None)
    with pytest.raises(KilledError):
        train(config, folder, die)
    successors: list[Outcome] = []

    def succeed(row: dict[str, Any]) -> None:
        if (
            not successors
        ):  # while the orphan waits for its report to be taken, another worker does all of the trial
            successors.append(train(config, folder, lambda row: None))

    with pytest.raises(SupersededError):
        train(config, folder, succeed)
    assert untimed(successors[0]) == untimed(calm)
    # A trial that is finished is found so, whatever the orphan left behind.
    assert untimed(train(config, folder, die)) == untimed(calm)
    ours, theirs = (
        checkpoint.load_newest(checkpoint.current(folder)),
        checkpoint.load_newest(tmp_path / "calm"),
    )
    assert ours is not None
    assert theirs is not None
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value), name
