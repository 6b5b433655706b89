"""What a model predicts for many rows."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sizewise.embedding import Bags
from sizewise.training.input.batches import Batch

EVALUATION_BATCH = 16_384  # rows; on a CPU fewer, so that what lies between layers stays within its cache
EVALUATION_BATCH_CPU = 2_048
EVALUATED_AT_ONCE = 64  # batches


def evaluation_rows(device: torch.device) -> int:
    """Rows that are scored together."""
    return EVALUATION_BATCH_CPU if device.type == "cpu" else EVALUATION_BATCH


class Weighed:
    """Batches on their way to `predict`, and how much their rows count."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        self._weights: list[npt.NDArray[np.float32]] = []

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            if batch.weight is not None:
                self._weights.append(batch.weight.numpy().copy())  # as `predict` does with labels
            yield batch

    def weights(self) -> npt.NDArray[np.float32] | None:
        """(rows,), in the order of the batches; None where all count the same."""
        return np.concatenate(self._weights) if self._weights else None


@torch.no_grad()
def predict(
    model: nn.Module, batches: Iterable[Batch], device: torch.device
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Labels and logits of all batches; the host waits for a GPU once in `EVALUATED_AT_ONCE` of them.

    Args:
        model: called with a batch's `inputs`, gives logits (rows,).
        batches: at least one.
        device: the model's.

    Returns:
        Labels and logits, both (rows,) float32, in the order of the batches.
    """
    model.eval()
    labels: list[npt.NDArray[np.float32]] = []
    logits: list[torch.Tensor] = []
    waiting: list[torch.Tensor] = []
    for batch in batches:
        labels.append(batch.label.numpy().copy())  # page-locked memory is to be used again
        waiting.append(model(*(_moved(part, device) for part in batch.inputs())).float())
        if len(waiting) == EVALUATED_AT_ONCE:
            logits.append(torch.cat(waiting).cpu())
            waiting = []
    logits += [scores.cpu() for scores in waiting]
    model.train()
    return np.concatenate(labels), torch.cat(logits).numpy()


def _moved(part: torch.Tensor | Bags, device: torch.device) -> torch.Tensor | Bags:
    if isinstance(part, Bags):
        return Bags(*(column.to(device, non_blocking=True) for column in part))
    return part.to(device, non_blocking=True)
