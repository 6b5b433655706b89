"""One training with all that is kept of it: a curve on validation rows, results at the ends of epochs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from benchmarks.scale.arrays import Data, predicted, scored
from benchmarks.scale.methods import Method, Spec
from benchmarks.scale.table import Evaluation, Record, Result
from benchmarks.scale.training import Schedule, fit
from torch import Tensor

from sizewise.models.base import Model

SCORED_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Training:
    """What to train.

    Attributes:
        spec: the method.
        epochs: over the training rows.
        taught: whether by teachers, too.
        falling: whether the learning rate falls to zero.
        teacher: whether it is one.
        seed: of numbers, hashes and the order of rows.
        model: around the embedding; a teacher may be another than its students.
        rate: Adagrad's; None: that of the run.
    """

    spec: Spec
    epochs: int = 1
    taught: bool = False
    falling: bool = False
    teacher: bool = False
    seed: int = 1
    model: str = "dlrm"
    rate: float | None = None

    @property
    def key(self) -> str:
        """What it is known by in a folder of results."""
        spec = self.spec
        parts = [spec.method, f"{spec.ratio}x", f"dim{spec.width}", f"{spec.bits}bit"]
        if spec.method == "hot":
            parts += [f"f{spec.fingerprint}", f"least{spec.least}", spec.by]
        parts += [f"learnt{spec.learnt:g}"] if spec.learnt else []
        parts += [self.model] if self.model != "dlrm" else []
        parts += [f"rate{self.rate:g}"] if self.rate is not None else []
        parts += [f"{self.epochs}ep", "taught" if self.taught else "labels"]
        return " ".join([*parts, "falling" if self.falling else "constant", f"seed{self.seed}"])


def train(
    training: Training,
    method: Method,
    model: Model,
    data: Data,
    target: Tensor,
    schedule: Schedule,
    record: Record | None,
    teachers: int = 0,
    late: Callable[[], bool] = lambda: False,
) -> Result:
    """Train, evaluate, keep.

    Args:
        training: what.
        method, model: made of its spec.
        data: whose training rows are trained on.
        target: what they are to predict.
        schedule: of the training.
        record: keeps evaluations and results; None keeps nothing.
        teachers: how many had a say in `target`.
        late: whether to stop.

    Returns:
        What it came to in the end.
    """
    spec, results = training.spec, list[Result]()

    def result(iterations: int, epoch: float, seconds: float, state: str) -> Result:
        with method.shipped():
            logits = [
                predicted(model, method.ids, split, SCORED_AT_ONCE) for split in (data.validation, data.test)
            ]
        validation = scored(data.validation.label, logits[0])
        test = scored(data.test.label, logits[1], with_parts=True)
        plain = test
        if spec.bits < 32:
            plain = scored(data.test.label, predicted(model, method.ids, data.test, SCORED_AT_ONCE))
        return Result(
            training.key, spec.name, spec.ratio, training.seed, teachers, schedule.rate, schedule.falling,
            schedule.batch, method.shipped_bytes, epoch, iterations, seconds, validation.auc, test.auc, test.logloss,
            plain.auc, test.parts, method.note, state,
        )  # fmt: skip

    def watch(iterations: int, epoch: float, seconds: float) -> bool:
        found = scored(data.validation.label, predicted(model, method.ids, data.validation, SCORED_AT_ONCE))
        stop = late()
        if record:
            record.add(Evaluation(training.key, iterations, epoch, seconds, found.auc, found.logloss))
        if epoch == int(epoch) or stop:
            state = "end" if epoch >= schedule.epochs else "cut short" if stop else "epoch"
            results.append(result(iterations, epoch, seconds, state))
            if record:
                record.add(results[-1])
        return not stop

    fit(method, model, data.train, target, schedule, training.seed, watch)
    return results[-1]


def log_odds(method: Method, model: Model, data: Data, rows_at_once: int = 1 << 18) -> Tensor:
    """A teacher's log-odds for all training rows, float32 (rows,)."""
    with torch.no_grad():
        return predicted(model, method.train_ids, data.train, rows_at_once)
