"""When the tables of a trial begin to be trained in few bits (`embedding.float32_share`).

Until then their numbers are trained in float32, and rounded for evaluations, checkpoints of the best weights and
exports alone. When it begins follows from the configuration and the iteration, so that a resumed trial does the same.
"""

from typing import NamedTuple

from sizewise.config.trial import TrialConfig
from sizewise.embedding.base import Embedding


class FewBits(NamedTuple):
    """The iterations, from 0 on, before which steps are not learned."""

    begin: int

    @classmethod
    def of(cls, config: TrialConfig, embedding: Embedding, iterations: int) -> "FewBits":
        """Start a trial: its embedding trains in float32 until the change.

        Args:
            config: the trial's.
            embedding: that is trained.
            iterations: of the trial.
        """
        share = config.embedding.float32_share
        if share:
            embedding.train_in_float32()
        return cls(max(1, round(share * iterations)) if share else 0)

    def step(self, embedding: Embedding, iteration: int) -> None:
        """Begin where it is time; called before each iteration."""
        if self.begin and iteration == self.begin:
            embedding.learn_steps()

    def restore(self, embedding: Embedding, iteration: int) -> None:
        """Go on behind so many iterations, with the steps of a checkpoint."""
        if self.begin and iteration > self.begin:
            embedding.learn_steps(fit=False)
