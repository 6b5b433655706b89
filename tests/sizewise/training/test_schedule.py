"""Learning rates: functions of the iteration alone."""

import pytest
import torch

from sizewise.training.schedule import STAIRS, Rates


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
