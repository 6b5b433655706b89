"""A simulated world whose click probabilities are known: any row follows from its number alone.

    world = World(seed=1, rows=1_000_000)
    chunk = world.chunk(0, 4096)          # chunk.probability is exact given the row's text

How a row comes about (columns are counted from 0):

1. Tokens. Each column draws a rank: missing, one of the most frequent values, or a Zipf-Mandelbrot tail, P(r)
   ~ (r + offset)^-exponent. Columns depend on one another by sharing uniforms (A, B, V below), which leaves
   each column's distribution as it is; since the cut points are nested, fine columns nearly determine coarse
   ones and missing values coincide.
2. Integers. A Gaussian copula over two factors, the hash-normals of one token of group A and one of group B,
   and a residual; then real quantiles.
3. Click. logit = intercept + integers' effects (a generalized linear model) + tokens' effects (a hash-normal
   per value, as strong for rare values as for frequent ones) + pairwise interactions (a factorization machine
   over eight tokens and the integers).

Figures come from `marginals.json` (fitted to real rows; aggregates only). All randomness is counter-based
(`randomness`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.integers import IntegerModel, Ints, sigmoid, weighted_sum
from sizewise_prep.planted.randomness import Floats, Words, counters, key, lanes, normals, uniforms
from sizewise_prep.planted.text import encode, tokens

# Which columns share a uniform, with what probability (1 = always); V itself is A with a probability.
GROUP_A = (1, 14, 17, 18, 19, 24, 25)
GROUP_V = (2, 3, 11, 15, 20, 23)
V_IS_A = 0.6
GROUP_B = {6: 1.0, 10: 1.0, 12: 1.0, 9: 0.5, 8: 0.4, 16: 0.4, 22: 0.4}
FACTOR_A, FACTOR_B = 17, 6  # the columns whose values drive the integers
FACTOR_CLICK = (0.4, 0.5)  # and their weight in the click's logit

# Weight of each token column's effect on the click, and the columns that interact.
EFFECT = (
    *(0.02, 0.45, 0.17, 0.17, 0.02, 0.05, 0.15, 0.02, 0.1, 0.35, 0.35, 0.17, 0.42),
    *(0.3, 0.42, 0.17, 0.3, 0.5, 0.1, 0.05, 0.17, 0.02, 0.3, 0.17, 0.1, 0.25),
)  # fmt: skip
COMMON_EFFECT = 0.45  # missing and the most frequent values move a click less than the rest
INTERACTING = (1, 17, 14, 2, 12, 6, 10, 9)
FACTOR_SCALE = 0.22
INTEGER_CENTRE = 1.15  # minus the integers' mean effect

_LARGE = 1_000_000  # values from which on a column counts as large: its number of values is a dial

_PILOT_ROWS = 1 << 16
_PILOT_START = 1 << 48  # row numbers that no log reaches


class Stream(IntEnum):
    """Streams of randomness: the first part of a key."""

    ROW = 1
    UNIFORM = 2
    EFFECTS = 3
    FACTORS = 4
    TOKENS = 5
    DRIFT = 6
    RESIDUAL = 7
    LABEL = 8
    INTEGER_FACTORS = 9


@dataclass(frozen=True)
class Column:
    """One token column's distribution over ranks: 0 missing, 1 the most frequent value, and so on.

    Attributes:
        cuts: cumulative shares of missing and the tabulated values, (1 + tabulated,).
        values: how many values there are.
        exponent, offset: of the tail beyond the tabulated values.
    """

    cuts: Floats
    values: int
    exponent: float
    offset: float

    @property
    def tabulated(self) -> int:
        """How many of the most frequent values have a share of their own."""
        return len(self.cuts) - 1

    @staticmethod
    def fitted(figures: Mapping[str, Any], dials: Dials) -> Column:
        """The column of the fitted figures, with the dials applied.

        `zipf` raises every value's probability to a power and renormalizes, tail included (its sum as an
        integral).
        """
        head = np.array(figures["head"], np.float64)
        values, exponent, offset = figures["values"], figures["exponent"], figures["offset"]
        if values >= _LARGE:
            values = round(values * dials.vocabulary)
        observed = 1 - figures["missing"]
        tail_values = values - len(head)
        tail_share = max(observed - float(head.sum()), 0.0) if tail_values else 0.0
        if dials.zipf != 1:
            head = head**dials.zipf
            if tail_values:
                density = tail_share / _integral(exponent, offset, tail_values)
                exponent *= dials.zipf
                tail_share = density**dials.zipf * _integral(exponent, offset, tail_values)
        missing = min(figures["missing"] * dials.missing, 1.0)
        shares = head / (head.sum() + tail_share) * (1 - missing)
        cuts = np.cumsum([missing, *shares])
        if not tail_values:
            cuts[-1] = 1.0
        return Column(cuts, values, exponent, offset)

    def ranks(self, uniform: Floats) -> Ints:
        """The rank at each quantile in [0, 1)."""
        rank: Ints = np.searchsorted(self.cuts, uniform, side="right").astype(np.int64)
        tail_values = self.values - self.tabulated
        if tail_values:
            tail = np.flatnonzero(rank > self.tabulated)
            start = self.cuts[-1]
            rest = (uniform[tail] - start) / (1 - start)
            if abs(power := 1 - self.exponent) < 1e-9:
                position = self.offset * ((self.offset + tail_values) / self.offset) ** rest
            else:
                low, high = self.offset**power, (self.offset + tail_values) ** power
                position = (low + rest * (high - low)) ** (1 / power)
            rank[tail] += np.clip(position - self.offset, 0, tail_values - 1).astype(np.int64)
        return rank

    def effect_scale(self, ranks: Ints, rarity_decay: float) -> Floats:
        """How strongly each value moves a click, as a factor."""
        scale = np.where(ranks <= self.tabulated, COMMON_EFFECT, 1.0)
        if rarity_decay and self.values > self.tabulated:
            position = np.maximum(ranks - self.tabulated - 1, 0) + self.offset
            scale *= (position / self.offset) ** (-self.exponent * rarity_decay)
        return scale


def _integral(exponent: float, offset: float, values: int) -> float:
    """Integral of x^-exponent from `offset` to `offset + values`."""
    if abs(power := 1 - exponent) < 1e-9:
        return float(np.log((offset + values) / offset))
    return float(((offset + values) ** power - offset**power) / power)


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a world.

    Attributes:
        labels: (rows,), uint8, 0 or 1.
        integers: (13, rows), int64; meaningless where not `observed`.
        observed: (13, rows), bool.
        tokens: (26, rows), uint32, 0 = missing.
        probability: (rows,), float64: the true probability of a click given the row's text.
    """

    labels: npt.NDArray[np.uint8]
    integers: Ints
    observed: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.uint32]
    probability: Floats

    def text(self) -> bytes:
        """The rows in Criteo's layout."""
        return encode(self.labels, self.integers, self.observed, self.tokens)


