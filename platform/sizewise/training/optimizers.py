"""The optimizers of a study.

    optimizer = build_optimizer("adagrad", model, learning_rate=0.02, in_backward=True)

One optimizer of `torch.optim` has all parameters and their state, which checkpoints keep. With `in_backward` it steps
those tables in the backward pass that kernels can step (`embedding.in_backward`), and all else in `step`. Adam moves
every number at every step, and keeps its gradient of the table; so do data-parallel workers, who must add theirs up.
Without `in_backward` all gradients are ordinary ones, which can be clipped, and accumulated over several batches.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from sizewise.embedding import Embedding
from sizewise.embedding.fused import served
from sizewise.embedding.in_backward import step_tables
from sizewise.embedding.storage.table import ROUNDED, Table

OPTIMIZERS = ("sgd", "adagrad", "adam")
ADAGRAD_FUSES_ON_GPUS = "2.12"  # the first version of PyTorch whose fused Adagrad takes tensors on a GPU
# Options of parameter groups for the machine, which leave the steps the same.
HOW = ("fused", "foreach", "capturable")


def build_optimizer(
    name: str, model: nn.Module, learning_rate: float, *, in_backward: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of a model's parameters.

    Args:
        name: one of `OPTIMIZERS`.
        model: on its device already.
        learning_rate: of all parameters.
        in_backward: step tables in the backward pass where kernels can, without gradients of them.
    """
    parameters = list(model.parameters())
    devices = {parameter.device for parameter in parameters}
    on_cpu = all(device.type == "cpu" for device in devices)
    on_gpu = all(device.type == "cuda" for device in devices)
    tables = [module for module in model.modules() if isinstance(module, Table)]
    for module in model.modules():
        if isinstance(module, Embedding):
            module.ordinary_gradients()
    sparse = in_backward and name != "adam" and all(served(device) for device in devices)
    taken = [table for table in tables if sparse and table.steps_in_kernels]
    for table in _of_kernels(model):
        table.stepped_by_kernels = on_gpu and table in taken
    # Beside tables that are rounded not fused, as in studies of version 0.1, whose last digits would differ.
    fused = all(table.storage not in ROUNDED or table.stepped_by_kernels for table in tables)
    together = True if fused and (on_cpu or on_gpu) else None
    if name == "adam":
        # Capturable: fit for a CUDA graph, for it counts its steps on the device.
        return torch.optim.Adam(parameters, lr=learning_rate, fused=together, capturable=on_gpu)
    optimizer: torch.optim.Optimizer
    if name == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=learning_rate, fused=together)
    elif on_gpu and torch.__version__ < ADAGRAD_FUSES_ON_GPUS:
        optimizer = AdagradCountedThere(parameters, lr=learning_rate, fused=None)
    else:
        optimizer = torch.optim.Adagrad(parameters, lr=learning_rate, fused=together)
    if taken:
        step_tables(optimizer, taken)
    return optimizer


def restore(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of a checkpoint, whichever machine saved it, with the options that suit this one."""
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


class AdagradCountedThere(torch.optim.Adagrad):
    """`torch.optim.Adagrad` that counts its steps where the parameters are.

    A CUDA graph needs that, and PyTorch before 2.12 does not do it.
    """

    def __init__(self, parameters: list[nn.Parameter], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self.param_groups[0]["capturable"] = True  # which has a checkpoint's counts go there, too
        for parameter, state in self.state.items():
            state["step"] = state["step"].to(parameter.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step every parameter that has a gradient, without asking the device for anything."""
        loss = torch.enable_grad()(closure)() if closure else None
        group = self.param_groups[0]
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return loss
        gradients = [parameter.grad for parameter in parameters]
        states = [self.state[parameter] for parameter in parameters]
        squares = [state["sum"] for state in states]
        torch._foreach_add_([state["step"] for state in states], 1)
        torch._foreach_addcmul_(squares, gradients, gradients)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(parameters, gradients, roots, value=-float(group["lr"]))
        return loss
