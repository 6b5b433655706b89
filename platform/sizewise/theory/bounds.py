"""How much memory is enough in theory: bounds with their assumptions and sources, and their simulation.

    memory_bound(rows=204_184_588, dim=128, epsilon=0.1)   # 16,402 dimensions, 8.4 MB instead of 104.5 GB

An embedding table of n rows is read by one-hot vectors e_i; hashing replaces e_i by a short vector S e_i and
the table by a learnt memory M of k rows, so that row i becomes (S e_i)' M.  S costs no memory: it is computed
from the id.  The bounds below give the k for which S keeps lengths and inner products within 1 +- epsilon.

The Johnson-Lindenstrauss bound is for a dense Gaussian S.  It does not hold for `hash` and `robe`, whose S has one
nonzero a row: at any k, some of the rows read the same numbers only, so that the distance between them is lost.
`sizewise.theory.pool` has what holds for them, in expectation over their hash.

The bounds do not say that training finds such an M, or how much AUC an epsilon costs.  Errors are relative to the
lengths of the vectors, not to single entries.  The abstract of the parameter-sharing-setup paper (arXiv
2207.10731) claims that exponentially fewer parameters suffice for a (1 +- epsilon) approximation; its theorem
was not at hand, and nothing here is attributed to it.  The logarithm in the Johnson-Lindenstrauss bound is a
growth of that kind.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sizewise_core.errors import InputError

Floats = NDArray[np.float64]
FLOAT_BYTES = 4
HOLDS_FOR = "a dense Gaussian projection; not for embedding.method hash or robe"
NOT_FOR_HASHES = (
    "This bound is for a dense Gaussian projection. It does not hold for hash and robe, which read each number of a "
    "vector from one position of their pool: ids that share all positions have equal vectors, at any size."
)


class MemoryBound(NamedTuple):
    """Memory that is enough for n rows, in the sense of `statement`."""

    rows: int
    dim: int
    epsilon: float
    dimensions: int
    """Rows k of the learnt memory, each of dim float32 numbers."""
    bytes: int
    full_bytes: int
    ratio: float
    """full_bytes over bytes; below 1 where the bound asks for more than the table has."""
    statement: str
    source: str


def memory_bound(rows: int, dim: int, epsilon: float) -> MemoryBound:
    """The Johnson-Lindenstrauss bound read as bytes of an embedding memory.

    Args:
        rows: values of all features together.
        dim: length of an embedding vector.
        epsilon: allowed relative error of squared distances, in (0, 1).

    Raises:
        InputError: fewer than two rows, a dim below 1 or an epsilon outside (0, 1).
    """
    if dim < 1:
        raise InputError(f"dim {dim} is out of range: choose 1 or more")
    dimensions = jl_dimensions(rows, epsilon)
    full, small = rows * dim * FLOAT_BYTES, dimensions * dim * FLOAT_BYTES
    return MemoryBound(
        rows=rows,
        dim=dim,
        epsilon=epsilon,
        dimensions=dimensions,
        bytes=small,
        full_bytes=full,
        ratio=full / small,
        statement=(
            "A dense Gaussian projection to this many dimensions keeps all squared distances between rows' one-hot "
            "vectors within 1 +- epsilon, with probability at least 1/rows"
        ),
        source="Dasgupta and Gupta, 'An elementary proof of a theorem of Johnson and Lindenstrauss', 2003",
    )


def jl_dimensions(points: int, epsilon: float, failure: float | None = None) -> int:
    """Dimensions k that keep all squared distances between n points within 1 +- epsilon.

    ``k >= 4 ln n / (eps^2/2 - eps^3/3)`` (Dasgupta and Gupta 2003, Theorem 2.1): a Gaussian projection then
    does so with probability at least 1/n, so some projection does.  With ``failure`` the same argument, one
    pair failing with probability at most ``2 exp(-k (eps^2/2 - eps^3/3) / 2)``, is made to hold for all
    n(n-1)/2 pairs at once with probability at least 1 - failure: ``k >= 2 ln(n (n-1) / failure) / (eps^2/2 -
    eps^3/3)``.

    Args:
        points: how many, n.
        epsilon: allowed relative error of squared distances, in (0, 1).
        failure: allowed probability that some distance is off by more, in (0, 1); None: that of the theorem.

    Raises:
        InputError: fewer than two points, or epsilon or failure outside (0, 1).
    """
    if points < 2:
        raise InputError(f"rows {points}: a bound on distances needs at least 2")
    _check_open_unit("epsilon", epsilon)
    spread = epsilon**2 / 2 - epsilon**3 / 3
    if failure is None:
        return math.ceil(4 * math.log(points) / spread)
    _check_open_unit("failure", failure)
    return math.ceil(2 * math.log(points * (points - 1) / failure) / spread)


def feature_hashing_variance(x: Floats, y: Floats, size: int) -> float:
    """Variance of the inner product of two signed feature hashes of ``size`` slots; its mean is x'y.

    ``(1/m) (sum_{i != j} x_i^2 y_j^2 + x_i y_i x_j y_j)`` (Weinberger et al., Lemma 2 in arXiv 0902.2206v5 of
    2010, which corrects the version of 2009).  Assumes a
    pairwise independent slot hash and a four-wise independent sign hash.

    Args:
        x, y: (n,) vectors.
        size: slots, m.
    """
    x2, y2, xy = x * x, y * y, x * y
    squares = x2.sum() * y2.sum() - (x2 * y2).sum()
    products = xy.sum() ** 2 - (xy * xy).sum()
    return float((squares + products) / size)


def feature_hashing_chebyshev(x: Floats, y: Floats, size: int, error: float) -> float:
    """Bound on the probability that a hashed inner product is off by error or more: variance / error^2.

    Args:
        x, y: (n,) vectors.
        size: slots.
        error: absolute, above 0.
    """
    return min(1.0, feature_hashing_variance(x, y, size) / error**2)


class FeatureHashingTail(NamedTuple):
    """Conditions under which a hashed unit vector keeps its squared length within 1 +- epsilon."""

    size: int
    """Slots needed."""
    largest_entry: float
    """Largest absolute entry that the vector may have."""
    failure: float
    """Bound on the probability of failing."""


def feature_hashing_tail(epsilon: float, delta: float) -> FeatureHashingTail:
    """The exponential tail of signed feature hashing (Weinberger et al., Theorem 3 in arXiv 0902.2206v5 of 2010).

    The version of 2009 has errors there.  For ||x|| = 1, ``m >= 72 ln(1/delta) / eps^2`` and ``max|x_i| <= eps /
    (18 sqrt(ln(1/delta) ln(m/delta)))`` the squared length of the hashed vector is off by epsilon or more with
    probability at most 2 delta.

    Raises:
        InputError: epsilon or delta outside (0, 1).
    """
    _check_open_unit("epsilon", epsilon)
    _check_open_unit("delta", delta)
    size = math.ceil(72 * math.log(1 / delta) / epsilon**2)
    largest = epsilon / (18 * math.sqrt(math.log(1 / delta) * math.log(size / delta)))
    return FeatureHashingTail(size, largest, 2 * delta)


class SparseJL(NamedTuple):
    """Sizes of a sparse projection: blocks of block_size rows, each with one nonzero in every column."""

    blocks: int
    block_size: int

    @property
    def dimensions(self) -> int:
        """Rows in all."""
        return self.blocks * self.block_size


def sparse_jl(
    epsilon: float, delta: float, rows_constant: float = 8.0, nonzeros_constant: float = 1.0
) -> SparseJL:
    """Sizes that keep one vector's squared length within 1 +- epsilon with probability 1 - delta.

    ``m = c_m ln(1/delta) / eps^2`` rows with ``s = c_s ln(1/delta) / eps`` nonzeros of +-1/sqrt(s) in each
    column (Kane and Nelson, "Sparser Johnson-Lindenstrauss Transforms", 2014, block construction).  The paper
    proves the orders without naming constants; the defaults here are ours, c_m = 8 being twice the leading
    constant of the dense bound for one vector, and rest on simulation, not on a proof.

    Args:
        epsilon: allowed relative error of the squared length, in (0, 1).
        delta: allowed probability of a larger one, in (0, 1).
        rows_constant, nonzeros_constant: c_m and c_s.

    Raises:
        InputError: epsilon or delta outside (0, 1).
    """
    _check_open_unit("epsilon", epsilon)
    _check_open_unit("delta", delta)
    blocks = math.ceil(nonzeros_constant * math.log(1 / delta) / epsilon)
    rows = rows_constant * math.log(1 / delta) / epsilon**2
    return SparseJL(blocks, math.ceil(rows / blocks))


def simulate_jl(points: Floats, dimensions: int, trials: int, seed: int) -> Iterator[float]:
    """Simulate dense Gaussian projections.

    Args:
        points: (n, d), all different.
        dimensions: of the projection, k.
        trials: how many projections.
        seed: of the random numbers.

    Yields:
        For each projection, the largest relative error of any squared distance.
    """
    random = np.random.default_rng(seed)
    first, second = np.triu_indices(len(points), 1)
    differences = points[first] - points[second]
    lengths = (differences**2).sum(1)
    for _ in range(trials):
        projection = random.normal(size=(points.shape[1], dimensions)) / math.sqrt(dimensions)
        yield float(np.abs(((differences @ projection) ** 2).sum(1) / lengths - 1).max())


def simulate_feature_hashing(x: Floats, y: Floats, size: int, trials: int, seed: int) -> Floats:
    """Simulate signed feature hashing.

    Args:
        x, y: (n,) vectors.
        size: slots.
        trials: how many hashes.
        seed: of the random numbers.

    Returns:
        The inner products of the hashed vectors, (trials,).
    """
    return np.array([float(a @ b) for a, b in _sparse_pairs(x, y, SparseJL(1, size), trials, seed)])


def simulate_sparse_jl(x: Floats, sizes: SparseJL, trials: int, seed: int) -> Floats:
    """Simulate sparse projections.

    Args:
        x: (n,) vector.
        sizes: of the projections.
        trials: how many.
        seed: of the random numbers.

    Returns:
        The squared lengths of the projected vector, (trials,).
    """
    return np.array([float(a @ a) for a, _ in _sparse_pairs(x, x, sizes, trials, seed)])


def _sparse_pairs(
    x: Floats, y: Floats, sizes: SparseJL, trials: int, seed: int
) -> Iterator[tuple[Floats, Floats]]:
    """Images of x and y; a single block is signed feature hashing."""
    random = np.random.default_rng(seed)
    shift = np.arange(sizes.blocks)[:, None] * sizes.block_size
    for _ in range(trials):
        slots = (random.integers(0, sizes.block_size, (sizes.blocks, x.size)) + shift).ravel()
        signs = random.choice((-1.0, 1.0), (sizes.blocks, x.size)) / math.sqrt(sizes.blocks)
        yield (
            _bin_sums(slots, signs * x, sizes.dimensions),
            _bin_sums(slots, signs * y, sizes.dimensions),
        )


def _bin_sums(slots: NDArray[np.int64], values: Floats, count: int) -> Floats:
    sums: Floats = np.bincount(slots, values.ravel(), count).astype(np.float64)
    return sums


def _check_open_unit(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} {value} is out of range: choose a number between 0 and 1")