class World:
    """A generator of click rows, each a function of seed, dials and its number; of `rows` too with drift.

    Attributes:
        columns: the token columns' distributions.
        token_keys: (26,), uint32, what `text.tokens` makes a column's tokens of.
        integers: the integers' joint distribution and their effect on a click.
    """

    def __init__(self, seed: int, rows: int, dials: Dials | None = None) -> None:
        self.seed, self.rows, self.dials = seed, rows, dials or Dials()
        figures = json.loads(files("sizewise_prep.planted").joinpath("marginals.json").read_text())
        self.columns = [Column.fitted(column, self.dials) for column in figures["categorical"]]
        self.token_keys = np.array(
            [
                1 + int(key(seed, Stream.TOKENS, c)) % ((1 << 32) - 1 - column.values)
                for c, column in enumerate(self.columns)
            ],
            np.uint32,
        )
        self.integers = IntegerModel(figures, self.dials)

    def key(self, stream: int, *parts: int) -> np.uint64:
        """The key of one of this world's streams of randomness."""
        return key(self.seed, stream, *parts)

    def chunk(self, start: int, stop: int) -> Chunk:
        """Rows `start` to `stop` (exclusive) of the log."""
        numbers = np.arange(start, stop, dtype=np.uint64)
        row_words, ranks, integers, observed, logit = self._rows(numbers, np.arange(start, stop) / self.rows)
        probability = self._probability(logit + self.intercept)
        labels = (uniforms(row_words, self.key(Stream.LABEL)) < probability).astype(np.uint8)
        return Chunk(labels, integers, observed, tokens(ranks, self.token_keys), probability)

    @cached_property
    def intercept(self) -> float:
        """The logit's constant, such that a pilot of rows outside the log has the click rate asked for."""
        numbers = np.arange(_PILOT_START, _PILOT_START + _PILOT_ROWS, dtype=np.uint64)
        *_, logit = self._rows(numbers, np.arange(_PILOT_ROWS) / _PILOT_ROWS)
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            below = float(sigmoid(logit + middle).mean()) < self.dials.click_rate
            low, high = (middle, high) if below else (low, middle)
        return (low + high) / 2

    def _probability(self, logit: Floats) -> Floats:
        return (1 - self.dials.noise) * sigmoid(logit) + self.dials.noise * self.dials.click_rate

    def _rows(self, numbers: Words, time: Floats) -> tuple[Words, Ints, Ints, npt.NDArray[np.bool_], Floats]:
        """Row hashes, ranks (26, rows), integers and which are observed (13, rows), and logits."""
        words = counters(numbers, self.key(Stream.ROW))
        ranks = self._ranks(words)
        factor_a, factor_b = (
            normals(counters(ranks[c], self.key(Stream.INTEGER_FACTORS, c))) for c in (FACTOR_A, FACTOR_B)
        )
        integers, observed = self.integers.draw(
            factor_a,
            factor_b,
            [normals(counters(words, self.key(Stream.RESIDUAL, j))) for j in range(self.integers.count)],
        )
        logs = np.log1p(np.maximum(integers + 1, 0)) * observed
        effects = FACTOR_CLICK[0] * factor_a + FACTOR_CLICK[1] * factor_b + self._token_effects(ranks, time)
        logit = (
            self.dials.integer_signal * (self.integers.effects(logs, observed) + INTEGER_CENTRE)
            + self.dials.token_signal * effects
            + self.dials.interactions * self._interactions(ranks, self.integers.standardized(logs, observed))
        )
        return words, ranks, integers, observed, logit

    def _ranks(self, words: Words) -> Ints:
        def uniform(*parts: int) -> Floats:
            return uniforms(words, self.key(Stream.UNIFORM, *parts))

        shared_a, shared_b = uniform(0), uniform(1)
        shared_v = np.where(uniform(2) < V_IS_A, shared_a, uniform(3))
        ranks = np.empty((len(self.columns), len(words)), np.int64)
        for c, column in enumerate(self.columns):
            if c in GROUP_A:
                quantile = shared_a
            elif c in GROUP_V:
                quantile = shared_v
            elif GROUP_B.get(c) == 1:
                quantile = shared_b
            else:
                quantile = uniform(4, c)
                if c in GROUP_B:
                    quantile = np.where(uniform(5, c) < GROUP_B[c], shared_b, quantile)
            ranks[c] = column.ranks(quantile)
        return ranks

    def _token_effects(self, ranks: Ints, time: Floats) -> Floats:
        total = np.zeros(ranks.shape[1])
        angle = self.dials.drift * time
        for c, column in enumerate(self.columns):
            effect = normals(counters(ranks[c], self.key(Stream.EFFECTS, c)))
            if self.dials.drift:
                effect = effect * np.cos(angle) + normals(
                    counters(ranks[c], self.key(Stream.DRIFT, c))
                ) * np.sin(angle)
            total += EFFECT[c] * column.effect_scale(ranks[c], self.dials.rarity_decay) * effect
        return total

    def _interactions(self, ranks: Ints, standardized: Floats) -> Floats:
        """Factorization machine (Rendle, ICDM 2010) over eight tokens' vectors v and the integers' one.

        Half of |sum of v|^2 - sum of |v|^2, which is the sum of inner products over all pairs; (rows,).
        """
        rank = self.dials.factor_rank
        scale = FACTOR_SCALE * (4 / rank) ** 0.25  # keeps the strength whatever the rank
        total = np.zeros(ranks.shape[1])
        for block in range((rank + 3) // 4):
            dims = min(4, rank - 4 * block)
            sums = np.zeros((dims, ranks.shape[1]))
            for c in INTERACTING:
                vectors = lanes(counters(ranks[c], self.key(Stream.FACTORS, c, block)))
                for k in range(dims):
                    vector = scale * vectors[k]
                    sums[k] += vector
                    total -= vector * vector
            weights = lanes(counters(np.arange(len(standardized)), self.key(Stream.FACTORS, 99, block)))
            for k in range(dims):
                vector = scale / len(standardized) ** 0.5 * weighted_sum(weights[k], standardized)
                sums[k] += vector
                total += sums[k] ** 2 - vector * vector
        return 0.5 * total
