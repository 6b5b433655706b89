"""What is compared: how the vectors of a model are stored, what ships, and how its numbers are rounded.

spec = Spec("hot", ratio=1_000, width=2, bits=4, fingerprint=6)
method = make(spec, values, seed=1, device=device)
model = method.model(bfloat16=True)
method.shipped_bytes
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from benchmarks.scale.arrays import CHUNK, Values
from torch import Tensor, nn
from torch.nn.functional import pad

from sizewise.embedding import Embedding, build, full_bytes, fused
from sizewise.embedding.ids.hashing import MASK32, FastHash, lowbias32
from sizewise.embedding.ids.keys import ContiguousKeys
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.methods.full import Full, FullOptions
from sizewise.embedding.storage.learned_step import STARTING_STEP
from sizewise.embedding.storage.quantization import SCALE_BYTES, Storage, most_numbers, rounded, stored_bytes
from sizewise.embedding.storage.rounding import learn_steps
from sizewise.embedding.storage.table import INIT_BOUND, Table
from sizewise.models.dlrm import DLRM

DIM = 16
BOTTOM, TOP = [128, 64], [256, 128]
STRENGTH = 0.25  # of narrow vectors, which are repeated over all places of the interaction
COUNT_BYTES = 4
STORAGES: dict[int, Storage] = {32: "float32", 8: "int8", 4: "int4"}

ToIds = Callable[[Tensor], Tensor]
"""Numbers of values, int32 (rows, features), to the ids that an embedding looks up, int64."""


@dataclass(frozen=True)
class Spec:
    """A method and its size.

    Attributes:
        method: `full` (a row for every value of the training rows), `frequent` (a row for those that come at least
            `least` times, one a feature for all others; its list of ids is not counted), `robe`, `hash`, or `hot`
            (as `frequent`, as many values as the bytes allow, with a list of hashed fingerprints that is counted).
        ratio: bytes of `full` over bytes; 1 for `full` and `frequent`.
        width: numbers of a vector; repeated up to `DIM`.
        bits: of a shipped number: 32, 8 or 4.
        fingerprint: bits of a fingerprint of `hot` beyond those that number its rows.
        least: training rows of a value that has a row of its own.
        by: what the values of `hot` are chosen by: `count`, or `chi` (chi-square with the label).
        learnt: share of the training, at its end, in which numbers have their few bits already and their step is
            learnt; 0: they are rounded after training.
    """

    method: str
    ratio: int = 1
    width: int = DIM
    bits: int = 32
    fingerprint: int = 6
    least: int = 2
    by: str = "count"
    learnt: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
        if self.method in ("full", "robe") and self.bits == 32:
            return self.method
        if self.method == "frequent":
            return f"frequent values (at least {self.least} rows), float32"
        width = f" dim {self.width}" if self.width < DIM else ""
        chi = ", by chi-square" if self.by == "chi" else ""
        learnt = (
            f", step learnt in {'all' if self.learnt == 1 else f'the last {self.learnt:.0%}'}"
            if self.learnt
            else ""
        )
        return f"{self.method}{width} {'float32' if self.bits == 32 else f'int{self.bits}'}{chi}{learnt}"


@dataclass
class Method:
    """A spec made real for one data set and seed.

    Attributes:
        embedding: looks `ids` up.
        train_ids, ids: of training rows, and of any rows.
        pieces: views of the stored numbers that have a scale of their own.
        shipped_bytes: of everything that ships for the embeddings.
        note: what was found while it was made.
        in_few_bits: whether the numbers that are looked up have the spec's bits (`learn_steps`).
    """

    spec: Spec
    embedding: Embedding
    train_ids: ToIds
    ids: ToIds
    pieces: Callable[[], list[Tensor]]
    shipped_bytes: int
    note: str = ""
    in_few_bits: bool = False

    def learn_steps(self) -> None:
        """Have the embedding's numbers be of the spec's few bits from now on, while it is trained on."""
        storage = STORAGES[self.spec.bits]
        assert storage == "int4"
        learn_steps(self.embedding, storage)
        if self.spec.learnt == 1:  # numbers that are all next to zero do not say yet how far they will go
            for table in (part for part in self.embedding.modules() if isinstance(part, Table)):
                table.log_steps.detach().fill_(math.log(STARTING_STEP[storage]))
        self.in_few_bits = True

    def model(self, dense: int = 13, bfloat16: bool = False) -> DLRM:
        """A DLRM around the embedding, on the embedding's device."""
        device = next(self.embedding.parameters()).device
        precision: Any = "bfloat16" if bfloat16 else "float32"
        kind = NarrowDLRM if isinstance(self.embedding, Repeated) else DLRM
        return kind(self.embedding, dense, BOTTOM, TOP, precision=precision).to(device)

    @contextmanager
    def shipped(self) -> Iterator[None]:
        """The stored numbers as they ship, for a while."""
        if self.spec.bits == 32 or self.in_few_bits:
            yield
            return
        pieces = self.pieces()
        kept = [piece.clone() for piece in pieces]
        for piece in pieces:
            piece.copy_(rounded(piece, STORAGES[self.spec.bits]))
        try:
            yield
        finally:
            for piece, before in zip(pieces, kept, strict=True):
                piece.copy_(before)


