"""``full``: one row for every value of every feature; what compressed methods are compared with."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import embedding

from sizewise.embedding import fused
from sizewise.embedding.base import Embedding, Options
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.keys import ContiguousKeys
from sizewise.embedding.table import Storage, Table, element_bytes, storage_overhead


class FullOptions(Options):
    """Options of ``full``."""

    storage: Storage = "float32"
    """What a number is stored as."""


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
        self.table = Table((self.keys.count, dim), seed, options.storage)
        self.blocks = Blocks(self.features, dim, dim, dim, None, self.keys.offsets)

    @classmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """One row per value, neither more nor less."""
        assert isinstance(options, FullOptions)
        return sum(cardinalities) * dim * element_bytes(options.storage) + storage_overhead(options.storage)

    def lookup(self, ids: Tensor) -> Tensor:
        """Rows of the tables."""
        table = self.table()
        if self.fused and fused.valid(table, ids):
            self.keys.check(ids)
            return fused.lookup(self.table, table, self.blocks, ids)
        return embedding(self.keys(ids), table)

    def pooled(self) -> tuple[Table, Blocks]:
        """The tables."""
        return self.table, self.blocks
