"""Expected errors of `hash` and `robe` with a pool of a given size: of vectors, inner products and distances.

The Johnson-Lindenstrauss bound (`bounds.py`) is for dense Gaussian projections. `hash` and `robe` read each
number from one position of the pool, so that ids that share a position read the same number there, at any size of the
pool. What can be computed exactly is an expectation over the hash: how far the vectors of given ids are off, from how
often they and the others are read. docs/methods.md derives the formulas, and tests/sizewise/theory/test_pool_theory.py
checks them against the methods' own hashes.

    pool = PoolMap(numbers=2_500_000, dim=16, block_len=16, align=4)
    ids = Frequencies.zipf(1_000_000, exponent=1.0)
    read_moments(pool, ids, ids.at(0.5)).vector_error()   # of the id of the median lookup, relative to its length
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sizewise_core.errors import InputError

Floats = NDArray[np.float64]
CERTAIN = 1 - 1e-9  # the largest probability, so that logarithms of its complement exist
MOST_GROUPS = 200  # of ids by weight; with more different weights, similar ones share a group


class PoolMap(NamedTuple):
    """How `robe`, and `hash` with ``block_len = align = dim``, read a vector out of a pool: in blocks."""

    numbers: int
    """Floats in the pool (m)."""
    dim: int
    block_len: int
    align: int
    """Blocks start on multiples of this many floats; it divides block_len and dim."""
    sign: bool = False
    """One sign a block, as with `hash: fast`."""
    wrap: bool = False

    @property
    def starts(self) -> int:
        """Where a block can start (K)."""
        if self.wrap:
            return self.numbers // self.align
        return (self.numbers - self.block_len) // self.align + 1

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """(length in units of align, how many of that length a vector has); the last block may be cut short."""
        full, rest = divmod(self.dim, self.block_len)
        found = (self.block_len // self.align, full), (rest // self.align, int(rest > 0))
        return [(length, count) for length, count in found if count]


class Frequencies(NamedTuple):
    """How often ids are read: ``ids[g]`` ids (features and values together) with weight ``weights[g]`` each."""

    weights: Floats
    """Descending, in any unit."""
    ids: Floats

    @classmethod
    def of(cls, counts: NDArray[np.integer[Any]] | Floats) -> "Frequencies":
        """From how often each id occurs."""
        values, ids = np.unique(np.asarray(counts, np.float64), return_counts=True)
        values, ids = values[values > 0][::-1], ids[values > 0][::-1]
        if len(values) <= MOST_GROUPS:
            return cls(values, np.asarray(ids, np.float64))
        logs = np.log(values)
        group = np.rint((logs[0] - logs) / (logs[0] - logs[-1]) * (MOST_GROUPS - 1)).astype(np.int64)
        number = np.bincount(group, ids).astype(np.float64)
        lookups = np.bincount(group, ids * values)
        return cls(lookups[number > 0] / number[number > 0], number[number > 0])

    @classmethod
    def zipf(cls, ids: int, exponent: float) -> "Frequencies":
        """Weights ``rank^-exponent``; beyond rank 100, ids of near ranks share their mean weight."""
        first, others = np.arange(1, min(ids, 100) + 1), np.geomspace(1, ids, MOST_GROUPS - 100).round()
        edges = np.unique(np.concatenate([first, others]))
        edges = np.append(edges[edges <= ids], ids + 1.0)
        low, high, numbers = edges[:-1] - 0.5, edges[1:] - 0.5, np.diff(edges)
        power = 1 - exponent
        total = np.log(high / low) if abs(power) < 1e-9 else (high**power - low**power) / power
        return cls(np.where(numbers == 1, edges[:-1] ** -exponent, total / numbers), numbers)

    def at(self, share: float) -> float:
        """The weight of the id down to which ids, in order of weight, take this share of all lookups."""
        lookups = np.cumsum(self.weights * self.ids)
        return float(self.weights[np.searchsorted(lookups, share * lookups[-1]).clip(max=len(lookups) - 1)])


class ReadMoments(NamedTuple):
    """Moments of one number that is read from the pool: expectations over the hash, averages over the vector.

    f is the id's own weight, F the sum of the weights of all that share the position, Q that of the others' squares.
    """

    kept: float
    """E[f / F]: the share of the id's own number in what is read."""
    kept_square: float
    """E[f^2 / F^2]."""
    noise: float
    """E[Q / F^2]: mean square of the others' part, relative to the mean square of their numbers."""

    def vector_error(self, ratio: float = 1.0) -> float:
        """Root of the expected squared error of the vector, relative to its length.

        Args:
            ratio: mean square of the other vectors' numbers over that of this one's.
        """
        return math.sqrt(max(1 - 2 * self.kept + self.kept_square, 0.0) + self.noise * ratio)


