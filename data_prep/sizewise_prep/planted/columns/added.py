"""The columns and effects that dials add to a planted world, one `Part` for each kind of them.

    parts = parts_of(seed, dials, columns)
    made = parts[0].make(Rows(numbers, words, ranks, time))
    made.columns            # further columns of the log, by name
    made.effects            # what each adds to the log-odds of a click, by the name that `truth.json` has for it

Like all of a planted world they are functions of the seed and the number of a row: nothing depends on the order in
which rows are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sizewise_prep.planted.integers import Ints
from sizewise_prep.planted.randomness import Floats, Words


@dataclass(frozen=True)
class Rows:
    """Rows to which columns are added.

    Attributes:
        numbers: (rows,), of the rows in the log.
        words: (rows,), a hash of each number.
        ranks: (26, rows), the values of the token columns.
        time: (rows,), how much of the log is before each, in [0, 1).
        count: rows of the log.
    """

    numbers: Words
    words: Words
    ranks: Ints
    time: Floats
    count: int


@dataclass(frozen=True)
class Values:
    """What a column holds in some rows.

    Attributes:
        values: (rows,), or those of all rows one after another where each holds a list: uint32 tokens, float64 numbers
            or int64 times.
        observed: (rows,), False where a value is missing; None where none is.
        offsets: (rows + 1,), where each row's values begin, and where the last one's end; None where each has one.
    """

    values: npt.NDArray[np.uint32] | Floats | Ints
    observed: npt.NDArray[np.bool_] | None = None
    offsets: Ints | None = None


@dataclass(frozen=True)
class Made:
    """What a part makes of rows: columns, and terms of the log-odds, (rows,) each, both by name."""

    columns: dict[str, Values] = field(default_factory=dict)
    effects: dict[str, Floats] = field(default_factory=dict)


class Part(Protocol):
    """A kind of columns that dials add."""

    def make(self, rows: Rows) -> Made:
        """The columns and effects of some rows."""


def together(parts: Sequence[Part], rows: Rows) -> Made:
    """What all parts make of rows."""
    everything = Made()
    for made in (part.make(rows) for part in parts):
        everything.columns.update(made.columns)
        everything.effects.update(made.effects)
    return everything
