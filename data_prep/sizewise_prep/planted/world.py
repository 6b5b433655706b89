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
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from sizewise_prep.planted.columns.added import Part, Rows, Values, together
from sizewise_prep.planted.columns.crosses import Crosses
from sizewise_prep.planted.columns.lists import Lists
from sizewise_prep.planted.columns.numbers import Numbers
from sizewise_prep.planted.columns.ranks import Column
from sizewise_prep.planted.columns.users import Users
from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.integers import IntegerModel, Ints, sigmoid, weighted_sum
from sizewise_prep.planted.randomness import Floats, Stream, Words, counters, key, lanes, normals, uniforms
from sizewise_prep.planted.text import encode, token_key, tokens

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
INTERACTING = (1, 17, 14, 2, 12, 6, 10, 9)
FACTOR_SCALE = 0.22
INTEGER_CENTRE = 1.15  # minus the integers' mean effect

_PILOT_ROWS = 1 << 16
_PILOT_START = 1 << 48  # row numbers that no log reaches


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a world.

    Attributes:
        labels: (rows,), uint8, 0 or 1.
        integers: (13, rows), int64; meaningless where not `observed`.
        observed: (13, rows), bool.
        tokens: (26, rows), uint32, 0 = missing.
        probability: (rows,), float64: the true probability of a click given the row's text.
        added: the columns that dials add, by name.
        without: (rows,) each: what the probability would be without each of the effects that dials add.
    """

    labels: npt.NDArray[np.uint8]
    integers: Ints
    observed: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.uint32]
    probability: Floats
    added: Mapping[str, Values] = field(default_factory=dict)
    without: Mapping[str, Floats] = field(default_factory=dict)

    def text(self) -> bytes:
        """The rows in Criteo's layout, without what is added to it."""
        return encode(self.labels, self.integers, self.observed, self.tokens)


class World:
    """A generator of click rows, each a function of seed, dials and its number; of `rows` too with drift.

    Attributes:
        columns: the token columns' distributions.
        token_keys: (26,), uint32, what `text.tokens` makes a column's tokens of.
        integers: the integers' joint distribution and their effect on a click.
        parts: the columns and effects that dials add.
    """

    def __init__(self, seed: int, rows: int, dials: Dials | None = None) -> None:
        self.seed, self.rows, self.dials = seed, rows, dials or Dials()
        figures = json.loads(files("sizewise_prep.planted").joinpath("marginals.json").read_text())
        self.columns = [Column.fitted(column, self.dials) for column in figures["categorical"]]
        self.token_keys = np.array(
            [
                token_key(seed, Stream.TOKENS, c, values=column.values)
                for c, column in enumerate(self.columns)
            ],
            np.uint32,
        )
        self.integers = IntegerModel(figures, self.dials)
        self.parts = self._parts()

    def _parts(self) -> list[Part]:
        parts: list[Part] = []
        if self.dials.crosses:
            parts.append(Crosses(self.seed, self.dials, self.columns))
        if self.dials.numbers:
            parts.append(Numbers(self.seed, self.dials))
        if self.dials.lists:
            parts.append(Lists(self.seed, self.dials))
        if self.dials.users:
            parts.append(Users(self.seed, self.dials))
        return parts

    def key(self, stream: int, *parts: int) -> np.uint64:
        """The key of one of this world's streams of randomness."""
        return key(self.seed, stream, *parts)

    def chunk(self, start: int, stop: int) -> Chunk:
        """Rows `start` to `stop` (exclusive) of the log."""
        numbers, time = np.arange(start, stop, dtype=np.uint64), np.arange(start, stop) / self.rows
        row_words, ranks, integers, observed, logit = self._rows(numbers, time)
        made = together(self.parts, Rows(numbers, row_words, ranks, time, self.rows))
        logit += self.intercept
        for effect in made.effects.values():
            logit += effect
        probability = self._probability(logit)
        labels = (uniforms(row_words, self.key(Stream.LABEL)) < probability).astype(np.uint8)
        without = {name: self._probability(logit - effect) for name, effect in made.effects.items()}
        words = tokens(ranks, self.token_keys)
        return Chunk(labels, integers, observed, words, probability, made.columns, without)

    @cached_property
    def intercept(self) -> float:
        """The logit's constant, such that a pilot of rows outside the log has the click rate asked for."""
        numbers = np.arange(_PILOT_START, _PILOT_START + _PILOT_ROWS, dtype=np.uint64)
        time = np.arange(_PILOT_ROWS) / _PILOT_ROWS
        words, ranks, *_, logit = self._rows(numbers, time)
        for effect in together(self.parts, Rows(numbers, words, ranks, time, _PILOT_ROWS)).effects.values():
            logit += effect
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