def make(spec: Spec, values: Values, seed: int, device: torch.device) -> Method:
    """A method with freshly drawn numbers, on a device."""
    cardinalities = values.cardinalities
    budget = full_bytes(cardinalities, DIM) // spec.ratio
    sizes = torch.tensor(values.sizes, dtype=torch.int32, device=device)
    if spec.method == "full":
        table = DeviceTable(cardinalities, DIM, seed, device)
        known: ToIds = lambda ids: torch.where(ids > sizes, 0, ids).long()  # noqa: E731
        return Method(spec, table, lambda ids: ids.long(), known, lambda: _by_feature(table), budget)
    if spec.method in ("hot", "frequent"):
        return _hot(spec, values, budget, seed, device)
    count = most_numbers(budget, storage := STORAGES[spec.bits])
    numbers = max(count // spec.width, DIM // spec.width) * spec.width  # one vector of a pool at least
    inner = build(spec.method, cardinalities, spec.width, numbers * 4, seed).to(device)
    as_they_are: ToIds = lambda ids: ids.long()  # noqa: E731
    pool = lambda: [next(inner.parameters()).detach()]  # noqa: E731
    size = stored_bytes(inner.embedding_bytes // 4, storage)
    return Method(spec, _repeated(inner), as_they_are, as_they_are, pool, size)


def _hot(spec: Spec, values: Values, budget: int, seed: int, device: torch.device) -> Method:
    features, storage = len(values.sizes), STORAGES[spec.bits]
    hot = _hot_rows(spec, values, budget, seed)
    table = DeviceTable([count + 1 for count in hot.keys.rows], spec.width, seed, device)
    starts = values.starts()

    def train_ids(ids: Tensor) -> Tensor:
        return hot.row_of[(ids + starts).long()].long()

    def any_ids(ids: Tensor) -> Tensor:
        if not hot.keys.exact:
            return hot.keys(ids)
        seen = ids <= hot.keys.sizes
        return torch.where(seen, train_ids(torch.where(seen, ids, 0)), 0)

    rows = sum(hot.keys.rows)
    listed = 0 if hot.keys.exact else -(-rows * (spec.fingerprint + 2) // 8) + features * COUNT_BYTES
    numbers = sum(stored_bytes((count + 1) * spec.width, storage) for count in hot.keys.rows)
    note = f"{rows:,} rows of their own"
    if not hot.keys.exact:
        note += f", {hot.chosen - rows:,} values share one by fingerprint"
    return Method(
        spec, _repeated(table), train_ids, any_ids, lambda: _by_feature(table), numbers + listed, note
    )


class _HotRows(NamedTuple):
    """Which row every value of the training rows reads, within its feature: int32, like `values.counts`."""

    keys: "FingerprintKeys"
    row_of: Tensor
    chosen: int


@lru_cache(maxsize=1)  # made in seconds, for several trainings that follow each other
def _hot_rows(spec: Spec, values: Values, budget: int, seed: int) -> _HotRows:
    features = len(values.sizes)
    if spec.method == "frequent":
        chosen = torch.nonzero(values.counts >= spec.least).squeeze(1)
    else:
        # Every feature may fill up a byte, has a scale, a row for all others, and a number that counts its rows.
        row_bits = spec.width * spec.bits
        fixed = features * (COUNT_BYTES + SCALE_BYTES[STORAGES[spec.bits]] + row_bits // 8 + 1) + 1
        chosen = _most_frequent(spec, values, max(budget - fixed, 0) * 8 // (spec.fingerprint + 2 + row_bits))
    keys = FingerprintKeys(chosen, values, spec.fingerprint, seed, exact=spec.method == "frequent")
    return _HotRows(keys, keys.of_training_values(values), len(chosen))


def _most_frequent(spec: Spec, values: Values, rows: int) -> Tensor:
    """Positions in `values.counts` of as many values as there may be rows, the best first to be taken; ascending."""
    counts = values.counts
    if spec.by == "chi":
        assert values.clicks is not None
        expected = counts * (values.clicks.sum() / counts.sum().double())
        rate = values.clicks.sum() / counts.sum().double()
        chi = torch.where(counts > 0, (values.clicks - expected) ** 2 / (expected * (1 - rate)), 0.0)
        return chi.topk(min(rows, int((counts > 0).sum()))).indices.sort().values
    top = 1 << 12
    histogram = torch.bincount(counts.clamp(max=top), minlength=top + 1)
    at_least = histogram.flip(0).cumsum(0).flip(0)  # how many values come so often or more often
    fitting = int((at_least > rows).sum())  # the smallest count of which all values fit
    least = max(fitting, spec.least)
    chosen = torch.nonzero(counts >= least).squeeze(1)
    if (
        least == fitting and least - 1 >= spec.least and len(chosen) < rows
    ):  # some of those that come once less
        ties = torch.nonzero(counts == least - 1).squeeze(1)
        take = min(rows - len(chosen), len(ties))
        even = torch.arange(take, device=ties.device) * len(ties) // max(take, 1)
        chosen = torch.cat([chosen, ties[even]]).sort().values
    return chosen if len(chosen) <= rows else counts.topk(rows).indices.sort().values


class FingerprintKeys:
    """Values that have rows of their own, as a sorted list of hashed fingerprints: false positives are possible.

    A feature with n such values hashes all its values to n * 2^bits places and lists those of the n: in the code of
    Elias and Fano that is bits + 2 bits a value. A value whose place is listed reads that place's row, any other
    row 0 of its feature.

    Args:
        chosen: positions in `values.counts`, ascending.
        values: of the training rows.
        bits: of a fingerprint beyond those that number the rows.
        seed: of the hash.
        exact: no two values share a fingerprint and none is taken for another (for comparison: nothing is hashed).
    """

    def __init__(self, chosen: Tensor, values: Values, bits: int, seed: int, exact: bool) -> None:
        device = chosen.device
        self.sizes = torch.tensor(values.sizes, dtype=torch.int32, device=device)
        starts = values.starts().long()
        self.feature_of = lambda position: torch.searchsorted(starts, position, right=True) - 1
        feature = self.feature_of(chosen)
        features = len(values.sizes)
        counted = torch.bincount(feature, minlength=features)
        places = counted.max().new_tensor(values.cardinalities) if exact else counted << bits
        self.exact, self.places = exact, places
        self.place_starts = places.cumsum(0) - places
        hashed = FastHash(features, 1, seed)
        self.a, self.b = (term.to(device).squeeze(1) for term in (hashed.multiplier, hashed.increment))
        keys = self._keys((chosen - starts[feature]), feature)
        self.listed = torch.unique(keys)  # sorted
        bounds = torch.searchsorted(self.listed, torch.cat([self.place_starts, places.sum().view(1)]))
        self.row_starts = bounds[:-1]
        self.rows: list[int] = (bounds[1:] - bounds[:-1]).tolist()

    def __call__(self, ids: Tensor) -> Tensor:
        """Rows within their feature, int64 (rows, features), of any ids of this shape."""
        return self._rows(ids.long(), slice(None))

    def of_training_values(self, values: Values) -> Tensor:
        """Rows within their feature of all values, int32 like `values.counts`; "all others" read row 0."""
        rows = torch.empty_like(values.counts)
        start = 0
        for feature, count in enumerate(values.cardinalities):
            for low in range(0, count, CHUNK):
                high = min(low + CHUNK, count)
                ids = torch.arange(low, high, device=rows.device)
                rows[start + low : start + high] = self._rows(ids, feature)
            rows[start] = 0
            start += count
        return rows

    def _keys(self, ids: Tensor, feature: Any) -> Tensor:
        if self.exact:
            return ids + self.place_starts[feature]
        bits = lowbias32((ids * self.a[feature] + self.b[feature]) & MASK32)
        return ((bits * self.places[feature]) >> 32) + self.place_starts[feature]

    def _rows(self, ids: Tensor, feature: Any) -> Tensor:
        if not len(self.listed):
            return torch.zeros_like(ids)
        keys = self._keys(ids, feature)
        at = torch.searchsorted(self.listed, keys)
        found = self.listed[at.clamp(max=len(self.listed) - 1)] == keys
        # A feature without rows has no places either: its keys are the next feature's first.
        found &= self.places[feature] > 0
        return torch.where(found, at - self.row_starts[feature] + 1, 0)


class DeviceTable(Full):
    """`full`, its numbers drawn on the device: 12 GB would take a minute to draw on the host and to copy."""

    def __init__(self, cardinalities: list[int], dim: int, seed: int, device: torch.device) -> None:
        Embedding.__init__(self, cardinalities, dim, seed)
        self.keys = ContiguousKeys("full", self.cardinalities)
        self.table = Table((1, dim), seed, FullOptions().storage)
        generator = torch.Generator(device).manual_seed(seed)
        values = torch.empty(self.keys.count, dim, device=device)
        values.uniform_(-INIT_BOUND, INIT_BOUND, generator=generator)
        self.table.weight = nn.Parameter(values)
        self.blocks = Blocks(self.features, dim, dim, dim, None, self.keys.offsets)
        self.to(device)


class Repeated(Embedding):
    """Narrow vectors repeated over all places of a wider one, at a quarter of the strength: no bytes more."""

    def __init__(self, narrow: Embedding, dim: int) -> None:
        super().__init__(narrow.cardinalities, dim, narrow.seed)
        self.narrow, self.times = narrow, dim // narrow.dim

    @classmethod
    def smallest_budget(cls, *_: Any) -> int:
        """Of no use: made around what was built already."""
        raise NotImplementedError

    def takes_uint32(self, ids: Tensor) -> bool:
        """As the narrow embedding."""
        return self.narrow.takes_uint32(ids)

    def lookup(self, ids: Tensor) -> Tensor:
        """The narrow vectors, repeated."""
        return self.narrow.lookup(ids).repeat(1, 1, self.times) * STRENGTH


class NarrowDLRM(DLRM):
    """A DLRM of repeated vectors that on a GPU takes their dot products without repeating them.

    Repeated t times at strength s, two narrow vectors v and w have the product t s^2 v·w, and bottom b has s f·v with
    the narrow one, where f sums what b has at equal places. So the fused kernels are given f / (t s), and all that they
    return is multiplied by t s^2.
    """

    def _interaction(self, bottom: Tensor, ids: Tensor, bags: object = None) -> Tensor:
        embedding = self.embedding
        if bottom.device.type not in fused.TRITON_ON or not isinstance(embedding, Repeated):
            return super()._interaction(bottom, ids)
        width, times = embedding.narrow.dim, embedding.times
        folded = bottom.float().unflatten(1, (times, width)).sum(1) / (times * STRENGTH)
        joined = fused.interaction(embedding.narrow, folded, ids, self.mlp_dtype)
        if joined is None:
            return super()._interaction(bottom, ids)
        dots = joined[:, width : width + len(self.pairs)] * (times * STRENGTH**2)
        joined = torch.cat([bottom.to(dots.dtype), dots], dim=1)
        return pad(joined, (0, -joined.shape[1] % 16))


def _repeated(narrow: Embedding) -> Embedding:
    return narrow if narrow.dim == DIM else Repeated(narrow, DIM)


def _by_feature(table: DeviceTable) -> list[Tensor]:
    return list(table.table.weight.detach().split(list(table.cardinalities)))
