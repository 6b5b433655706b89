"""The learning rate of each iteration: a function of the iteration and of how many there are, and of nothing else.

    rates = Rates("linear", learning_rate=0.02, total=4000)
    rates(0), rates(2000), rates(3999)      # 0.02, 0.01, 0.000005
    rates.set(optimizer, 2000)

So a trial that goes on from a checkpoint has the rates that it would have had. With `linear` decay the rate falls
in equal steps and would be zero at the iteration after the last one. How it falls depends on the trial's length, so a
shorter trial is not the beginning of a longer one: decayed trials have learning curves of their own.

A step that is recorded as a CUDA graph has its rate written into it, and is recorded anew when the rate changes.
There the rate falls in `STAIRS` equal stairs, each as high as the mean of the rates that it replaces.
"""

from dataclasses import dataclass
from typing import Literal

import torch

STAIRS = 100
Decay = Literal["none", "linear"]


@dataclass(frozen=True)
class Rates:
    """The learning rates of a trial.

    Attributes:
        decay: how they fall.
        learning_rate: the first one.
        total: iterations of the trial.
        stairs: how many different rates there are at most; None: one an iteration.
    """

    decay: Decay
    learning_rate: float
    total: int
    stairs: int | None = None

    def __call__(self, iteration: int) -> float:
        """The rate of a step, numbered from 0."""
        if self.decay == "none":
            return self.learning_rate
        if self.stairs is None or self.stairs >= self.total:
            return self.learning_rate * ((self.total - iteration) / self.total)
        stair = iteration * self.stairs // self.total
        return self.learning_rate * ((2 * (self.stairs - stair) - 1) / (2 * self.stairs))

    def set(self, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        """Have an optimizer take its next step, of that number, at its rate."""
        if self.decay == "none":
            return  # what the optimizer was built with, to the last bit
        rate = self(iteration)
        for group in optimizer.param_groups:
            group["lr"] = rate
