"""``cce``: clustered compositional embeddings, which learn during training which ids may share.

Tsang and Ahle, "Clustering the Sketch: Dynamic Compression for Embedding Tables", NeurIPS 2023.  A vector is
cut into chunks; chunk c of a key is ``centroids[c, pointer[c, key]] + helpers[c, hash_c(key)]``.  Sometimes
the chunks of all keys are clustered by k-means: centroids become the cluster means, pointers the
assignments, helpers zero with a fresh hash.

Schedule: in epochs, as the authors' code has it: after the first epoch and each one after it, but in the first
three quarters of the training only, so that vectors can settle; at most ``clusterings`` times.  How long an epoch
is must be said once: ``embedding.set_schedule(iterations_per_epoch, epochs)``; until then nothing is clustered.
A whole number for ``cluster_every`` counts iterations instead: clustering comes before training lookup
``cluster_every``, ``2 * cluster_every``, ..., however long the training is (version 0.1 knew only this).  Lookups
and clusterings are counted in the state, so a resumed run keeps the schedule.

The pointers are learnt, so a deployed model must ship them: ``chunks`` bytes or more for every value, however
small the tables.  The paper counts tables only; ``count_pointers: false`` does so too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor

from sizewise.embedding.base import Embedding, GroupedOptions, Options
from sizewise.embedding.ids.hashing import MAX_SLOTS, FastHash, derived_seed, splitmix64
from sizewise.embedding.ids.keys import ContiguousKeys, HashedKeys
from sizewise.embedding.storage.quantization import least_bytes, most_numbers
from sizewise.embedding.storage.table import StateDict, Table
from sizewise_core.errors import InputError

# 100,000 points, 11,000 means, one core: 0.2 s by tree and 4 s by distances at width 4; 20 s and 6 s at 16.
TREE_WIDTH = 8

LATEST = 0.75  # share of the training after which nothing is clustered any more
ROUNDING = 1e-9  # of products of epochs


class ClusteredOptions(GroupedOptions):
    """Options of ``cce``."""

    chunks: int = Field(4, ge=1, le=512)
    """Parts of a vector that are clustered by themselves; divides dim.  Left out: fewer where 4 does not divide."""
    cluster_every: float | int = Field(1.0, gt=0, allow_inf_nan=False)
    """Training between clusterings: epochs when written as 0.5 or 1.0, iterations when written as 500."""
    clusterings: int = Field(3, ge=0)
    """How often to cluster at most; 0: never."""
    count_pointers: bool = True
    """Count the pointers as bytes of the embedding, within the budget."""
    contiguous_ids: bool = False
    """Ids are below their cardinality, each with its own pointers; otherwise they are hashed to as many."""

    defaults_of_0_1: ClassVar[Mapping[str, Any]] = {"cluster_every": 100}

    @property
    def depends_on_epochs(self) -> bool:
        """Whether some trial trains on, without clustering, where a longer one would cluster."""
        if isinstance(self.cluster_every, int):
            return False
        # From the time of a clustering on, the shortest trial that is not over yet.
        times = (self.cluster_every * number for number in range(1, self.clusterings + 1))
        return any(time > LATEST * (math.floor(time) + 1) + ROUNDING for time in times)

    def due(self, iterations_per_epoch: int, epochs: int) -> list[int]:
        """Training lookups, counted from 1, before which to cluster in a training of so many epochs."""
        if isinstance(self.cluster_every, int):
            return [self.cluster_every * number for number in range(1, self.clusterings + 1)]
        times = (self.cluster_every * number for number in range(1, self.clusterings + 1))
        kept = [time for time in times if time <= LATEST * epochs + ROUNDING]
        return sorted({max(round(time * iterations_per_epoch), 1) + 1 for time in kept})

    def fitted(self, dim: int) -> Self:
        """As many chunks as divide the vector."""
        if "chunks" in self.model_fields_set:
            return self
        return self.model_copy(update={"chunks": most_chunks(self.chunks, dim)})


class Size(NamedTuple):
    """Rows of a table and the type that points at them."""

    clusters: int
    pointer: torch.dtype


class Clustered(Embedding):
    """Two tables of ``clusters`` rows a chunk, shared by all features, and the pointers into the first."""

    options = ClusteredOptions
    pointers: Tensor
    lookups: Tensor
    starts: Tensor

    host_decides = "embedding.method cce clusters its vectors after some of them"

    def __init__(
        self, cardinalities: Sequence[int], dim: int, memory_budget: int, seed: int, options: ClusteredOptions
    ) -> None:
        super().__init__(cardinalities, dim, seed)
        self.settings = options
        size = _size(sum(self.cardinalities), dim, memory_budget, options)
        self.keys = (
            ContiguousKeys("cce", self.cardinalities)
            if options.contiguous_ids
            else HashedKeys(self.features, sum(self.cardinalities), seed)
        )
        self.clusters = size.clusters
        shape = options.chunks * self.clusters, dim // options.chunks
        group = options.numbers_a_scale(dim // options.chunks)
        self.centroids = Table(shape, seed, options.storage, group=group)
        self.helpers = Table(shape, derived_seed(seed, 1), options.storage, group=group)
        # Before the first clustering the pointers are a hash as well.
        every_key = torch.arange(self.keys.count)
        pointers = self._hash(0, every_key).to(size.pointer)
        self.register_buffer("pointers", pointers)  # (keys, chunks)
        # Look-ups in training, and clusterings so far.
        self.register_buffer("lookups", torch.zeros(2, dtype=torch.int64))
        self._lookups = 0  # the first of them where reading it waits for no device
        self._due: frozenset[int] = frozenset()
        if isinstance(options.cluster_every, int):
            self.set_schedule(1, 1)
        self.helper_hash = self._hasher(1)
        self.register_buffer("starts", torch.arange(options.chunks) * self.clusters, persistent=False)

    @property
    def clustered(self) -> int:
        """Clusterings so far."""
        return int(self.lookups[1])

    @property
    def pointer_bytes(self) -> int:
        """Bytes of the pointers."""
        return self.pointers.numel() * self.pointers.element_size()

    @property
    def embedding_bytes(self) -> int:
        """Bytes of both tables and, with ``count_pointers``, of the pointers."""
        return super().embedding_bytes + (self.pointer_bytes if self.settings.count_pointers else 0)

    @classmethod
    def smallest_budget(cls, cardinalities: Sequence[int], dim: int, options: Options) -> int:
        """One row in each table, and a byte a chunk for every value if pointers count.

        Args: as for `Embedding.smallest_budget`.

        Raises:
            InputError: the chunks do not divide dim, or the group does not divide a chunk.
        """
        assert isinstance(options, ClusteredOptions)
        if dim % options.chunks:
            raise InputError(
                f"embedding.chunks {options.chunks} does not divide dim {dim}: "
                f"set chunks: {most_chunks(options.chunks, dim)}"
            )
        options.check_rows(dim // options.chunks)
        pointers = sum(cardinalities) * options.chunks if options.count_pointers else 0
        group = options.numbers_a_scale(dim // options.chunks)
        return least_bytes(2 * dim, options.storage, group, multiple=dim, tables=2) + pointers

    def prepare_export(self) -> None:
        """As for any embedding; a program has no schedule to keep, and its counts are no bytes of the embedding."""
        super().prepare_export()
        del self.lookups

    def lookup(self, ids: Tensor) -> Tensor:
        """Centroids and helpers, chunk by chunk; in training this also keeps the schedule."""
        self._count()
        return self._vectors(self.keys(ids)).flatten(-2)

    def lookup_flat(self, values: Tensor, features: Tensor) -> Tensor:
        """The same of values of any features; this is one lookup of the schedule, too.

        Args: as for `Embedding.lookup_flat`.
        """
        self._count()
        return self._vectors(self.keys(values, features)).flatten(-2)

    def _count(self) -> None:
        if self.training and torch.is_grad_enabled():
            self._lookups += 1
            self.lookups[0] += 1
            if self._lookups in self._due:
                self.cluster()

    def set_schedule(self, iterations_per_epoch: int, epochs: int) -> None:
        """Say how long the training will be; without that, a schedule in epochs clusters nothing."""
        self._due = frozenset(self.settings.due(iterations_per_epoch, epochs))

    def _vectors(self, keys: Tensor) -> Tensor:
        """(...) keys -> (..., chunks, dim / chunks)."""
        centroids = self.centroids.rows(self.pointers[keys].long() + self.starts)
        return centroids + self.helpers.rows(self._slots(self.helper_hash, keys) + self.starts)

    def _hasher(self, number: int) -> FastHash:
        """Hash number 0 gives the first pointers, number n the helper rows after n - 1 clusterings."""
        hasher = FastHash(1, self.settings.chunks, splitmix64(self.seed, number + 1)[-1])
        return hasher.to(self.centroids.weight.device)

    def _slots(self, hasher: FastHash, keys: Tensor) -> Tensor:
        slots, _ = hasher(keys.unsqueeze(-1), self.clusters)
        out: Tensor = slots.squeeze(-2)
        return out

    def _hash(self, number: int, keys: Tensor) -> Tensor:
        return self._slots(self._hasher(number), keys)

    @torch.no_grad()
    def cluster(self) -> None:
        """Cluster the chunks of all keys, and start the helpers afresh."""
        keys = torch.arange(self.keys.count, device=self.pointers.device)
        vectors = self._vectors(keys)  # (keys, chunks, dim / chunks)
        if not vectors.isfinite().all():
            return  # training has diverged, which is for whoever trains to see
        self.lookups[1] += 1
        number = self.clustered
        for chunk in range(self.settings.chunks):
            means, assigned = kmeans(
                vectors[:, chunk], self.clusters, seed=derived_seed(self.seed, number + 1)
            )
            start = chunk * self.clusters
            self.centroids.weight[start : start + len(means)] = means
            self.pointers[:, chunk] = assigned.to(self.pointers.dtype)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Sums on a GPU are not the same bits on every worker, and clusters of one must be those of all.
            for tensor in (self.centroids.weight, self.pointers):
                torch.distributed.broadcast(tensor.detach().view(torch.uint8), 0)
        self.helpers.weight.zero_()
        self.helper_hash = self._hasher(number + 1)

    def _load_from_state_dict(self, state: StateDict, prefix: str, *others: Any) -> None:
        counted = state.get(prefix + "lookups")
        if counted is not None and not counted.dim():
            # Of version 0.1, whose schedule was in iterations, so that lookups told of clusterings too.
            every = self.settings.cluster_every
            every = every if isinstance(every, int) else self.settings.defaults_of_0_1["cluster_every"]
            done = (counted // every).clamp(max=self.settings.clusterings)
            state[prefix + "lookups"] = torch.stack([counted, done])
        super()._load_from_state_dict(state, prefix, *others)
        self._lookups = int(self.lookups[0])
        self.helper_hash = self._hasher(self.clustered + 1)


def most_chunks(limit: int, dim: int) -> int:
    """The largest divisor of ``dim`` up to ``limit``."""
    return max(c for c in range(1, limit + 1) if dim % c == 0)


def kmeans(points: Tensor, clusters: int, seed: int, iterations: int = 5) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from a random choice of points.

    Args:
        points: (n, width).
        clusters: at most this many are made; with n or fewer points, each is one.
        seed: of the first choice.
        iterations: of the means, on a sample of 64 points a cluster; the last assignment is of all points.

    Returns:
        Means, (min(clusters, n), width), and the nearest mean of each point, (n,) int64.
    """
    n = len(points)
    if clusters >= n:
        return points.clone(), torch.arange(n, device=points.device)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(points.device)
    sample = points[order[: 64 * clusters]]
    means = sample[:clusters].clone()
    for _ in range(iterations):
        assigned = _nearest(sample, means)
        sums = torch.zeros_like(means).index_add_(0, assigned, sample)
        counts = torch.bincount(assigned, minlength=clusters).unsqueeze(1)
        # An empty cluster stays where it was.
        means = torch.where(counts > 0, sums / counts.clamp(min=1), means)
    return means, _nearest(points, means)


