"""ALPT: numbers are kept in few bits while training, rounded at random, with a step for every row that is learnt.

Li et al., "Adaptive Low-Precision Training for Embeddings in Click-Through Rate Prediction", AAAI 2023. The paper keeps
a row for every value, which at these sizes no budget allows: rows are hashed here, as those of `hash`. After every
optimizer step the numbers are rounded to codes times their row's step, up or down at random; the steps learn by the
gradient of rounding (Esser et al. 2020) at the ends of the range, scaled by the root of a row's numbers times the
largest code.
"""

import weakref

import torch
from benchmarks.opponents.hashing import Hashed, Opponent, numbers
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

STEP_BYTES = 2  # bfloat16


class Alpt(Opponent):
    """Hashed rows of codes, each with a step."""

    def __init__(self, cardinalities: list[int], dim: int, rows: int, bits: int, seed: int) -> None:
        super().__init__(cardinalities, dim, seed)
        self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.values = numbers(rows, dim, seed)
        # The largest first value is a quarter of the range, so that numbers have room to grow.
        self.log_steps = nn.Parameter(torch.full((rows, 1), 0.04 / self.high).log())
        self.hashed = Hashed(self.features, 1, rows, seed + 1)
        self.random = torch.Generator().manual_seed(seed)
        me = weakref.ref(self)
        handle = register_optimizer_step_post_hook(lambda optimizer, *_: _after_step(me, optimizer))
        weakref.finalize(self, handle.remove)

    def lookup(self, ids: Tensor) -> Tensor:
        """Vectors of ids: numbers of the table, and a gradient for their steps."""
        rows = self.hashed(ids).squeeze(-1)
        found = nn.functional.embedding(rows, self.values)
        if not torch.is_grad_enabled():
            return found
        steps = nn.functional.embedding(rows, self.log_steps).exp()
        # found = code * step: the derivative by the step is the code where that is an end of the range, and what
        # rounding added otherwise, whose mean over the random rounding is zero.
        codes = (found / steps).detach().round()
        at_end = codes * ((codes <= self.low) | (codes >= self.high))
        slower = 1 / (self.dim * self.high) ** 0.5
        scaled = at_end * steps * slower
        return found + scaled - scaled.detach()

    @torch.no_grad()
    def round(self) -> None:
        """Numbers as codes times steps, rounded up or down at random."""
        steps = self.log_steps.exp().bfloat16().float()
        codes = self.values / steps
        noise = torch.rand(codes.shape, generator=self.random)
        self.values.copy_((codes + noise).floor_().clamp_(self.low, self.high).mul_(steps))


def _after_step(me: "weakref.ref[Alpt]", optimizer: torch.optim.Optimizer) -> None:
    embedding = me()
    if embedding is not None and embedding.values in optimizer.state:
        embedding.round()
