"""DCN V2 with low-rank crosses: bottom MLP, cross layers over everything side by side, over arch.

Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems",
2021, stacked, as in MLPerf's dlrm_dcnv2 (`DLRM_DCN` and `LowRankCrossNet` of TorchRec): a layer of the cross network
turns x into x + x0 * (W V x + b), where x0 is what came in, and V projects to `rank` numbers.

    embedding = build("robe", cardinalities, dim=16, memory_budget=22_000, seed=1)
    model = DCN(embedding, 13, DCNOptions(layers=3, rank=64))
    logits = model(dense, ids)
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear

from sizewise.embedding import Bags
from sizewise.models.base import Floats, ModelOptions
from sizewise.models.layers import LayeredModel, as_logits, computing_in, ending_at, mlp, numbers


class DCNOptions(ModelOptions):
    """Options of ``dcn``."""

    layers: int = Field(3, ge=1, le=32)
    """Cross layers."""
    rank: int = Field(64, ge=1, le=65_536)
    """Numbers between the two matrices of a cross layer. MLPerf's 512 for 27 vectors of 128 is as much for its width as
    64 are for vectors of 16: about a seventh."""
    bottom_mlp: list[int] = Field([128, 64])
    """Widths of the hidden layers that dense values pass; the last one of width dim is added where it is missing."""
    top_mlp: list[int] = Field([256, 128])
    """Widths of the hidden layers after the crosses."""


class CrossLayers(nn.Module):
    """x + x0 * (W V x + b), layer after layer: (batch, width) -> (batch, width).

    Args:
        width: of the input.
        layers: how many.
        rank: rows of V.
        generator: that weights are drawn from, as TorchRec's: N(0, 2 / (width + rank)); biases start at zero.
    """

    def __init__(self, width: int, layers: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        spread = math.sqrt(2 / (width + rank))

        def drawn(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(rows, columns).normal_(0.0, spread, generator=generator))

        self.down = nn.ParameterList([drawn(rank, width) for _ in range(layers)])
        self.up = nn.ParameterList([drawn(width, rank) for _ in range(layers)])
        self.bias = nn.ParameterList([nn.Parameter(torch.zeros(width)) for _ in range(layers)])

    def forward(self, start: Tensor) -> Tensor:
        """Args: start: float32 (batch, width)."""
        crossed = start
        for down, up, bias in zip(self.down, self.up, self.bias, strict=True):
            factor = linear(linear(crossed, down), up, bias)
            # In float32 whatever the products are in: small steps must not be lost on the way.
            crossed = torch.addcmul(crossed, start, factor.to(start.dtype))
        return crossed


class DCN(LayeredModel[DCNOptions]):
    """Click logits from dense values and ids.

    Args:
        embedding: gives the vectors and, with its ``dim``, the last width of the bottom MLP.
        dense_features: number of dense values. Rows without any have no bottom MLP: only vectors are crossed.
        options: of the layers.
        precision: that MLPs and the crosses' matrix products compute in.

    All layers are drawn from the embedding's seed: one seed makes the complete model.
    """

    options = DCNOptions

    def add_layers(self, options: DCNOptions, generator: torch.Generator) -> None:
        """The layers of these options."""
        bottom, width, top = _widths(*self.sizes, options)
        self.bottom = mlp(bottom, generator, last_relu=True)
        self.crosses = CrossLayers(width, options.layers, options.rank, generator)
        self.over = mlp(top, generator)

    @classmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Weights of all layers; of every row their inputs and outputs, and the vectors looked up.

        Args: as for `Model.floats`.
        """
        assert isinstance(options, DCNOptions)
        bottom, width, top = _widths(features, dense_features, dim, options)
        cross = 2 * width * options.rank + width
        return Floats(
            parameters=numbers(bottom) + options.layers * cross + numbers(top),
            per_row=2 * sum(bottom) + 2 * width + options.layers * (2 * width + options.rank) + 2 * sum(top),
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
        joined = self.embedding(ids, bags).flatten(1)
        with computing_in(self.mlp_dtype, dense.device):
            if self.dense_features:
                joined = torch.cat([self.bottom(dense).to(joined.dtype), joined], dim=1)
            logits = self.over(self.crosses(joined))
        return as_logits(logits)


def _widths(
    features: int, dense_features: int, dim: int, options: DCNOptions
) -> tuple[list[int], int, list[int]]:
    """Widths of the bottom MLP, of what is crossed, and of the over arch."""
    bottom = [dense_features, *ending_at(options.bottom_mlp, dim)] if dense_features else []
    width = (features + bool(dense_features)) * dim
    return bottom, width, [width, *options.top_mlp, 1]
