"""From ids to rows of a table that holds the hot values first: hashes, the list of hot values, and the cold rows.

    find = RowFinder(multiplier, increment, cold_multiplier, cold_increment)
    rows = find(ids, lists, cold)      # uint32 (batch, features)

One pass a chunk of rows computes the hashes, which are vector instructions; a second one looks into the list, whose
cache lines were asked for meanwhile. Nothing but the rows and a chunk of 32 KB is written.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import int64, uint32, uint64
from torch import Tensor

from sizewise.embedding.bags import Bags
from sizewise.embedding.kernels.blocks.common import mixed
from sizewise.embedding.kernels.threads import share_out
from sizewise.embedding.kernels.vectors import prefetch
from sizewise_core.machine.compiled import jit

CHUNK = 4096  # ids whose places are computed at a time
IDS_PER_THREAD = 65_536  # fewer do not repay a second thread

Array = npt.NDArray[Any]


class Lists(NamedTuple):
    """Where each feature's places begin and how many it has, int64 (features,); the sorted places of hot values, int32;
    where those of each run of 2^bits places begin among them, int32; and the bits.
    """

    begins: Tensor
    spans: Tensor
    places: Tensor
    buckets: Tensor
    bits: int


class Cold(NamedTuple):
    """The first row of cold values; with `hashed` rows they are hashed to so many, else each feature has one."""

    first: int
    hashed: int


@jit
def _find(
    ids: Array,
    low: int,
    high: int,
    a: Array,
    b: Array,
    begins: Array,
    spans: Array,
    places: Array,
    buckets: Array,
    bits: int,
    cold_a: Array,
    cold_b: Array,
    first: int,
    hashed: int,
    out: Array,
) -> None:
    features = ids.shape[1]
    rows = max(1, CHUNK // features)
    wanted = np.empty(rows * features, np.int64)
    for start in range(low, high, rows):
        stop, n = min(start + rows, high), 0
        for row in range(start, stop):
            for f in range(features):
                h = mixed(uint32(uint32(uint32(ids[row, f]) * a[f]) + b[f]))
                wanted[n + f] = begins[f] + int64((uint64(h) * uint64(spans[f])) >> uint64(32))
            for f in range(features):
                prefetch(buckets, wanted[n + f] >> bits)
            n += features
        n = 0
        for row in range(start, stop):
            for f in range(features):
                place, found = wanted[n + f], int64(-1)
                bucket = place >> bits
                for i in range(buckets[bucket], buckets[bucket + 1]):
                    if places[i] == place:
                        found = int64(i)
                        break
                if found < 0:
                    found = int64(first + f)
                    if hashed:
                        h = mixed(uint32(uint32(uint32(ids[row, f]) * cold_a[f]) + cold_b[f]))
                        found = int64(first) + int64((uint64(h) * uint64(hashed)) >> uint64(32))
                out[row, f] = uint32(found)
            n += features


class RowFinder:
    """Finds rows on the CPU.

    Args:
        multiplier, increment: of the hash of places, int64 (features, 1).
        cold_multiplier, cold_increment: of the hash of cold values.
    """

    def __init__(
        self, multiplier: Tensor, increment: Tensor, cold_multiplier: Tensor, cold_increment: Tensor
    ) -> None:
        terms = multiplier, increment, cold_multiplier, cold_increment
        self._terms = [np.ascontiguousarray(term.numpy().astype(np.uint32).reshape(-1)) for term in terms]

    def __call__(self, ids: Tensor, lists: Lists, cold: Cold) -> Tensor:
        """Rows of ids, int64 or uint32 (batch, features), as uint32 of that shape."""
        rows = torch.empty(ids.shape, dtype=torch.uint32)
        out, a, b, cold_a, cold_b = rows.numpy(), *self._terms
        begins, spans, places, buckets = (tensor.numpy() for tensor in lists[:4])
        ids_ = ids.contiguous().numpy()
        parts = max(1, min(torch.get_num_threads(), ids.numel() // IDS_PER_THREAD))

        def run(low: int, high: int) -> None:
            _find(
                ids_, low, high, a, b, begins, spans, places, buckets, lists.bits, cold_a, cold_b, *cold, out
            )

        share_out(len(ids), parts, run)
        return rows

    def of_bags(self, bags: Bags, columns: int, rows: int, lists: Lists, cold: Cold) -> Tensor:
        """Rows of the values of bags, uint32 (n,).

        Args:
            bags: of the features from number `columns` on.
            columns: features before them.
            rows: of the batch.
            lists, cold: as for single ids.
        """
        found = [torch.empty(0, dtype=torch.uint32)]
        ends = bags.offsets[::rows].tolist() if rows else [0]
        for number, (low, high) in enumerate(pairwise(ends)):
            feature = slice(columns + number, columns + number + 1)
            of_one = RowFinder.__new__(RowFinder)
            of_one._terms = [term[feature] for term in self._terms]
            first = cold.first if cold.hashed else cold.first + columns + number
            own = lists._replace(begins=lists.begins[feature], spans=lists.spans[feature])
            found.append(of_one(bags.values[low:high].unsqueeze(1), own, Cold(first, cold.hashed)).flatten())
        return torch.cat(found)
