"""The learning rate of each iteration: a function of the iteration and of how many there are, and of nothing else.

    rates = Rates("linear", learning_rate=0.02, total=4000)
    rates(0), rates(2000), rates(3999)      # 0.02, 0.01, 0.000005
    rates.set(optimizer, 2000)
    Rates("cosine", 0.02, 4000, warmup=200, share=0.2)(3000)        # 0.02: it falls from iteration 3200 on

So a trial that goes on from a checkpoint has the rates that it would have had. The rate rises over the warm-up, stays,
and falls over the last `share` of the trial (or from `start` on): to what is one step above zero, in equal steps
(`linear`), as half a wave (`cosine`), or as a power of what is left (`polynomial`; 2 in MLPerf's recipes).

Where it falls depends on the trial's length, so a shorter trial is not the beginning of a longer one. Up to where it
begins to fall they are the same, unless the warm-up is a share of the trial (see `stable_iterations`).

A step that is recorded as a CUDA graph has its rate written into it, and is recorded anew when the rate changes.
There the rate rises and falls in `STAIRS` equal stairs each, as high as the rate in the middle of each.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

import torch

from sizewise.config.sections.train import TrainSpec

STAIRS = 100
Decay = Literal["none", "linear", "cosine", "polynomial"]


@dataclass(frozen=True)
class Rates:
    """The learning rates of a trial.

    Attributes:
        decay: how they fall.
        learning_rate: the highest one.
        total: iterations of the trial.
        stairs: how many different rates there are at most in the warm-up, and in the decay; None: one an iteration.
        warmup: over how long they rise: a share of the trial, or iterations where it is an integer.
        share: over how long they fall: as `warmup`. At most what the warm-up leaves of the trial.
        start: from where on they fall: as `warmup`; None: so that they have fallen when the trial ends.
        power: of the polynomial.
        embeddings: the highest rate of the embeddings, the optimizer's second group; None: as all others.
    """

    decay: Decay
    learning_rate: float
    total: int
    stairs: int | None = None
    warmup: float | int = 0
    share: float | int = 1.0
    start: float | int | None = None
    power: float = 2.0
    embeddings: float | None = None

    @classmethod
    def of(cls, train: TrainSpec, learning_rate: float, total: int, stairs: int | None = None) -> Self:
        """The rates that a trial's settings ask for.

        Args:
            train: the settings.
            learning_rate, total, stairs: as for `Rates`.
        """
        return cls(
            train.decay,
            learning_rate,
            total,
            stairs,
            train.schedule_warmup,
            train.decay_share,
            train.decay_start,
            train.decay_power,
            train.embedding_learning_rate,
        )

    @property
    def rising(self) -> int:
        """Iterations of the warm-up."""
        return _iterations(self.warmup, self.total)

    @property
    def begin(self) -> int:
        """The first iteration at which the rate begins to fall; the trial's length where it never does."""
        if self.decay == "none":
            return self.total
        if self.start is not None:
            return max(_iterations(self.start, self.total), self.rising)
        return self.total - self.falling

    @property
    def falling(self) -> int:
        """Over how many iterations the rate falls."""
        length = _iterations(self.share, self.total)
        if self.start is None:
            return max(min(length, self.total - self.rising), 0)
        return length if isinstance(self.share, int) else max(min(length, self.total - self.begin), 1)

    def factor(self, iteration: int) -> float:
        """The share of the highest rate that a step has, numbered from 0."""
        if iteration < self.rising:
            return self._rises(iteration)
        if iteration < self.begin:
            return 1.0
        length, gone = self.falling, min(iteration - self.begin, self.falling - 1)
        left = (length - gone) / length
        if self.stairs is not None and self.stairs < length:
            stair = gone * self.stairs // length
            left = (2 * (self.stairs - stair) - 1) / (2 * self.stairs)
        if self.decay == "cosine":
            return (1 - math.cos(math.pi * left)) / 2
        return left if self.decay == "linear" else left**self.power

    def __call__(self, iteration: int) -> float:
        """The rate of a step, numbered from 0."""
        return self.learning_rate * self.factor(iteration)

    def set(self, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        """Have an optimizer take its next step, of that number, at its rate."""
        if self.decay == "none" and not self.rising:
            return  # what the optimizer was built with, to the last bit
        factor = self.factor(iteration)
        for number, group in enumerate(optimizer.param_groups):
            own = self.embeddings if number and self.embeddings is not None else self.learning_rate
            group["lr"] = own * factor

    def _rises(self, iteration: int) -> float:
        if self.stairs is None or self.stairs >= self.rising:
            return (iteration + 1) / self.rising
        return (2 * (iteration * self.stairs // self.rising) + 1) / (2 * self.stairs)


def stable_iterations(train: TrainSpec, per_epoch: int, epochs: int) -> int:
    """How many iterations a trial has in common with longer and shorter ones: those before its rate falls.

    Args:
        train: its settings, whose `stable` says that there are any.
        per_epoch: iterations of an epoch.
        epochs: of the trial.
    """
    return min(Rates.of(train, 1.0, epochs * per_epoch).begin, epochs * per_epoch)


def _iterations(length: float | int, total: int) -> int:
    return length if isinstance(length, int) else round(length * total)
