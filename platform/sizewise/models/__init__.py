"""The models around the embeddings, behind one interface, chosen by name.

    model = build("dlrm", embedding, dense_features=13, options={"bottom_mlp": [128, 64], "top_mlp": [256, 128]})
    model(dense, ids)          # (batch, 13), (batch, features) -> (batch,)

Each lives in a file of its own, with its options as a pydantic class beside it; see ``MODELS``. One's own is named by
where it is imported from (`own`).
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sizewise.embedding import Embedding
from sizewise.models.base import Floats, Model, ModelOptions, Precision
from sizewise.models.dcn import DCN
from sizewise.models.deepfm import DeepFM
from sizewise.models.din import DIN
from sizewise.models.dlrm import DLRM
from sizewise.models.mlp import MLP
from sizewise.models.own import OwnModel, is_own, own_model
from sizewise.models.wide_deep import WideDeep
from sizewise_core.errors import InputError, first_problem
from sizewise_core.registry import Registry

__all__ = [
    "DEFAULT",
    "MODELS",
    "Floats",
    "Model",
    "ModelOptions",
    "Precision",
    "build",
    "dim_fault",
    "find",
    "is_own",
    "precision_fault",
    "precisions",
]

DEFAULT = "dlrm"
MODELS: Registry[Model] = Registry(
    "model",
    "sizewise.models",
    Model,
    {DEFAULT: DLRM, "dcn": DCN, "deepfm": DeepFM, "wide_deep": WideDeep, "din": DIN, "mlp": MLP},
)


def find(kind: str) -> type[Model]:
    """The class of a model: a key of ``MODELS``, or one's own, as package.module:Class.

    Raises:
        InputError: there is none, or it cannot be imported.
    """
    return own_model(kind) if is_own(kind) else MODELS[kind]


def precisions(kind: str) -> tuple[Precision, ...]:
    """What a model can compute in; of one's own this is known without importing it."""
    return OwnModel.precisions if is_own(kind) else MODELS[kind].precisions


def build(
    kind: str,
    embedding: Embedding,
    dense_features: int,
    options: Mapping[str, Any],
    precision: Precision = "float32",
) -> Model:
    """A model with freshly drawn weights.

    Args:
        kind: as ``find`` takes it.
        embedding: its vectors, and the seed of its other weights.
        dense_features: number of dense values a row.
        options: fields of its class's ``options``.
        precision: that it computes in.

    Raises:
        InputError: an unknown kind or option, or a precision or a dim that the model does not have.
    """
    model = find(kind)
    if embedding.dim < model.smallest_dim:
        raise InputError(f"model.{dim_fault(kind)}")
    if precision not in model.precisions:
        raise InputError(precision_fault(kind, precision))
    try:
        checked = model.options(**options)
    except ValidationError as error:
        raise InputError(f"model {kind}: model.{first_problem(error)}") from None
    return model.create(embedding, dense_features, checked, precision)


def precision_fault(kind: str, precision: str) -> str:
    """What to tell whoever asked a model for a precision that it does not have."""
    known = " or ".join(precisions(kind))
    return f"train.precision: model {kind} does not compute in {precision}: use {known}"


def dim_fault(kind: str) -> str:
    """What to tell whoever asked a model for shorter vectors than it can use."""
    return f"dim: model {kind} needs vectors of at least {MODELS[kind].smallest_dim} numbers: raise dim"
