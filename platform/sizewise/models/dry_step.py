"""One training step of one's own model on a few rows, before anything starts: what is wrong with it, said at once.

notes = dry_step("mypackage.nets:MyNet", embedding, dense_features=13, options={"hidden": 64})
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from sizewise.embedding import Bags, Embedding
from sizewise.models.own import AnyOptions, OwnModel, own_model, short
from sizewise_core.errors import InputError, shown
from sizewise_core.units import format_bytes

RATE = 0.01
ROWS = (7, 4)  # of the training steps: two sizes, which no module can take for one of its own


def dry_step(
    kind: str, embedding: Embedding, dense_features: int, options: Mapping[str, Any], lists: int = 0
) -> list[str]:
    """Build, train for two steps and score, as a trial would.

    Args:
        kind: the model, as `own_model` takes it.
        embedding: any, with the features of the data.
        dense_features: number of dense values a row.
        options: of the model.
        lists: how many of the last features are lists of values.

    Returns:
        What there is to know about the model: sentences.

    Raises:
        InputError: what is wrong with it.
    """
    model = own_model(kind).create(embedding, dense_features, AnyOptions(**options), "float32")
    parameters = list(model.parameters())
    if not parameters:
        raise _fault(kind, "has no parameters to train")
    embedding.fused = False  # kernels take a second to load, and are not what is tried
    random = torch.Generator().manual_seed(1)
    for rows in ROWS:
        logits = _logits(kind, model, _inputs(embedding, dense_features, lists, rows, random), rows)
        if not logits.requires_grad:
            raise _fault(kind, "gives logits that no gradient reaches: leave out detach() and no_grad()")
        label = (torch.arange(rows) % 2).float()
        try:
            binary_cross_entropy_with_logits(logits.float(), label).backward()  # type: ignore[no-untyped-call]
        except Exception as error:
            raise _fault(kind, f"raises in its backward pass ({short(error)}): fix it") from error
        if any(p.grad is not None and not _finite(p.grad) for p in parameters):
            raise _fault(kind, "has gradients that are not finite in the first step: look for log(0) and 0/0")
        _step(parameters, last=rows == ROWS[-1])
    model.eval()
    with torch.no_grad():
        _logits(kind, model, _inputs(embedding, dense_features, lists, 1, random), 1)
    return list(_notes(kind, model))


@torch.no_grad()
def _step(parameters: list[nn.Parameter], last: bool) -> None:
    """Gradient descent by hand: the first optimizer of `torch.optim` takes a process a second."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad, alpha=-RATE)
            parameter.grad = parameter.grad if last else None


def _inputs(
    embedding: Embedding, dense_features: int, lists: int, rows: int, random: torch.Generator
) -> tuple[Tensor | Bags, ...]:
    dense = torch.randn(rows, dense_features, generator=random)
    columns = [
        torch.randint(0, size, (rows,), generator=random)
        for size in embedding.cardinalities[: embedding.features - lists]
    ]
    ids = torch.stack(columns, dim=1) if columns else torch.empty(rows, 0, dtype=torch.int64)
    if not lists:
        return dense, ids
    # One list of each feature is empty, the others have one value: the first, which every feature has.
    lengths = (torch.arange(rows) > 0).long().repeat(lists)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return dense, ids, Bags(torch.zeros(int(offsets[-1]), dtype=torch.int64), offsets)


def _logits(kind: str, model: OwnModel, inputs: tuple[Tensor | Bags, ...], rows: int) -> Tensor:
    """The module's own answer, checked."""
    try:
        logits: object = model.module(*inputs)
    except Exception as error:
        lists = " (the data has lists: forward(dense, ids, bags))" if len(inputs) > 2 else ""
        raise _fault(kind, f"raises in forward ({short(error)}){lists}: fix it") from error
    if not isinstance(logits, Tensor):
        raise _fault(kind, f"gives a {type(logits).__name__}, not one tensor of logits (rows,)")
    shape = tuple(logits.shape)
    if shape != (rows,):
        fix = "return one logit for each row"
        if shape == (rows, 1):
            fix = "add .squeeze(1)"
        elif rows == 1 and shape == ():
            fix = "write .squeeze(1) for .squeeze()"
        changed = "changes the batch size: it " if not shape or shape[0] != rows else ""
        raise _fault(kind, f"{changed}gives logits of shape {shape} for {rows} rows, not ({rows},): {fix}")
    if not logits.is_floating_point():
        raise _fault(kind, f"gives {logits.dtype}, not logits of a floating type")
    if not _finite(logits):
        raise _fault(kind, "gives logits that are not finite (NaN or infinite) in its first steps: fix it")
    return logits


def _notes(kind: str, model: OwnModel) -> list[str]:
    notes = []
    tables = list(model.own_tables())
    if tables:
        sizes = [
            f"{name} ({type(table).__name__} of {table.num_embeddings:,} x {table.embedding_dim}, "
            f"{format_bytes(table.weight.numel() * table.weight.element_size())})"
            for name, table in tables
        ]
        notes.append(
            f"model {kind} has tables of its own: {', '.join(sizes)}. They count in embedding_bytes and model_bytes; "
            "the memory budget is of the embedding alone"
        )
    if not any(p.grad is not None and bool(p.grad.any()) for p in model.embedding.parameters()):
        notes.append(
            f"model {kind} does not learn from the embedding that it is given: no gradient reaches it"
        )
    return notes


def _finite(tensor: Tensor) -> bool:
    values = tensor.coalesce().values() if tensor.is_sparse else tensor
    return bool(torch.isfinite(values).all())


def _fault(kind: str, what: str) -> InputError:
    return InputError(f"model.kind: {shown(kind)} {what}")
