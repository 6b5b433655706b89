"""What only a GPU can show: races, alignment, 64-bit positions, CUDA graphs, steps that wait for nothing.

TRITON_INTERPRET=0 pytest tests/sizewise/embedding/kernels/gpu/test_gpu_on_device.py
"""

import os
from typing import Any

import pytest
import torch

from sizewise.embedding import build, fused
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batches import Batch
from sizewise.training.steps.optimizers import build_optimizer
from sizewise.training.steps.schedule import Rates
from sizewise.training.steps.step import Distill, Step

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not fused._triton_is_there(), reason="Triton is not installed"),
    pytest.mark.skipif(
        os.environ["TRITON_INTERPRET"] != "0", reason="in Triton's interpreter: TRITON_INTERPRET=0"
    ),
]
GPU = torch.device("cuda")
BATCH, FEATURES = 2_048, 26


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        ids = (1e6 ** torch.rand(BATCH, FEATURES, generator=generator, dtype=torch.float64)).long()
        label = (torch.rand(BATCH, generator=generator) < 0.3).float()
        made.append(Batch(torch.randn(BATCH, 13, generator=generator), ids, label))
    return made


def trained(
    optimizer: str, device: torch.device, budget: int, use: bool = True, steps: int = 8, **embedding: Any
) -> tuple[Step, Any]:
    where = build("robe", [1_000_000] * FEATURES, 16, budget, 1, **embedding)
    where.fused = use
    model = DLRM(where, 13, [32], [32]).to(device)
    step = Step(model, build_optimizer(optimizer, model, 0.05, in_backward=True), BATCH, device)
    for batch in batches(steps):
        step(batch, BATCH)
    return step, model


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("budget", [100_000, 40_000_000])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_graphs_train_what_the_plain_path_does_on_a_cpu(optimizer: str, budget: int, storage: str) -> None:
    """As far as the last bits of sums let them, which decide the sign of Adagrad's first step where a gradient is
    nearly zero, and how a number is rounded. What parameters differ by is small beside what they moved by, of which
    one step more or less would be 1 % at least.
    """
    if storage == "bfloat16" and optimizer == "adam":
        pytest.skip("rounded where the host finds that it was stepped: no graph")
    step, model = trained(optimizer, GPU, budget, storage=storage)
    assert step._replay is not None
    cpu = torch.device("cpu")
    _, twin = trained(optimizer, cpu, budget, use=False, storage=storage)
    _, start = trained(optimizer, cpu, budget, use=False, storage=storage, steps=0)
    bound = 0.4 if storage == "bfloat16" else 0.005  # many numbers move by less than they are rounded by
    for (name, value), other, begun in zip(
        model.named_parameters(), twin.parameters(), start.parameters(), strict=True
    ):
        moved = (other - begun).detach().norm()
        assert (value.detach().cpu() - other.detach()).norm() <= bound * moved, name


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_what_comes_between_replays(optimizer: str) -> None:
    """Short batches, another learning rate, scores: parameters and losses are those of steps launched one by one.

    From page-locked memory with ids of 32 bits, as studies have them.
    """
    states, losses = [], []
    for recorded in (True, False):
        model = DLRM(build("robe", [1_000_000] * FEATURES, 16, 100_000, 1), 13, [32], [32]).to(GPU)
        stepper = build_optimizer(optimizer, model, 0.01, in_backward=True)
        step = Step(model, stepper, BATCH, GPU)
        step.recorder = step.recorder if recorded else None
        for number, whole in enumerate(batches(11)):
            batch = Batch(whole.dense, whole.ids.to(torch.uint32), whole.label)
            batch = batch.changed(
                lambda column, short=number in (5, 9): column[: 100 if short else None].pin_memory()
            )
            if number == 7:
                stepper.param_groups[0]["lr"] = 0.005
                with torch.no_grad():
                    assert model(batch.dense.to(GPU), batch.ids.to(GPU)).isfinite().all()
            step(batch, len(batch.label))
        assert (step._replay is not None) == recorded
        states.append([parameter.detach() for parameter in model.parameters()])
        losses.append(step.loss())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for ours, theirs in zip(*states, strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()


def test_a_student_whose_rate_falls_in_stairs_is_recorded_anew_for_each() -> None:
    """Recorded steps towards a teacher are those that are launched one by one."""
    states, rates = [], Rates("linear", 0.01, 24, stairs=4)
    for recorded in (True, False):
        model = DLRM(build("robe", [1_000_000] * FEATURES, 16, 100_000, 1), 13, [32], [32]).to(GPU)
        stepper = build_optimizer("adagrad", model, 0.01, in_backward=True)
        step = Step(model, stepper, BATCH, GPU, distill=Distill(0.9, 2.0))
        step.recorder = step.recorder if recorded else None
        for number, whole in enumerate(batches(24)):
            scores = torch.randn(BATCH, generator=torch.Generator().manual_seed(number))
            columns = (whole.dense, whole.ids.to(torch.uint32), whole.label, scores)
            size = 100 if number in (5, 9) else BATCH
            rates.set(stepper, number)
            step(Batch(*(column[:size].pin_memory() for column in columns)), size)
        assert (step._replay is not None) == recorded
        states.append([parameter.detach() for parameter in model.parameters()])
    for ours, theirs in zip(*states, strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()


def test_steps_wait_for_nothing() -> None:
    step, _ = trained("adagrad", GPU, 100_000)
    waiting = [batch.changed(torch.Tensor.pin_memory) for batch in batches(3)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in waiting:
            step(batch, BATCH)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_positions_beyond_32_bits() -> None:
    """A table of 2^31 + 2^20 numbers, looked up and stepped at its end."""
    from sizewise.embedding.kernels.gpu import DeviceBlocks

    rows, dim = (2**31 + 2**20) // 128, 128
    if torch.cuda.mem_get_info()[0] < 2 * rows * dim * 4:
        pytest.skip("not enough memory")
    device = DeviceBlocks(Blocks(1, dim, dim, dim, None, torch.zeros(1, dtype=torch.int64)), GPU)
    table = torch.zeros(rows, dim, device=GPU)
    table[-1] = 7.0
    ids = torch.tensor([[rows - 1], [rows]], device=GPU)  # the last row, and one that is not there
    assert device.lookup(table, ids)[:, 0, 0].tolist() == [7.0, 0.0]
    device.scatter(table, ids, torch.ones(2, 1, dim, device=GPU), -2.0)
    assert table[-1].unique().tolist() == [5.0]
    assert float(table[:-1].abs().max()) == 0.0
