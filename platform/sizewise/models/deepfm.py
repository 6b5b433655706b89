"""DeepFM: first-order weights, a factorization machine and an MLP, added up.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", 2017, as DeepCTR-Torch has it:
logit = sum of first-order weights + weights of dense values + 1/2 sum over d of ((sum of v)^2 - sum of v^2)
+ MLP(vectors, dense values).

DeepCTR keeps the first-order weight of every value in tables of their own, one number wide. Here the last number of a
value's vector is that weight, and the others are its vector: a model of dim 17 is DeepCTR's with vectors of 16. So the
embedding method holds both, its memory budget counts both, and a compression compresses both.

    embedding = build("robe", cardinalities, dim=17, memory_budget=22_000, seed=1)
    model = DeepFM(embedding, 13, DeepFMOptions(top_mlp=[256, 128]))
    logits = model(dense, ids)
"""

import torch
from pydantic import Field
from torch import Tensor

from sizewise.embedding import Bags
from sizewise.models.base import Floats, ModelOptions
from sizewise.models.layers import LayeredModel, as_logits, computing_in, mlp, numbers, weights_of_dense


class DeepFMOptions(ModelOptions):
    """Options of ``deepfm``."""

    top_mlp: list[int] = Field([256, 128])
    """Widths of the hidden layers over all vectors and dense values."""


class DeepFM(LayeredModel[DeepFMOptions]):
    """Click logits from dense values and ids.

    Args:
        embedding: of every value, a vector of dim - 1 numbers and then its first-order weight.
        dense_features: number of dense values, which have weights and are read by the MLP; they may be none.
        options: of the layers.
        precision: that the MLP computes in; everything else stays float32.

    All layers are drawn from the embedding's seed: one seed makes the complete model.
    """

    options = DeepFMOptions
    smallest_dim = 2

    def add_layers(self, options: DeepFMOptions, generator: torch.Generator) -> None:
        """The layers of these options."""
        self.deep = mlp(_widths(*self.sizes, options), generator)
        if self.dense_features:
            self.linear = weights_of_dense(self.dense_features, generator)

    @classmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Weights of the MLP and of dense values; of every row the layers, and the vectors looked up and side by side.

        Args: as for `Model.floats`.
        """
        assert isinstance(options, DeepFMOptions)
        widths = _widths(features, dense_features, dim, options)
        return Floats(
            parameters=numbers(widths) + dense_features,
            per_row=2 * features * dim + 2 * dim + dense_features + 2 * sum(widths),
        )

    def forward(self, dense: Tensor, ids: Tensor, bags: Bags | None = None) -> Tensor:
        """Logits.

        Args:
            dense: float32 (batch, dense_features), already transformed.
            ids: int64 or uint32 (batch, features); with bags the columns of the first features.
            bags: the lists of values of all other features.

        Returns:
            (batch,) log-odds of a click.
        """
        looked_up: Tensor = self.embedding(ids, bags)
        vectors, weights = looked_up[:, :, :-1], looked_up[:, :, -1:]
        total = vectors.sum(1)
        crosses: Tensor = ((total * total).sum(1) - (vectors * vectors).sum((1, 2))) * 0.5
        logits = weights.sum((1, 2)) + crosses
        deep = vectors.flatten(1)
        if self.dense_features:
            logits = logits + self.linear(dense).squeeze(1)
            deep = torch.cat([deep, dense], dim=1)
        with computing_in(self.mlp_dtype, dense.device):
            deep = self.deep(deep)
        return logits + as_logits(deep)


def _widths(features: int, dense_features: int, dim: int, options: DeepFMOptions) -> list[int]:
    return [features * (dim - 1) + dense_features, *options.top_mlp, 1]
