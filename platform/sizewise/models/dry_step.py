"""Training steps of one's own model on a few rows, before anything starts: what is wrong with it, said at once.

notes = dry_step("mypackage.nets:MyNet", embedding, dense_features=13, options={"hidden": 64})
"""

import pickle
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parameter import is_lazy

from sizewise.embedding import Bags, Embedding
from sizewise.models.foreign import foreign
from sizewise.models.own import AnyOptions, OwnModel, own_fault, own_model, short
from sizewise_core.units import format_bytes

RATE = 0.01
ROWS = (7, 4)  # of the training steps: two sizes, which no module can take for one of its own
NAMED = 3  # parameters and buffers that a message names
PASSING = (
    "Squeeze",
    "Unsqueeze",
    "View",
    "Reshape",
    "Select",
    "Slice",
    "Copy",
    "Clone",
    "Alias",
    "Permute",
    "T",
)
"""Beginnings of names of autograd nodes that leave numbers as they are."""


@dataclass(frozen=True)
class Conditions:
    """What a study's rows are like, and who trains on them.

    Attributes:
        lists: how many of the last features are lists of values.
        largest_ids: of each feature; none: those of the embedding's cardinalities.
        signed: whether dense values may be negative.
        shortest: rows of the smallest batch that a worker steps by, at the end of an epoch.
        workers: of a trial.
    """

    lists: int = 0
    largest_ids: Sequence[int] = ()
    signed: bool = True
    shortest: int = ROWS[-1]
    workers: int = 1


def dry_step(
    kind: str,
    embedding: Embedding,
    dense_features: int,
    options: Mapping[str, Any],
    conditions: Conditions | None = None,
) -> list[str]:
    """Build, train for some steps and score, as a trial would.

    Args:
        kind: the model, as `own_model` takes it.
        embedding: any, with the features of the data.
        dense_features: number of dense values a row.
        options: of the model.
        conditions: what rows it gets; left out: rows without lists.

    Returns:
        What there is to know about the model: sentences.

    Raises:
        InputError: what is wrong with it.
    """
    given = conditions or Conditions()
    embedding.fused = False  # kernels take a second to load, and are not what is tried
    drawn = [parameter.detach().clone() for parameter in embedding.parameters()]
    model = own_model(kind).create(embedding, dense_features, AnyOptions(**options), "float32")
    notes = _as_built(kind, model, drawn)
    rows = _Rows(embedding, dense_features, given)
    with foreign(f"model {kind} has been tried out"):
        trained = _trained(kind, model, rows, given)
        model.eval()
        with torch.no_grad():
            _logits(kind, model, rows.draw(1), 1)
    return [*notes, *trained, *_of_tables(kind, model)]


def _as_built(kind: str, model: OwnModel, drawn: Sequence[Tensor]) -> list[str]:
    """What is to be said before it computes anything.

    Args:
        drawn: the embedding's parameters as they were before.
    """
    parameters = list(model.parameters())
    if not parameters:
        raise own_fault(kind, "has no parameters to train")
    if any(map(is_lazy, parameters)):
        raise own_fault(
            kind,
            "has parameters without a shape (nn.LazyLinear, say): give their sizes, which the embedding has",
        )
    own = list(model.embedding.parameters())
    for before, now in zip(drawn, own, strict=True):
        if now.dtype != before.dtype:
            raise own_fault(
                kind, f"makes the embedding that it is given {now.dtype}: convert layers of its own alone"
            )
        if not now.requires_grad:
            raise own_fault(kind, "freezes the embedding that it is given: leave requires_grad as it is")
    if any(
        now.device == before.device and not torch.equal(now, before)
        for before, now in zip(drawn, own, strict=True)
    ):
        return [
            f"model {kind} changes the weights of the embedding that it is given, which are drawn already: "
            "initialize layers of its own alone, unless that is wanted"
        ]
    return []


