"""``hot``: the values that matter most have rows of their own; all others share one row a feature, or a hashed pool.

    hot = build("hot", cardinalities, dim=16, memory_budget=20_000, seed=1, width=2)
    hot.assign_rows([FeatureCounts(ids, counts), ...])   # one a feature, of the training rows
    hot(ids)

Few values make up most of what a model reads, and what a rare one adds can hardly be learnt from its few rows. So bytes
go to the frequent values: their vectors collide with nobody's. Which they are is a list of hashed fingerprints
(`hot_ids`), about a byte a value, which counts as bytes of the embedding and is part of its state: a model that was
trained needs no counts. A few of the other values are taken for hot ones; `assign_rows` counts them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sizewise.embedding import fused
from sizewise.embedding.bags import Bags
from sizewise.embedding.base import Embedding, GroupedOptions, Options
from sizewise.embedding.ids.counts import By, FeatureCounts, Ranking, checked_counts, often_enough
from sizewise.embedding.ids.hashing import MAX_SLOTS, FastHash, derived_seed
from sizewise.embedding.ids.hot_ids import HotIds, coded_bytes
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.kernels.hot_rows import Cold, RowFinder
from sizewise.embedding.storage.quantization import BITS, SCALE_BYTES, stored_bytes
from sizewise.embedding.storage.table import StateDict, Table
from sizewise.embedding.width import Tiles, checked_width
from sizewise_core.errors import InputError

log = logging.getLogger(__name__)


class HotOptions(GroupedOptions):
    """Options of ``hot``."""

    width: int | None = Field(None, ge=1, le=512)
    """Numbers in a row, repeated over the model's dim, which they divide.  Left out: 2, or 1 where dim is odd."""
    fingerprint_bits: int = Field(6, ge=4, le=16)
    """Of a hot value's hash: of the other values one in 2 to the power of that many is taken for a hot one."""
    min_count: int = Field(1, ge=1)
    """Values that training rows hold fewer times are never hot, even if there is room."""
    by: By = "count"
    """Which values are hot: those that occur most often, or those whose chi-square with the label is greatest."""
    hashed_share: float = Field(0.0, ge=0, le=0.9)
    """Share of the bytes that is a hashed pool of rows for all other values; 0: they have one row a feature."""

    def fitted(self, dim: int) -> Self:
        """Rows of two numbers where dim allows."""
        if self.width is not None:
            return self
        return self.model_copy(update={"width": 2 if dim % 2 == 0 else 1})


@dataclass(frozen=True)
class Assignment:
    """What became of the values of the training rows.

    Attributes:
        values: distinct (feature, value) pairs.
        hot: those with a row of their own.
        sharing: hot ones whose fingerprint another hot one has, too, so that they share its row.
        mistaken: others that are taken for a hot one.
        hot_lookups, mistaken_lookups: what share of all lookups in the training rows is of such values.
    """

    values: int
    hot: int
    sharing: int
    mistaken: int
    hot_lookups: float
    mistaken_lookups: float

    def __str__(self) -> str:
        return (
            f"{self.hot:,} of {self.values:,} values of the training rows are hot ({self.hot_lookups:.1%} of lookups; "
            f"{self.sharing:,} share a row); {self.mistaken:,} others are taken for one "
            f"({self.mistaken_lookups:.2%} of lookups)"
        )


