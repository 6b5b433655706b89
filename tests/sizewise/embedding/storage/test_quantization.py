"""Packed numbers of 8, 4 and 2 bits: what is read back is near, and never worse than plain scaling."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sizewise.embedding.kernels.levels import through_levels
from sizewise.embedding.storage.quantization import (
    BITS,
    Grid,
    Storage,
    dequantize,
    most_numbers,
    pack,
    quantize,
    rounded,
    stored_bytes,
    unpack,
)
from sizewise_core.errors import InputError

BIT_COUNTS = [8, 4, 2]
numbers = st.floats(-(2.0**126), 2.0**126, width=32)


def through(values: Tensor, bits: int, group: int | None = None) -> Tensor:
    return dequantize(*quantize(values, bits, group), bits, values.shape, group)


def errors(values: Tensor, read: Tensor, group: int | None = None) -> Tensor:
    """Sums of squared errors of each group, over the group's largest number."""
    groups = values.double().reshape(-1, group or values.numel())
    largest = groups.abs().amax(1, keepdim=True).clamp(min=1e-300)
    return ((read.double().view_as(groups) - groups) / largest).square().sum(1)


def plainly(values: Tensor, bits: int) -> Tensor:
    """Scaled by the largest number, as one would without a search."""
    grid = Grid.of(bits)
    top, bottom = grid.high + grid.offset, grid.low + grid.offset
    scale = torch.maximum(values.max() / top, values.min() / bottom).bfloat16().float()
    return grid.values(grid.codes(values, scale), scale)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=60), st.sampled_from(BIT_COUNTS))
def test_never_worse_than_plain_scaling_and_within_half_a_spacing_of_it(
    values: list[float], bits: int
) -> None:
    given = torch.tensor(values, dtype=torch.float32)
    read = through(given, bits)
    assert read.isfinite().all()
    found, plain = errors(given, read), errors(given, plainly(given, bits))
    assert (found <= plain * (1 + 1e-9) + 1e-12).all()
    # Plain scaling is off by half a spacing at most, which is the largest number over all levels of a side; a scale
    # of eight bits adds up to a 256th of the number, and the smallest numbers of float32 have coarser scales.
    largest = float(given.abs().max())
    if largest > 1e-30:
        bound = 0.5 / (2 ** (bits - 1) - 1 + (0.5 if bits == 2 else 0)) + 1 / 256
        assert (found <= len(values) * bound**2).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-128, 127), min_size=1, max_size=40), st.sampled_from(BIT_COUNTS))
def test_packed_codes_come_back(codes: list[int], bits: int) -> None:
    grid = Grid.of(bits)
    given = torch.tensor(codes).clamp(grid.low, grid.high)
    packed = pack(given, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-len(codes) * bits // 8)
    assert unpack(packed, bits, len(codes)).tolist() == given.tolist()


def test_the_first_number_lies_in_the_lowest_bits() -> None:
    assert pack(torch.tensor([1, -8, 7]), 4).tolist() == [0x81, 0x07]
    assert pack(torch.tensor([-2, 1, 0, -1, 1]), 2).tolist() == [0b11_00_01_10, 0b01]


@pytest.mark.parametrize("bits", BIT_COUNTS)
@pytest.mark.parametrize("group", [None, 1, 6, 64])
def test_every_group_is_rounded_as_if_it_were_alone(bits: int, group: int | None) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(32, 6, generator=generator) * torch.logspace(-3, 3, 32).unsqueeze(1)
    read = through(values, bits, group)
    parts = values.flatten().split(group or values.numel())
    assert torch.equal(read.flatten(), torch.cat([through(part, bits) for part in parts]))


@pytest.mark.parametrize(("bits", "most"), [(8, 0.0102), (4, 0.109), (2, 0.345)])
def test_a_bell_of_numbers_loses_what_the_best_uniform_grid_loses(bits: int, most: float) -> None:
    """Root mean squared errors in standard deviations (Max, 1960); of 16 levels 0.1074 where none is zero."""
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(2))
    assert float((through(values, bits) - values).square().mean().sqrt()) < most


def test_few_large_numbers_do_not_decide_on_the_scale() -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(2))
    values[::10_000] = 10.0
    assert float(quantize(values, 4).scales) < 0.5
    assert float(quantize(values, 2).scales) < 1.1


def test_a_sample_proposes_the_scale_of_many_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(3))
    exact = errors(values, through(values, 4))
    monkeypatch.setattr("sizewise.embedding.storage.quantization._SAMPLE", 1_000)
    assert exact <= errors(values, through(values, 4)) < 1.05 * exact
    spiked = values.clone() * 0
    spiked[7] = 5.0  # which no sample sees
    assert through(spiked, 4)[7].item() == pytest.approx(5.0, rel=1 / 256)


