"""Row-wise Adagrad: Adagrad with one sum of squares a row of a table, instead of one a number.

As FBGEMM's EXACT_ROWWISE_ADAGRAD, which large recommendation models are trained with: the mean over a row of its
squared gradients is added to the row's sum, and all numbers of the row move by lr * gradient / (sqrt(sum) + eps). The
state of a table is as large as the table over the length of its rows. All other parameters have ordinary Adagrad.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class RowwiseAdagrad(torch.optim.Optimizer):
    """Adagrad whose state is one number a row of the tables.

    Args:
        groups: parameters, or groups of them, as any optimizer of `torch.optim` takes them.
        rows: the tables among them, each with the length of a row: so many consecutive numbers, the last row of a table
            having what is left.
        lr, eps, weight_decay: as for `torch.optim.Adagrad`.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        rows: Mapping[nn.Parameter, int],
        lr: float,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, {"lr": lr, "eps": eps, "weight_decay": weight_decay})
        self.rows = dict(rows)
        for group in self.param_groups:
            for parameter in group["params"]:
                width = self.rows.get(parameter)
                shape = parameter.shape if width is None else (-(-parameter.numel() // width),)
                self.state[parameter]["sum"] = parameter.new_zeros(shape, requires_grad=False)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step every parameter that has a gradient, without asking a device for anything."""
        loss = torch.enable_grad()(closure)() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, sums = parameter.grad, self.state[parameter]["sum"]
                if group["weight_decay"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                width = self.rows.get(parameter)
                if width is None:
                    sums.addcmul_(gradient, gradient)
                    parameter.addcdiv_(gradient, sums.sqrt().add_(group["eps"]), value=-group["lr"])
                    continue
                for values, of_rows, state in _rows(parameter, gradient, sums, width):
                    state.add_(torch.linalg.vector_norm(of_rows, dim=1).square_(), alpha=1 / of_rows.shape[1])
                    scale = state.sqrt().add_(group["eps"]).reciprocal_().unsqueeze(1)
                    values.addcmul_(of_rows, scale, value=-group["lr"])
        return loss


def _rows(
    parameter: Tensor, gradient: Tensor, sums: Tensor, width: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(values, gradient, sums) of complete rows, and of the shorter last one where there is one."""
    values, gradient = parameter.view(-1), gradient.reshape(-1)
    full = values.numel() // width
    if full:
        end = full * width
        yield values[:end].view(full, width), gradient[:end].view(full, width), sums[:full]
    if full < len(sums):
        yield values[full * width :].view(1, -1), gradient[full * width :].view(1, -1), sums[full:]
