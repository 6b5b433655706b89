"""Planted rows made on the device that trains, straight into training arrays.

    world = DeviceWorld(World(seed=1, rows=256_000_000), torch.device("cuda"))
    held = Rows.empty(1 << 22, world.device)
    world.rows(0, 1 << 22, out=held)             # the rows of `World.chunk(0, 1 << 22)`
    bayes(held.probability)                      # the best possible AUC and log-loss on them

`sizewise_prep.planted.World` says how a row comes about; here the same steps are taken in PyTorch, in 64 bits. Only
powers, exponentials, logarithms and sums may differ in their last bits.

The device's memory is the limit: a row costs about 36 KB of reads and writes in 430 kernels a block, most of them for
40 hashes. Effects of values are looked up where a column has few enough values for a table that stays in the device's
cache, and hashed where it has more. Nothing waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.scale import hashing

from sizewise_prep.planted import World
from sizewise_prep.planted.columns.ranks import COMMON_EFFECT, Column
from sizewise_prep.planted.integers import NORMAL_CUBIC
from sizewise_prep.planted.randomness import Stream, counters, lanes, normals
from sizewise_prep.planted.world import (
    EFFECT,
    FACTOR_A,
    FACTOR_B,
    FACTOR_CLICK,
    FACTOR_SCALE,
    GROUP_A,
    GROUP_B,
    GROUP_V,
    INTEGER_CENTRE,
    INTERACTING,
    V_IS_A,
)

BLOCK = 1 << 20  # rows at a time: (26, rows) of 64 bits are 218 MB, and six of them are alive at most
_TABLED = 1 << 20  # a column of fewer values has its effects in a table


class Rows(NamedTuple):
    """Rows as a model takes them, on one device.

    Attributes:
        dense: (rows, 13) float16 or float32: log1p(max(x, 0)), 0 where missing.
        ids: (rows, 26) int32 ranks: 0 missing, 1 the most frequent value, and so on.
        label: (rows,) uint8, 0 or 1.
        probability: (rows,) float32, the true probability of a click.
    """

    dense: torch.Tensor
    ids: torch.Tensor
    label: torch.Tensor
    probability: torch.Tensor

    @staticmethod
    def empty(
        count: int,
        device: torch.device,
        dense: torch.dtype = torch.float16,
        probability: torch.dtype = torch.float32,
    ) -> Rows:
        """Room for `count` rows of the dtypes asked for."""
        return Rows(
            torch.empty(count, 13, dtype=dense, device=device),
            torch.empty(count, 26, dtype=torch.int32, device=device),
            torch.empty(count, dtype=torch.uint8, device=device),
            torch.empty(count, dtype=probability, device=device),
        )

    def part(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` (exclusive) of these, in the same memory."""
        return Rows(*(column[start:stop] for column in self))


class DeviceWorld:
    """The rows of a world, made on a device.

    Attributes:
        world: whose rows they are.
        device: where they are made.
        cardinalities: how many ranks each token column has, missing included.
    """

    def __init__(self, world: World, device: torch.device) -> None:
        if world.parts:
            raise ValueError("columns and effects that dials add are not made on devices")
        self.world, self.device = world, device
        self.cardinalities = [column.values + 1 for column in world.columns]
        self._row_key = hashing.signed(int(world.key(Stream.ROW)))
        self._uniforms = _Uniforms(world, device)
        self._values = _Values(world.columns, device)
        self._integers = _Integers(world, device)
        self._clicks = _Clicks(world, device)
        self._factors = [
            _on(
                normals(counters(np.arange(self.cardinalities[c]), world.key(Stream.INTEGER_FACTORS, c))),
                device,
            )
            for c in (FACTOR_A, FACTOR_B)
        ]
        self._intercept = world.intercept

    @torch.no_grad()
    def rows(self, start: int, stop: int, out: Rows | None = None) -> Rows:
        """Rows `start` to `stop` (exclusive) of the log, whatever chunks they are asked for in.

        Args:
            out: where to write them, of `stop - start` rows; its dtypes are kept.

        Returns:
            `out`, or rows of their own. The device may still be at work on them.
        """
        if out is None:
            out = Rows.empty(stop - start, self.device)
        if len(out.label) != stop - start:
            raise ValueError(f"out has {len(out.label)} rows; {stop - start} are asked for")
        for first in range(start, stop, BLOCK):
            last = min(first + BLOCK, stop)
            self._block(first, last, out.part(first - start, last - start))
        return out

    def _block(self, start: int, stop: int, out: Rows) -> None:
        dials = self.world.dials
        numbers = torch.arange(start, stop, dtype=torch.int64, device=self.device)
        words = hashing.mix(numbers * hashing.GOLDEN + self._row_key)
        quantiles, draw = self._uniforms.draw(words)
        ranks = self._values.ranks(quantiles)
        out.ids.copy_(ranks.T)
        factors = [table[ranks[c]] for table, c in zip(self._factors, (FACTOR_A, FACTOR_B), strict=True)]
        integers, observed = self._integers.draw(words, factors)
        out.dense.copy_(integers.clamp(min=0).float().log1p_().mul_(observed).T)
        logs = integers.add_(1).clamp_(min=0).log1p_().mul_(observed)
        logit = self._clicks.token_effects(ranks, numbers)
        for weight, factor in zip(FACTOR_CLICK, factors, strict=True):
            logit += weight * factor
        logit *= dials.token_signal
        logit += dials.integer_signal * (self._integers.effects(logs, observed) + INTEGER_CENTRE)
        logit += dials.interactions * self._clicks.interactions(
            ranks, self._integers.standardized(logs, observed)
        )
        probability = (logit + self._intercept).sigmoid_()
        probability = (1 - dials.noise) * probability + dials.noise * dials.click_rate
        out.probability.copy_(probability)
        out.label.copy_(draw < probability)


