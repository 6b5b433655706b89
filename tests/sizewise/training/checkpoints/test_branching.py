"""Trials of different lengths whose rate falls at the end share what comes before, to the last bit."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sizewise.config.trial import TrialConfig
from sizewise.training import loop
from sizewise.training.checkpoints import checkpoint
from sizewise.training.loop import Outcome, train
from sizewise.training.steps.step import Step

TIMED = {"train_seconds", "samples_per_second", "peak_memory_bytes"}
FALLS = {"decay": "cosine", "decay_share": 0.3, "schedule_warmup": 10}


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMED} for row in outcome.evaluations]


class Trained:
    """A trial, and what it trained itself."""

    def __init__(self, config: TrialConfig, folder: Path, **how: Any) -> None:
        self.begun: list[Any] = []
        self.outcome = train(
            config,
            folder,
            lambda row: None,
            resumed=lambda found, damage: self.begun.append(len(found)),
            **how,
        )
        state = checkpoint.load_newest(folder, of=checkpoint.identity(config))
        assert state is not None
        self.model = state["model"]

    def equals(self, other: "Trained") -> bool:
        same = all(torch.equal(value, other.model[name]) for name, value in self.model.items())
        return same and rows(self.outcome) == rows(other.outcome) and self.outcome.test == other.outcome.test


def test_longer_and_shorter_trials_go_on_from_one_that_was_trained(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    lengths = [1, 2, 3]  # of 25 iterations each: the rate falls from iteration 17, 35 and 53 on
    configs = {epochs: trial_config(epochs=epochs, evaluate_every=0.4, **FALLS) for epochs in lengths}
    alone = {epochs: Trained(config, tmp_path / f"alone{epochs}") for epochs, config in configs.items()}
    assert not list((tmp_path / "alone2").glob("stable-*"))
    first = Trained(configs[2], tmp_path / "2", lengths=lengths)
    assert first.equals(alone[2])
    kept = sorted(path.name for path in (tmp_path / "2").glob("stable-*"))
    assert [int(name.split("-")[1]) for name in kept] == [17, 35]
    for epochs, begun in ((1, 1), (3, 3)):
        folder = tmp_path / str(epochs)
        branched = Trained(configs[epochs], folder, lengths=lengths, stable=[str(tmp_path / "2")])
        assert branched.begun == [begun]  # with the evaluations of iterations 10; 10, 20 and 30
        assert branched.equals(alone[epochs])
    # One in which a kept state is damaged serves with the one before, and one without any not at all.
    newest = tmp_path / "3" / kept[1]
    newest.write_bytes(b"damaged")
    (tmp_path / "3" / next(p.name for p in (tmp_path / "3").glob("stable-*53-*"))).unlink()
    linear = trial_config(epochs=3, evaluate_every=0.4, **{**FALLS, "decay": "linear"})
    other = Trained(linear, tmp_path / "linear", stable=[str(tmp_path / "3"), str(tmp_path / "1")])
    assert other.begun == [1]
    assert other.equals(Trained(linear, tmp_path / "alone linear"))


class KilledError(BaseException):
    """As a kill ends a process, nothing catches it."""


@pytest.mark.slow
def test_kills_at_any_moment_change_no_bit(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after steps, in the cool-down too, and while states are kept, and while a trial begins with one."""
    all_of_it = {"accumulate": 2, "clip_norm": 0.3, "dropout": 0.2, "optimizer": "rowwise_adagrad"}
    lengths, often = [1, 2, 3], {"evaluate_every": 0.4, "checkpoint_seconds": 0.0}
    configs = {e: trial_config(epochs=e, **often, **all_of_it, **FALLS) for e in lengths}
    alone = {e: Trained(config, tmp_path / f"alone{e}") for e, config in configs.items()}
    draws, met = random.Random(4), dict[str, int]()

    def dies_around(owner: object, name: str) -> None:
        whole = getattr(owner, name)

        def dying(*arguments: Any, **named: Any) -> Any:
            for moment in ("before", "after"):
                if moment == "after":
                    found = whole(*arguments, **named)
                if draws.random() < (0.02 if name in ("__call__", "save") else 0.4):
                    met[f"{moment} {name}"] = met.get(f"{moment} {name}", 0) + 1
                    raise KilledError
            return found

        monkeypatch.setattr(owner, name, dying)

    for owner, name in (
        (Step, "__call__"),
        (checkpoint, "save"),
        (loop, "keep"),
        (checkpoint, "save_weights"),
    ):
        dies_around(owner, name)
    stable: list[str] = []
    for epochs in (2, 1, 3):
        folder = tmp_path / str(epochs)
        while True:
            try:
                trained = Trained(configs[epochs], folder, lengths=lengths, stable=stable)
                break
            except KilledError:
                continue
        assert trained.equals(alone[epochs])
        stable.append(str(folder))
    assert {"before keep", "after keep", "before save_weights", "after save_weights"} <= met.keys()
    assert met.keys() & {"before __call__", "after __call__"}
    assert met.keys() & {"before save", "after save"}


@pytest.mark.parametrize(
    ("changes", "curve", "stable"),
    [
        ({}, True, False),
        ({"schedule_warmup": 10}, True, False),
        ({"schedule_warmup": 0.1}, False, False),
        ({"decay": "linear"}, False, False),
        (FALLS, False, True),
        ({**FALLS, "schedule_warmup": 0.1}, False, False),
        ({**FALLS, "decay_share": 10}, False, True),
        ({**FALLS, "decay_share": 10, "decay_start": 40}, True, False),
        ({**FALLS, "method": "cce", "options": {"cluster_every": 0.9}}, False, False),
    ],
)
def test_what_is_shared(
    trial_config: Callable[..., TrialConfig], changes: dict[str, Any], curve: bool, stable: bool
) -> None:
    short, long = (trial_config(epochs=epochs, **changes) for epochs in (1, 3))
    assert (short.curve() == long.curve()) == curve
    assert (short.stable_part() != "" and short.stable_part() == long.stable_part()) == stable
    assert (
        short.stable_part() != trial_config(**{**changes, "learning_rate": 0.01}).stable_part() or not stable
    )
