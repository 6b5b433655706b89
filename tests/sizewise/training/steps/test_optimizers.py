"""Every setting of the optimizers against a transcription of its own, in float64."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from sizewise.config.trial import TrialConfig
from sizewise.embedding import Bags, Embedding, build
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batch import Batch, in_parts
from sizewise.training.steps.dropout import ReLUWithDropout, add_dropout, seed_dropout, steps_are_seeded
from sizewise.training.steps.optimizers import build_optimizer, clip_gradients
from sizewise.training.steps.step import Step
from sizewise_core.errors import InputError

CPU = torch.device("cpu")
CARDINALITIES = [30, 7, 300]
STEPS, RATE = 6, 0.05


def make(method: str = "hash") -> DLRM:
    return DLRM(build(method, CARDINALITIES, 8, 4_000, 1), 4, [16], [16])


def batches(count: int = STEPS, rows: int = 33) -> list[Batch]:
    generator = torch.Generator().manual_seed(5)
    return [
        Batch(
            torch.randn(rows, 4, generator=generator),
            torch.randint(0, 2**32, (rows, 3), generator=generator),
            (torch.rand(rows, generator=generator) < 0.3).float(),
        )
        for _ in range(count)
    ]


class Transcribed:
    """What optimizers do, from their definitions, in NumPy."""

    def __init__(self, name: str, decay: float, eps: float, clip: float | None, row: int) -> None:
        self.name, self.decay, self.eps, self.clip, self.row = name, decay, eps, clip, row
        self.first: dict[str, Any] = {}
        self.second: dict[str, Any] = {}

    def step(
        self, values: dict[str, Any], gradients: dict[str, Any], rates: dict[str, float], number: int
    ) -> None:
        if self.clip is not None:
            norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
            gradients = {name: g * min(1.0, self.clip / norm) for name, g in gradients.items()}
        for name, gradient in gradients.items():
            g = gradient + self.decay * values[name]
            if self.name == "sgd":
                values[name] = values[name] - rates[name] * g
            elif self.name == "adam":
                self.first[name] = 0.9 * self.first.get(name, 0.0) + 0.1 * g
                self.second[name] = 0.999 * self.second.get(name, 0.0) + 0.001 * g**2
                mean, square = self.first[name] / (1 - 0.9**number), self.second[name] / (1 - 0.999**number)
                values[name] = values[name] - rates[name] * mean / (np.sqrt(square) + self.eps)
            elif self.name == "rowwise_adagrad" and name.startswith("embedding"):
                flat, moved = g.reshape(-1), values[name].reshape(-1).copy()
                sums = self.first.setdefault(name, {})
                for begin in range(0, len(flat), self.row):
                    part = slice(begin, begin + self.row)
                    sums[begin] = sums.get(begin, 0.0) + (flat[part] ** 2).mean()
                    moved[part] -= rates[name] * flat[part] / (np.sqrt(sums[begin]) + self.eps)
                values[name] = moved.reshape(g.shape)
            else:
                self.first[name] = self.first.get(name, 0.0) + g**2
                values[name] = values[name] - rates[name] * g / (np.sqrt(self.first[name]) + self.eps)


@pytest.mark.parametrize(
    ("name", "method", "settings", "clip"),
    [
        ("rowwise_adagrad", "hash", {}, None),
        (
            "rowwise_adagrad",
            "robe",
            {"weight_decay": 0.01, "embedding_learning_rate": 0.2, "epsilon": 1e-4},
            0.1,
        ),
        ("adagrad", "robe", {"embedding_learning_rate": 0.2, "epsilon": 1e-4}, None),
        ("adagrad", "robe", {"weight_decay": 0.01}, 0.1),
        ("sgd", "hash", {"weight_decay": 0.01, "embedding_learning_rate": 0.2}, None),
        ("adam", "robe", {"weight_decay": 0.01, "epsilon": 1e-3}, 0.1),
    ],
)
def test_steps_are_those_of_the_definition(
    name: str, method: str, settings: dict[str, Any], clip: float | None
) -> None:
    model = make(method)
    wide = deepcopy(model).double()
    optimizer = build_optimizer(name, model, RATE, in_backward=clip is None, **settings)
    clip_gradients(optimizer, clip)
    step = Step(model, optimizer, 33, CPU)
    row = 8
    eps = settings.get("epsilon", 1e-8 if name == "adam" else 1e-10)
    transcribed = Transcribed(name, settings.get("weight_decay", 0.0), eps, clip, row)
    values = {n: p.detach().numpy().copy() for n, p in wide.named_parameters()}
    own = settings.get("embedding_learning_rate", RATE)
    rates = {n: own if n.startswith("embedding") else RATE for n in values}
    for number, batch in enumerate(batches(), 1):
        step(batch, 33)
        wide.zero_grad()
        logits = wide(batch.dense.double(), batch.ids)
        binary_cross_entropy_with_logits(logits, batch.label.double()).backward()
        gradients = {n: p.grad.numpy().copy() for n, p in wide.named_parameters() if p.grad is not None}
        transcribed.step(values, gradients, rates, number)
        with torch.no_grad():
            for n, p in wide.named_parameters():
                p.copy_(torch.from_numpy(values[n]))
    for n, p in model.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), values[n], rtol=2e-3, atol=2e-5, err_msg=n)


@pytest.mark.parametrize("lists", [False, True])
def test_a_batch_in_parts_is_the_batch(lists: bool) -> None:
    weights, losses = [], []
    for parts in (1, 4):
        model = make()
        step = Step(model, build_optimizer("sgd", model, 1.0), 33, CPU).in_parts(parts)
        for batch in batches():
            if lists:  # of none, one, two or three values
                lengths = (torch.arange(33) % 4).repeat(2)
                offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
                numbers = batch.ids.flatten()[: int(offsets[-1])]
                batch = replace(batch, ids=batch.ids[:, :1], bags=Bags(numbers, offsets))
            step(batch, 33)
        losses.append(step.loss())
        weights.append(model.state_dict())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6)


def test_dropout_is_drawn_anew_at_every_step_and_the_same_in_every_process() -> None:
    layer, numbers = ReLUWithDropout(0.25), torch.randn(4_000, dtype=torch.float64)

    def drawn(iteration: int, rank: int = 0) -> torch.Tensor:
        seed_dropout(1, iteration, rank)
        kept: torch.Tensor = layer(numbers)
        return kept

    once = drawn(7)
    zero = (once == 0) & (numbers > 0)
    torch.testing.assert_close(once, torch.where(zero, 0.0, relu(numbers) / 0.75), rtol=1e-12, atol=0)
    assert float(zero.sum() / (numbers > 0).sum()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(once, drawn(7))
    assert not torch.equal(once, drawn(8))
    assert not torch.equal(once, drawn(7, rank=1))
    assert torch.equal(layer.eval()(numbers), relu(numbers))
    model = make()
    names = list(model.state_dict())
    add_dropout(model, 0.25)
    assert sum(isinstance(module, ReLUWithDropout) for module in model.modules()) == 3
    assert list(model.state_dict()) == names
    plain = make()
    plain.bottom, plain.top = torch.nn.Identity(), torch.nn.Identity()
    with pytest.raises(InputError, match="no hidden layer"):
        add_dropout(plain, 0.25)


def test_what_no_checkpoint_keeps_of_ones_own_draws_is_seeded_by_the_step(
    trial_config: Callable[..., TrialConfig],
) -> None:
    own, dlrm = trial_config(model="nets:Net"), trial_config()
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    found = [steps_are_seeded(own, *where) for where in ((1, cpu), (2, cpu), (1, gpu))]
    assert found == [False, True, True]
    assert not steps_are_seeded(dlrm, 2, gpu)
    assert steps_are_seeded(trial_config(dropout=0.1), 1, cpu)


def test_embeddings_and_the_rest_are_the_groups() -> None:
    model = make()
    optimizer = build_optimizer("adagrad", model, RATE, in_backward=True, embedding_learning_rate=0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [RATE, 0.5]
    assert isinstance(model.embedding, Embedding)
    assert optimizer.param_groups[1]["params"] == list(model.embedding.parameters())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_a_worker_without_rows_still_takes_its_part() -> None:
    """Else the others would wait for its gradients for ever."""
    empty = Batch(torch.zeros(0, 3), torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0))
    assert [len(part.label) for part in in_parts(empty, 4)] == [0]
