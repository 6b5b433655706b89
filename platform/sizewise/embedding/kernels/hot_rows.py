"""From ids to rows of a table that holds the hot values first: hashes, the list of hot values, and the cold rows.

    find = RowFinder(multiplier, increment, cold_multiplier, cold_increment)
    rows = find(ids, lists, cold)      # uint32 (batch, features)

One pass a chunk of rows computes the hashes, which are vector instructions; a second one looks into the list, whose
cache lines are asked for some dozens ahead. Nothing but the rows and two chunks of 32 KB is written.

How many values share a run of places is random, and so is whether an id is one of them: a search among them would be
mispredicted at most ids. So where fingerprints are short, every place has a bit, set for those of the list. The number
of bits below one is the position, found without a branch, in one cache line an id.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import int64, types, uint32, uint64
from numba.extending import intrinsic
from torch import Tensor

from sizewise.embedding.bags import Bags
from sizewise.embedding.kernels.blocks.common import mixed
from sizewise.embedding.kernels.threads import share_out
from sizewise.embedding.kernels.vectors import inlined, prefetch
from sizewise_core.machine.compiled import jit

CHUNK = 4096  # ids whose places are computed at a time
AHEAD = 64  # ids whose cache lines are asked for ahead
BITS_OF_MARKS = 6  # of a fingerprint: with more, a bit for every place would be more than 16 bytes a value
IDS_PER_THREAD = 65_536  # fewer do not repay a second thread

Array = npt.NDArray[Any]


class Lists(NamedTuple):
    """Where each feature's places begin and how many it has, int64 (features,); the sorted places of hot values, int32;
    the `marks_of` these, and the bits of a fingerprint.
    """

    begins: Tensor
    spans: Tensor
    places: Tensor
    marks: Tensor
    bits: int


class Cold(NamedTuple):
    """The first row of cold values; with `hashed` rows they are hashed to so many, else each feature has one."""

    first: int
    hashed: int


def marks_of(places: Tensor, bits: int) -> Tensor:
    """What a place is found by.

    Args:
        places: int32 (values,), ascending, on the CPU; those at the end may be equal.
        bits: of a fingerprint.

    Returns:
        int64 (2 n,): for every 64 places their bits, and how many values have places before them. With more than
        `BITS_OF_MARKS` (values + 2,): where the values of each run of 2^bits places begin.
    """
    values, known = len(places), places.numpy().astype(np.int64)
    if bits > BITS_OF_MARKS:
        return torch.from_numpy(np.searchsorted(known, np.arange(values + 2) << bits))
    known = np.unique(known)
    words = (values << bits >> 6) + 1  # features without values have the place behind all others
    marks = np.zeros((words, 2), np.int64)
    np.bitwise_or.at(marks[:, 0], known >> 6, np.int64(1) << (known & 63))
    marks[:, 1] = np.searchsorted(known, np.arange(words) << 6)
    return torch.from_numpy(marks.reshape(-1))


@intrinsic  # type: ignore[untyped-decorator]
def _bits_in(typing_context: Any, word: Any) -> Any:
    """How many bits of a uint64 are set."""

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@inlined
def _by_marks(wanted: Array, others: Array, count: int, marks: Array, out: Array) -> None:
    """Write the position of each wanted place, or the other number where it is not in the list.

    Args:
        wanted, others: int64 (count or more,); the first is written over.
        marks: of 64 places each.
        out: uint32 (count,).
    """
    absent = int64(-(2**63))
    for n in range(count):
        prefetch(marks, (wanted[min(n + AHEAD, count - 1)] >> 6) * 2)
        at, bit = (wanted[n] >> 6) * 2, uint64(wanted[n] & 63)
        up_to_it = uint64(marks[at]) << (uint64(63) - bit)  # its own bit is the highest
        wanted[n] = (marks[at + 1] + _bits_in(up_to_it << uint64(1))) | (int64(~up_to_it) & absent)
    for n in range(count):  # a loop of vector instructions: in the one above this would be a branch
        out[n] = uint32(wanted[n] if wanted[n] >= 0 else others[n])


@inlined
def _by_runs(
    wanted: Array, others: Array, count: int, places: Array, marks: Array, bits: int, out: Array
) -> None:
    """The same for longer fingerprints.

    Args: as for `_by_marks`, and the places with their `marks`, of runs.
    """
    for n in range(count):
        prefetch(marks, wanted[min(n + AHEAD, count - 1)] >> bits)
        place, row = wanted[n], others[n]
        run = place >> bits
        for i in range(marks[run], marks[run + 1]):
            if places[i] == place:
                row = int64(i)
                break
        out[n] = uint32(row)


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
    marks: Array,
    bits: int,
    cold_a: Array,
    cold_b: Array,
    first: int,
    hashed: int,
    out: Array,
) -> None:
    features = ids.shape[1]
    rows = max(1, CHUNK // features)
    wanted, others = np.empty(rows * features, np.int64), np.empty(rows * features, np.int64)
    for start in range(low, high, rows):
        n = 0
        for row in range(start, min(start + rows, high)):
            for f in range(features):
                h = mixed(uint32(uint32(uint32(ids[row, f]) * a[f]) + b[f]))
                wanted[n + f] = begins[f] + int64((uint64(h) * uint64(spans[f])) >> uint64(32))
                others[n + f] = first + f
            if hashed:
                for f in range(features):
                    h = mixed(uint32(uint32(uint32(ids[row, f]) * cold_a[f]) + cold_b[f]))
                    others[n + f] = first + int64((uint64(h) * uint64(hashed)) >> uint64(32))
            n += features
        if bits <= BITS_OF_MARKS:
            _by_marks(wanted, others, n, marks, out[start * features :])
        else:
            _by_runs(wanted, others, n, places, marks, bits, out[start * features :])


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
        out, a, b, cold_a, cold_b = rows.view(-1).numpy(), *self._terms
        begins, spans, places, marks = (tensor.numpy() for tensor in lists[:4])
        ids_ = ids.contiguous().numpy()
        parts = max(1, min(torch.get_num_threads(), ids.numel() // IDS_PER_THREAD))

        def run(low: int, high: int) -> None:
            _find(ids_, low, high, a, b, begins, spans, places, marks, lists.bits, cold_a, cold_b, *cold, out)

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
