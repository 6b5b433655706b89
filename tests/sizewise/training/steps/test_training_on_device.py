"""On a GPU: steps that are replayed from CUDA graphs are those that are launched one by one, whatever goes with them.

TRITON_INTERPRET=0 pytest tests/sizewise/training/steps/test_training_on_device.py
"""

import os
from typing import Any

import pytest
import torch

from sizewise.embedding import METHODS, Bags, build
from sizewise.models import MODELS
from sizewise.models import build as build_model
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batch import Batch
from sizewise.training.steps.dropout import add_dropout, seed_dropout
from sizewise.training.steps.optimizers import build_optimizer, clip_gradients
from sizewise.training.steps.schedule import Rates
from sizewise.training.steps.step import Step

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(
        os.environ["TRITON_INTERPRET"] != "0", reason="in Triton's interpreter: TRITON_INTERPRET=0"
    ),
]
ROWS, STEPS = 512, 16


def trained(
    recorded: bool,
    name: str,
    dropout: float = 0.0,
    clip: float | None = None,
    parts: int = 1,
    **settings: Any,
) -> tuple[dict[str, torch.Tensor], Step]:
    device, generator = torch.device("cuda"), torch.Generator().manual_seed(1)
    model = DLRM(build("robe", [1_000] * 8, 16, 40_000, 1), 13, [32], [32]).to(device)
    add_dropout(model, dropout)
    optimizer = build_optimizer(name, model, 0.05, in_backward=clip is None and parts == 1, **settings)
    clip_gradients(optimizer, clip)
    step = Step(model, optimizer, ROWS, device).in_parts(parts)
    if not recorded:
        step.recorder = None
    rates = Rates(
        "cosine", 0.05, STEPS, warmup=3, share=6, embeddings=settings.get("embedding_learning_rate")
    )
    for number in range(STEPS):
        ids = torch.randint(0, 1_000, (ROWS, 8), generator=generator)
        label = (torch.rand(ROWS, generator=generator) < 0.3).float()
        batch = Batch(torch.randn(ROWS, 13, generator=generator), ids, label)
        rates.set(optimizer, number)
        seed_dropout(1, number, 0)
        step(batch, ROWS)
    return {name: value.cpu() for name, value in model.state_dict().items()}, step


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "sgd", "dropout": 0.2},
        {"name": "sgd", "dropout": 0.2, "clip": 0.05, "parts": 3, "weight_decay": 0.01},
        {"name": "adagrad", "embedding_learning_rate": 0.2},
        {"name": "rowwise_adagrad", "clip": 0.05, "epsilon": 1e-3},
    ],
)
def test_replayed_steps_are_those_that_are_launched(settings: dict[str, Any]) -> None:
    launched, _ = trained(False, **settings)
    replayed, step = trained(True, **settings)
    assert step.recorder is not None  # nothing was in the way of a recording
    for name, value in launched.items():
        torch.testing.assert_close(
            replayed[name], value, rtol=2e-3, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


OPTIONS: dict[str, dict[str, Any]] = {"din": {"target": 0, "attention_mlp": [16]}}
MADE = {"hash": 40_000, "full": 8 * 1_000 * 16 * 4}


def model_on(device: str, kind: str, method: str, precision: Any) -> torch.nn.Module:
    model = build_model(
        kind, build(method, [1_000] * 8, 16, MADE[method], 1), 13, OPTIONS.get(kind, {}), precision
    )
    return model.to(device)


def batch_of(kind: str, number: int) -> Batch:
    """Rows whose last feature is a list, of none to nine values, where the model needs one."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(0, 1_000, (ROWS, 8), generator=generator)
    label = (ids[:, 0] % 3 == 0).float()
    dense, bags = torch.randn(ROWS, 13, generator=generator), None
    if "list" in MODELS[kind].columns.values():
        ids, lengths = ids[:, :7], torch.randint(0, 10, (ROWS,), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        bags = Bags(torch.randint(0, 1_000, (int(offsets[-1]),), generator=generator), offsets)
    return Batch(dense, ids, label, bags=bags)


@pytest.mark.parametrize("method", MADE)
@pytest.mark.parametrize("kind", MODELS.own)
def test_every_model_trains_on_a_card_as_on_a_cpu(kind: str, method: str) -> None:
    """The same steps, on a card replayed where rows have no lists: logits before and after, and every weight."""
    assert method in METHODS
    states, logits, recorded = {}, {}, None
    for device in ("cpu", "cuda"):
        model = model_on(device, kind, method, "float32")
        step = Step(model, build_optimizer("sgd", model, 0.05, in_backward=True), ROWS, torch.device(device))
        for number in range(8):
            step(batch_of(kind, number), ROWS)
        if device == "cuda":
            recorded = step.recorder is not None
        states[device] = {name: value.cpu() for name, value in model.state_dict().items()}
        held_out = batch_of(kind, 99).changed(lambda column, device=device: column.to(device))
        logits[device] = model(*held_out.inputs()).detach().cpu()
    torch.testing.assert_close(logits["cuda"], logits["cpu"], rtol=2e-3, atol=2e-3)
    for name, value in states["cpu"].items():
        torch.testing.assert_close(states["cuda"][name], value, rtol=5e-3, atol=1e-3)
    assert recorded == ("list" not in MODELS[kind].columns.values())


@pytest.mark.parametrize("kind", MODELS.own)
def test_bfloat16_is_near_float32_on_a_card(kind: str) -> None:
    rows = batch_of(kind, 1).changed(lambda column: column.cuda()).inputs()
    exact, rounded = (
        model_on("cuda", kind, "hash", precision)(*rows) for precision in ("float32", "bfloat16")
    )
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
