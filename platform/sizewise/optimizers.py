"""The optimizers of a study, and steps whose cost does not grow with the table.

    optimizer = build_optimizer("adagrad", model, learning_rate=0.02)

SGD (without momentum) and Adagrad leave a number alone whose gradient is zero. So where the fused kernels look
vectors up, the gradients of what a batch read are carried straight into the table and no gradient of the
table is made: a step costs what the batch reads, however large the table. Values equal those of `torch.optim`
up to the rounding of float32, and the state (its bytes, its form in a checkpoint) is that of `torch.optim`.
On a GPU a table smaller than what a batch reads of it is stepped whole, in one pass over the sums of its gradients,
which costs less. Adam moves every number at every step, and keeps its gradient of the table; so do data-parallel
workers, who must add theirs up.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from sizewise.embedding import Embedding
from sizewise.embedding.fused import Pending, served
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.table import Table

OPTIMIZERS = ("sgd", "adagrad", "adam")
ADAGRAD_FUSES_ON_GPUS = "2.12"  # the first version of PyTorch whose fused Adagrad takes tensors on a GPU
HOW = ("fused", "foreach", "capturable")  # what groups of parameters say of the machine and not of the steps


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
    devices = {parameter.device for parameter in parameters}
    on_cpu = all(device.type == "cpu" for device in devices)
    on_gpu = all(device.type == "cuda" for device in devices)
    tables = [module for module in model.modules() if isinstance(module, Table)]
    sparse = not dense_gradients and name != "adam" and all(served(device) for device in devices)
    taken = [table for table in tables if sparse and table.storage != "int8"]
    for table in _of_kernels(model):
        table.stepped_by_kernels = on_gpu and table in taken
    # A table in fewer bits notices by its version that it was stepped, which fused steps leave as it was.
    fused = all(table.storage == "float32" or table.stepped_by_kernels for table in tables)
    settings: dict[str, Any] = {"lr": learning_rate, "fused": True if fused and (on_cpu or on_gpu) else None}
    if name == "adam":
        # Capturable: fit for a CUDA graph, for it counts its steps on the device.
        return torch.optim.Adam(parameters, **settings, capturable=on_gpu)
    if name == "sgd":
        return SparseSGD(parameters, taken, **settings)
    counted_there = on_gpu and torch.__version__ < ADAGRAD_FUSES_ON_GPUS
    settings["fused"] = None if counted_there else settings["fused"]
    return SparseAdagrad(parameters, taken, counted_there=counted_there, **settings)


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from a checkpoint, in the way that suits this machine, whichever saved it."""
    groups = [
        {name: value for name, value in saved.items() if name not in HOW}
        | {name: own[name] for name in HOW if name in own}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def _of_kernels(model: nn.Module) -> Iterator[Table]:
    """The tables that every lookup takes to a kernel."""
    for module in model.modules():
        pooled = module.pooled() if isinstance(module, Embedding) and module.fused else None
        if pooled:
            yield pooled[0]


def _forget(tables: list[Table]) -> None:
    """No gradients wait, and those to come are to wait."""
    for table in tables:
        if any(waiting.gradient is None for waiting in table.pending or []):
            table.sums().zero_()
        table.pending = []


def _done(table: Table, pending: list[Pending], rounded: bool) -> None:
    """After a step: round what can have moved, as the table would; sums that were stepped by are gone."""
    if table.storage == "bfloat16" and not rounded:
        stream = table.next_stream()
        for blocks, ids, _ in pending:
            blocks.round_bfloat16(table.weight, ids, stream)  # type: ignore[arg-type]
    table.pending = [waiting for waiting in pending if waiting.gradient is not None]


def _step_whole(table: Table, pending: list[Pending], rate: float, **adagrad: Any) -> bool:
    """Step, and round, a whole table by its sums, where gradients were summed; says whether it did."""
    for blocks, _, gradient in pending:
        if gradient is None:
            assert not isinstance(blocks, Blocks)
            stream = table.next_stream() if table.storage == "bfloat16" else None
            blocks.dense_step(table.weight, table.sums(), rate, stream=stream, **adagrad)
            return True
    return False


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
                if gradient is not None:
                    blocks.scatter(table.weight, ids, gradient, -rate)
            if pending:
                _done(table, pending, rounded=_step_whole(table, pending, rate))
        return loss


class SparseAdagrad(torch.optim.Adagrad):
    """`torch.optim.Adagrad`, whose `tables` are stepped from the gradients of what was looked up.

    Their gradients are summed in one buffer of the table's size (`Table.sums`), zero between steps: Adagrad squares
    the sum of what a batch says about a number.

    Args:
        parameters: of the model, tables included.
        tables: to step so.
        counted_there: keep the counts of steps where the parameters are, which a CUDA graph needs and PyTorch before
            2.12 does not do.
        settings: of `torch.optim.Adagrad`.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        tables: list[Table],
        counted_there: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(parameters, **settings)
        if counted_there:
            self.param_groups[0]["capturable"] = True  # which has a checkpoint's counts go there, too
            for parameter, state in self.state.items():
                state["step"] = state["step"].to(parameter.device)
        self.tables = tables
        _forget(tables)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        super().zero_grad(set_to_none)
        _forget(self.tables)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step every parameter that has a gradient, of either kind."""
        group = self.param_groups[0]
        if group.get("capturable"):
            loss = torch.enable_grad()(closure)() if closure else None
            self._step_there(group)
        else:
            loss = super().step(closure)
        rate, epsilon = float(group["lr"]), float(group["eps"])
        for table in self.tables:
            pending: list[Pending] = table.pending or []
            if not pending:
                continue
            state = self.state[table.weight]
            state["step"] += 1
            for blocks, ids, gradient in pending:
                if gradient is not None:
                    blocks.scatter(table.sums(), ids, gradient)
            whole = _step_whole(table, pending, rate, squares=state["sum"], epsilon=epsilon)
            if not whole:
                for blocks, ids, _ in pending:
                    blocks.adagrad(table.weight, table.sums(), state["sum"], ids, rate, epsilon)
            _done(table, pending, rounded=whole)
        return loss

    def _step_there(self, group: dict[str, Any]) -> None:
        """Step the parameters that have a gradient, without asking the device for anything."""
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        gradients = [parameter.grad for parameter in parameters]
        states = [self.state[parameter] for parameter in parameters]
        squares = [state["sum"] for state in states]
        torch._foreach_add_([state["step"] for state in states], 1)
        torch._foreach_addcmul_(squares, gradients, gradients)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(parameters, gradients, roots, value=-float(group["lr"]))
