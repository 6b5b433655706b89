"""Embedding methods behind one interface: how the vectors of a recommendation model are stored in few bytes.

    embedding = build("robe", cardinalities=[1000, 50], dim=16, memory_budget=2_000, seed=1, block_len=8)
    embedding(ids)             # (batch, 2) -> (batch, 2, 16)
    embedding.embedding_bytes  # 2000

Features may be lists of values, see `Bags`.

Each method lives in a file of its own, with its options as a pydantic class beside it; see ``METHODS``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import ValidationError

from sizewise.embedding.bags import Bags, Pooling
from sizewise.embedding.base import Embedding, Options, full_bytes
from sizewise.embedding.compressing import Compression, compress
from sizewise.embedding.ids.counts import FeatureCounts
from sizewise.embedding.ids.multi_hot import MultiHot
from sizewise.embedding.in_backward import remaining_parameters
from sizewise.embedding.methods.clustered import Clustered
from sizewise.embedding.methods.full import Full
from sizewise.embedding.methods.hot import Hot
from sizewise.embedding.methods.quotient_remainder import QuotientRemainder
from sizewise.embedding.methods.robe import Robe
from sizewise.embedding.methods.row_hash import RowHash
from sizewise.embedding.methods.tensor_train import TensorTrain
from sizewise_core.errors import InputError, shown
from sizewise_core.registry import Registry

__all__ = [
    "METHODS",
    "Bags",
    "Compression",
    "Embedding",
    "FeatureCounts",
    "MultiHotLists",
    "Options",
    "Pooling",
    "build",
    "compress",
    "full_bytes",
    "remaining_parameters",
    "smallest_budget",
]

MultiHotLists = Literal["none", "criteo"]
"""Lists that are made of single values."""

METHODS: Registry[Embedding] = Registry(
    "embedding method",
    "sizewise.methods",
    Embedding,
    {
        "full": Full,
        "hash": RowHash,
        "robe": Robe,
        "qr": QuotientRemainder,
        "tt": TensorTrain,
        "cce": Clustered,
        "hot": Hot,
    },
)


def build(
    method: str,
    cardinalities: Sequence[int],
    dim: int,
    memory_budget: int,
    seed: int,
    *,
    pooling: Pooling = "mean",
    multi_hot: MultiHotLists = "none",
    **options: Any,
) -> Embedding:
    """An embedding with freshly drawn parameters.

    Args:
        method: a key of ``METHODS``.
        cardinalities: distinct values of each feature, 1 to 2^32; features that are lists of values come last.
        dim: length of a vector, 1 to 512.
        memory_budget: bytes that the parameters may take.
        seed: equal seeds give equal parameters and hashes on every machine.
        pooling: what becomes of the vectors of a list of values: mean or sum.
        multi_hot: `criteo` makes lists of single values, as MLPerf does of Criteo's (see `ids.multi_hot`).
        options: fields of ``METHODS[method].options``.

    Raises:
        InputError: an unknown method or option, or a budget below ``smallest_budget``.
    """
    checked = _checked(method, cardinalities, dim, options)
    needed = METHODS[method].smallest_budget(cardinalities, dim, checked)
    if memory_budget < needed:
        raise InputError(
            f"memory_budget of {memory_budget} bytes is too small for embedding.method {method} "
            f"with dim {dim}; give it at least {needed} bytes"
        )
    if pooling not in get_args(Pooling):
        raise InputError(f"embedding.pooling {shown(str(pooling))} is unknown: use mean or sum")
    embedding = METHODS[method](cardinalities, dim, memory_budget, seed, checked)  # type: ignore[call-arg]
    embedding.pooling = pooling
    if multi_hot != "none":
        embedding.multi_hot = MultiHot(cardinalities)
    return embedding


def smallest_budget(method: str, cardinalities: Sequence[int], dim: int, **options: Any) -> int:
    """Bytes below which ``build`` refuses.

    Args:
        method: a key of ``METHODS``.
        cardinalities: distinct values of each feature, 1 to 2^32.
        dim: length of a vector, 1 to 512.
        options: fields of ``METHODS[method].options``.

    Raises:
        InputError: an unknown method or option; a dim or cardinality out of range; options that do not suit dim.
    """
    checked = _checked(method, cardinalities, dim, options)
    return METHODS[method].smallest_budget(cardinalities, dim, checked)


def _checked(method: str, cardinalities: Sequence[int], dim: int, options: Mapping[str, Any]) -> Options:
    if method not in METHODS:
        raise InputError(
            f"embedding.method {shown(method)} is unknown: choose one of {METHODS.choices(method)}"
        )
    kind = METHODS[method]
    if not 1 <= dim <= 512:
        raise InputError(f"model.dim {dim} is out of range: choose 1 to 512")
    if not cardinalities or not all(1 <= c <= 2**32 for c in cardinalities):
        raise InputError(
            f"cardinalities must be one number from 1 to 2^32 per feature, not {list(cardinalities)}"
        )
    try:
        return kind.options(**options).fitted(dim)
    except ValidationError as error:
        details = "; ".join(
            ".".join(["embedding", *(str(part) for part in e["loc"])])
            + f": {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise InputError(f"embedding.method {method}: {details}") from None