class Hot(Embedding):
    """One (rows, width) table: the hot values', in the order of the list, then those of all others."""

    options = HotOptions
    needs_counts = True

    def __init__(
        self, cardinalities: Sequence[int], dim: int, memory_budget: int, seed: int, options: HotOptions
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        self.settings = options
        self.tiles = Tiles(checked_width(options.width, dim), dim)
        self.hashed = _hashed_rows(memory_budget, self.tiles.width, options)
        most = _most_values(self.cardinalities, self.tiles.width, memory_budget, options)
        self.hot = HotIds(self.features, most, options.fingerprint_bits, seed)
        self.cold_hash = FastHash(self.features, 1, derived_seed(seed, 1))
        self.find_rows = RowFinder(
            self.hot.hash.multiplier,
            self.hot.hash.increment,
            self.cold_hash.multiplier,
            self.cold_hash.increment,
        )
        self.table = self._made_table()
        # Rows are found before the kernels, so none of a feature begins anywhere.
        width, nowhere = self.tiles.width, torch.zeros(self.features, dtype=torch.int64, device="cpu")
        self.blocks = Blocks(self.features, width, width, width, None, nowhere)
        self.register_buffer("number", torch.arange(self.features), persistent=False)
        self.assigned = False
        self.assignment: Assignment | None = None  # where counts were given

    number: Tensor

    @property
    def embedding_bytes(self) -> int:
        """Bytes of the rows and of the list of hot values."""
        return super().embedding_bytes + self.hot.stored_bytes

    @classmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """One hot value, and a row for all others of each feature.

        Args: as for `Embedding.smallest_budget`.

        Raises:
            InputError: the width does not divide dim, or the group does not divide the width.
        """
        assert isinstance(options, HotOptions)
        width, budget = checked_width(options.width, dim), 0
        options.check_rows(width)
        while (needed := _bytes(cardinalities, width, 1, 1, budget, options)) > budget:
            budget = needed
        return budget

    def assign_rows(self, counts: Sequence[FeatureCounts]) -> Assignment:
        """Choose the hot values, before training. Fewer than there is room for make the embedding smaller.

        Args:
            counts: of the training rows, one a feature.

        Returns:
            What the list covers, and how many values it takes for hot ones that are not.

        Raises:
            InputError: counts of other features, without the clicks that `by: chi2` needs, or in which no value occurs
                `min_count` times.
        """
        counts = checked_counts(counts, self.features)
        values = often_enough(counts, self.settings.min_count)
        if values < self.hot.values:
            self._resize(values)
        self.assigned = True
        if self.table.weight.device.type == "meta":  # whose size is all that is asked for
            return Assignment(0, 0, 0, 0, 0.0, 0.0)
        ranking = Ranking(counts, self.settings.by, self.settings.min_count)
        offered, taken = self.hot.values, self.hot.values
        while True:  # a few share a place, so that a few more fit
            offered += offered // 8 + 64
            features, ids = ranking.top(offered)
            taken = self.hot.fill(features, ids)
            if taken < len(ids) or len(ids) == ranking.size:
                break
        assignment = self._assignment(counts, features[:taken], ids[:taken])
        log.info("%s", assignment)
        self.assignment = assignment
        return assignment

    def facts(self) -> Mapping[str, float]:
        """How much of what training rows look up has a row of its own, and how much is taken for it by mistake."""
        found = self.assignment
        if found is None:
            return {}
        return {
            "hot_values": found.hot,
            "hot_lookups": found.hot_lookups,
            "mistaken_values": found.mistaken,
            "mistaken_lookups": found.mistaken_lookups,
        }

    def lookup(self, ids: Tensor) -> Tensor:
        """Rows of the table."""
        if self.fused and fused.valid(self.table.weight, ids):
            return self.tiles.looked_up(self.table, self.blocks, self.addresses(ids))
        return self.tiles.spread(self.table.rows(self._rows(ids)))

    def lookup_flat(self, values: Tensor, features: Tensor) -> Tensor:
        """Rows of the table.

        Args: as for `Embedding.lookup_flat`.
        """
        return self.tiles.spread(self.table.rows(self._rows(values, features)))

    def lookup_bags(self, ids: Tensor, bags: Bags) -> Tensor:
        """Rows of the table, pooled by the kernels where they can.

        Args: as for `Embedding.lookup_bags`.
        """
        if not (self.fused and fused.takes_bags(self.table.weight, ids, bags)):
            return super().lookup_bags(ids, bags)
        rows, of_values = self._rows_of_bags(ids, bags)
        read = fused.ragged(rows, Bags(of_values, bags.offsets), self.pooling)
        return self.tiles.spread(fused.vectors(self.table, self.blocks, read))

    def lookup_each(self, ids: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """Rows of the table, by the kernels where they can.

        Args: as for `Embedding.lookup_each`.
        """
        if not (self.fused and fused.takes_each(self.table.weight, ids, bags)):
            return super().lookup_each(ids, bags)
        rows, of_values = self._rows_of_bags(ids, bags)
        single, several = fused.each(self.table, self.blocks, rows, bags._replace(values=of_values))
        return self.tiles.spread(single), self.tiles.spread(several)

    def _rows_of_bags(self, ids: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """Rows of ids and of the bags' values."""
        self._check_assigned()
        (batch, columns), lists = ids.shape, self.features - ids.shape[1]
        if ids.device.type == "cpu" and self.table.weight.device.type == "cpu":
            rows = self.find_rows(ids, self.hot.lists, self._cold)
            of_values = self.find_rows.of_bags(bags, columns, batch, self.hot.lists, self._cold)
        else:
            rows = self._rows(ids, self.number[:columns].expand(batch, columns))
            of_values = self._rows(bags.values, bags.numbers(lists, batch) + columns)
        return rows, of_values

    def addresses(self, ids: Tensor) -> Tensor:
        """Rows of ids, uint32 on the CPU and int64 elsewhere, (batch, features); nothing waits for the device."""
        self._check_assigned()
        if ids.device.type == "cpu" and self.table.weight.device.type == "cpu":
            return self.find_rows(ids, self.hot.lists, self._cold)
        return self._rows(ids)

    def takes_uint32(self, ids: Tensor) -> bool:
        """Where the fused kernels look them up."""
        return self.fused and fused.valid(self.table.weight, ids)

    def pooled(self) -> tuple[Table, Blocks]:
        """The table, looked up by `addresses`."""
        return self.table, self.blocks

    def prepare_export(self) -> None:
        """As for any embedding; a program reads the coded list."""
        super().prepare_export()
        self.hot.keep_coded()

    @property
    def _cold(self) -> Cold:
        return Cold(self.hot.values, self.hashed)

    def _rows(self, ids: Tensor, features: Tensor | None = None) -> Tensor:
        self._check_assigned()
        ids = ids.to(torch.int64)
        positions, found = self.hot.find(ids, features)
        cold = self.number if features is None else features
        if self.hashed:
            slots, _ = self.cold_hash(ids, self.hashed, features)
            cold = slots.squeeze(-1)
        return torch.where(found, positions, cold + self.hot.values)

    def _check_assigned(self) -> None:
        if not self.assigned:
            raise InputError(
                "embedding.method hot has not been given the counts of the training rows: call assign_rows(counts), "
                "or load the state of a trained model"
            )

    def _made_table(self) -> Table:
        rows = self.hot.values + (self.hashed or self.features)
        group = self.settings.numbers_a_scale(self.tiles.width)
        return Table((rows, self.tiles.width), self.seed, self.settings.storage, group=group)

    def _resize(self, values: int) -> None:
        """Make room for so many hot values; rows start anew."""
        device = self.table.weight.device
        self.hot.resize(values)
        with torch.device("meta" if device.type == "meta" else "cpu"):
            self.table = self._made_table()
        self.table.to(device)

    def _assignment(self, counts: list[FeatureCounts], features: Any, ids: Any) -> Assignment:
        values = hot = mistaken = lookups = hot_lookups = mistaken_lookups = 0
        for number, feature in enumerate(counts):
            is_hot = np.zeros(len(feature.ids), np.bool_)
            is_hot[np.searchsorted(feature.ids, ids[features == number])] = True
            taken_for_one = self.hot.found_in(number, feature.ids) & ~is_hot
            values, lookups = values + len(feature.ids), lookups + int(feature.counts.sum())
            hot, hot_lookups = hot + int(is_hot.sum()), hot_lookups + int(feature.counts[is_hot].sum())
            mistaken += int(taken_for_one.sum())
            mistaken_lookups += int(feature.counts[taken_for_one].sum())
        positions = len(np.unique(self.hot.places.cpu().numpy()))
        return Assignment(
            values, hot, hot - positions, mistaken, hot_lookups / lookups, mistaken_lookups / lookups
        )

    def _load_from_state_dict(self, state: StateDict, prefix: str, *others: Any) -> None:
        sizes = state.get(prefix + "hot.sizes")
        if sizes is not None and sizes.shape == self.hot.sizes.shape:
            values = int(self.hot.decoded_sizes(sizes).sum())
            if 0 < values <= self.hot.most and values != self.hot.values:
                self._resize(values)
            self.assigned = values > 0
        super()._load_from_state_dict(state, prefix, *others)


def _hashed_rows(memory_budget: int, width: int, options: HotOptions) -> int:
    if not options.hashed_share:
        return 0
    bits, group = width * BITS[options.storage], options.numbers_a_scale(width)
    if group is not None:
        bits += width // group * SCALE_BYTES[options.storage] * 8
    return max(1, int(options.hashed_share * memory_budget * 8 // bits))


def _bytes(
    cardinalities: Sequence[int], width: int, values: int, most: int, memory_budget: int, options: HotOptions
) -> int:
    """Bytes of an embedding with so many hot values, in that budget."""
    features = len(cardinalities)
    rows = values + (_hashed_rows(memory_budget, width, options) or features)
    table = stored_bytes(rows * width, options.storage, options.numbers_a_scale(width))
    return table + coded_bytes(features, values, most, options.fingerprint_bits)


def _most_values(cardinalities: Sequence[int], width: int, memory_budget: int, options: HotOptions) -> int:
    """The most hot values that fit, but no more than there are values, or than have places that 32 bits reach."""
    low, high = 1, min(sum(cardinalities), MAX_SLOTS >> options.fingerprint_bits)
    while low < high:
        middle = (low + high + 1) // 2
        if _bytes(cardinalities, width, middle, middle, memory_budget, options) <= memory_budget:
            low = middle
        else:
            high = middle - 1
    return low
