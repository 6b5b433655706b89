"""The computed footprint against what PyTorch really keeps, and the shares of a card that follow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sizewise.config.trial import TrialConfig
from sizewise.training.footprint import CONTEXT_BYTES, SPARE, gpu_share, training_bytes
from sizewise.training.input.batches import Split
from sizewise.training.loop import build_model, optimizer_bytes
from sizewise.training.steps.dropout import add_dropout
from sizewise.training.steps.optimizers import optimizer_of
from sizewise_prep.shards.manifest import Manifest


def kept(config: TrialConfig) -> int:
    """Bytes of parameters, gradients and optimizer state after a step, and of what its forward pass saved."""
    manifest = Manifest.load(Path(config.data))
    model = build_model(config, manifest)
    add_dropout(model, config.train.dropout)
    optimizer = optimizer_of(config, model, world=2)  # with gradients of tables, as on GPUs
    batch = Split.open(Path(config.data), "train").batch(0, 0, config.train.batch_size, 1, 0, 1)
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(*batch.inputs()), batch.label)
    for parameter in model.parameters():  # counted below
        saved.pop(parameter.untyped_storage().data_ptr(), None)
    activations = sum(saved.values())
    loss.backward()
    optimizer.step()
    tensors = [t for p in model.parameters() for t in (p, p.grad) if t is not None]
    return sum(t.numel() * t.element_size() for t in tensors) + optimizer_bytes(optimizer) + activations


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("robe", {"block_len": 8}),
        ("robe", {"block_len": 8, "storage": "int8"}),
        ("robe", {"block_len": 8, "storage": "int4"}),
        ("hash", {}),
        ("hash", {"width": 2}),
        ("hot", {"width": 8}),
        ("hot", {"width": 1, "storage": "int8"}),
        ("qr", {}),
        ("tt", {}),
    ],
)
@pytest.mark.parametrize(("budget", "batch"), [(200_000, 1024), (4_000_000, 128)])
def test_the_computed_bytes_cover_what_training_keeps(
    trial_config: Callable[..., TrialConfig],
    method: str,
    options: dict[str, Any],
    optimizer: str,
    budget: int,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sizewise.training.footprint.EVALUATION_BATCH", 0)  # this measures a step
    config = trial_config(
        method=method, options=options, memory_budget=budget, batch_size=batch, optimizer=optimizer
    )
    computed = training_bytes(config, features=26, dense=13)
    assert kept(config) <= computed * SPARE, f"{kept(config) / computed:.2f}"


@pytest.mark.parametrize("method", ["robe", "hash"])
def test_dropout_and_row_wise_states_are_counted(
    trial_config: Callable[..., TrialConfig], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizewise.training.footprint.EVALUATION_BATCH", 0)
    fields = {"method": method, "options": {}, "dropout": 0.2, "memory_budget": 4_000_000, "batch_size": 256}
    rows = trial_config(**fields, optimizer="rowwise_adagrad")
    numbers = trial_config(**fields, optimizer="adagrad")
    computed = training_bytes(rows, features=26, dense=13)
    assert kept(rows) <= computed * SPARE
    assert kept(numbers) - kept(rows) == pytest.approx(4_000_000 * 7 / 8, rel=0.01)
    assert training_bytes(numbers, features=26, dense=13) - computed == pytest.approx(
        4_000_000 * 7 / 8, rel=0.01
    )
    parts = trial_config(**fields, optimizer="rowwise_adagrad", accumulate=4)
    assert training_bytes(parts, features=26, dense=13) < computed


def test_lists_count_by_their_mean_length(trial_config: Callable[..., TrialConfig]) -> None:
    config = trial_config(memory_budget=20_000, batch_size=16_384)
    single = training_bytes(config, features=26, dense=13)
    assert training_bytes(config, features=26, dense=13, looked_up=26) == single
    rows, dim = 16_384, config.model.dim
    lists = training_bytes(config, features=26, dense=13, looked_up=214.0)
    assert lists - single == rows * dim * (2 * 8 * (214 - 26) + 2 * 4 * 214)


def test_it_is_not_far_more_than_that_where_models_are_large(
    trial_config: Callable[..., TrialConfig],
) -> None:
    config = trial_config(memory_budget=40_000_000, batch_size=1024, optimizer="adam")
    assert training_bytes(config, features=26, dense=13) < 2 * kept(config)


def test_small_models_share_a_card_and_one_that_does_not_fit_gets_none() -> None:
    card = 24_000_000_000
    assert gpu_share(10_000_000, card) == 1 / 16
    assert gpu_share(card // 5, card) == 1 / 2
    assert gpu_share(card // 2, card) == 1
    assert gpu_share(card, card) is None
    for needed in range(0, card, card // 50):
        share = gpu_share(needed, card)
        if share is not None:
            assert round(1 / share) * (needed * SPARE + CONTEXT_BYTES) <= card
