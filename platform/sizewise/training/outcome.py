"""Who trains a trial, and what a finished one leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from sizewise.metrics.evaluation import Evaluation, TestScores


@dataclass(frozen=True)
class Worker:
    """One of the processes that train a trial together.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        device: to train on.
        uses: what all of them hold while they train (`cpu_seconds`: CPUs, `gpu_seconds`: GPUs), for evaluations to
            say how much of it led to them.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    uses: Mapping[str, float] = field(default_factory=dict)


ONLY = Worker()


@dataclass(frozen=True)
class Outcome:
    """What a finished trial leaves: all its evaluations, and the test scores of its best one."""

    evaluations: Sequence[Evaluation]
    test: TestScores
    pruned: str = ""  # why it ended before its last iteration, if it did
