"""Dropout in the MLPs of a model: what a hidden layer gives is zero for a random part of its numbers, while training.

It is put behind every `nn.ReLU` of the model around the embeddings, has no state, and is absent where a model is scored
or exported. What is dropped follows from the trial's seed, the iteration and the worker, so that a trial that is
resumed drops what it would have.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from sizewise.config.trial import TrialConfig
from sizewise.embedding.ids.hashing import derived_seed
from sizewise.models import Model, is_own
from sizewise_core.errors import InputError


class ReLUWithDropout(nn.ReLU):
    """max(x, 0), of which in training each number is zero with probability `share`, and the others are larger for it.

    Args:
        share: of the numbers, that are dropped.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, numbers: Tensor) -> Tensor:
        """Args: numbers: of any shape."""
        return dropout(super().forward(numbers), self.share, self.training)


def add_dropout(model: Model, share: float) -> None:
    """Have the hidden layers of a model drop a share of what they give.

    Args:
        model: around its embedding, which stays as it is.
        share: 0 changes nothing.

    Raises:
        InputError: the model has no hidden layers with `nn.ReLU`.
    """
    if not share:
        return
    inside = set(model.embedding.modules())
    found = [
        (parent, name)
        for parent in model.modules()
        if parent not in inside
        for name, child in parent.named_children()
        if type(child) is nn.ReLU
    ]
    if not found:
        raise InputError(
            f"train.dropout: model {type(model).__name__} has no hidden layer with torch.nn.ReLU: drop this setting, "
            "or have the model do it itself"
        )
    for parent, name in found:
        setattr(parent, name, ReLUWithDropout(share))


def steps_are_seeded(config: TrialConfig, world: int, device: torch.device) -> bool:
    """Whether every step has a seed for what it draws: with dropout, and where a model of one's own may draw.

    A checkpoint has the state of PyTorch's generator on the CPU of the first worker, which is enough for a single
    worker without a GPU: there one's own model goes on drawing from that.

    Args:
        config: of the trial.
        world: workers.
        device: where this one trains.
    """
    elsewhere = world > 1 or device.type != "cpu"
    return bool(config.train.dropout) or (elsewhere and is_own(config.model.kind))


def seed_dropout(seed: int, iteration: int, rank: int) -> None:
    """Have the next step drop what it would drop in any process.

    Args:
        seed: of the trial.
        iteration: the step's number.
        rank: of the worker.
    """
    mixed = seed + iteration * 0x9E3779B97F4A7C15 + rank * 0xBF58476D1CE4E5B9
    torch.manual_seed(derived_seed(mixed % 2**64, 0))