def _trained(kind: str, model: OwnModel, rows: "_Rows", given: Conditions) -> list[str]:
    """Some steps of gradient descent; what is to be said of them."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    reached: set[str] = set()
    learns = False
    sizes = [*ROWS, given.shortest] if given.shortest < ROWS[-1] else list(ROWS)
    with _only_draws_of_pytorch() as others:
        for count in sizes:
            logits = _logits(kind, model, rows.draw(count), count)
            _check_gradients(kind, model, logits)
            reached |= {name for name, parameter in parameters.items() if parameter.grad is not None}
            learns |= any(p.grad is not None and bool(p.grad.any()) for p in model.embedding.parameters())
            _step(list(parameters.values()))
    if added := [name for name, _ in model.named_parameters() if name not in parameters]:
        raise own_fault(kind, f"makes parameters in forward ({_some(added)}): make them where it is built")
    inside = {id(parameter) for parameter in model.embedding.parameters()}
    unused = [name for name, p in parameters.items() if name not in reached and p.requires_grad]
    around = [name for name in unused if id(parameters[name]) not in inside]
    if given.workers > 1:
        changed = [name for name, buffer in buffers.items() if not torch.equal(buffer, before[name])]
        _check_workers(kind, given.workers, unused, changed)
    notes = [f"model {kind} has parameters that no gradient reaches: {_some(around)}"] if around else []
    if loose := _loose_tensors(model):
        notes.append(
            f"model {kind} has tensors that are neither parameters nor buffers ({_some(loose)}), which no checkpoint "
            "keeps and no GPU gets: use register_buffer"
        )
    if not learns:
        notes.append(
            f"model {kind} does not learn from the embedding that it is given: no gradient reaches it"
        )
    if others:
        notes.append(
            f"model {kind} draws from {' and '.join(others)} in forward: a trial that is resumed draws otherwise. "
            "Draw from torch, whose state is kept"
        )
    return notes


def _loose_tensors(model: OwnModel) -> list[str]:
    """Names of tensors that modules have as plain attributes."""
    inside = set(model.embedding.modules())
    return [
        f"{name}.{key}".lstrip(".")
        for name, part in model.module.named_modules()
        if part not in inside
        for key, value in vars(part).items()
        if isinstance(value, Tensor)
    ]


def _check_gradients(kind: str, model: OwnModel, logits: Tensor) -> None:
    """One backward pass."""
    if not logits.requires_grad:
        raise own_fault(kind, "gives logits that no gradient reaches: leave out detach() and no_grad()")
    if ending := _squashed(logits):
        raise own_fault(
            kind, f"gives probabilities, for it ends with {ending}: return the logits before that"
        )
    label = (torch.arange(len(logits)) % 2).float()
    try:
        binary_cross_entropy_with_logits(logits.float(), label, reduction="sum").backward()  # type: ignore[no-untyped-call]
    except (Exception, SystemExit) as error:
        raise own_fault(kind, f"raises in its backward pass ({short(error)}): fix it") from error
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            raise own_fault(
                kind,
                f"has a sparse gradient ({_some([name])}), which no optimizer here takes: leave out sparse=True",
            )
        if not torch.isfinite(parameter.grad).all():
            raise own_fault(
                kind, "has gradients that are not finite in the first steps: look for log(0) and 0/0"
            )


def _squashed(logits: Tensor) -> str:
    """The function that makes probabilities of logits, where that is the last that was computed."""
    node: Any = logits.grad_fn
    while node is not None and node.name().lstrip("_").startswith(PASSING) and node.next_functions:
        node = node.next_functions[0][0]
    name = node.name() if node is not None else ""
    return next((known for known in ("Sigmoid", "Softmax") if name.startswith(known)), "").lower()


def _check_workers(kind: str, workers: int, unused: Sequence[str], changed: Sequence[str]) -> None:
    """InputError where several workers would not train what one would."""
    fix = "or set resources.workers: 1"
    if unused:
        raise own_fault(
            kind,
            f"has parameters that no gradient reaches ({_some(unused)}), which {workers} workers need: remove "
            f"them, {fix}",
        )
    if changed:
        raise own_fault(
            kind,
            f"changes buffers in training ({_some(changed)}), and each of {workers} workers would have its own: use "
            f"LayerNorm for BatchNorm, {fix}",
        )


@contextmanager
def _only_draws_of_pytorch() -> Iterator[list[str]]:
    """Gives a list that names, at the end of the block, what else random numbers were drawn from in it."""
    others: list[str] = []
    before = random.getstate(), pickle.dumps(np.random.get_state())
    yield others
    if random.getstate() != before[0]:
        others.append("random")
    if pickle.dumps(np.random.get_state()) != before[1]:
        others.append("numpy.random")


@torch.no_grad()
def _step(parameters: Sequence[nn.Parameter]) -> None:
    """Gradient descent by hand: the first optimizer of `torch.optim` takes a process a second."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad, alpha=-RATE)
            parameter.grad = None


