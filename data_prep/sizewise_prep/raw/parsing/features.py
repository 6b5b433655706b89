"""Token columns that are made of others: buckets of numbers, and crosses of tokens.

    rows = with_features(read, layout)         # rows as files have them -> rows as shards and models have them

A bucket's token is its number, from 1: one more than how many edges are at most the value; 0 where that is missing.
Values and edges are compared as float32.

A cross stands for the combination of its columns' tokens, in 32 bits. Of tokens t1, t2, ... it is the upper half of h,
or 1 where that is 0, after h = mix(h + t + 0x9E3779B97F4A7C15) for each of them, from 0 and modulo 2^64, where `mix` is
the last step of splitmix64 (Steele et al., 2014). It is missing (0) where one of its parts is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.raw.values.hashing import STEP, mix

_UPPER = np.uint64(32)
_ROWS = 65_536  # worked on at a time, so that temporary arrays stay small


def with_features(rows: Rows, layout: Layout) -> Rows:
    """Rows with the columns that models take, of rows with those that files have.

    Args:
        rows: as a reader gives them.
        layout: of the log, fitted.
    """
    ids = all_tokens(rows.ids, rows.dense, layout)
    return replace(
        rows,
        dense=dense_of(rows.dense, layout),
        ids=ids,
        weights=weights_of(rows.dense, layout),
        scores=scores_of(rows.dense, layout),
    )


def dense_of(numbers: npt.NDArray[np.float32], layout: Layout) -> npt.NDArray[np.float32]:
    """The dense columns among those of numbers that files have, (rows, columns) both."""
    dense = len(layout.dense)
    return numbers if numbers.shape[1] == dense else np.ascontiguousarray(numbers[:, :dense])


def weights_of(numbers: npt.NDArray[np.float32], layout: Layout) -> npt.NDArray[np.float32] | None:
    """How much each row counts, from the columns of numbers that files have; None where all count the same."""
    return _number(numbers, layout, layout.weight)


def scores_of(numbers: npt.NDArray[np.float32], layout: Layout) -> npt.NDArray[np.float32] | None:
    """Another model's log-odds of each row, from the columns of numbers that files have; None where there are none."""
    return _number(numbers, layout, layout.score)


def _number(
    numbers: npt.NDArray[np.float32], layout: Layout, name: str | None
) -> npt.NDArray[np.float32] | None:
    return None if name is None else np.ascontiguousarray(numbers[:, layout.numbers.index(name)])


def all_tokens(
    read: npt.NDArray[np.uint32], numbers: npt.NDArray[np.float32] | None, layout: Layout
) -> npt.NDArray[np.uint32]:
    """All token columns of a layout.

    Args:
        read: (rows, columns), those that files have, as raw tokens; 0 = missing.
        numbers: (rows, columns), as files have them, NaN = missing; None where no bucket is made of one.
        layout: of the log, fitted.

    Returns:
        (rows, all token columns); `read` itself where no column is made of others.
    """
    if not layout.crosses and not layout.bucketed:
        return read
    names = layout.tokens
    ids = np.empty((len(read), len(names)), np.uint32)
    ids[:, : read.shape[1]] = read
    for name, bucket in layout.bucketed.items():
        assert numbers is not None
        values = numbers[:, layout.numbers.index(bucket.of)]
        ids[:, names.index(name)] = bucket_of(values, layout.edges(name))
    for name, parts in layout.crosses.items():
        places = [names.index(part) for part in parts]
        for low in range(0, len(ids), _ROWS):
            block = ids[low : low + _ROWS]
            block[:, names.index(name)] = cross(block, places)
    return ids


def bucket_of(values: npt.NDArray[np.float32], edges: Sequence[float]) -> npt.NDArray[np.uint32]:
    """The bucket of each value, from 1; 0 where it is missing.

    Args:
        values: (rows,), NaN = missing.
        edges: where buckets begin but for the first, ascending.

    Returns:
        (rows,).
    """
    found = np.searchsorted(np.array(edges, np.float32), values, "right").astype(np.uint32) + np.uint32(1)
    found[np.isnan(values)] = 0
    return found


def cross(ids: npt.NDArray[np.uint32], places: Sequence[int]) -> npt.NDArray[np.uint32]:
    """The cross of some token columns.

    Args:
        ids: (rows, columns), 0 = missing.
        places: of the columns, whose order counts.

    Returns:
        (rows,), 0 where one of them is missing.
    """
    mixed = np.zeros(len(ids), np.uint64)
    known = np.ones(len(ids), np.bool_)
    for place in places:
        mixed = mix(mixed + ids[:, place] + STEP)
        known &= ids[:, place] != 0
    hashed: npt.NDArray[np.uint32] = np.maximum(mixed >> _UPPER, np.uint64(1)).astype(np.uint32)
    hashed[~known] = 0
    return hashed
