"""A trained model as one PyTorch program that takes raw rows: what `torch.export` makes of it.

    program = to_program(model, "contiguous", vocabulary)
    program.module()(dense, tokens)            # log-odds
    program.module()(dense, tokens, values, lengths)    # of a model with columns of lists

What preparation did to the training rows (the logarithm of integers, the numbering of tokens) is part of the
program, so that whoever serves it cannot do it differently. Low-precision tables stay in their stored form; what a
call looks up becomes float32.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sizewise.embedding import Bags
from sizewise.embedding.storage.stored import Stored
from sizewise.embedding.storage.table import Table
from sizewise.models import Model
from sizewise_prep.pipeline.jobs.assembly import MLPERF_IDS
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.parsing.dense import Scales, scales
from sizewise_prep.raw.parsing.rows import log_dense_tensor
from sizewise_prep.shards.manifest import Tokens
from sizewise_prep.shards.values.vocabulary import Vocabulary


def to_program(
    model: Model,
    treatment: Tokens,
    vocabulary: Vocabulary | None,
    layout: Layout = CRITEO,
    lists: int = 0,
) -> ExportedProgram:
    """The program of a trained model.

    Args:
        model: on the CPU; its embedding is changed and cannot be trained afterwards.
        treatment: what preparation did to tokens.
        vocabulary: of contiguous ids.
        layout: of the raw rows, fitted; it says what is done to dense values.
        lists: how many of the features are lists of tokens, the last ones.

    Returns:
        dense (rows, integers) float32, NaN where missing, and tokens (rows, features) uint32, 0 where missing, to
        log-odds (rows,) float32, for any number of rows. Where there are lists, tokens are followed by their values
        uint32 (n,), as `sizewise.embedding.Bags` has them, and by their lengths int64 (rows, lists).
    """
    columns = model.embedding.features - lists
    rows: tuple[Tensor, ...] = (
        torch.zeros(3, model.dense_features),
        torch.zeros(3, columns, dtype=torch.uint32),
    )
    batch = Dim("rows", min=1)
    shapes: tuple[dict[int, Any], ...] = ({0: batch}, {0: batch})
    if lists:
        rows += torch.zeros(3 * lists, dtype=torch.uint32), torch.ones(3, lists, dtype=torch.int64)
        shapes += {0: Dim("values", min=0)}, {0: batch}
    served = (_ServedWithLists if lists else _Served)(model, treatment, vocabulary, scales(layout))
    program = torch.export.export(served.eval(), rows, dynamic_shapes=shapes)
    program.example_inputs = None  # they would be saved as a pickle
    return program


class _Served(nn.Module):
    """The model, with what preparation does to a row in front of it."""

    def __init__(
        self, model: Model, treatment: Tokens, vocabulary: Vocabulary | None, dense: Scales | None
    ) -> None:
        super().__init__()
        self.treatment = treatment
        self.scales_dense = dense is not None
        if dense is not None:
            for name, numbers in zip(("is_log", "mean", "factor"), dense, strict=True):
                self.register_buffer(name, torch.from_numpy(numbers))
        self.model = model
        model.prepare_export()
        for parent in list(model.embedding.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, Table) and child.storage != "float32":
                    setattr(parent, name, Stored(child))
        if vocabulary is not None:
            sizes = torch.tensor([len(known) for known in vocabulary.tokens])
            # One sorted list for all columns: a token under its column's number.
            keys = [known + (np.int64(column) << 32) for column, known in enumerate(vocabulary.tokens)]
            self.register_buffer("known", torch.from_numpy(np.concatenate(keys)))
            self.register_buffer("starts", sizes.cumsum(0) - sizes)
            self.register_buffer("columns", torch.arange(len(sizes)) << 32)

    is_log: Tensor
    mean: Tensor
    factor: Tensor
    known: Tensor
    starts: Tensor
    columns: Tensor

    def forward(self, dense: Tensor, tokens: Tensor) -> Tensor:
        """Log-odds of a click."""
        logits: Tensor = self.model(self._dense(dense), self._ids(tokens))
        return logits

    def _dense(self, dense: Tensor) -> Tensor:
        values = log_dense_tensor(dense)
        if self.scales_dense:
            scaled = torch.nan_to_num((dense - self.mean) * self.factor, nan=0.0)
            values = torch.where(self.is_log, values, scaled)
        return values

    def _ids(self, tokens: Tensor, features: Tensor | slice = slice(None)) -> Tensor:
        """What became of tokens of these features when the training rows were prepared; uint32, of their shape."""
        ids = tokens.to(torch.int64)
        if self.treatment == "mlperf":
            ids = ids % MLPERF_IDS
        elif self.treatment == "contiguous":
            ids = self._numbers(ids, features)
        return ids.to(torch.uint32)

    def _numbers(self, tokens: Tensor, features: Tensor | slice) -> Tensor:
        """As `Vocabulary.ids`: the position of a known token in its column, from 1; 0 for others."""
        wanted = tokens + self.columns[features]
        positions = torch.searchsorted(self.known, wanted)
        found = self.known[positions.clamp(max=len(self.known) - 1)] == wanted
        return torch.where(found, positions - self.starts[features] + 1, torch.zeros_like(positions))


class _ServedWithLists(_Served):
    """The same of rows that have lists of tokens."""

    def forward(self, dense: Tensor, tokens: Tensor, values: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Log-odds of a click."""
        (rows, columns), lists = tokens.shape, lengths.shape[1]
        ends = lengths.transpose(0, 1).flatten().cumsum(0)
        bags = Bags(values, torch.cat([torch.zeros(1, dtype=torch.int64), ends]))
        features = bags.numbers(lists, rows) + columns
        bags = bags._replace(values=self._ids(values, features))
        logits: Tensor = self.model(self._dense(dense), self._ids(tokens, slice(0, columns)), bags)
        return logits
