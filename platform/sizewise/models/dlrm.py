"""DLRM: bottom MLP, pairwise dot interaction, top MLP.

Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems", 2019, with
the layers of the reference implementation (facebookresearch/dlrm) and, in the MLPs only, its initialization.
Embeddings start otherwise: the reference draws a table of n rows from U(-1/sqrt(n), 1/sqrt(n)), and here every
method draws from U(-0.01, 0.01) whatever its size (`embedding.storage.table`), because a shared pool has no n of
its own and larger starts cost AUC (benchmarks/initialization.py).

    embedding = build("robe", cardinalities, dim=16, memory_budget=22_000, seed=1)
    model = DLRM(embedding, dense_features=13, bottom_mlp=[128, 64], top_mlp=[256, 128])
    logits = model(dense, ids)
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from sizewise.embedding import Bags, Embedding, fused
from sizewise.models.base import Floats, Model, ModelOptions, Precision
from sizewise.models.layers import DTYPES, computing_in, drawn_from, ending_at, mlp, numbers


class DLRMOptions(ModelOptions):
    """Options of ``dlrm``."""

    bottom_mlp: list[int] = Field([128, 64])
    """Widths of the hidden layers that dense values pass; the last one of width dim is added where it is missing."""
    top_mlp: list[int] = Field([256, 128])
    """Widths of the hidden layers after the interaction."""


class DLRM(Model):
    """Click logits from dense values and ids.

    Args:
        embedding: gives the vectors and, with its ``dim``, the width of the interaction.
        dense_features: number of dense values.
        bottom_mlp: widths after the dense input; a last layer of width dim is added where it does not end so.
        top_mlp: hidden widths; the output layer of width 1 is added.
        precision: that the MLPs compute in, forward and backward. With bfloat16 their weights, the embeddings and
            the interaction stay float32.

    The MLPs are drawn from the embedding's seed: one seed makes the whole model. Rows without dense values have no
    bottom MLP; the mean of their embedding vectors takes the place of what it would give.
    """

    options = DLRMOptions
    precisions = ("float32", "bfloat16")

    def __init__(
        self,
        embedding: Embedding,
        dense_features: int,
        bottom_mlp: Sequence[int],
        top_mlp: Sequence[int],
        precision: Precision = "float32",
    ) -> None:
        super().__init__(embedding, dense_features)
        dim, vectors = embedding.dim, embedding.features + 1
        widths = ending_at(bottom_mlp, dim)
        generator = drawn_from(embedding.seed)
        self.mlp_dtype = DTYPES[precision]
        self.bottom: nn.Module = nn.Identity()
        if dense_features:
            self.bottom = mlp([dense_features, *widths], generator, last_relu=True)
        self.top = mlp([dim + vectors * (vectors - 1) // 2, *top_mlp, 1], generator)
        rows, columns = torch.tril_indices(vectors, vectors, offset=-1)
        # Flat positions of the lower triangle without its diagonal: no vector interacts with itself.
        self.register_buffer("pairs", rows * vectors + columns, persistent=False)
        if not dense_features:
            # A mean as a product, which is among the operators that exports may call (`export.archive_schema`).
            features = embedding.features
            self.register_buffer("mean", torch.full((1, features), 1 / features), persistent=False)

    pairs: Tensor
    mean: Tensor

    @classmethod
    def create(
        cls, embedding: Embedding, dense_features: int, options: ModelOptions, precision: Precision
    ) -> Self:
        """A model of these widths.

        Args: as for `Model.create`.
        """
        assert isinstance(options, DLRMOptions)
        return cls(embedding, dense_features, options.bottom_mlp, options.top_mlp, precision)

    @classmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Weights of both MLPs; of every row their layers, the vectors looked up and concatenated, and the dots.

        Args: as for `Model.floats`.
        """
        assert isinstance(options, DLRMOptions)
        vectors = features + 1
        pairs = vectors * (vectors - 1) // 2
        bottom = [[dense_features, *options.bottom_mlp, dim]] if dense_features else []
        widths = [*bottom, [dim + pairs, *options.top_mlp, 1]]
        kept = 2 * sum(sum(layers) for layers in widths)
        return Floats(
            parameters=sum(numbers(layers) for layers in widths),
            per_row=kept + 3 * vectors * dim + vectors * vectors + 2 * pairs,
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
        if not self.dense_features:
            vectors = self.embedding(ids, bags)
            joined = self._joined(torch.matmul(self.mean, vectors).squeeze(1), vectors)
        else:
            with self._precision(dense):
                bottom = self.bottom(dense)  # (batch, dim)
            joined = self._interaction(bottom, ids, bags)
        with self._precision(dense):
            logits = self._top(joined)
        return (logits if self.mlp_dtype == torch.float32 else logits.float()).squeeze(1)

    def _interaction(self, bottom: Tensor, ids: Tensor, bags: Bags | None = None) -> Tensor:
        """(batch, dim + pairs, on a GPU rounded up to a multiple of 16): bottom, every two vectors' dot product."""
        if bags is None and self.embedding.multi_hot is None:
            joined = fused.interaction(self.embedding, bottom, ids, self.mlp_dtype)
            if joined is not None:
                return joined
        bottom = bottom if self.mlp_dtype == torch.float32 else bottom.float()
        return self._joined(bottom, self.embedding(ids, bags))

    def _joined(self, bottom: Tensor, vectors: Tensor) -> Tensor:
        """The same of vectors (batch, features, dim) that were looked up."""
        joined = fused.dots(bottom, vectors) if self.embedding.fused else None
        if joined is not None:
            return joined
        vectors = torch.cat([bottom.unsqueeze(1), vectors], dim=1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        return torch.cat([bottom, dots.index_select(1, self.pairs)], dim=1)

    def _top(self, joined: Tensor) -> Tensor:
        first = self.top[0]
        assert isinstance(first, nn.Linear)
        extra = joined.shape[1] - first.in_features
        if extra:  # columns of zeros, which matrix multiplications want and checkpoints do not know
            hidden: Tensor = linear(joined, pad(first.weight, (0, extra)), first.bias)
            for layer in list(self.top)[1:]:
                hidden = layer(hidden)
            return hidden
        logits: Tensor = self.top(joined)
        return logits

    def _precision(self, dense: Tensor) -> AbstractContextManager[Any]:
        return computing_in(self.mlp_dtype, dense.device)
