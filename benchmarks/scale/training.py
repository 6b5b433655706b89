"""One training on arrays in a device's memory: the library's model, optimizer and step, batches by slicing.

Nothing waits for the host between two evaluations. Rows lie in memory as they were drawn, at random, so the first
epoch takes batches one after another; later ones take them in another order, from another row on.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from benchmarks.scale.arrays import Split
from benchmarks.scale.methods import Method, ToIds
from torch import Tensor

from sizewise.models.base import Model
from sizewise.training.input.batches import Batch
from sizewise.training.steps.optimizers import build_optimizer
from sizewise.training.steps.step import Step

STAIRS = 24  # learning rates of a schedule: a graph is recorded anew for each
TEACHERS_SHARE = 0.9  # of the loss: the rest is the label's


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and when to look.

    Attributes:
        epochs: over the training rows.
        batch: rows of a step.
        rate: Adagrad's.
        falling: the rate falls to zero, in stairs; otherwise it stays.
        looks: evaluations, in epochs.
        shuffled: rows are drawn anew each epoch (copied): for few rows, which need not lie at random.
    """

    epochs: int
    batch: int
    rate: float
    falling: bool = False
    looks: tuple[float, ...] = ()
    shuffled: bool = False


Watch = Callable[[int, float, float], bool]
"""Called with iterations, epochs and seconds of training; says whether to go on."""


def fit(
    method: Method, model: Model, rows: Split, target: Tensor, schedule: Schedule, seed: int, watch: Watch
) -> bool:
    """Train.

    Args:
        method: whose ids the model looks up.
        model: on the device of the rows.
        rows: to train on.
        target: (rows,), what to predict: labels, or a mixture of them with a teacher's probabilities.
        schedule: of the training.
        seed: of the order of rows.
        watch: called at the schedule's looks, and at the end.

    Returns:
        Whether it was trained to its end.
    """
    device = rows.label.device
    optimizer = build_optimizer("adagrad", model, schedule.rate, in_backward=True)
    step = Step(model, optimizer, schedule.batch, device)
    a_pass = math.ceil(len(rows) / schedule.batch)
    total = a_pass * schedule.epochs
    learnt_from = total - round(method.spec.learnt * total)
    looks = sorted({min(max(1, round(look * a_pass)), total) for look in schedule.looks} | {total})
    seconds, begun = 0.0, now(device)
    for taken, batch in enumerate(_batches(rows, target, schedule, method.train_ids, seed), 1):
        if taken == learnt_from + 1:
            optimizer = _with_learnt_steps(method, model, optimizer, schedule.rate)
            step = Step(model, optimizer, schedule.batch, device)
        if schedule.falling:
            stair = (taken - 1) * STAIRS // total
            rate = schedule.rate * (1 - (stair + 0.5) / STAIRS)
            for group in optimizer.param_groups:
                group["lr"] = rate
        step(batch, len(batch.label))
        if taken == looks[0]:
            looks.pop(0)
            seconds += now(device) - begun
            if not watch(taken, taken / a_pass, seconds) and looks:
                return False
            begun = now(device)
    return True


def _with_learnt_steps(
    method: Method, model: Model, optimizer: torch.optim.Optimizer, rate: float
) -> torch.optim.Optimizer:
    """Change an embedding in float32 to one of few bits; returns the optimizer, which knows all that it knew."""
    known = {name: optimizer.state[parameter] for name, parameter in model.named_parameters()}
    method.learn_steps()
    other = build_optimizer("adagrad", model, rate, in_backward=True)
    for name, parameter in model.named_parameters():
        if name in known:
            other.state[parameter] = known[name]
    return other


def _batches(rows: Split, target: Tensor, schedule: Schedule, to_ids: ToIds, seed: int) -> Iterator[Batch]:
    count, size = len(rows), schedule.batch
    for epoch in range(schedule.epochs):
        random = np.random.default_rng((seed, epoch))
        source, wanted = rows, target
        starts = np.arange(0, count, size)
        if schedule.shuffled:
            order = torch.from_numpy(random.permutation(count)).to(target.device)
            source, wanted = rows.ordered(order), target[order]
        elif epoch and count % size == 0 and count > size:
            # The last batch of the other cut would be two halves; its rows are left out of this epoch.
            starts = random.permutation(starts[:-1]) + epoch * size // (schedule.epochs + 1)
            starts = np.append(starts, 0)
        for start in starts.tolist():
            part = slice(start, start + size)
            yield Batch(source.dense[part].float(), to_ids(source.ids[part]), wanted[part].float())


def mixed(label: Tensor, teacher: Tensor) -> Tensor:
    """What a student predicts: 0.1 of the label, 0.9 of the teacher's probability; float16.

    The cross entropy is linear in what is predicted, so that this is the sum of the two losses.

    Args:
        label: (rows,) of 0 and 1.
        teacher: (rows,) log-odds.
    """
    target = torch.empty(len(label), dtype=torch.float16, device=label.device)
    for start in range(0, len(label), 1 << 24):
        part = slice(start, start + (1 << 24))
        probability = torch.sigmoid(teacher[part].float())
        target[part] = (1 - TEACHERS_SHARE) * label[part] + TEACHERS_SHARE * probability
    return target


def now(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def free(device: torch.device) -> None:
    """Free the memory of unused tensors, PyTorch's cache included."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