class _Uniforms:
    """The uniform numbers behind token columns and labels."""

    def __init__(self, world: World, device: torch.device) -> None:
        partly = [c for c, share in GROUP_B.items() if share < 1]
        alone = [c for c in range(len(EFFECT)) if c not in (*GROUP_A, *GROUP_V, *GROUP_B)]
        keys = [world.key(Stream.UNIFORM, part) for part in range(4)]  # A, B, V's choice, V's own
        keys += [world.key(Stream.UNIFORM, 4, c) for c in (*partly, *alone)]
        keys += [world.key(Stream.UNIFORM, 5, c) for c in partly]
        keys.append(world.key(Stream.LABEL))
        self._keys = hashing.stream_keys(keys, device)
        self._partly, self._choices = slice(4, 4 + len(partly)), slice(-1 - len(partly), -1)
        self._shares = _on([[GROUP_B[c]] for c in partly], device)
        own = {c: 4 + place for place, c in enumerate((*partly, *alone))}
        source = [0 if c in GROUP_A else 2 if c in GROUP_V else own.get(c, 1) for c in range(len(EFFECT))]
        self._source = torch.tensor(source, device=device)

    def draw(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Quantiles of each token column (26, rows), and the labels' uniform numbers (rows,)."""
        mixed = hashing.mix(words ^ self._keys)
        drawn = hashing.shifted(mixed, 11, mixed).to(torch.float64).mul_(2.0**-53)
        drawn[2] = torch.where(drawn[2] < V_IS_A, drawn[0], drawn[3])
        drawn[self._partly] = torch.where(drawn[self._choices] < self._shares, drawn[1], drawn[self._partly])
        return drawn.index_select(0, self._source), drawn[-1]


class _Values:
    """Every token column's distribution over ranks, as `Column.ranks` has it, all columns at once."""

    def __init__(self, columns: list[Column], device: torch.device) -> None:
        widest = max(len(column.cuts) for column in columns)
        cuts = np.full((len(columns), widest), 2.0)  # which no quantile reaches
        never = np.iinfo(np.int64).max
        figures = []
        self._logarithmic: list[tuple[int, float, float]] = []
        for c, column in enumerate(columns):
            cuts[c, : len(column.cuts)] = column.cuts
            start, tail, offset = column.cuts[-1], column.values - column.tabulated, column.offset
            power = 1 - column.exponent
            if not tail:
                figures.append((0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0))
            elif abs(power) < 1e-9:
                self._logarithmic.append((c, offset, (offset + tail) / offset))
                figures.append((start, 1 - start, 0.0, 1.0, 1.0, offset, tail - 1.0))
            else:
                low, high = offset**power, (offset + tail) ** power
                figures.append((start, 1 - start, high - low, low, 1 / power, offset, tail - 1.0))
        self._cuts = _on(cuts, device)
        self._tabulated = torch.tensor(
            [[column.tabulated if column.values > column.tabulated else never] for column in columns],
            device=device,
        )
        self._tail = _on(np.array(figures).T[:, :, None], device)

    def ranks(self, quantiles: torch.Tensor) -> torch.Tensor:
        """The rank at each quantile in [0, 1), (26, rows) int64; `quantiles` is used up."""
        start, share, span, low, inverse, offset, last = self._tail
        rank = torch.searchsorted(self._cuts, quantiles, right=True)
        # Computed for all, taken where it holds: to select rows would wait for the device.
        rest = quantiles.sub_(start).div_(share)
        others = [(c, head * torch.pow(ratio, rest[c])) for c, head, ratio in self._logarithmic]
        place = rest.mul_(span).add_(low).pow_(inverse)
        for c, other in others:
            place[c] = other
        place = torch.minimum(place.sub_(offset), last)
        return rank.add_(place.masked_fill_(rank <= self._tabulated, 0.0).to(torch.int64))


class _Integers:
    """The integers' joint distribution and their effect on a click, as `IntegerModel` has them."""

    def __init__(self, world: World, device: torch.device) -> None:
        model = world.integers
        self._keys = hashing.stream_keys([world.key(Stream.RESIDUAL, j) for j in range(model.count)], device)
        self._loadings = [_on(loading[:, None], device) for loading in model.loadings]
        self._residual = _on(np.ascontiguousarray(model.residual.T)[:, :, None], device)
        observed = [(missing, 1 - missing) if missing < 1 else (0.0, 1.0) for missing in model.missing]
        self._missing = _on([[missing] for missing in model.missing], device)
        self._from, self._share = _on(np.array(observed).T[:, :, None], device)
        quantiles = np.array(model.log_quantiles)
        self._inner = _on(model.levels[1:-1].copy(), device)
        self._levels = _on(model.levels, device)
        self._quantiles = _on(quantiles, device)
        self._slopes = _on(np.diff(quantiles) / np.diff(model.levels), device)
        self._constant = model.intercept
        self._linear, self._square, self._absent = (
            _on(part[:, None], device) for part in (model.linear, model.square / 10, model.absent)
        )
        self._mean, self._spread = _on(np.array(model.moments).T[:, :, None], device)

    def draw(self, words: torch.Tensor, factors: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Integers as float64 and which are observed, (13, rows)."""
        noise = hashing.normals(hashing.mix(words * hashing.GOLDEN + self._keys))
        normal = self._loadings[0] * factors[0]
        normal += self._loadings[1] * factors[1]
        own = self._residual[0] * noise[0]
        for weights, one in zip(self._residual[1:], noise[1:], strict=True):
            own.addcmul_(weights, one)
        normal += own
        cubic = (normal * normal).mul_(NORMAL_CUBIC[1]).add_(NORMAL_CUBIC[0])
        quantile = cubic.mul_(normal).sigmoid_()  # the normal distribution function
        observed = quantile >= self._missing
        rest = quantile.sub_(self._from).div_(self._share)
        place = torch.searchsorted(self._inner, rest, right=True)
        logs = rest.sub_(self._levels[place]).mul_(self._slopes.gather(1, place))
        logs += self._quantiles.gather(1, place)
        return logs.exp_().sub_(4.0).round_(), observed

    def effects(self, logs: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """The integers' part of the logit, (rows,)."""
        each = (logs * self._square).add_(self._linear).mul_(logs)
        each += self._absent * ~observed
        return each.sum(0).add_(self._constant)

    def standardized(self, logs: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """`logs` of mean 0 and variance 1 over observed values, 0 where missing; (13, rows)."""
        scaled: torch.Tensor = (logs - self._mean) / self._spread
        return scaled.mul_(observed)


class _Clicks:
    """What tokens have to do with a click: effects of their own, and interactions."""

    def __init__(self, world: World, device: torch.device) -> None:
        self._columns, dials = world.columns, world.dials
        self._drift, self._decay, self._log_rows = dials.drift, dials.rarity_decay, world.rows
        streams = (Stream.EFFECTS, Stream.DRIFT) if dials.drift else (Stream.EFFECTS,)
        self._effect_keys = [
            [hashing.signed(int(world.key(stream, c))) for stream in streams] for c in range(len(EFFECT))
        ]
        self._scales = _on(COMMON_EFFECT, device), _on(1.0, device)
        self._tables: dict[int, torch.Tensor] = {}  # (streams, values + 1)
        blocks = (dials.factor_rank + 3) // 4
        self._dims = [min(4, dials.factor_rank - 4 * block) for block in range(blocks)]
        self._scale = FACTOR_SCALE * (4 / dials.factor_rank) ** 0.25
        self._factor_keys = [
            [int(world.key(Stream.FACTORS, c, block)) for block in range(blocks)] for c in range(26)
        ]
        self._vectors: dict[int, list[torch.Tensor]] = {}  # per block (dims + 1, values + 1), squares last
        for c, column in enumerate(self._columns):
            if column.values < _TABLED:
                values = np.arange(column.values + 1)
                scale = EFFECT[c] * column.effect_scale(values, dials.rarity_decay)
                effects = [scale * normals(counters(values, world.key(stream, c))) for stream in streams]
                self._tables[c] = _on(np.stack(effects), device)
                if c in INTERACTING:
                    self._vectors[c] = [
                        _on(self._vectors_of(counters(values, np.uint64(key)), dims), device)
                        for key, dims in zip(self._factor_keys[c], self._dims, strict=True)
                    ]
        count = world.integers.count
        self._weights = []
        for block, dims in enumerate(self._dims):
            weights = lanes(counters(np.arange(count), world.key(Stream.FACTORS, 99, block)))[:dims]
            scaled = self._scale / count**0.5 * np.stack(weights)
            self._weights.append(_on(np.ascontiguousarray(scaled.T)[:, :, None], device))

    def _vectors_of(self, words: npt.NDArray[np.uint64], dims: int) -> npt.NDArray[np.float64]:
        vectors = self._scale * np.stack(lanes(words)[:dims])
        return np.concatenate([vectors, (vectors**2).sum(0, keepdims=True)])

    def token_effects(self, ranks: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """The sum of the tokens' own effects on the logit, (rows,)."""
        total = torch.zeros(ranks.shape[1], dtype=torch.float64, device=ranks.device)
        if self._drift:
            angle = (numbers.to(torch.float64) / self._log_rows).mul_(self._drift)
            turns = [angle.cos(), angle.sin()]
        for c, rank in enumerate(ranks):
            effects = self._tables[c].index_select(1, rank) if c in self._tables else self._hashed(c, rank)
            if not self._drift:
                total += effects[0]
            else:
                for effect, turn in zip(effects, turns, strict=True):
                    total.addcmul_(effect, turn)
        return total

    def _hashed(self, c: int, rank: torch.Tensor) -> torch.Tensor:
        """Effects of the values of a column that has no table, (streams, rows)."""
        column = self._columns[c]
        counted = rank * hashing.GOLDEN
        effects = torch.stack([hashing.normals(hashing.mix(counted + key)) for key in self._effect_keys[c]])
        effects *= EFFECT[c]
        common = rank <= column.tabulated
        effects *= torch.where(common, *self._scales)
        if self._decay and column.values > column.tabulated:
            place = (rank - (column.tabulated + 1)).clamp_(min=0).to(torch.float64).add_(column.offset)
            effects *= place.div_(column.offset).pow_(-column.exponent * self._decay)
        return effects

    def interactions(self, ranks: torch.Tensor, standardized: torch.Tensor) -> torch.Tensor:
        """The factorization machine over eight tokens and the integers, (rows,)."""
        total = torch.zeros(ranks.shape[1], dtype=torch.float64, device=ranks.device)
        for block, dims in enumerate(self._dims):
            sums = torch.zeros(dims + 1, ranks.shape[1], dtype=torch.float64, device=ranks.device)
            for c in INTERACTING:
                if c in self._vectors:
                    sums += self._vectors[c][block].index_select(1, ranks[c])
                else:
                    words = hashing.mix(
                        ranks[c] * hashing.GOLDEN + hashing.signed(self._factor_keys[c][block])
                    )
                    for k in range(dims):
                        vector = hashing.lane(words, k).mul_(self._scale)
                        sums[k] += vector
                        sums[-1].addcmul_(vector, vector)
            weights = self._weights[block]
            dense = weights[0] * standardized[0]
            for weight, values in zip(weights[1:], standardized[1:], strict=True):
                dense.addcmul_(weight, values)
            sums[:-1] += dense
            total += sums[:-1].square_().sum(0) - dense.square_().sum(0) - sums[-1]
        return 0.5 * total


def bayes(probability: torch.Tensor) -> tuple[float, float]:
    """Expected AUC and log-loss, in nats, of the true probabilities (rows,): the best that any model can expect."""
    ordered = probability.to(torch.float64).sort().values
    rest = 1 - ordered
    alone = (ordered * rest).sum()  # a row forms no pair with itself
    right = (ordered * (rest.cumsum(0) - rest)).sum()
    area = right / (ordered.sum() * rest.sum() - alone)
    entropy = -(torch.xlogy(ordered, ordered) + torch.special.xlog1py(rest, -ordered)).mean()
    return float(area), float(entropy)


def distinct(column: Column, rows: int) -> float:
    """How many values of a column that many rows are expected to show."""
    shares = np.diff(column.cuts)
    shown = float(-np.expm1(-rows * shares).sum())
    tail = column.values - column.tabulated
    if tail:
        firsts = np.unique(np.geomspace(1, tail + 1, 200_001).astype(np.int64))  # single values, then ranges
        edges = firsts - 1 + column.offset
        power = 1 - column.exponent
        reached = np.log(edges / edges[0]) if abs(power) < 1e-9 else edges**power - edges[0] ** power
        counts = np.diff(edges)
        shares = np.diff(reached) / reached[-1] * (1 - column.cuts[-1]) / counts
        shown += float((counts * -np.expm1(-rows * shares)).sum())
    return shown


def _on(figures: npt.ArrayLike, device: torch.device) -> torch.Tensor:
    return torch.tensor(np.asarray(figures), dtype=torch.float64, device=device)
