"""``tt``: the whole table as a tensor train of three cores.

Yin et al., "TT-Rec: Tensor Train Compression for Deep Learning Recommendation Models", MLSys 2021.  They
decompose every large table by itself; here one train holds all features, numbered through, so that one budget
needs no split between them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field
from torch import Tensor

from sizewise.embedding.base import Embedding, Options, StoredOptions
from sizewise.embedding.ids.hashing import derived_seed
from sizewise.embedding.ids.keys import ContiguousKeys, HashedKeys
from sizewise.embedding.storage.quantization import least_bytes, most_numbers
from sizewise.embedding.storage.table import INIT_BOUND, Table


class TensorTrainOptions(StoredOptions):
    """Options of ``tt``; a core is one pool, whose numbers share a scale."""

    max_rank: int = Field(16, ge=1, le=256)
    """Largest rank; time and memory of a step grow with its square.  More budget buys more middle cores."""
    contiguous_ids: bool = False
    """Ids are below their cardinality, so that no two values share all cores; otherwise they are hashed."""


class Shape(NamedTuple):
    """Sizes of the three cores: (n1, d1*r), (n2, r*d2*r) and (n3, r*d3) numbers."""

    rank: int
    modes: tuple[int, int, int]
    factors: tuple[int, int, int]

    @property
    def numbers(self) -> int:
        """Numbers in all cores."""
        (n1, n2, n3), (d1, d2, d3), r = self.modes, self.factors, self.rank
        return n1 * d1 * r + n2 * d2 * r * r + n3 * d3 * r


class TensorTrain(Embedding):
    """A key (i1, i2, i3) reads the matrix product ``G1[i1] G2[i2] G3[i3]``, reshaped to dim."""

    options = TensorTrainOptions

    def __init__(
        self,
        cardinalities: Sequence[int],
        dim: int,
        memory_budget: int,
        seed: int,
        options: TensorTrainOptions,
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        numbers = most_numbers(memory_budget, options.storage, tables=3)
        self.shape = _shape(sum(self.cardinalities), dim, numbers, options)
        (n1, n2, n3), (d1, d2, d3), r = self.shape.modes, self.shape.factors, self.shape.rank
        self.keys = (
            ContiguousKeys("tt", self.cardinalities)
            if options.contiguous_ids
            else HashedKeys(self.features, n1 * n2 * n3, seed)
        )
        # An element is the sum of r^2 products of three numbers, each of variance bound^2 / 3: so it gets the
        # variance INIT_BOUND^2 / 3 that an element has in the other methods.
        bound = (9 * INIT_BOUND**2 / r**2) ** (1 / 6)
        storage = options.storage
        self.first = Table((n1, d1 * r), seed, storage, bound=bound)
        self.middle = Table((n2, r * d2 * r), derived_seed(seed, 1), storage, bound=bound)
        self.last = Table((n3, r * d3), derived_seed(seed, 2), storage, bound=bound)

    @classmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """Cores of rank one: for every value with contiguous ids, for a single key with hashed ones.

        Args: as for `Embedding.smallest_budget`.
        """
        assert isinstance(options, TensorTrainOptions)
        modes = _cube(sum(cardinalities)) if options.contiguous_ids else 1
        numbers = Shape(1, (modes, modes, modes), _factors(dim)).numbers
        return least_bytes(numbers, options.storage, tables=3)

    @classmethod
    def floats_per_row(cls, features: int, dim: int, options: Options) -> int:
        """Of every vector the slices of three cores, of at most the largest rank.

        Args: as for `Embedding.floats_per_row`.
        """
        assert isinstance(options, TensorTrainOptions)
        rank, side = options.max_rank, math.ceil(math.pow(dim, 1 / 3))
        return features * (side * rank * rank + (2 * side + side * side) * rank)

    def lookup(self, ids: Tensor) -> Tensor:
        """Products of the cores."""
        return self._products(self.keys(ids).flatten()).view(*ids.shape, self.dim)

    def lookup_flat(self, values: Tensor, features: Tensor) -> Tensor:
        """Products of the cores.

        Args: as for `Embedding.lookup_flat`.
        """
        return self._products(self.keys(values, features))

    def _products(self, keys: Tensor) -> Tensor:
        """(n,) keys -> (n, dim)."""
        (_, n2, n3), (d1, d2, d3), r = self.shape.modes, self.shape.factors, self.shape.rank
        first = self.first.rows(keys // (n2 * n3)).view(-1, d1, r)
        middle = self.middle.rows(keys // n3 % n2).view(-1, r, d2 * r)
        last = self.last.rows(keys % n3).view(-1, r, d3)
        vectors = (first @ middle).view(-1, d1 * d2, r) @ last  # (n, d1*d2, d3)
        return vectors.reshape(-1, self.dim)


def _cube(count: int) -> int:
    """The least n with n^3 >= count."""
    n = max(1, int(math.cbrt(count)) - 1)
    while n**3 < count:
        n += 1
    return n


def _factors(dim: int) -> tuple[int, int, int]:
    """dim as a product of three, as equal as can be, the smallest in the middle, where it costs most."""
    triples: list[tuple[int, int, int]] = [
        (a, b, dim // (a * b))
        for a in range(1, dim + 1)
        for b in range(1, dim // a + 1)
        if dim % (a * b) == 0
    ]
    most_equal = min(triples, key=sum)
    small, middle, large = sorted(most_equal)
    return middle, small, large


def _shape(count: int, dim: int, numbers: int, options: TensorTrainOptions) -> Shape:
    """The largest train within ``numbers``: highest rank first, then more middle cores, then first ones."""
    factors = _factors(dim)
    d1, d2, d3 = factors
    n = _cube(count)
    while n > 1 and Shape(1, (n, n, n), factors).numbers > numbers:
        n -= 1
    rank = 1
    while rank < options.max_rank and Shape(rank + 1, (n, n, n), factors).numbers <= numbers:
        rank += 1
    middle = (numbers - n * (d1 + d3) * rank) // (d2 * rank * rank)
    left = numbers - n * (d1 + d3) * rank - middle * d2 * rank * rank
    return Shape(rank, (n + left // (d1 * rank), middle, n), factors)
