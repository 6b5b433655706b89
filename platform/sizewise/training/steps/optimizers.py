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

from sizewise.config.trial import TrialConfig
from sizewise.embedding import Embedding
from sizewise.embedding.fused import served
from sizewise.embedding.in_backward import step_tables
from sizewise.embedding.storage.table import ROUNDED, Table
from sizewise.training.steps.rowwise import RowwiseAdagrad

OPTIMIZERS = ("sgd", "adagrad", "adam", "rowwise_adagrad")
ADAGRAD_FUSES_ON_GPUS = "2.12"  # the first version of PyTorch whose fused Adagrad takes tensors on a GPU
# Options of parameter groups for the machine, which leave the steps the same.
HOW = ("fused", "foreach", "capturable")


def build_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    *,
    in_backward: bool = False,
    embedding_learning_rate: float | None = None,
    weight_decay: float = 0.0,
    epsilon: float | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of a model's parameters.

    Args:
        name: one of `OPTIMIZERS`.
        model: on its device already.
        learning_rate: of all parameters.
        in_backward: step tables in the backward pass where kernels can, without gradients of them. They cannot with
            weight decay, which changes all numbers at every step.
        embedding_learning_rate: of the embeddings' parameters, which are a group of their own then, the second one.
        weight_decay: added to the gradient, times the parameter (L2).
        epsilon: added to the root of summed squares; None: as `torch.optim` has it.
    """
    parameters = list(model.parameters())
    devices = {parameter.device for parameter in parameters}
    on_cpu = all(device.type == "cpu" for device in devices)
    on_gpu = all(device.type == "cuda" for device in devices)
    tables = [module for module in model.modules() if isinstance(module, Table)]
    for module in model.modules():
        if isinstance(module, Embedding):
            module.ordinary_gradients()
    sparse = in_backward and name in ("sgd", "adagrad") and not weight_decay and all(map(served, devices))
    taken = [table for table in tables if sparse and table.steps_in_kernels]
    for table in _of_kernels(model):
        table.stepped_by_kernels = on_gpu and table in taken
    # Beside tables that are rounded not fused, as in studies of version 0.1, whose last digits would differ.
    fused = all(table.storage not in ROUNDED or table.stepped_by_kernels for table in tables)
    together = True if fused and (on_cpu or on_gpu) else None
    groups = _groups(model, parameters, embedding_learning_rate)
    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if epsilon is not None and name != "sgd":
        settings["eps"] = epsilon
    if name == "adam":
        # Capturable: fit for a CUDA graph, for it counts its steps on the device.
        return torch.optim.Adam(groups, fused=together, capturable=on_gpu, **settings)
    if name == "rowwise_adagrad":
        return RowwiseAdagrad(groups, {table.weight: width for table, width in _rows(model)}, **settings)
    optimizer: torch.optim.Optimizer
    if name == "sgd":
        optimizer = torch.optim.SGD(groups, fused=together, **settings)
    elif on_gpu and torch.__version__ < ADAGRAD_FUSES_ON_GPUS:
        optimizer = AdagradCountedThere(groups, fused=None, **settings)
    else:
        optimizer = torch.optim.Adagrad(groups, fused=together, **settings)
    if taken:
        step_tables(optimizer, taken)
    return optimizer


def optimizer_of(config: TrialConfig, model: nn.Module, world: int = 1) -> torch.optim.Optimizer:
    """The optimizer that a trial asks for.

    Args:
        config: the trial.
        model: on its device already.
        world: workers, who add up the gradients of all parameters where there are several.
    """
    settings = config.train
    optimizer = build_optimizer(
        settings.optimizer,
        model,
        config.search.learning_rate,
        in_backward=world == 1 and not settings.needs_gradients,
        embedding_learning_rate=settings.embedding_learning_rate,
        weight_decay=settings.weight_decay,
        epsilon=settings.epsilon,
    )
    clip_gradients(optimizer, settings.clip_norm)
    return optimizer


def clip_gradients(optimizer: torch.optim.Optimizer, norm: float | None) -> None:
    """Have every step of an optimizer scale its gradients down to a norm of all of them together, where it is larger.

    Args:
        optimizer: whose gradients are ordinary ones (see `build_optimizer`).
        norm: the largest one, Euclidean; None changes nothing.
    """
    if norm is None:
        return
    most = norm

    def clip(*_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, most)

    optimizer.register_step_pre_hook(clip)


def _groups(model: nn.Module, parameters: list[nn.Parameter], of_embeddings: float | None) -> list[Any]:
    if of_embeddings is None:
        return parameters
    inside = {
        parameter
        for module in model.modules()
        if isinstance(module, Embedding)
        for parameter in module.parameters()
    }
    others = [parameter for parameter in parameters if parameter not in inside]
    own = [parameter for parameter in parameters if parameter in inside]
    return [{"params": others}, {"params": own, "lr": of_embeddings}]


def _rows(model: nn.Module) -> Iterator[tuple[Table, int]]:
    """Every table of embeddings with the length of its rows; a pool has rows as long as a vector."""
    for module in model.modules():
        if isinstance(module, Embedding):
            for table in module.modules():
                if isinstance(table, Table):
                    yield table, table.shape[-1] if len(table.shape) > 1 else module.dim


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

    def __init__(self, parameters: list[Any], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        for group in self.param_groups:
            group["capturable"] = True  # which has a checkpoint's counts go there, too
        for parameter, state in self.state.items():
            state["step"] = state["step"].to(parameter.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step every parameter that has a gradient, without asking the device for anything."""
        loss = torch.enable_grad()(closure)() if closure else None
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: Mapping[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        gradients = [parameter.grad for parameter in parameters]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        states = [self.state[parameter] for parameter in parameters]
        squares = [state["sum"] for state in states]
        torch._foreach_add_([state["step"] for state in states], 1)
        torch._foreach_addcmul_(squares, gradients, gradients)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(parameters, gradients, roots, value=-float(group["lr"]))
