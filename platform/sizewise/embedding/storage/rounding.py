"""A trained model in fewer bits: its float32 tables rounded, for a while or for good.

    with stored_as(model.embedding, "int4"):      # tables are rounded ones here
        scores = evaluate(model)
        model.embedding.embedding_bytes           # packed numbers and scales
    round_tables(model.embedding, "int4")         # as an export does, for good
    learn_steps(model.embedding, "int4")          # go on training with numbers of so few bits

One training in float32 so answers for models of several sizes. Numbers are rounded to the levels of the least squared
error, with one scale a table (`quantization`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from sizewise.embedding.storage import learned_step
from sizewise.embedding.storage.quantization import quantize
from sizewise.embedding.storage.table import Table

Rounded = Literal["bfloat16", "int8", "int4", "int2"]
Packed = Literal["int4", "int2"]


def rounds(module: nn.Module) -> bool:
    """Whether a module has tables, all of which are float32 and so can be rounded."""
    tables = [part for part in module.modules() if isinstance(part, Table)]
    return bool(tables) and all(table.storage == "float32" for table in tables)


def round_tables(module: nn.Module, storage: Rounded) -> None:
    """Replace the float32 tables in a module by rounded ones."""
    for parent, name, table in _tables(module):
        setattr(parent, name, _rounded(table, storage))


@torch.no_grad()
def learn_steps(module: nn.Module, storage: Packed) -> None:
    """Replace the float32 tables in a module by ones that are trained on in few bits, from the numbers they have.

    Their working copies hold the same numbers, and their steps start where the squared error is least. Parameters are
    other ones afterwards: make the optimizer anew.

    Args:
        module: whose tables to replace.
        storage: whose levels are looked up from now on.
    """
    for parent, name, table in _tables(module):
        weight = table.weight.detach()
        made = _empty(table, storage)
        _, log_steps = learned_step.fitted(weight, storage, len(made.log_steps), table.center)
        made.weight.copy_(weight)
        made.log_steps.copy_(log_steps)
        setattr(parent, name, made.train(table.training))


@contextmanager
def stored_as(module: nn.Module, storage: Rounded) -> Iterator[None]:
    """Have a module's tables be rounded ones, which nobody trains."""
    found = _tables(module)
    try:
        for parent, name, table in found:
            setattr(parent, name, _rounded(table, storage))
        yield
    finally:
        for parent, name, table in found:
            setattr(parent, name, table)


def _tables(module: nn.Module) -> list[tuple[nn.Module, str, Table]]:
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, Table) and child.storage == "float32"
    ]


@torch.no_grad()
def _rounded(table: Table, storage: Rounded) -> Table:
    weight = table.weight.detach()
    made = _empty(table, storage)
    state = {name: torch.zeros_like(tensor) for name, tensor in made.named_buffers()}
    if storage == "int8":
        codes, scales = quantize(weight, 8)
        state |= {"weight": codes.view(torch.int8).view(weight.shape), "scale": scales[0].float()}
    else:  # packed tables round what they are given
        state["weight"] = weight.to(torch.bfloat16) if storage == "bfloat16" else weight
    made.load_state_dict(state)
    return made.train(table.training)


def _empty(table: Table, storage: Rounded) -> Table:
    """A table like another, on its device, of another storage; what is in it is not set."""
    with torch.device("meta"):  # values without memory: those of the table take their place
        made = Table(table.shape, table.seed, storage, center=table.center)
    return made.to_empty(device=table.weight.device)