@pytest.mark.parametrize("bits", BIT_COUNTS)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e-30, 3.4e38, -3.4e38, 1e-45])
def test_equal_numbers_stay_equal_and_zeros_zero(bits: int, value: float) -> None:
    read = through(torch.full((30,), value), bits, 10)
    assert len(read.unique()) == 1
    assert read.isfinite().all()
    if 1e-37 < abs(value) < 3e38 or not value:
        assert read[0].item() == pytest.approx(value, rel=1 / 256)


@pytest.mark.parametrize("bits", BIT_COUNTS)
def test_no_numbers_are_no_bytes(bits: int) -> None:
    assert through(torch.zeros(0, 4), bits, 4).shape == (0, 4)
    assert len(quantize(torch.zeros(0), bits).codes) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"1 of 3 numbers are not finite"):
        quantize(torch.tensor([1.0, value, 2.0]), 4)


@pytest.mark.parametrize("group", [0, -2, 7, 101])
def test_a_group_that_does_not_divide_is_refused(group: int) -> None:
    for call in (
        lambda: quantize(torch.zeros(100), 4, group),
        lambda: rounded(torch.zeros(100), "int2", group),
        lambda: stored_bytes(100, "int4", group),
    ):
        with pytest.raises(InputError, match=f"group {group} does not divide 100 numbers"):
            call()


def test_other_bits_and_groups_of_other_storages_are_refused() -> None:
    with pytest.raises(InputError, match="3 bits"):
        quantize(torch.zeros(4), 3)
    with pytest.raises(InputError, match="leave it out with storage bfloat16"):
        rounded(torch.zeros(4), "bfloat16", 2)


@pytest.mark.parametrize("storage", BITS)
def test_rounded_values_rest(storage: Storage) -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(4))
    once = rounded(values, storage)
    assert once.dtype == torch.float32
    assert torch.equal(once, values) == (storage == "float32")
    assert (once - values).abs().max() < {"int4": 0.8, "int2": 2.5}.get(storage, 0.02)
    torch.testing.assert_close(rounded(once, storage), once, rtol=1 / 256, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 5000),
    st.sampled_from(list(BITS)),
    st.one_of(st.none(), st.integers(1, 40)),
    st.integers(1, 20),
)
def test_a_budget_holds_the_most_numbers(
    budget: int, storage: Storage, group: int | None, multiple: int
) -> None:
    group = group if storage in ("int4", "int2") else None
    count = most_numbers(budget, storage, group, multiple)
    assert count % multiple == 0
    assert not count or stored_bytes(count, storage, group) <= budget
    step = multiple if group is None else multiple * group
    more = next(n for n in range(count + 1, count + 1 + step) if not n % multiple and not n % (group or 1))
    assert stored_bytes(more, storage, group) > budget


def test_bytes_are_those_of_the_packed_form() -> None:
    values = torch.randn(1001, generator=torch.Generator().manual_seed(5))
    for bits, storage in ((4, "int4"), (2, "int2")):
        for group in (None, 7, 1001):
            codes, scales = quantize(values, bits, group)
            assert codes.nbytes + scales.nbytes == stored_bytes(1001, storage, group)  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("group", [None, 16])
def test_devices_agree(group: int | None) -> None:
    values = torch.randn(4096, generator=torch.Generator().manual_seed(6))
    here, there = quantize(values, 4, group), quantize(values.cuda(), 4, group)
    assert torch.equal(here.scales, there.scales.cpu())
    assert torch.equal(here.codes, there.codes.cpu())


@pytest.mark.parametrize("numbers", [5, 8, 1024, 2_500])
@pytest.mark.parametrize("storage", ["int4", "int2"])
def test_the_gradient_of_a_learnt_step_is_summed_in_one_order_whatever_the_vectors(
    numbers: int, storage: Storage
) -> None:
    """Eight sums, each over every eighth number: the bits of checkpoints depend on it."""
    random, grid = np.random.default_rng(1), Grid.of(BITS[storage])
    values = random.normal(0, 0.3, (2, numbers)).astype(np.float32)
    values[0, 3] = np.nan
    values[1, 4] = 0.0
    gradient = random.normal(0, 1, (2, numbers)).astype(np.float32)
    steps = np.array([0.0625, 0.125], np.float32)
    numbers_of_grid = [np.float32(value) for value in (grid.low, grid.high, grid.offset, 0.0)]
    out, of_steps = np.empty_like(values), np.empty(2)
    through_levels(values, steps, gradient, *numbers_of_grid, out, of_steps)

    offset = np.float32(grid.offset)
    x = values / steps[:, None] - offset
    inside = (x >= grid.low) & (x <= grid.high)
    np.testing.assert_array_equal(out, np.where(inside, gradient, 0))
    level = np.clip(x, grid.low, grid.high).round() + offset
    part = gradient * (level - np.where(inside, x + offset, np.float32(0)))
    lanes = np.pad(part, ((0, 0), (0, -numbers % 8))).astype(np.float64).reshape(2, -1, 8)
    np.testing.assert_array_equal(of_steps, lanes.cumsum(1)[:, -1].sum(1) * steps)
    assert np.isnan(of_steps[0])
    assert np.isfinite(of_steps[1])
