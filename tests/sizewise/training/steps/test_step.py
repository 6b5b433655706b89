"""The training step: the same values whether it is launched anew or recorded once and replayed.

A CUDA graph cannot be had on a CPU, but all that surrounds it can: warm-up, buffers that stay where they are, short
batches, changed learning rates, recordings that fail. `recorder` stands for the graph: recording runs the work and
takes back what it did to any tensor, as if it had only been written down; replaying runs it.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sizewise.embedding import Bags, build
from sizewise.embedding.in_backward import step_tables
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batches import Batch
from sizewise.training.scoring.predicting import predict
from sizewise.training.steps.optimizers import AdagradCountedThere, build_optimizer, restore
from sizewise.training.steps.step import WARM_UP, Distill, Step, graph_blocker

CPU = torch.device("cpu")
CARDINALITIES = [30, 7, 300]


def make(optimizer: str = "sgd", method: str = "robe", **model: Any) -> tuple[DLRM, torch.optim.Optimizer]:
    embedding = build(method, CARDINALITIES, 8, 4_000, 1)
    dlrm = DLRM(embedding, 4, [16], [16], **model)
    return dlrm, build_optimizer(optimizer, dlrm, 0.1, in_backward=True)


def batches(sizes: list[int]) -> list[Batch]:
    generator = torch.Generator().manual_seed(5)
    return [
        Batch(
            torch.randn(rows, 4, generator=generator),
            torch.randint(0, 2**32, (rows, 3), generator=generator),
            (torch.rand(rows, generator=generator) < 0.3).float(),
        )
        for rows in sizes
    ]


class Recorder:
    """Stands for `cuda_graph`."""

    def __init__(self, model: DLRM) -> None:
        self.model, self.recordings = model, 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], object]:
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        work()
        self.model.load_state_dict(before)
        self.recordings += 1
        return work


SIZES = [32] * 7 + [5] + [32] * 4 + [5]  # two epochs, each ending in a short batch


def test_recorded_steps_are_those_that_are_launched_anew() -> None:
    """Also around short batches, and after the learning rate has changed."""
    states, losses = [], []
    for recorded in (False, True):
        model, optimizer = make()
        recorder = Recorder(model)
        step = Step(model, optimizer, 32, CPU, recorder=recorder if recorded else None)
        for number, batch in enumerate(batches(SIZES)):
            if number == 9:
                optimizer.param_groups[0]["lr"] = 0.02
            if number == 6:  # the stand-in cannot take back the loss of a recording: ask for it in between
                step.loss()
            step(batch, len(batch.label))
        assert recorder.recordings == (2 if recorded else 0)
        states.append(model.state_dict())
        losses.append(step.loss())
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def test_replays_read_their_batch_from_where_the_recording_did() -> None:
    model, optimizer = make()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].data_ptr()))
    step = Step(model, optimizer, 32, CPU, recorder=lambda work: work)
    for batch in batches([32] * (WARM_UP + 4)):
        step(batch, 32)
    assert len(set(seen[WARM_UP:])) == 1


def test_the_loss_is_the_mean_of_all_rows_since_it_was_asked_for() -> None:
    model, optimizer = make()
    expected, rows = 0.0, 0
    step = Step(model, optimizer, 32, CPU)
    for batch in batches([32, 32, 5]):
        with torch.no_grad():
            logits = model(batch.dense, batch.ids)
        expected += float(
            torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.label, reduction="sum")
        )
        rows += len(batch.label)
        step(batch, len(batch.label))
    assert step.loss() == pytest.approx(expected / rows, rel=1e-6)
    assert step.loss() == 0.0


def with_scores(batch: Batch, seed: int = 3) -> Batch:
    scores = torch.randn(len(batch.label), generator=torch.Generator().manual_seed(seed))
    return replace(batch, teacher=scores)


def test_the_loss_of_a_student_is_a_mean_of_label_and_teacher() -> None:
    """By its formula in float64, and its gradient by differences."""
    batch, logits = with_scores(batches([40])[0]), torch.randn(40, dtype=torch.float64, requires_grad=True)
    for weight, temperature in ((0.9, 1.0), (0.3, 2.5), (1.0, 4.0)):
        distill = Distill(weight, temperature)
        t, y, z = batch.teacher.double(), batch.label.double(), logits
        soft, p = torch.sigmoid(t / temperature), torch.sigmoid(z / temperature)
        hard = -(y * torch.log(torch.sigmoid(z)) + (1 - y) * torch.log(1 - torch.sigmoid(z))).sum()
        towards = -(soft * torch.log(p) + (1 - soft) * torch.log(1 - p)).sum()
        expected = (1 - weight) * hard + weight * temperature**2 * towards
        ours = distill.summed(z, y, t)
        torch.testing.assert_close(ours, expected)
        assert torch.autograd.gradcheck(lambda z, d=distill, y=y, t=t: d.summed(z, y, t), logits)


def test_recorded_steps_of_a_student_are_those_that_are_launched_anew() -> None:
    states = []
    for recorded in (False, True):
        model, optimizer = make()
        recorder = Recorder(model) if recorded else None
        step = Step(model, optimizer, 32, CPU, recorder=recorder, distill=Distill())
        for number, batch in enumerate(batches(SIZES)):
            step(with_scores(batch, number), len(batch.label))
        states.append(model.state_dict())
    plain, optimizer = make()
    step = Step(plain, optimizer, 32, CPU)
    for number, batch in enumerate(batches(SIZES)):
        step(with_scores(batch, number), len(batch.label))  # scores that nobody asks for change nothing
    without, optimizer = make()
    step = Step(without, optimizer, 32, CPU)
    for batch in batches(SIZES):
        step(batch, len(batch.label))
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name
        assert torch.equal(plain.state_dict()[name], without.state_dict()[name]), name
    assert any(not torch.equal(states[0][name], value) for name, value in without.state_dict().items())


def test_a_recording_that_fails_costs_speed_and_not_the_trial(caplog: pytest.LogCaptureFixture) -> None:
    def broken(work: Callable[[], None]) -> Callable[[], object]:
        raise RuntimeError("operation not permitted when stream is capturing")

    model, optimizer = make()
    plain, plain_optimizer = make()
    step = Step(model, optimizer, 32, CPU, recorder=broken)
    twin = Step(plain, plain_optimizer, 32, CPU)
    with caplog.at_level(logging.WARNING):
        for batch in batches([32] * 6):
            step(batch, 32)
            twin(batch, 32)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "operation not permitted" in caplog.text
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_blocks_a_recording_is_named() -> None:
    assert graph_blocker(*make(), world=1) == ""
    assert "several workers" in graph_blocker(*make(), world=2)
    assert "counts its steps on the host" in graph_blocker(*make("adagrad"), world=1)
    assert "clusters" in graph_blocker(*make(method="cce"), world=1)


def test_bfloat16_mlps_learn_what_float32_ones_do() -> None:
    """Weights stay float32; gradients and logits differ by bfloat16's eight bits."""
    logits = []
    for precision in ("float32", "bfloat16"):
        model, optimizer = make(precision=precision)
        step = Step(model, optimizer, 64, CPU)
        for batch in batches([64] * 20):
            step(batch, 64)
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        probe = batches([200])[0]
        logits.append(model(probe.dense, probe.ids).detach())
        assert logits[-1].dtype == torch.float32
    assert not torch.equal(*logits)
    torch.testing.assert_close(*logits, rtol=0, atol=0.02)


