"""A plain MLP over all vectors and dense values side by side: what the other models' interactions are compared with.

embedding = build("robe", cardinalities, dim=16, memory_budget=22_000, seed=1)
model = MLP(embedding, 13, MLPOptions(top_mlp=[256, 128]))
logits = model(dense, ids)
"""

import torch
from pydantic import Field
from torch import Tensor

from sizewise.embedding import Bags
from sizewise.models.base import Floats, ModelOptions
from sizewise.models.layers import LayeredModel, as_logits, computing_in, mlp, numbers


class MLPOptions(ModelOptions):
    """Options of ``mlp``."""

    top_mlp: list[int] = Field([256, 128])
    """Widths of the hidden layers."""


class MLP(LayeredModel[MLPOptions]):
    """Click logits from dense values and ids.

    Args:
        embedding: gives the vectors.
        dense_features: number of dense values; they may be none.
        options: of the layers.
        precision: that they compute in.

    All layers are drawn from the embedding's seed: one seed makes the complete model.
    """

    options = MLPOptions

    def add_layers(self, options: MLPOptions, generator: torch.Generator) -> None:
        """The layers of these options."""
        widths = _widths(*self.sizes, options)
        self.layers = mlp(widths, generator)

    @classmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Weights of the layers; of every row these, and the vectors looked up.

        Args: as for `Model.floats`.
        """
        assert isinstance(options, MLPOptions)
        widths = _widths(features, dense_features, dim, options)
        return Floats(parameters=numbers(widths), per_row=features * dim + 2 * sum(widths))

    def forward(self, dense: Tensor, ids: Tensor, bags: Bags | None = None) -> Tensor:
        """Logits.

        Args:
            dense: float32 (batch, dense_features), already transformed.
            ids: int64 or uint32 (batch, features); with bags the columns of the first features.
            bags: the lists of values of all other features.

        Returns:
            (batch,) log-odds of a click.
        """
        joined = self.embedding(ids, bags).flatten(1)
        if self.dense_features:
            joined = torch.cat([dense, joined], dim=1)
        with computing_in(self.mlp_dtype, dense.device):
            logits = self.layers(joined)
        return as_logits(logits)


def _widths(features: int, dense_features: int, dim: int, options: MLPOptions) -> list[int]:
    return [dense_features + features * dim, *options.top_mlp, 1]
