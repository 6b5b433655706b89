"""``full``: one row for every value of every feature; what compressed methods are compared with."""

from collections.abc import Sequence

from torch import Tensor

from sizewise.embedding import fused
from sizewise.embedding.bags import Bags
from sizewise.embedding.base import Embedding, GroupedOptions, Options
from sizewise.embedding.ids.keys import ContiguousKeys
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.storage.quantization import stored_bytes
from sizewise.embedding.storage.table import Table


class FullOptions(GroupedOptions):
    """Options of ``full``."""


class Full(Embedding):
    """All tables in one of (sum of cardinalities, dim), feature after feature.  Needs contiguous ids."""

    options = FullOptions
    needs_contiguous_ids = True
    has_one_size = True

    def __init__(
        self, cardinalities: Sequence[int], dim: int, memory_budget: int, seed: int, options: FullOptions
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        self.keys = ContiguousKeys("full", self.cardinalities)
        group = options.numbers_a_scale(dim)
        self.table = Table((self.keys.count, dim), seed, options.storage, group=group)
        self.blocks = Blocks(self.features, dim, dim, dim, None, self.keys.offsets)

    @classmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """One row per value, neither more nor less.

        Args: as for `Embedding.smallest_budget`.

        Raises:
            InputError: the group does not divide dim.
        """
        assert isinstance(options, FullOptions)
        options.check_rows(dim)
        return stored_bytes(sum(cardinalities) * dim, options.storage, options.numbers_a_scale(dim))

    def lookup(self, ids: Tensor) -> Tensor:
        """Rows of the tables."""
        if self.fused and fused.valid(self.table.weight, ids):
            self.keys.check(ids)
            return fused.vectors(self.table, self.blocks, ids)
        return self.table.rows(self.keys(ids))

    def lookup_flat(self, values: Tensor, features: Tensor) -> Tensor:
        """Rows of the tables.

        Args: as for `Embedding.lookup_flat`.
        """
        return self.table.rows(self.keys(values, features))

    def lookup_bags(self, ids: Tensor, bags: Bags) -> Tensor:
        """Rows of the tables, pooled by the kernels where they can.

        Args: as for `Embedding.lookup_bags`.
        """
        if not (self.fused and fused.takes_bags(self.table.weight, ids, bags)):
            return super().lookup_bags(ids, bags)
        self.keys.check_bags(ids, bags)
        return fused.vectors(self.table, self.blocks, fused.ragged(ids, bags, self.pooling))

    def lookup_each(self, ids: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """Rows of the tables, by the kernels where they can.

        Args: as for `Embedding.lookup_each`.
        """
        if not (self.fused and fused.takes_each(self.table.weight, ids, bags)):
            return super().lookup_each(ids, bags)
        self.keys.check_bags(ids, bags)
        return fused.each(self.table, self.blocks, ids, bags)

    def pooled(self) -> tuple[Table, Blocks]:
        """The tables."""
        return self.table, self.blocks
