"""``qr``: the sum or product of a quotient row and a remainder row.

Shi et al., "Compositional Embeddings Using Complementary Partitions for Memory-Efficient Recommendation
Systems", KDD 2020.  They split every table by itself; here one pair of tables serves all features, numbered
through, so that one budget needs no split between them.
"""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from sizewise.embedding.base import Embedding, GroupedOptions, Options
from sizewise.embedding.ids.hashing import derived_seed
from sizewise.embedding.ids.keys import ContiguousKeys, HashedKeys
from sizewise.embedding.storage.quantization import least_bytes, most_numbers
from sizewise.embedding.storage.table import Table


class QuotientRemainderOptions(GroupedOptions):
    """Options of ``qr``."""

    combine: Literal["sum", "product"] = "product"
    """How the two rows become one; the paper finds the product better."""
    contiguous_ids: bool = False
    """Ids are below their cardinality, so that no two values share both rows; otherwise they are hashed."""


class QuotientRemainder(Embedding):
    """A key k reads row ``k mod m`` of one table and row ``k div m`` of another."""

    options = QuotientRemainderOptions

    def __init__(
        self,
        cardinalities: Sequence[int],
        dim: int,
        memory_budget: int,
        seed: int,
        options: QuotientRemainderOptions,
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        self.combine = options.combine
        group = options.numbers_a_scale(dim)
        numbers = most_numbers(memory_budget, options.storage, group, multiple=dim, tables=2)
        remainders, quotients = _split(numbers // dim, sum(self.cardinalities))
        self.keys = (
            ContiguousKeys("qr", self.cardinalities)
            if options.contiguous_ids
            else HashedKeys(self.features, remainders * quotients, seed)
        )
        self.remainders = Table((remainders, dim), seed, options.storage, group=group)
        # Quotients of a product start near one, so that it starts as small as its remainder.
        center = 1.0 if self.combine == "product" else 0.0
        seed = derived_seed(seed, 1)
        self.quotients = Table((quotients, dim), seed, options.storage, center=center, group=group)

    @classmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """Twice the square root of all values, in rows, with contiguous ids; two rows with hashed ones.

        Args: as for `Embedding.smallest_budget`.

        Raises:
            InputError: the group does not divide dim.
        """
        assert isinstance(options, QuotientRemainderOptions)
        rows = _ceil_twice_root(sum(cardinalities)) if options.contiguous_ids else 2
        options.check_rows(dim)
        group = options.numbers_a_scale(dim)
        return least_bytes(rows * dim, options.storage, group, multiple=dim, tables=2)

    def lookup(self, ids: Tensor) -> Tensor:
        """Remainder rows combined with quotient rows."""
        return self._combined(self.keys(ids))

    def lookup_flat(self, values: Tensor, features: Tensor) -> Tensor:
        """Remainder rows combined with quotient rows.

        Args: as for `Embedding.lookup_flat`.
        """
        return self._combined(self.keys(values, features))

    def _combined(self, keys: Tensor) -> Tensor:
        count = self.remainders.shape[0]
        left, right = self.remainders.rows(keys % count), self.quotients.rows(keys // count)
        return left * right if self.combine == "product" else left + right


def _ceil_twice_root(count: int) -> int:
    """The least rows m + q with m * q >= count."""
    root = math.isqrt(4 * count)
    return max(2, root if root * root == 4 * count else root + 1)


def _split(rows: int, count: int) -> tuple[int, int]:
    """Rows of the two tables: the most remainders that tell ``count`` keys apart, else the most pairs."""
    # No q below the smaller root of (rows - q) * q = count will do; one or two steps from there one does.
    quotients = max(1, (rows - math.isqrt(max(0, rows * rows - 4 * count)) - 1) // 2)
    while quotients < rows // 2 and (rows - quotients) * quotients < count:
        quotients += 1
    return rows - quotients, quotients
