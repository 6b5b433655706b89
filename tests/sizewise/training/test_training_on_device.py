"""On a GPU: steps that are replayed from CUDA graphs are those that are launched one by one, whatever goes with them.

TRITON_INTERPRET=0 pytest tests/sizewise/training/test_training_on_device.py
"""

import os
from typing import Any

import pytest
import torch

from sizewise.embedding import build
from sizewise.models.dlrm import DLRM
from sizewise.training.batch import Batch
from sizewise.training.dropout import add_dropout, seed_dropout
from sizewise.training.optimizers import build_optimizer, clip_gradients
from sizewise.training.schedule import Rates
from sizewise.training.step import Step

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