class PairError(NamedTuple):
    """Errors of two given vectors x and y, read from the least-squares pool as x' and y'."""

    inner_product: float
    """``(E[x'y'] - xy) / (|x| |y|)``."""
    inner_product_rms: float
    """``sqrt(E[(x'y' - xy)^2]) / (|x| |y|)``, to leading order in block_len / numbers."""
    squared_distance: float
    """``(E|x' - y'|^2 - |x - y|^2) / |x - y|^2``; NaN where x = y."""


def read_moments(pool: PoolMap, ids: Frequencies, weight: float) -> ReadMoments:
    """Exact moments of what is read of an id of this weight from the least-squares pool.

    The pool is the one that training on squared error would find: ``p`` minimizes ``sum_i f_i |S_i p - x_i|^2``, so
    each of its numbers is the mean, by weight, of the (signed) numbers that share it. Every block's start is uniform
    over the starts and independent of all others, and so is its sign; the expectation is over these. Expectations of
    1/F and 1/F^2 are one-dimensional integrals, since ``1/F = int exp(-tF) dt`` and F is a sum over independent blocks
    (docs/methods.md has the derivation).

    Args:
        pool: how vectors are read from the pool.
        ids: the weights of all ids, including the one that is read.
        weight: of the id that is read.

    Raises:
        InputError: the pool holds no block, or align does not divide block_len and dim.
    """
    _check_map(pool)
    weights = ids.weights / weight
    t, step = _nodes(1 + float(weights @ ids.ids), 400)
    falls = np.expm1(-np.outer(t, weights))  # exp(-t f) - 1, (nodes, groups)
    own = np.expm1(-t)
    found = np.zeros(3)
    for share, chances in _cells(pool):
        counts = [count for _, count in pool.blocks]
        log_others = sum(c * (np.log1p(q * falls) @ ids.ids) for q, c in zip(chances, counts, strict=True))
        squares = sum(
            c * ((q * weights**2 * (1 + falls) / (1 + q * falls)) @ ids.ids)
            for q, c in zip(chances, counts, strict=True)
        )
        readers = [q * c for q, c in zip(chances, counts, strict=True)]
        for q, reader in zip(chances, readers, strict=True):
            # Among the others are all blocks but the one that reads.
            density = step * np.exp(-t + log_others - np.log1p(q * own))
            others = squares - q * (1 + own) / (1 + q * own)
            moments = density.sum(), (t * density).sum(), (t * density * others).sum()
            found += share * reader / sum(readers) * np.array(moments)
    return ReadMoments(*(float(value) for value in found))


