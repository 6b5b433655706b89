"""What several models have in common: fully connected layers, drawn from one seed, and the precision they compute in.

class Mine(LayeredModel[MyOptions]): ...     # its layers, the memory they take, and `forward`
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, Generic, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from sizewise.embedding import Embedding
from sizewise.embedding.ids.hashing import derived_seed
from sizewise.models.base import Model, ModelOptions, Precision

Options = TypeVar("Options", bound=ModelOptions)

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LayeredModel(Model, Generic[Options]):
    """A model whose layers are all drawn from the embedding's seed: one seed makes the complete model.

    Args:
        embedding: gives the vectors.
        dense_features: number of dense values; they may be none.
        options: of the layers.
        precision: that the layers compute in.
    """

    precisions = ("float32", "bfloat16")

    def __init__(
        self, embedding: Embedding, dense_features: int, options: Options, precision: Precision = "float32"
    ) -> None:
        super().__init__(embedding, dense_features)
        self.mlp_dtype = DTYPES[precision]
        self.add_layers(options, drawn_from(embedding.seed))

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Features that give a vector, dense values, and the length of a vector."""
        return self.embedding.features, self.dense_features, self.embedding.dim

    @abstractmethod
    def add_layers(self, options: Options, generator: torch.Generator) -> None:
        """Make the layers, whose weights are drawn from `generator`, always in the same order."""

    @classmethod
    def create(
        cls, embedding: Embedding, dense_features: int, options: ModelOptions, precision: Precision
    ) -> Self:
        """A model of these layers.

        Args: as for `Model.create`.
        """
        assert isinstance(options, cls.options)
        return cls(embedding, dense_features, cast(Options, options), precision)


def drawn_from(seed: int) -> torch.Generator:
    """What a model draws its layers from: mixed, so as not to repeat the numbers that the pool was drawn from."""
    return torch.Generator().manual_seed(derived_seed(seed, 0))


def mlp(widths: Sequence[int], generator: torch.Generator, last_relu: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between, initialized as in the reference DLRM: N(0, 2/(in+out)) and N(0, 1/out).

    Args:
        widths: of the input and of every layer.
        generator: that weights are drawn from.
        last_relu: whether a ReLU follows the last layer, too.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            linear.weight.normal_(0.0, math.sqrt(2 / (fan_in + fan_out)), generator=generator)
            linear.bias.normal_(0.0, math.sqrt(1 / fan_out), generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*(layers if last_relu else layers[:-1]))


def weights_of_dense(dense_features: int, generator: torch.Generator) -> nn.Linear:
    """First-order weights of dense values, which start small: N(0, 0.01^2)."""
    linear = nn.Linear(dense_features, 1, bias=False)
    with torch.no_grad():
        linear.weight.normal_(0.0, 0.01, generator=generator)
    return linear


def numbers(widths: Sequence[int]) -> int:
    """Weights and biases of such layers."""
    return sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(widths))


def ending_at(widths: Sequence[int], last: int) -> list[int]:
    """Widths with a layer of width `last` added where they do not end so."""
    return list(widths) if widths and widths[-1] == last else [*widths, last]


def computing_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in this precision, forward and backward; weights stay float32.

    Args:
        dtype: float32 changes nothing.
        device: of the products.
    """
    if dtype == torch.float32:
        return nullcontext()
    # Without its cache of cast weights, which a CUDA graph would read and nobody refresh; each is used once.
    return torch.autocast(device.type, dtype, cache_enabled=False)


def as_logits(column: Tensor) -> Tensor:
    """(batch, 1) of any precision as (batch,), in float32 unless the model is wider."""
    return (column.float() if column.dtype == torch.bfloat16 else column).squeeze(1)