def test_adagrad_whose_steps_are_counted_beside_the_parameters_is_that_of_torch() -> None:
    """As on a GPU under PyTorch before 2.12; a checkpoint of the one goes on as the other."""
    states = []
    for order in ((True, False), (False, True)):
        model, _ = make()
        tables, saved = [model.embedding.pool], None
        for counted_there in order:
            kind = AdagradCountedThere if counted_there else torch.optim.Adagrad
            optimizer = kind(list(model.parameters()), lr=0.1)
            step_tables(optimizer, tables)
            how = optimizer.param_groups[0].get("capturable")
            if saved is not None:
                restore(optimizer, saved)
            assert optimizer.param_groups[0].get("capturable") == how
            for batch in batches([32] * 3):
                optimizer.zero_grad()
                model(batch.dense, batch.ids).square().sum().backward()
                optimizer.step()
            saved = optimizer.state_dict()
        states.append((model.state_dict(), saved))
    (ours, our_steps), (theirs, their_steps) = states
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-7)
    for state, twin in zip(our_steps["state"].values(), their_steps["state"].values(), strict=True):
        assert state["step"] == twin["step"] == 6
        torch.testing.assert_close(state["sum"], twin["sum"], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_lists_are_stepped_by_and_scored_and_never_recorded() -> None:
    """Lists of one value train and score as single values do; a graph, whose inputs have one shape, serves no lists."""
    single = batches([32] * 6)
    lists = [
        replace(batch, ids=batch.ids[:, :1], bags=Bags(batch.ids[:, 1:].T.flatten(), torch.arange(65)))
        for batch in single
    ]
    scores = []
    for rows in (single, lists):
        model, optimizer = make("adagrad")
        recorder = Recorder(model)
        step = Step(model, optimizer, 32, CPU, recorder=recorder if rows is lists else None)
        for batch in rows:
            step(batch, 32)
        assert not recorder.recordings
        scores.append(predict(model, rows, CPU)[1])
    torch.testing.assert_close(torch.from_numpy(scores[1]), torch.from_numpy(scores[0]), rtol=1e-5, atol=1e-6)