def pair_error(
    pool: PoolMap, ids: Frequencies, weights: tuple[float, float], x: Floats, y: Floats, square: float = 1.0
) -> PairError:
    """Expected errors of the inner product and the squared distance of two given vectors of different ids.

    The other ids' vectors have numbers of mean square ``square``. Without signs they must also be drawn at random,
    uncorrelated with mean zero, and the expectation is over them too; with signs the hash alone makes their sum zero in
    expectation. Where blocks of x or y meet other blocks of their own vector, their numbers count as such too.
    Expectations are exact for blocks that do not overlap in part (`hash`, and `robe` with align = block_len); otherwise
    blocks of x and y that do so (a chance below ``2 block_len / numbers``) count as apart.

    Args:
        pool: how vectors are read from the pool.
        ids: the weights of all ids, including those of x and y.
        weights: of x and of y.
        x, y: (dim,) vectors; not zero.
        square: mean square of a number of the other vectors.

    Raises:
        InputError: as `read_moments`; or the pool is so small that two blocks can hardly be apart.
    """
    _check_map(pool)
    if pool.starts <= 2 * pool.blocks[0][0]:
        raise InputError(
            f"a pool of {pool.numbers} numbers is too small for pairs of vectors: give more memory"
        )
    first, second = (read_moments(pool, ids, weight) for weight in weights)
    meet = 1 / pool.starts
    together = _joint(pool, ids, weights, apart=None)
    inner = float(x @ y)
    lengths = float(x @ x), float(y @ y)
    f, g = weights
    same_square, same_noise = _shared(pool, ids, weights)
    # Both read one block: with signs its own square cancels, without them it counts.
    met = 2 * f * g * inner * same_square
    if not pool.sign:
        met += (f * f * lengths[0] + g * g * lengths[1]) * same_square + pool.dim * square * same_noise
    expected = (1 - meet) * together * inner + meet * met
    squared = (1 - meet * -(-pool.dim // pool.block_len)) * _apart_mse(
        pool, ids, weights, (first, second), x, y, square
    ) + meet * _met_mse(pool, (f * x, g * y), (x, y), same_square, square * same_noise)
    norms = [
        length * moments.kept_square + pool.dim * square * moments.noise
        for length, moments in zip(lengths, (first, second), strict=True)
    ]
    distance = lengths[0] + lengths[1] - 2 * inner
    scale = math.sqrt(lengths[0] * lengths[1])
    return PairError(
        (expected - inner) / scale,
        math.sqrt(max(squared, 0.0)) / scale,
        (sum(norms) - 2 * expected) / distance - 1 if distance > 0 else math.nan,
    )


def _apart_mse(
    pool: PoolMap,
    ids: Frequencies,
    weights: tuple[float, float],
    moments: tuple[ReadMoments, ReadMoments],
    x: Floats,
    y: Floats,
    square: float,
) -> float:
    """Mean square of the inner product's error where x and y share no block, their reads counted as independent."""
    # Second moments of the errors of x and of y, (dim, dim) each; errors have the means -(1 - kept) of the vectors.
    of_x, of_y = (
        np.outer(v, v) * (_kept_together(pool, ids, weight, found) - 2 * found.kept + 1)
        + np.eye(pool.dim) * (square * found.noise)
        for v, weight, found in zip((x, y), weights, moments, strict=True)
    )
    lost_x, lost_y = (1 - found.kept for found in moments)
    by_x, by_y = float(y @ of_x @ y), float(x @ of_y @ x)
    both = float((of_x * of_y).sum()) + 2 * lost_x * lost_y * float(x @ y) ** 2
    return by_x * (1 - 2 * lost_y) + by_y * (1 - 2 * lost_x) + both


def _met_mse(
    pool: PoolMap, weighted: tuple[Floats, Floats], vectors: tuple[Floats, Floats], same: float, noise: float
) -> float:
    """The same where x and y share a block, summed over blocks; the others' part counted as Gaussian, F as constant."""
    total = 0.0
    for start in range(0, pool.dim, pool.block_len):
        (f_x, g_y), (x, y) = (
            [v[start : start + pool.block_len] for v in pair] for pair in (weighted, vectors)
        )
        for sign in (1, -1) if pool.sign else (1,):
            own = same * float(((f_x + sign * g_y) ** 2).sum())
            mean = own + len(x) * noise
            square = mean**2 + 4 * noise * own + 2 * len(x) * noise**2
            inner = float(x @ y)
            total += (square - 2 * sign * inner * mean + inner**2) / (2 if pool.sign else 1)
    return total


def _kept_together(pool: PoolMap, ids: Frequencies, weight: float, found: ReadMoments) -> Floats:
    """E[f^2 / (F F')] for every two numbers of one vector, (dim, dim)."""
    longest = pool.blocks[0][0]
    some = np.unique(np.linspace(0, longest - 1, min(longest, 8)).round())
    values = [
        found.kept_square if lag == 0 else _joint(pool, ids, (weight, weight), apart=int(lag)) for lag in some
    ]
    by_lag = np.interp(np.arange(longest), some, values)  # exact for up to 8 cells a block
    block, cell = np.divmod(np.arange(pool.dim), pool.block_len)
    cell //= pool.align
    lags = np.abs(cell[:, None] - cell)
    together: Floats = np.where(block[:, None] == block, by_lag[lags], found.kept**2)
    return together


def _joint(pool: PoolMap, ids: Frequencies, weights: tuple[float, float], apart: int | None) -> float:
    """E[f g / (F G)] at two positions, `apart` cells apart in one block of one id, or (None) in blocks of two ids."""
    f, g = weights
    length = pool.blocks[0][0]
    of_t, of_s = ids.weights / f, ids.weights / g
    t, t_step = _nodes(1 + float(of_t @ ids.ids), 100)
    s, s_step = _nodes(1 + float(of_s @ ids.ids), 100)
    t_falls, s_falls = np.expm1(-np.outer(t, of_t)), np.expm1(-np.outer(s, of_s))

    def log_covered(t_fall: Floats, s_fall: Floats, cells: int) -> Floats:
        """log E[exp(-t f - s g)] of one block that may cover either position or, within a block's length, both."""
        both = 0 if apart is None else max(cells - apart, 0)
        sum_ = cells * (t_fall + s_fall) + both * t_fall * s_fall
        logs: Floats = np.log1p(sum_ / pool.starts)
        return logs

    exponent = -t[:, None] - s
    for cells, count in pool.blocks:
        for group, number in enumerate(ids.ids):
            exponent += count * number * log_covered(t_falls[:, group, None], s_falls[:, group], cells)
    # The blocks that read are not among the others: one of a single id, or one of each of two.
    t_own, s_own = np.expm1(-t)[:, None], np.expm1(-s)
    if apart is None:
        exponent -= log_covered(t_own, np.expm1(-s * f / g), length) + log_covered(
            np.expm1(-t * g / f)[:, None], s_own, length
        )
    else:
        exponent -= log_covered(t_own, s_own, length)
    return float(t_step @ np.exp(exponent) @ s_step)


def _shared(pool: PoolMap, ids: Frequencies, weights: tuple[float, float]) -> tuple[float, float]:
    """E[1/F^2] and E[Q/F^2] where one block of each of two ids has the same start; Q without these two."""
    f, g = weights
    own = f + g
    of_t = ids.weights / own
    t, step = _nodes(1 + float(of_t @ ids.ids), 400)
    falls = np.expm1(-np.outer(t, of_t))
    log_others, squares = np.zeros_like(t), np.zeros_like(t)
    for cells, count in pool.blocks:
        q = cells / pool.starts
        log_others += count * (np.log1p(q * falls) @ ids.ids)
        squares += count * ((q * of_t**2 * (1 + falls) / (1 + q * falls)) @ ids.ids)
    q = pool.blocks[0][0] / pool.starts
    for weight in (f / own, g / own):
        fall = np.expm1(-t * weight)
        log_others -= np.log1p(q * fall)
        squares -= q * weight**2 * (1 + fall) / (1 + q * fall)
    density = step * np.exp(-t + log_others)
    return float((t * density).sum()) / own**2, float((t * density * squares).sum())


def _cells(pool: PoolMap) -> Iterator[tuple[float, list[float]]]:
    """The positions that a number is read from, as (probability, for each length the probability of being covered).

    Without wrap-around, fewer starts cover the positions near both ends of the pool.
    """
    starts, longest = pool.starts, pool.blocks[0][0]
    inside = [min(length / starts, CERTAIN) for length, _ in pool.blocks]
    if pool.wrap:
        yield 1.0, inside
        return
    last = starts + longest - 1
    ends = {*range(min(longest - 1, last)), *range(max(starts, 0), last)}
    if starts < longest:
        ends = set(range(last))
    total = sum(length * count for length, count in pool.blocks)
    left = 1.0
    for cell in sorted(ends):
        covers = [max(min(cell, starts - 1) - max(0, cell - length + 1) + 1, 0) for length, _ in pool.blocks]
        share = sum(n * count for n, (_, count) in zip(covers, pool.blocks, strict=True)) / (starts * total)
        left -= share
        if share:
            yield share, [min(n / starts, CERTAIN) for n in covers]
    if starts >= longest:
        yield left, inside


def _nodes(largest: float, count: int) -> tuple[Floats, Floats]:
    """Points and steps for integrals over t > 0 of ``exp(-t F)`` with 1 <= F <= largest: even in the logarithm."""
    logarithm = np.linspace(math.log(1e-9 / largest), math.log(60.0), count)
    t = np.exp(logarithm)
    return t, t * (logarithm[1] - logarithm[0])


def _check_map(pool: PoolMap) -> None:
    if pool.align < 1 or pool.block_len % pool.align or pool.dim % pool.align:
        raise InputError(f"align {pool.align} does not divide block_len {pool.block_len} and dim {pool.dim}")
    if not 1 <= pool.block_len <= pool.dim:
        raise InputError(f"block_len {pool.block_len} is out of range: choose 1 to dim {pool.dim}")
    if pool.starts < 1 or (pool.wrap and pool.numbers < pool.block_len):
        raise InputError(
            f"a pool of {pool.numbers} numbers holds no block of {pool.block_len}: give more memory"
        )
