"""A trained model as one PyTorch program that takes raw rows: what `torch.export` makes of it.

    program = to_program(model, "contiguous", vocabulary)
    program.module()(dense, tokens)            # log-odds

What preparation did to the training rows (the logarithm of integers, the numbering of tokens) is part of the
program, so that whoever serves it cannot do it differently. Low-precision tables stay in their stored form; what a
call looks up becomes float32.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sizewise.embedding.storage.stored import Stored
from sizewise.embedding.storage.table import Table
from sizewise.models import Model
from sizewise_prep.pipeline.steps.assembly import MLPERF_IDS
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.parsing.dense import Scales, scales
from sizewise_prep.raw.parsing.rows import log_dense_tensor
from sizewise_prep.shards.manifest import Tokens
from sizewise_prep.shards.values.vocabulary import Vocabulary


def to_program(
    model: Model, treatment: Tokens, vocabulary: Vocabulary | None, layout: Layout = CRITEO
) -> ExportedProgram:
    """The program of a trained model.

    Args:
        model: on the CPU; its embedding is changed and cannot be trained afterwards.
        treatment: what preparation did to tokens.
        vocabulary: of contiguous ids.
        layout: of the raw rows, fitted; it says what is done to dense values.

    Returns:
        dense (rows, integers) float32, NaN where missing, and tokens (rows, features) uint32, 0 where missing, to
        log-odds (rows,) float32, for any number of rows.
    """
    rows = torch.zeros(2, model.dense_features), torch.zeros(2, model.embedding.features, dtype=torch.uint32)
    batch = Dim("rows", min=1)
    program = torch.export.export(
        _Served(model, treatment, vocabulary, scales(layout)).eval(),
        rows,
        dynamic_shapes=({0: batch}, {0: batch}),
    )
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
        values = log_dense_tensor(dense)
        if self.scales_dense:
            scaled = torch.nan_to_num((dense - self.mean) * self.factor, nan=0.0)
            values = torch.where(self.is_log, values, scaled)
        ids = tokens.to(torch.int64)
        if self.treatment == "mlperf":
            ids = ids % MLPERF_IDS
        elif self.treatment == "contiguous":
            ids = self._numbers(ids)
        logits: Tensor = self.model(values, ids.to(torch.uint32))
        return logits

    def _numbers(self, tokens: Tensor) -> Tensor:
        """As `Vocabulary.ids`: the position of a known token in its column, from 1; 0 for others."""
        wanted = tokens + self.columns
        positions = torch.searchsorted(self.known, wanted)
        found = self.known[positions.clamp(max=len(self.known) - 1)] == wanted
        return torch.where(found, positions - self.starts + 1, torch.zeros_like(positions))