class _Rows:
    """Makes rows as the data's could be: with the largest ids, and with zeros among the dense values."""

    def __init__(self, embedding: Embedding, dense_features: int, given: Conditions) -> None:
        self.dense_features, self.given = dense_features, given
        self.largest = given.largest_ids or [size - 1 for size in embedding.cardinalities]
        self.columns = embedding.features - given.lists
        self._random = torch.Generator().manual_seed(1)

    def draw(self, rows: int) -> tuple[Tensor | Bags, ...]:
        """What `forward` gets."""
        dense = torch.randn(rows, self.dense_features, generator=self._random)
        if not self.given.signed:
            dense = dense.clamp(min=0)
        columns = [self._ids(number, rows) for number in range(self.columns)]
        ids = torch.stack(columns, dim=1) if columns else torch.empty(rows, 0, dtype=torch.int64)
        lists = self.given.lists
        if not lists:
            return dense, ids
        # One list of each feature is empty, the others have one value.
        lengths = (torch.arange(rows) > 0).long().repeat(lists)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        values = [self._ids(self.columns + number, max(rows - 1, 0)) for number in range(lists)]
        return dense, ids, Bags(torch.cat(values), offsets)

    def _ids(self, feature: int, rows: int) -> Tensor:
        largest = int(self.largest[feature])
        ids = torch.randint(0, largest + 1, (rows,), generator=self._random)
        ids[:1] = largest
        return ids


def _logits(kind: str, model: OwnModel, inputs: tuple[Tensor | Bags, ...], rows: int) -> Tensor:
    """The module's own answer, checked."""
    try:
        logits: object = model.module(*inputs)
    except (Exception, SystemExit) as error:
        fix = _explained(error, model, inputs, rows)
        raise own_fault(kind, f"raises in forward ({short(error)}): {fix}") from error
    if not isinstance(logits, Tensor):
        raise own_fault(kind, f"gives a {type(logits).__name__}, not one tensor of logits (rows,)")
    shape = tuple(logits.shape)
    if shape != (rows,):
        fix = "return one logit for each row"
        if shape == (rows, 1):
            fix = "add .squeeze(1)"
        elif rows == 1 and shape == ():
            fix = "write .squeeze(1) for .squeeze()"
        changed = "changes the batch size: it " if not shape or shape[0] != rows else ""
        raise own_fault(kind, f"{changed}gives logits of shape {shape} for {rows} rows, not ({rows},): {fix}")
    if not logits.is_floating_point():
        raise own_fault(kind, f"gives {logits.dtype}, not logits of a floating type")
    if not torch.isfinite(logits).all():
        raise own_fault(kind, "gives logits that are not finite (NaN or infinite) in its first steps: fix it")
    return logits


def _explained(error: BaseException, model: OwnModel, inputs: tuple[Tensor | Bags, ...], rows: int) -> str:
    """What of the inputs may be the reason of an error, and what to do."""
    if isinstance(error, TypeError):
        lists = "the data has lists: forward(dense, ids, bags)"
        return lists if len(inputs) > 2 else "it is called as forward(dense, ids)"
    if model.training and rows < ROWS[-1]:
        return (
            f"epochs of this data end with a batch of {rows} row{'s' * (rows != 1)}: change train.batch_size"
        )
    largest = int(inputs[1].max()) if isinstance(inputs[1], Tensor) and inputs[1].numel() else 0
    if isinstance(error, IndexError) and largest >= max(model.embedding.cardinalities):
        return f"this data has ids up to {largest:,}: number them with `sizewise prep --tokens contiguous`"
    return "fix it"


def _of_tables(kind: str, model: OwnModel) -> Iterator[str]:
    """What is to be said of tables of the module's own."""
    sizes = []
    for name, table in model.own_tables():
        if isinstance(table, Embedding):
            rows, dim, size = sum(table.cardinalities), table.dim, table.embedding_bytes
        else:
            rows, dim = table.num_embeddings, table.embedding_dim
            size = table.weight.numel() * table.weight.element_size()
        sizes.append(f"{name} ({type(table).__name__} of {rows:,} x {dim}, {format_bytes(size)})")
    if sizes:
        yield (
            f"model {kind} has tables of its own: {', '.join(sizes)}. They count in embedding_bytes and model_bytes; "
            "the memory budget is of the embedding alone"
        )


def _some(names: Sequence[str]) -> str:
    """The first of some names."""
    listed = ", ".join(name.removeprefix("module.") for name in names[:NAMED])
    return listed if len(names) <= NAMED else f"{listed} and {len(names) - NAMED} more"
