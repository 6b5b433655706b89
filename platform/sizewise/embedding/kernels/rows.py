"""Rows of a memory-mapped shard, gathered into a batch in one pass."""

from typing import Any

import numpy as np
import numpy.typing as npt

from sizewise.embedding.kernels.vectors import jit, prefetch

Array = npt.NDArray[Any]


@jit
def take_rows(
    labels: Array, dense: Array, ids: Array, rows: Array, to_labels: Array, to_dense: Array, to_ids: Array
) -> None:
    """Copy the given rows of a shard, widening ids and labels on the way; missing dense values become 0."""
    for n in range(len(rows)):
        if n + 8 < len(rows):
            coming = rows[n + 8]
            for line in range(0, ids.shape[1], 16):
                prefetch(ids, coming * ids.shape[1] + line)
            prefetch(dense, coming * dense.shape[1])
        row = rows[n]
        to_labels[n] = labels[row]
        for i in range(dense.shape[1]):
            value = dense[row, i]
            to_dense[n, i] = value if value == value else np.float32(0)  # NaN differs from itself
        for i in range(ids.shape[1]):
            to_ids[n, i] = ids[row, i]
