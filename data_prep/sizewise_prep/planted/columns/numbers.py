"""Real-valued columns: N1, N3, ... are like scores (normal, four decimals), N2, N4, ... like prices (log-normal, two).

Each moves a click by a straight and a bent term of its value, or of the value's logarithm.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from sizewise_prep.planted.columns.added import Made, Rows, Values
from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.randomness import Floats, Stream, counters, key, normals, uniforms

MISSING = 0.05
CENTRE = 3.0  # of a price's logarithm


class Number(NamedTuple):
    """A real-valued column: its effect is `linear * t + square * (t^2 - 1) / sqrt(2)`.

    `t` is the value, or the logarithm of a price less `CENTRE`; there is no effect where it is missing.
    """

    name: str
    of: Literal["value", "logarithm"]
    linear: float
    square: float

    @property
    def centre(self) -> float:
        """What is subtracted from the value or its logarithm."""
        return CENTRE if self.of == "logarithm" else 0.0


class Numbers:
    """As many real-valued columns as the dial says."""

    def __init__(self, seed: int, dials: Dials) -> None:
        self.missing = min(MISSING * dials.missing, 1.0)
        streams = [key(seed, Stream.NUMBERS, number) for number in range(dials.numbers)]
        self._streams = [(stream, key(seed, Stream.NUMBERS, n, 1)) for n, stream in enumerate(streams)]
        self.columns = []
        for number, stream in enumerate(streams):
            turn = 2 * np.pi * float(uniforms(counters(np.arange(1), stream), stream)[0])
            linear, square = (dials.number_signal * float(part) for part in (np.cos(turn), np.sin(turn)))
            of: Literal["value", "logarithm"] = "logarithm" if number % 2 else "value"
            self.columns.append(Number(f"N{number + 1}", of, linear, square))

    def make(self, rows: Rows) -> Made:
        """The columns, and their effects together."""
        effect, made = np.zeros(len(rows.words)), {}
        for column, (value_stream, missing_stream) in zip(self.columns, self._streams, strict=True):
            normal = normals(counters(rows.words, value_stream))
            price = column.of == "logarithm"
            value: Floats = np.round(np.exp(CENTRE + normal) if price else normal, 2 if price else 4)
            observed = uniforms(rows.words, missing_stream) >= self.missing
            effect += observed * _effect(column, value)
            made[column.name] = Values(value, observed)
        return Made(made, {"numbers": effect})


def _effect(column: Number, value: Floats) -> Floats:
    t = (np.log(value) if column.of == "logarithm" else value) - column.centre
    return column.linear * t + column.square * (t * t - 1) / 2**0.5
