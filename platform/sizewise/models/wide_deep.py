"""Wide & Deep: first-order weights of all values beside an MLP, added up.

Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016: logit = sum of first-order weights + weights of
dense values + MLP(vectors, dense values). The wide part of the paper has products of columns, too: make them columns of
the data, as crosses of its schema.

As in `deepfm`, the last number of a value's vector is its first-order weight, and the others are its vector: so the
embedding method holds both, and its memory budget counts both.

    embedding = build("robe", cardinalities, dim=17, memory_budget=22_000, seed=1)
    model = WideDeep(embedding, 13, WideDeepOptions(top_mlp=[256, 128]))
    logits = model(dense, ids)
"""

import torch
from pydantic import Field
from torch import Tensor

from sizewise.embedding import Bags
from sizewise.models.base import Floats, ModelOptions
from sizewise.models.layers import LayeredModel, as_logits, computing_in, mlp, numbers, weights_of_dense


class WideDeepOptions(ModelOptions):
    """Options of ``wide_deep``."""

    top_mlp: list[int] = Field([256, 128])
    """Widths of the hidden layers over all vectors and dense values."""


class WideDeep(LayeredModel[WideDeepOptions]):
    """Click logits from dense values and ids.

    Args:
        embedding: of every value, a vector of dim - 1 numbers and then its first-order weight.
        dense_features: number of dense values, which have weights and are read by the MLP; they may be none.
        options: of the layers.
        precision: that the MLP computes in; everything else stays float32.

    All layers are drawn from the embedding's seed: one seed makes the complete model.
    """

    options = WideDeepOptions
    smallest_dim = 2

    def add_layers(self, options: WideDeepOptions, generator: torch.Generator) -> None:
        """The layers of these options."""
        self.deep = mlp(_widths(*self.sizes, options), generator)
        if self.dense_features:
            self.linear = weights_of_dense(self.dense_features, generator)

    @classmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Weights of the MLP and of dense values; of every row the layers, and the vectors looked up and side by side.

        Args: as for `Model.floats`.
        """
        assert isinstance(options, WideDeepOptions)
        widths = _widths(features, dense_features, dim, options)
        return Floats(
            parameters=numbers(widths) + dense_features,
            per_row=features * dim + dense_features + 2 * sum(widths),
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
        vectors = looked_up[:, :, :-1]
        wide, joined = self.wide(vectors, looked_up[:, :, -1:]), vectors.flatten(1)
        if self.dense_features:
            wide = wide + self.linear(dense).squeeze(1)
            joined = torch.cat([joined, dense], dim=1)
        with computing_in(self.mlp_dtype, dense.device):
            deep = self.deep(joined)
        return wide + as_logits(deep)

    def wide(self, vectors: Tensor, weights: Tensor) -> Tensor:
        """What the embeddings add to the logits beside the MLP: the sum of first-order weights.

        Args:
            vectors: float32 (batch, features, dim - 1).
            weights: float32 (batch, features, 1).

        Returns:
            (batch,).
        """
        return weights.sum((1, 2))


def _widths(features: int, dense_features: int, dim: int, options: WideDeepOptions) -> list[int]:
    return [features * (dim - 1) + dense_features, *options.top_mlp, 1]
