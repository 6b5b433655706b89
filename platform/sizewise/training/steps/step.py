"""One optimizer step: forward, backward, update. On a GPU it is recorded once and replayed as a CUDA graph.

    step = Step(model, optimizer, batch_size=65_536, device=device)
    for batch in batches:
        step(batch, rows=len(batch.label))
    step.loss()      # the mean since the last call; the first time in all this that the host waits for the device

A step of a small model is dozens of launches of a few microseconds each, which the host cannot hand out as fast as
the device works them off. A graph hands them out at once. It reads its batch from buffers that stay where they are
and has learning rates written into it, so it serves full batches, and is recorded anew when a rate changes; the
short last batch of an epoch takes its step launch by launch.

The first steps are taken that way too, on a stream of their own: real steps of the training, during which kernels
are compiled and libraries get their memory. Recording runs nothing, so every batch is stepped on exactly once.

A model that learns from a teacher (`Distill`) is trained towards the teacher's probabilities as well as the labels; the
teacher's log-odds come with the batch.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Self

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from sizewise.training.input.batch import Batch, in_parts

log = logging.getLogger(__name__)
WARM_UP = 3  # steps before the recording, as PyTorch's notes on CUDA graphs advise

Recorder = Callable[[Callable[[], None]], Callable[[], object]]
"""Takes work, returns a function that repeats it on the device."""


@dataclass(frozen=True)
class Distill:
    """How a model learns from a teacher's log-odds.

    The loss of a row is (1 - w) BCE(label, z) + w T^2 BCE(sigmoid(t / T), z / T) for the model's log-odds z and the
    teacher's t. The factor T^2 keeps the size of its gradient, which falls with 1 / T^2 (Hinton et al. 2015).

    Attributes:
        weight: w, 0 to 1: the teacher's share of the loss.
        temperature: T, above 0: higher ones make the teacher's probabilities more alike.
    """

    weight: float = 0.9
    temperature: float = 1.0

    def summed(self, logits: Tensor, label: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of all rows together.

        Args:
            logits, label, teacher: (rows,) float32: the model's log-odds, 0 or 1, the teacher's log-odds.
            weight: (rows,) float32, how much each row counts; None: all the same.
        """
        hard = binary_cross_entropy_with_logits(logits, label, weight, reduction="sum")
        softened = torch.sigmoid(teacher / self.temperature)
        soft = binary_cross_entropy_with_logits(logits / self.temperature, softened, weight, reduction="sum")
        return (1 - self.weight) * hard + (self.weight * self.temperature**2) * soft


