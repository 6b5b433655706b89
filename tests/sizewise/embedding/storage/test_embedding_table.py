"""Storage in few bits: rounding keeps the mean, rests on a grid, and follows the seed."""

import math

import pytest
import torch

from sizewise.embedding.storage.table import Table


def rounded(values, storage, seed=0):
    table = Table(values.shape, seed, storage)
    with torch.no_grad():
        table.weight.copy_(values)
    return table, table().detach().clone()


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_rounding_keeps_the_mean(storage):
    """100,000 times a number between two storable ones: both are used, the mean within 5 standard errors."""
    value = 0.7123
    _, out = rounded(torch.full((100_000,), value), storage)
    neighbours = out.unique()
    assert len(neighbours) == 2
    assert neighbours[0] < value < neighbours[1]
    spacing = float(neighbours[1] - neighbours[0])
    assert spacing == 2.0**-7 if storage == "int8" else 2.0**-8
    up = (value - float(neighbours[0])) / spacing
    error = spacing * math.sqrt(up * (1 - up) / 100_000)
    assert abs(out.double().mean().item() - value) < 5 * error + 1e-7


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_rounded_values_are_storable_exactly_and_rest(storage):
    table, out = rounded(torch.randn(5000, generator=torch.Generator().manual_seed(1)), storage)
    dtype = torch.bfloat16 if storage == "bfloat16" else torch.int8
    stored = table.state_dict()["weight"]
    assert stored.dtype == dtype
    again = stored.float() * (table.scale if storage == "int8" else 1)
    assert torch.equal(again, out)
    with torch.no_grad():
        table.weight.add_(0.0)  # a step that moves nothing
    assert torch.equal(table(), out)


def test_int8_scale_is_the_smallest_power_of_two_that_reaches_and_never_shrinks():
    table, _ = rounded(torch.tensor([1.0, -3.0, 0.1]), "int8")
    assert table.scale.item() == 2.0**-5  # 3 / 127 = 0.0236, next power of two 0.03125
    with torch.no_grad():
        table.weight.mul_(0.01)
    table()
    assert table.scale.item() == 2.0**-5
    with torch.no_grad():
        table.weight.fill_(-200.0)
    assert table().tolist() == [-200.0] * 3
    assert table.scale.item() == 2.0


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_noise_differs_between_roundings_and_follows_the_seed(storage):
    values = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    table, first = rounded(values, storage)
    with torch.no_grad():
        table.weight.copy_(values)
    second = table().detach().clone()
    assert not torch.equal(first, second)
    assert torch.equal(first, rounded(values, storage)[1])
    assert not torch.equal(first, rounded(values, storage, seed=1)[1])


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_steps_below_half_the_spacing_add_up(storage):
    """1,000 steps of a hundredth of the spacing move 2,000 numbers by ten spacings on average."""
    table, start = rounded(torch.full((2000,), 0.75), storage)
    spacing = 2.0**-7 if storage == "int8" else 2.0**-8
    for _ in range(1000):
        with torch.no_grad():
            table.weight.add_(-spacing / 100)
        table()
    moved = (start - table()).mean().item() / spacing
    # A random walk of 1,000 steps with variance 0.01 each has standard error sqrt(10 / 2000) = 0.07 spacings;
    # bfloat16 halves its spacing below 0.5, which these values do not reach on average.
    assert moved == pytest.approx(10, abs=0.4)


def test_small_bounds_and_a_center():
    table = Table((10_000,), 1, bound=0.02, center=1.0)
    assert table.weight.min() >= 0.98
    assert table.weight.max() <= 1.02
    assert table.weight.mean().item() == pytest.approx(1.0, abs=5 * 0.02 / 3**0.5 / 100)


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_diverged_values_are_passed_on(storage, value):
    """Whoever trains must see that training diverged; rounding must neither hide it nor fail first."""
    _, out = rounded(torch.tensor([1.0, value]), storage)
    assert not out.isfinite().all()


def test_a_fused_optimizer_does_not_count_on_tables_that_it_did_not_step() -> None:
    """Kernels have stepped and rounded them: rounding them anew would wait for the device in every step."""
    table, other = Table((4, 8), seed=1, storage="bfloat16"), torch.nn.Parameter(torch.ones(3))
    table()
    roundings = int(table.roundings)
    optimizer = torch.optim.SGD([table.weight, other], lr=0.1, fused=True)
    other.sum().backward()
    optimizer.step()
    table()
    assert int(table.roundings) == roundings
    table.weight.grad = torch.full_like(table.weight, 0.001)
    optimizer.step()
    table()
    assert int(table.roundings) == roundings + 1