def _nearest(points: Tensor, means: Tensor) -> Tensor:
    """Index of the nearest mean of each point: by a tree where that is faster, else by all distances."""
    if points.device.type == "cpu" and points.shape[1] <= TREE_WIDTH:
        # Here, because it takes a second, and every process of a study imports this module.
        from sklearn.neighbors import KDTree

        return torch.from_numpy(KDTree(means.numpy()).query(points.numpy(), return_distance=False)[:, 0])
    # In slices that hold 64 MB of distances.
    norms = means.square().sum(1)
    slices = torch.split(points, max(1, 2**24 // len(means)))
    return torch.cat([torch.addmm(norms, part, means.T, alpha=-2).argmin(1) for part in slices])


def _size(keys: int, dim: int, memory_budget: int, options: ClusteredOptions) -> Size:
    """The most clusters within the budget, with the pointer type that reaches them."""
    types = {torch.uint8: 2**8, torch.int16: 2**15, torch.int32: MAX_SLOTS}
    sizes, group = [], options.numbers_a_scale(dim // options.chunks)
    for pointer, reach in types.items():
        pointers = keys * options.chunks * pointer.itemsize if options.count_pointers else 0
        numbers = most_numbers(memory_budget - pointers, options.storage, group, multiple=dim, tables=2)
        sizes.append(Size(min(reach, numbers // (2 * dim)), pointer))
    return max(sizes, key=lambda size: size.clusters)
