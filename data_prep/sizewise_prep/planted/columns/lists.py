"""Columns whose value is a list: any number of values in a row, or none, which may repeat.

A list moves a click by the mean of its values' effects, as a model that pools their vectors by the mean sees them.
"""

from __future__ import annotations

import numpy as np

from sizewise_prep.planted.columns.added import Made, Rows, Values
from sizewise_prep.planted.columns.ranks import Column
from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.integers import Ints
from sizewise_prep.planted.randomness import Floats, Stream, counters, key, normals, uniforms
from sizewise_prep.planted.text import token_key, tokens

VALUES = 5_000  # of each column
LONGER = 0.8  # how often lists of n values are, beside those of n - 1


class Lists:
    """As many columns of lists as the dial says, L1 and on."""

    def __init__(self, seed: int, dials: Dials) -> None:
        self.names = [f"L{number + 1}" for number in range(dials.lists)]
        self.values = Column(np.zeros(1), VALUES, exponent=1.1, offset=5.0)
        self.signal = dials.list_signal
        lengths = LONGER ** np.arange(dials.list_length + 1)
        self._lengths = np.cumsum(lengths / lengths.sum())[:-1]
        self._streams = [
            [key(seed, Stream.LISTS, number, use) for use in range(4)] for number in range(dials.lists)
        ]
        self._keys = [
            token_key(seed, Stream.LISTS, number, 4, values=VALUES) for number in range(dials.lists)
        ]

    def make(self, rows: Rows) -> Made:
        """The columns, and their effects together."""
        effect, made = np.zeros(len(rows.words)), {}
        for number, name in enumerate(self.names):
            length_stream, place_stream, value_stream, effect_stream = self._streams[number]
            lengths = np.searchsorted(self._lengths, uniforms(rows.words, length_stream), side="right")
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            owner = np.repeat(np.arange(len(lengths)), lengths)
            place = np.arange(offsets[-1]) - offsets[:-1][owner]
            words = rows.words[owner] ^ counters(place, place_stream)
            ranks = self.values.ranks(uniforms(words, value_stream))
            effect += self.signal * _means(normals(counters(ranks, effect_stream)), owner, lengths)
            values = tokens(ranks[None], np.array([self._keys[number]], np.uint32))[0]
            made[name] = Values(values, offsets=offsets)
        return Made(made, {"lists": effect})


def _means(values: Floats, owner: Ints, lengths: Ints) -> Floats:
    """The mean of each list, (rows,), 0 of an empty one, from the values of all and the row of each."""
    # `bincount` adds in the order of the values: the same for a row in whatever chunk it is.
    sums = np.bincount(owner, values, len(lengths))
    return np.asarray(sums / np.maximum(lengths, 1))
