"""Learning rates: functions of the iteration alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sizewise.config import StudySpec, from_text, to_text
from sizewise.training.steps.schedule import STAIRS, Rates
from sizewise_core.errors import InputError


def test_a_linear_decay_falls_in_equal_steps_to_zero() -> None:
    rates = Rates("linear", 0.02, 1000)
    assert rates(0) == 0.02
    assert rates(500) == 0.01
    assert rates(999) == pytest.approx(0.02 / 1000)
    falls = [rates(i) - rates(i + 1) for i in range(999)]
    assert min(falls) == pytest.approx(max(falls), rel=1e-9)
    assert min(falls) > 0


def test_stairs_are_few_and_leave_the_mean_rate_what_it_was() -> None:
    smooth, stairs = Rates("linear", 0.02, 1000), Rates("linear", 0.02, 1000, STAIRS)
    taken = [stairs(i) for i in range(1000)]
    assert len(set(taken)) == STAIRS
    assert taken == sorted(taken, reverse=True)
    assert sum(taken) / 1000 == pytest.approx(0.01)
    assert max(abs(stairs(i) - smooth(i)) for i in range(1000)) <= 0.02 / STAIRS
    short = Rates("linear", 0.02, STAIRS, STAIRS)
    assert [short(i) for i in range(STAIRS)] == [Rates("linear", 0.02, STAIRS)(i) for i in range(STAIRS)]


def test_only_a_decay_changes_an_optimizer() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    Rates("none", 0.02, 10).set(optimizer, 5)
    assert optimizer.param_groups[0]["lr"] == 0.1
    Rates("linear", 0.02, 10).set(optimizer, 5)
    assert optimizer.param_groups[0]["lr"] == 0.01


def mlperf(step: int, warmup: int, start: int, steps: int) -> float:
    """The factor of MLPerf's reference (`LRPolicyScheduler`), whose steps are numbered from 1, transcribed."""
    if step < warmup:
        return 1.0 - (warmup - step) / warmup
    if start <= step < start + steps:
        return ((steps - (step - start)) / steps) ** 2
    return 1.0 if step < start else (1 / steps) ** 2


def test_the_polynomial_form_is_that_of_mlperf() -> None:
    rates = Rates("polynomial", 24.0, 10_000, warmup=275, start=3_000 - 1, share=2_700)
    wanted = [24 * mlperf(i + 1, 275, 3_000, 2_700) for i in range(10_000)]
    assert [rates(i) for i in range(10_000)] == pytest.approx(wanted)
    longer = Rates("polynomial", 24.0, 20_000, warmup=275, start=3_000 - 1, share=2_700)
    assert [rates(i) for i in range(10_000)] == [longer(i) for i in range(10_000)]


@pytest.mark.parametrize("decay", ["linear", "cosine", "polynomial"])
def test_rates_rise_stay_and_fall(decay: str) -> None:
    rates = Rates(decay, 0.02, 1000, warmup=0.1, share=0.2)  # type: ignore[arg-type]
    taken = [rates(i) for i in range(1000)]
    assert taken[:100] == [pytest.approx(0.02 * (i + 1) / 100) for i in range(100)]
    assert taken[99:801] == [0.02] * 702
    assert taken[800:] == sorted(taken[800:], reverse=True)
    assert 0 < taken[-1] < 0.02 / 100
    stairs = Rates(decay, 0.02, 1000, 10, warmup=0.1, share=0.2)  # type: ignore[arg-type]
    phases = (range(100), range(100, 800), range(800, 1000))
    assert [len({stairs(i) for i in phase}) for phase in phases] == [10, 1, 10]
    assert sum(stairs(i) for i in range(1000)) == pytest.approx(sum(taken), rel=0.002)


def test_embeddings_have_a_rate_of_their_own() -> None:
    parameters = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], lr=0.1)
    Rates("linear", 0.02, 10, embeddings=0.5).set(optimizer, 5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.25]


def read(schedule: dict[str, Any]) -> StudySpec:
    text = json.dumps({"name": "a", "data": "b", "train": {"schedule": schedule}})
    return from_text(text.encode(), Path("study.yaml"))


def test_what_cannot_be_a_schedule_is_refused_by_name() -> None:
    for schedule, message in [
        ({"warmup": -1}, "warmup: must be a share"),
        ({"warmup": 1.5}, "warmup: is a share of the trial, at most 1.0"),
        ({"decay_share": 0.2}, "no rate falls with decay: none"),
        ({"decay": "linear", "power": 3.0}, "schedule.power"),
        ({"decay": "linear", "decay_share": 0}, "must be above 0"),
        ({"decay": "linear", "warmup": 0.5, "decay_share": 0.6}, "more than the trial"),
        ({"decay": "cosine", "decay_share": {"low": 10, "high": 20}}, "list iterations as choices"),
    ]:
        with pytest.raises(InputError, match=message):
            read(schedule)


def test_a_study_file_says_of_its_schedule_what_was_said() -> None:
    for schedule in (
        {"decay": "linear"},
        {"decay": "none", "warmup": 500},
        {
            "decay": {"choices": ["none", "cosine"]},
            "warmup": 0.05,
            "decay_share": {"low": 0.1, "high": 0.5, "log": False},
        },
        {"decay": "polynomial", "warmup": 8000, "decay_share": 30_000, "decay_start": 70_000},
    ):
        spec = read(schedule)
        assert spec.train.model_dump()["schedule"] == schedule
        assert from_text(to_text(spec), Path("study.yaml")) == spec


def test_what_cannot_be_a_step_is_refused_by_name() -> None:
    for train, message in [
        ({"optimizer": "rmsprop"}, "train.optimizer"),
        ({"optimizer": "sgd", "epsilon": 1e-8}, "epsilon: sgd has none"),
        ({"batch_size": 8, "accumulate": 9}, "accumulate: 9 parts of a batch of 8 rows"),
        ({"dropout": 1.0}, "train.dropout"),
        ({"dropout": {"low": 0.0, "high": 1.0}}, "train.dropout"),
        ({"weight_decay": -1e-4}, "train.weight_decay"),
        ({"clip_norm": 0}, "train.clip_norm"),
        ({"embedding_learning_rate": {"low": 0.0, "high": 0.1}}, "train.embedding_learning_rate"),
    ]:
        text = json.dumps({"name": "a", "data": "b", "train": train})
        with pytest.raises(InputError, match=message):
            from_text(text.encode(), Path("study.yaml"))
