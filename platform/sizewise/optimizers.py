"""The optimizers of a study, and steps whose cost does not grow with the table.

    optimizer = build_optimizer("adagrad", model, learning_rate=0.02)

SGD (without momentum) and Adagrad leave a number alone whose gradient is zero. So where the fused kernels look
vectors up, the gradients of what a batch read are carried straight into the table and no gradient of the
table is made: a step costs what the batch reads, however large the table. Values equal those of `torch.optim`
up to the rounding of float32, and the state (its bytes, its form in a checkpoint) is that of `torch.optim`.
Adam moves every number at every step, and keeps its gradient of the table; so do data-parallel workers, who
must add theirs up.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sizewise.embedding.fused import Pending
from sizewise.embedding.table import Table

OPTIMIZERS = ("sgd", "adagrad", "adam")


def build_optimizer(
    name: str, model: nn.Module, learning_rate: float, *, dense_gradients: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of a model's parameters.

    Args:
        name: one of `OPTIMIZERS`.
        model: on its device already.
        learning_rate: of all parameters.
        dense_gradients: make gradients of tables all the same, for workers that average them.
    """
    parameters = list(model.parameters())
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    tables = [module for module in model.modules() if isinstance(module, Table)]
    # A table in fewer bits notices by its version that it was stepped, which fused steps leave as it was.
    sparse = on_cpu and not dense_gradients and name != "adam"
    fused = True if on_cpu and all(table.storage == "float32" for table in tables) else None
    settings: dict[str, Any] = {"lr": learning_rate, "fused": fused}
    if name == "adam":
        return torch.optim.Adam(parameters, **settings)
    taken = [table for table in tables if sparse and table.storage != "int8"]
    if name == "sgd":
        return SparseSGD(parameters, taken, **settings)
    return SparseAdagrad(parameters, taken, **settings)


def _forget(tables: list[Table]) -> None:
    """No gradients wait, and those to come are to wait."""
    for table in tables:
        table.pending = []


def _round(table: Table, pending: list[Pending]) -> None:
    """What the table would do to all its numbers, done to those that can have moved."""
    if table.storage == "bfloat16":
        stream = table.next_stream()
        for blocks, ids, _ in pending:
            blocks.round_bfloat16(table.weight, ids, stream)


class SparseSGD(torch.optim.SGD):
    """`torch.optim.SGD`, whose `tables` are stepped from the gradients of what was looked up."""

    def __init__(self, parameters: list[nn.Parameter], tables: list[Table], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self.tables = tables
        _forget(tables)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        super().zero_grad(set_to_none)
        _forget(self.tables)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step every parameter that has a gradient, of either kind."""
        loss = super().step(closure)
        rate = float(self.param_groups[0]["lr"])
        for table in self.tables:
            pending: list[Pending] = table.pending or []
            for blocks, ids, gradient in pending:
                blocks.scatter(table.weight, ids, gradient, -rate)
            if pending:
                _round(table, pending)
        return loss


class SparseAdagrad(torch.optim.Adagrad):
    """`torch.optim.Adagrad`, whose `tables` are stepped from the gradients of what was looked up.

    Their gradients are summed in one buffer of the table's size, zero between steps, that lives as long as the
    optimizer: Adagrad squares the sum of what a batch says about a number.
    """

    def __init__(self, parameters: list[nn.Parameter], tables: list[Table], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self.tables = tables
        self.sums: dict[Table, Tensor] = {}
        _forget(tables)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        super().zero_grad(set_to_none)
        _forget(self.tables)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step every parameter that has a gradient, of either kind."""
        loss = super().step(closure)
        group = self.param_groups[0]
        for table in self.tables:
            pending: list[Pending] = table.pending or []
            if not pending:
                continue
            if table not in self.sums:
                self.sums[table] = torch.zeros_like(table.weight)
            state = self.state[table.weight]
            state["step"] += 1
            for blocks, ids, gradient in pending:
                blocks.scatter(self.sums[table], ids, gradient)
            for blocks, ids, _ in pending:
                blocks.adagrad(
                    table.weight, self.sums[table], state["sum"], ids, float(group["lr"]), group["eps"]
                )
            _round(table, pending)
        return loss