class Step:
    """What one worker does with one batch.

    Args:
        model: (dense, ids) -> logits, on `device`; wrapped for data-parallel training where `world` is above 1.
        optimizer: of the model's parameters.
        batch_size: rows of a full batch, over all workers.
        device: of the model.
        world: workers.
        recorder: `cuda_graph`, or None to launch every step anew. Left out: `cuda_graph` on a GPU, unless
            `graph_blocker` has a reason against it.
        distill: how it learns from the teacher whose log-odds are in each batch; None: from labels alone.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        device: torch.device,
        world: int = 1,
        recorder: Recorder | None = None,
        distill: Distill | None = None,
    ) -> None:
        self.model, self.optimizer, self.device, self.world = model, optimizer, device, world
        self.batch_size, self.distill = batch_size, distill
        if recorder is None and device.type == "cuda":
            reason = graph_blocker(model, optimizer, world)
            if reason:
                log.info("steps are not recorded as a CUDA graph: %s", reason)
            else:
                recorder = partial(cuda_graph, device=device)
        self.recorder = recorder
        self.taken = 0
        self.parts = 1
        self._inputs: Batch | None = None
        self._replay: Callable[[], object] | None = None
        self._rates: list[float] = []
        # Of all rows since `loss` was last asked, in float64: 10^9 rows of float32 would stop adding up.
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._rows = 0

    def in_parts(self, parts: int) -> Self:
        """Compute every batch in so many parts, one after another, whose gradients add up to those of the batch."""
        self.parts = parts
        return self

    def __call__(self, batch: Batch, rows: int) -> None:
        """Step by one batch.

        Args:
            batch: this worker's rows; on the host (pinned, to be copied while the device works) or on the device.
            rows: of all workers.
        """
        if batch.bags is not None and self.recorder is not None:
            log.info("steps are not recorded as a CUDA graph: lists have other lengths in every batch")
            self.recorder = None
        if self.recorder is None or rows != self.batch_size:
            self._compute(self._arrived(batch), rows)
        elif self.taken < WARM_UP:
            self._warm_up(batch, rows)
        else:
            self._replayed(batch, rows)
        self.taken += 1
        self._rows += rows

    def loss(self) -> float:
        """Mean loss of a row, over all workers, since the last call; 0 where no row came, not finite after divergence.

        Waits for the device, and for the other workers, who have to call it too.
        """
        if self.world > 1:
            torch.distributed.all_reduce(self._loss)
        total, rows = float(self._loss), self._rows
        self._loss.zero_()
        self._rows = 0
        return total / max(rows, 1)

    def _arrived(self, batch: Batch) -> Batch:
        return batch.changed(lambda column: column.to(self.device, non_blocking=True))

    def _compute(self, batch: Batch, rows: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        parts = [batch] if self.parts == 1 else in_parts(batch, self.parts)
        for number, part in enumerate(parts, 1):
            with nullcontext() if number == len(parts) else self._alone():
                summed = self._summed(part)
                # Gradients are averaged over workers, whose shares of a short last batch differ: divide by what the
                # average would take for a share, so that any number of workers takes the step that one would take.
                (summed * (self.world / rows)).backward()  # type: ignore[no-untyped-call]
            self._loss.add_(summed.detach())
        self.optimizer.step()

    def _summed(self, batch: Batch) -> Tensor:
        """The loss of all rows of a batch together."""
        logits = self.model(*batch.inputs())
        if self.distill is None:
            return binary_cross_entropy_with_logits(logits, batch.label, batch.weight, reduction="sum")
        assert batch.teacher is not None
        return self.distill.summed(logits, batch.label, batch.teacher, batch.weight)

    def _alone(self) -> AbstractContextManager[Any]:
        """Without adding up the gradients of other workers, which the last part does for all."""
        parallel = isinstance(self.model, nn.parallel.DistributedDataParallel)
        return self.model.no_sync() if parallel else nullcontext()  # type: ignore[operator]

    def _warm_up(self, batch: Batch, rows: int) -> None:
        if self.device.type != "cuda":
            self._compute(self._arrived(batch), rows)
            return
        with on_recording_stream(self.device):
            self._compute(self._arrived(batch), rows)

    def _replayed(self, batch: Batch, rows: int) -> None:
        if self._inputs is None:
            self._inputs = batch.changed(lambda column: torch.empty_like(column, device=self.device))
        for buffer, column in zip(self._inputs.tensors(), batch.tensors(), strict=True):
            buffer.copy_(column, non_blocking=True)
        if self._replay is None or self._rates != _rates(self.optimizer):
            self._replay = self._recorded(self._inputs, rows)
        if self._replay is not None:
            self._replay()
        else:
            self._compute(self._inputs, rows)

    def _recorded(self, inputs: Batch, rows: int) -> Callable[[], object] | None:
        assert self.recorder is not None
        self._replay, self._rates = None, _rates(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            return self.recorder(lambda: self._compute(inputs, rows))
        except RuntimeError as error:
            # Costs speed, not the trial: recording has changed nothing on the device.
            log.warning("steps cannot be recorded as a CUDA graph and are launched one by one: %s", error)
            self.recorder = None
            self.optimizer.zero_grad(set_to_none=True)
            return None


def graph_blocker(model: nn.Module, optimizer: torch.optim.Optimizer, world: int) -> str:
    """Why steps cannot be recorded as a CUDA graph; "" if they can.

    Args:
        model, optimizer: of the steps.
        world: workers.

    Returns:
        A reason: the step would wait for the host, or do what the host decides.
    """
    if world > 1:
        return "several workers add up their gradients"
    for module in model.modules():
        reason = getattr(module, "host_decides", "")
        if reason:
            return str(reason)
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor) and state["step"].device.type == "cpu":
            return "the optimizer counts its steps on the host"
    return ""


@contextmanager
def on_recording_stream(device: torch.device) -> Iterator[None]:
    """On the stream that recordings are made on, which waits for the current one before and is waited for after."""
    stream = _recording_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        torch.cuda.current_stream(device).wait_stream(stream)


def cuda_graph(work: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """Record work as a CUDA graph, without running it."""
    graph, stream = torch.cuda.CUDAGraph(), _recording_stream(device)
    # Thread-local: meanwhile the thread that makes the next batch may ask CUDA for pinned memory, which would
    # otherwise end the recording. The outer context is for recordings that fail: they leave their stream current.
    with (
        torch.cuda.stream(stream),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        work()
    replay: Callable[[], object] = graph.replay
    return replay


@lru_cache(maxsize=16)
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings on a device: each stream keeps memory, and cuBLAS workspaces, that no other may use."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]
