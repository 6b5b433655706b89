"""One training, in whatever process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.quality.arms import made
from benchmarks.quality.rows import load
from benchmarks.scale.arrays import Values
from benchmarks.scale.methods import Method, Spec
from benchmarks.scale.runs import Training, log_odds, train
from benchmarks.scale.table import Record
from benchmarks.scale.training import Schedule, free, mixed

from sizewise.models import build
from sizewise.models.base import Model

SEED_OF_THE_WORLD = 1
Make = Callable[[Spec, Values, int, torch.device], Method]
"""Makes a spec's embedding for the values of a data set, with a seed, on a device."""


@dataclass(frozen=True)
class Source:
    """Rows, and how models are trained on them.

    Attributes:
        source: `planted`, or a path of raw rows.
        rows: of a planted log.
        batch: rows of a step.
        rate: Adagrad's, of trainings that have none of their own.
        device: `cpu` or `cuda`.
        looks: evaluations on validation rows in each epoch.
        make: makes the embeddings; a function of a module, so that processes can be given it.
    """

    source: str
    rows: int
    batch: int
    rate: float
    device: str
    looks: int = 4
    make: Make = made


def trained(training: Training, of: Source, taught_by: list[Path]) -> Record:
    """Train once, in whatever process; returns all that is to be kept. A teacher's scores go to a file."""
    on = torch.device(of.device)
    torch.set_num_threads(1)
    data, _ = load(of.source, of.rows, SEED_OF_THE_WORLD, on)
    method = of.make(training.spec, data.values, training.seed, on)
    model: Model = method.model(dense := data.train.dense.shape[1])
    if training.model != "dlrm":
        model = build(training.model, method.embedding, dense, {}).to(on)
    target = data.train.label
    if training.taught:
        scores = np.mean([np.load(file) for file in taught_by], axis=0)
        target = mixed(target, torch.from_numpy(scores).to(on))
    looks = tuple(look / of.looks for look in range(1, of.looks * training.epochs))
    rate = of.rate if training.rate is None else training.rate
    schedule = Schedule(training.epochs, of.batch, rate, training.falling, looks, shuffled=True)
    record = Record(None)
    train(training, method, model, data, target, schedule, record, len(taught_by) if training.taught else 0)
    if training.teacher:
        # Under another name first: a kill must not leave half of it.
        file = taught_by[training.seed % 100 - 1]
        with (part := file.with_suffix(".part")).open("wb") as stream:
            np.save(stream, log_odds(method, model, data).cpu().numpy())
        part.replace(file)
    del method, model
    free(on)
    return record
