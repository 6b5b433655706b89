"""Messages pass Ray Tune unchanged, and what carries them starts without PyTorch."""

import json
import subprocess
import sys

import pytest
from ray.tune.utils import flatten_dict

from sizewise.engine.messages import (
    Ending,
    Evaluated,
    Failed,
    Finished,
    Message,
    Resumed,
    Started,
    Waiting,
    from_result,
    to_result,
)
from sizewise.metrics.evaluation import Evaluation, TestScores
from sizewise.metrics.scores import Scores

ROW = Evaluation({"iteration": 12, "auc": 0.75}, "c2V2ZW4=")
TEST = TestScores(12, Scores(0.7, 0.5, 0.9, 1.0), {"brier": 0.2})


@pytest.mark.parametrize(
    ("message", "last"),
    [
        (Waiting("1 CPU"), False),
        (Started(4711, "a0", 3, actor_pid=4712, actor_node="b1"), False),
        (Resumed([ROW], ["0001.ckpt is damaged"]), False),
        (Evaluated(ROW), False),
        (Finished([ROW, ROW], TEST, "dominated"), True),
        (Finished([ROW], None), True),
        (Failed(Ending("lost", "its node died"), "Traceback"), True),
    ],
)
def test_a_message_passes_tune_unchanged(message: Message, last: bool) -> None:
    result = to_result(message)
    assert result["done"] is last
    json.dumps(result)  # as Tune keeps it
    assert (
        from_result(flatten_dict({**result, "training_iteration": 1, "config": {"model": {"dim": 4}}}))
        == message
    )


def test_a_result_without_a_message_has_none() -> None:
    """As Tune passes it on where an actor died before its first."""
    assert from_result(None) is None
    assert from_result({"training_iteration": 1, "done": True}) is None


def test_neither_the_mailbox_nor_a_trials_own_process_imports_pytorch() -> None:
    code = "import sys, sizewise.engine.ray_tune.{}; print(*sys.modules)"
    for module, absent in (("mailbox", ("torch", "optuna", "polars", "ray")), ("actor", ("torch", "optuna"))):
        command = [sys.executable, "-c", code.format(module)]
        loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert not set(absent) & set(loaded), module
