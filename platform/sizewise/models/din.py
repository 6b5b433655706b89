"""DIN: attention over the values of one list, such as a history, against one token, such as the item that is shown.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", 2018: each value k of the history has the weight
a(q, k) = MLP([q, k, q - k, q * k]) for the target's vector q, and the history is the sum of its vectors by these
weights. They are no shares: no softmax makes their sum one, so that long histories of what the target is like count
more. Then an MLP over all vectors and dense values. ReLU stands for the paper's Dice.

    embedding = build("robe", [9_000, 50, 9_000], dim=16, memory_budget=22_000, seed=1)
    model = DIN(embedding, 13, DINOptions(target=0, history=2))
    logits = model(dense, ids, bags)           # ids (batch, 2), and a list for each row

Lists beside the history are pooled as in other models. Whether equal tokens of the target's column and of the history
have equal vectors is the embedding's matter: they do where it hashes raw tokens without a feature's term.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sizewise.embedding import Bags
from sizewise.embedding.bags import pooled
from sizewise.models.base import Floats, ModelOptions
from sizewise.models.layers import LayeredModel, as_logits, computing_in, mlp, numbers
from sizewise_core.errors import InputError

Column = str | Annotated[int, Field(ge=0)]
"""A column by its name in the data, or by its number among the features: token columns, then columns of lists."""


class DINOptions(ModelOptions):
    """Options of ``din``."""

    target: Column
    """The token column that the history is compared with."""
    history: Column | None = None
    """The column of lists; None: the only one that there is."""
    attention_mlp: list[Annotated[int, Field(ge=1, le=65_536)]] = Field([64, 32])
    """Widths of the hidden layers that give a value its weight."""
    top_mlp: list[int] = Field([256, 128])
    """Widths of the hidden layers over all vectors and dense values."""


class DIN(LayeredModel[DINOptions]):
    """Click logits from dense values, ids and lists.

    Args:
        embedding: gives the vectors.
        dense_features: number of dense values; they may be none.
        options: of the layers; target and history as numbers, the history's None for the last feature.
        precision: that the MLPs compute in; the sum over a history stays float32.

    All layers are drawn from the embedding's seed: one seed makes the complete model.

    Raises:
        InputError: target and history are no two features.
    """

    options = DINOptions
    columns = {"target": "token", "history": "list"}  # as `Model` declares it

    def add_layers(self, options: DINOptions, generator: torch.Generator) -> None:
        """The layers of these options."""
        last = self.embedding.features - 1
        history = last if options.history is None else options.history
        if not isinstance(options.target, int) or not isinstance(history, int):
            raise InputError(
                "model din: give target and history as numbers: names are those of a study's data"
            )
        if not options.target < history <= last:
            raise InputError(
                f"model din: target {options.target} and history {history} must be two of {last + 1} features, and "
                "lists come after tokens"
            )
        self.target, self.history = options.target, history
        attention, top = _widths(*self.sizes, options)
        self.attention = mlp(attention, generator)
        self.top = mlp(top, generator)

    @classmethod
    def floats(cls, features: int, dense_features: int, dim: int, options: ModelOptions) -> Floats:
        """Weights of both MLPs; of every row the vectors and the layers, of every value of a list the attention's.

        Args: as for `Model.floats`.
        """
        assert isinstance(options, DINOptions)
        attention, top = _widths(features, dense_features, dim, options)
        return Floats(
            parameters=numbers(attention) + numbers(top),
            per_row=2 * features * dim + 2 * sum(top),
            # The target's vector and the weighted one, too, and which row and list the value is of.
            per_value=2 * dim + 2 * sum(attention) + 6,
        )

    def forward(self, dense: Tensor, ids: Tensor, bags: Bags | None = None) -> Tensor:
        """Logits.

        Args:
            dense: float32 (batch, dense_features), already transformed.
            ids: int64 or uint32 (batch, columns) of the first features.
            bags: the lists of values of all other features, the history among them.

        Returns:
            (batch,) log-odds of a click.

        Raises:
            InputError: there are no lists, or the history is none of them.
        """
        columns = ids.shape[1]
        if bags is None or not self.target < columns <= self.history:
            raise InputError(
                f"model din attends over lists of feature {self.history} against the token column {self.target}, and "
                f"these rows have {columns} token columns{' and no lists' if bags is None else ''}: use another model"
            )
        single, several = self.embedding.unpooled(ids, bags)
        parts = [single, *self._others(several, bags, ids.shape), self._attended(single, several, bags)]
        joined = torch.cat(parts, dim=1).flatten(1)
        if self.dense_features:
            joined = torch.cat([dense, joined], dim=1)
        with computing_in(self.mlp_dtype, dense.device):
            logits = self.top(joined)
        return as_logits(logits)

    def _attended(self, single: Tensor, several: Tensor, bags: Bags) -> Tensor:
        """The history of each row, (batch, 1, dim): the sum of its vectors by their weights."""
        (batch, columns, dim), lists = single.shape, self.embedding.features - single.shape[1]
        rows = bags.rows(lists, batch)
        query = single[:, self.target : self.target + 1].squeeze(1)[rows]
        pairs = torch.cat([query, several, query - several, query * several], dim=1)
        with computing_in(self.mlp_dtype, several.device):
            weights = self.attention(pairs)
        weighted = several * weights.to(several.dtype)
        if lists > 1:  # values of other lists weigh nothing
            of_history = (bags.numbers(lists, batch) + columns == self.history).unsqueeze(1)
            weighted = torch.where(of_history, weighted, torch.zeros_like(weighted))
        # Zeros of that shape by a product: what is traced for an export computes with no sizes.
        lengths = bags.lengths()[:batch].unsqueeze(1).to(single.dtype)
        zeros = lengths * torch.zeros(dim, dtype=single.dtype, device=single.device)
        return zeros.index_add(0, rows, weighted).unsqueeze(1)

    def _others(self, several: Tensor, bags: Bags, shape: Sequence[int]) -> Sequence[Tensor]:
        """The lists that are no histories, pooled as the embedding pools them: those before it, and those after.

        Args:
            several: (n, dim), the vectors of the lists' values.
            bags: the lists.
            shape: of the ids beside them.

        Returns:
            (batch, lists, dim) each; nothing where there are no others.
        """
        batch, columns = shape
        lists = self.embedding.features - columns
        if lists == 1:
            return []
        vectors = pooled(several, bags, lists, batch, self.embedding.pooling)
        at = self.history - columns
        return [vectors[:, :at], vectors[:, at + 1 :]]


def _widths(features: int, dense_features: int, dim: int, options: DINOptions) -> tuple[list[int], list[int]]:
    """Widths of the attention's MLP and of the one over everything."""
    return [4 * dim, *options.attention_mlp, 1], [dense_features + features * dim, *options.top_mlp, 1]
