"""``hash``: the hashing trick on rows.  Every (feature, id) reads one row of a table shared by all features.

Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009 (arXiv 0902.2206v5 of 2010 corrects
its theorems).
"""

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from sizewise.embedding import fused
from sizewise.embedding.bags import Bags
from sizewise.embedding.base import Embedding, GroupedOptions, Options
from sizewise.embedding.ids.hashing import MAX_SLOTS, FastHash
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.storage.quantization import least_numbers, most_numbers, stored_bytes
from sizewise.embedding.storage.table import Table
from sizewise.embedding.width import Tiles, checked_width
from sizewise_core.errors import InputError


class HashOptions(GroupedOptions):
    """Options of ``hash``."""

    feature_term: bool = True
    """Hash each feature by itself; otherwise equal ids of two features share a row."""
    width: int | None = Field(None, ge=1, le=512)
    """Numbers in a row, repeated over the model's dim, which they divide. Left out: dim."""


class RowHash(Embedding):
    """One (rows, width) table; collisions are left to training."""

    options = HashOptions

    def __init__(
        self, cardinalities: Sequence[int], dim: int, memory_budget: int, seed: int, options: HashOptions
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        self.hash = FastHash(self.features, 1, seed, options.feature_term)
        self.tiles = Tiles(width := checked_width(options.width, dim), dim)
        group = options.numbers_a_scale(width)
        numbers = most_numbers(memory_budget, options.storage, group, multiple=width)
        if numbers // width > MAX_SLOTS:
            raise InputError(
                f"memory_budget {memory_budget} gives embedding.method hash {numbers // width} rows, more than 32 "
                "bits reach: set a smaller memory_budget"
            )
        self.table = Table((numbers // width, width), seed, options.storage, group=group)
        self.blocks = Blocks(self.features, width, width, width, self.hash.multiplier, self.hash.increment)

    @classmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """One row, or as many as share their scales.

        Args: as for `Embedding.smallest_budget`.

        Raises:
            InputError: the width does not divide dim.
        """
        assert isinstance(options, HashOptions)
        width = checked_width(options.width, dim)
        group = options.numbers_a_scale(width)
        return stored_bytes(least_numbers(width, group, multiple=width), options.storage, group)

    def takes_uint32(self, ids: Tensor) -> bool:
        """Where the fused kernels look them up."""
        return self.fused and fused.valid(self.table.weight, ids)

    def lookup(self, ids: Tensor) -> Tensor:
        """Rows of the shared table."""
        if self.fused and fused.valid(self.table.weight, ids):
            return self.tiles.looked_up(self.table, self.blocks, ids)
        return self._rows(ids)

    def lookup_flat(self, values: Tensor, features: Tensor) -> Tensor:
        """Rows of the shared table.

        Args: as for `Embedding.lookup_flat`.
        """
        return self._rows(values, features)

    def _rows(self, ids: Tensor, features: Tensor | None = None) -> Tensor:
        rows, _ = self.hash(ids, self.table.shape[0], features)
        return self.tiles.spread(self.table.rows(rows.squeeze(-1)))

    def lookup_bags(self, ids: Tensor, bags: Bags) -> Tensor:
        """Rows of the shared table, pooled by the kernels where they can.

        Args: as for `Embedding.lookup_bags`.
        """
        if not (self.fused and fused.takes_bags(self.table.weight, ids, bags)):
            return super().lookup_bags(ids, bags)
        read = fused.ragged(ids, bags, self.pooling)
        return self.tiles.spread(fused.vectors(self.table, self.blocks, read))

    def lookup_each(self, ids: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """Rows of the shared table, by the kernels where they can.

        Args: as for `Embedding.lookup_each`.
        """
        if not (self.fused and fused.takes_each(self.table.weight, ids, bags)):
            return super().lookup_each(ids, bags)
        single, several = fused.each(self.table, self.blocks, ids, bags)
        return self.tiles.spread(single), self.tiles.spread(several)

    def pooled(self) -> tuple[Table, Blocks]:
        """The shared table."""
        return self.table, self.blocks
