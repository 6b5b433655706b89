"""Counts of ids, for embeddings that are to be given some, and embeddings that were."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sizewise.embedding import Embedding, FeatureCounts, build


def counts_of(*batches: Tensor) -> list[FeatureCounts]:
    """How often each value occurs in the columns of (rows, features) int64 ids; every third row is a click."""
    ids = torch.cat(batches).cpu()
    clicked = (torch.arange(len(ids), device="cpu") % 3 == 0).long()
    counts = []
    for column in ids.T:
        values, inverse, number = column.unique(return_inverse=True, return_counts=True)
        clicks = torch.zeros_like(number).index_add_(0, inverse, clicked)
        counts.append(FeatureCounts(values.to(torch.uint32).numpy(), number.numpy(), clicks.numpy()))
    return counts


def ready(embedding: Embedding, *batches: Tensor) -> Embedding:
    """The embedding, given the counts of these ids if it needs any."""
    if embedding.needs_counts:
        embedding.assign_rows(counts_of(*batches))
    return embedding


def build_ready(
    method: str, cardinalities: Sequence[int], dim: int, budget: int, seed: int, **options: Any
) -> Embedding:
    """`build`, with counts of a few small ids of every feature."""
    ids = torch.stack([torch.arange(40) % cardinality for cardinality in cardinalities], dim=1)
    return ready(build(method, cardinalities, dim, budget, seed, **options), ids)
