"""What every model around the embeddings declares: its options, its memory, and how it is exported.

A model is a subclass of :class:`Model` that names its pydantic options class and gives log-odds of dense values and
ids.  ``sizewise.models.build`` makes one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from sizewise.embedding import Bags, Embedding

Precision = Literal["float32", "bfloat16"]


class ModelOptions(BaseModel):
    """Options of a model; unknown ones are errors, so that a typing slip cannot pass for a setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Floats(NamedTuple):
    """Numbers of 32 bits that training holds beside the embedding's own."""

    parameters: int
    per_row: int
    """What one row of a batch keeps for the backward pass, the looked-up vectors among it."""
    per_value: int = 0
    """What each value of a list keeps beside that, where a model pools lists in a way of its own."""


class Model(nn.Module, ABC):
    """Click logits from dense values and ids: (batch, dense_features), (batch, features) -> (batch,).

    Features that are lists of values come as `Bags`, which `self.embedding(ids, bags)` takes.

    Args:
        embedding: gives the vectors; its `seed` is the one to draw other weights from, too.
        dense_features: number of dense values a row.
    """

    options: ClassVar[type[ModelOptions]] = ModelOptions

    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)
    """What it can compute in (`train.precision`)."""

    smallest_dim: ClassVar[int] = 1
    """Length that vectors must have at least."""

    host_decides: ClassVar[str] = ""
    """Why a step cannot be recorded as a CUDA graph, if it cannot: it waits for the host, or does what it decides."""

    columns: ClassVar[Mapping[str, Literal["token", "list"]]] = {}
    """Options that name a column of the data, and of which kind; a model is given the column's number among the
    features. One of lists that is left out is the data's only one."""

    not_exported: ClassVar[str] = ""
    """Why it cannot be exported as a program, if it cannot."""

    def __init__(self, embedding: Embedding, dense_features: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.dense_features = dense_features

    @classmethod
    @abstractmethod
    def create(
        cls, embedding: Embedding, dense_features: int, options: ModelOptions, precision: Precision
    ) -> Self:
        """A model with freshly drawn weights; equal seeds of the embedding give equal weights.

        Args:
            embedding: of the trial.
            dense_features: number of dense values a row.
            options: of the class that `options` names.
            precision: one of `precisions`.
        """

    @classmethod
    @abstractmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Memory that training takes, from shapes alone; it decides how many trials share a GPU.

        Args:
            features: id columns, each of which gives one vector.
            dense_features: number of dense values a row.
            dim: length of a vector.
            options: of the class that `options` names.
        """

    @abstractmethod
    def forward(self, dense: Tensor, ids: Tensor, bags: Bags | None = None) -> Tensor:
        """Log-odds of a click.

        Args:
            dense: float32 (batch, dense_features), already transformed.
            ids: int64 or uint32 (batch, features); with bags the columns of the first features.
            bags: the lists of values of all other features; None where the data has none.

        Returns:
            (batch,) float32.
        """

    @property
    def embedding_bytes(self) -> int:
        """Bytes of everything that is looked up by ids."""
        return self.embedding.embedding_bytes

    @property
    def model_bytes(self) -> int:
        """Bytes of the deployed model: the embedding, and all other parameters and stored buffers."""
        inside = set(self.embedding.modules())
        tensors: dict[int, Tensor] = {}
        for module in self.modules():
            if module not in inside:
                passing = module._non_persistent_buffers_set
                stored = [b for name, b in module.named_buffers(recurse=False) if name not in passing]
                tensors |= {id(t): t for t in [*module.parameters(recurse=False), *stored]}
        rest = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return self.embedding.embedding_bytes + rest

    def prepare_export(self) -> None:
        """Make ready for `torch.export`, once and for good: no kernels of ours, which nobody else has."""
        self.embedding.prepare_export()
