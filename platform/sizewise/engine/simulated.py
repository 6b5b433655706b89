"""A backend without training: learning curves, recorded or generated, replayed through the engine's own code.

Workers are events in a heap and time is simulated, so thousands of trials take seconds. Everything else is the
real thing: sampler, pruning rule, replicates, reuse and (where a folder is given) the ledger.

    curves = Generated()
    engine = simulated_engine(spec, curves)
    found = simulate(engine, curves, workers=8)
"""

import heapq
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sizewise.config import StudySpec
from sizewise.config.trial import TrialConfig
from sizewise.engine.deciding.decisions import Engine
from sizewise.metrics.errors import encoded
from sizewise.metrics.evaluation import Evaluation, TestScores
from sizewise.metrics.scores import GROUPS
from sizewise.search.pruning import Rule
from sizewise.search.suggest import Search
from sizewise.store import facts
from sizewise.store.records import Record
from sizewise.store.trials.ledger import Ledger
from sizewise.training.points import evaluation_points
from sizewise.training.teachers.teacher_sources import Source

Rows = list[Evaluation]


class Curves(Protocol):
    """Where evaluations come from when nothing is trained."""

    full_bytes: int
    rows: int  # of the validation split
    click_rate: float

    def curve(self, config: TrialConfig) -> Rows:
        """All evaluations of a configuration; equal configurations give equal ones."""
        ...


@dataclass(frozen=True)
class Generated:
    """Learning curves made up to resemble those of DLRM with one shared pool on click logs.

    With d the decades of compression, e the epoch and r the learning rate over `best_rate`, the AUC is

        level(d) - rise(d, e, r) - fall(d, e, r) - misfit(r) + noise

    - level falls with compression, as `loss` * d ** 2.7: 0.003 at 100x, 0.010 at 1,000x, 0.022 at 10,000x.
    - rise: what is still to be learnt, 0.16 * exp(-4.4 * sqrt(e * min(r, 1) ** 0.55)); beyond 1,000x slower.
    - fall: over-fitting, from the end of the first epoch on. It takes 0.085 of a large model's AUC, half of that
      at 100x, and next to nothing from 1,000x on; it comes later at low learning rates.
    - misfit: learning rates above the best cost 0.015 times their squared decades, and near 0.2 training fails.
    - noise, of which one part is the model's own (its seed, and where its last steps took it) and one is error (how
      well the validation rows happen to suit it), each with a draw a trial and a draw an evaluation. The error falls
      with the root of `rows`, and evaluations carry its parts as real ones do (`metrics.scores.auc_parts`). The
      error that all models share because they are scored on the same rows cancels and is left out.

    The constants were fitted by eye to 17 trained models before any claim was measured with them; see
    benchmarks/RESULTS.md.
    """

    seed: int = 0
    full_bytes: int = 20_000_000
    rows: int = 15_000
    click_rate: float = 0.2565
    iterations_per_epoch: int = 235
    mlp_bytes: int = 380_000
    best_auc: float = 0.7475
    loss: float = 0.00052
    best_rate: float = 0.015
    seed_noise: float = 0.0008
    step_noise: float = 0.0006
    trial_error: float = 0.0014  # at 15,000 rows
    evaluation_error: float = 0.0008
    row_seconds: float = 1e-4

    def curve(self, config: TrialConfig) -> Rows:
        """Evaluations of a configuration, by its memory budget, learning rate, epochs and seed."""
        rng = np.random.default_rng([self.seed, *config_numbers(config)])
        size = min(config.search.memory_budget, self.full_bytes)
        offset, shrink = self.seed_noise * rng.standard_normal(), math.sqrt(15_000 / self.rows)
        shared = rng.normal(0.0, self.trial_error * shrink / math.sqrt(GROUPS), GROUPS)
        rows = []
        for iteration in evaluation_points(config, self.iterations_per_epoch):
            epoch = iteration / self.iterations_per_epoch
            parts = shared + rng.normal(0.0, self.evaluation_error * shrink / math.sqrt(GROUPS), GROUPS)
            auc = self.auc(size, config.search.learning_rate, epoch) + offset
            auc += self.step_noise * rng.standard_normal() + parts.sum()
            seconds = iteration * config.train.batch_size * self.row_seconds
            measured = {
                "iteration": iteration,
                "epoch": epoch,
                "samples": iteration * config.train.batch_size,
                "auc": min(max(auc, 0.5), 1.0),
                "logloss": 0.52 - (auc - 0.74),
                "normalized_entropy": 0.9 - (auc - 0.74),
                "embedding_bytes": size,
                "model_bytes": size + self.mlp_bytes,
                "compression_ratio": self.full_bytes / size,
                "train_seconds": seconds,
            }
            rows.append(Evaluation(measured, encoded(parts)))
        return rows

    def auc(self, size: float, rate: float, epoch: float) -> float:
        """Expected AUC of a pool of `size` bytes, at least 0.5.

        Args:
            size: bytes of the pool, above 0.
            rate: learning rate, above 0.
            epoch: how many epochs it was trained for; fractions count.
        """
        decades = math.log10(max(self.full_bytes / size, 1.0))
        relative = rate / self.best_rate
        tiny = max(0.0, decades - 3.0)
        level = self.best_auc - self.loss * decades**2.7
        learnt = epoch * min(relative, 1.0) ** 0.55
        rise = (0.16 - 0.094 * tiny) * math.exp(-(4.4 - 2.3 * tiny) * math.sqrt(learnt))
        capacity = 0.085 / (1.0 + math.exp((decades - 2.0) / 0.35))
        fall = capacity * -math.expm1(-max(0.0, epoch * min(relative, 1.0) ** 0.2 - 1.0) / 0.75)
        misfit = 0.015 * max(0.0, math.log10(relative)) ** 2
        misfit += 0.22 / (1.0 + math.exp(-(math.log10(rate) - math.log10(0.2)) / 0.05))
        return float(max(level - rise - fall - misfit, 0.5))


@dataclass(frozen=True)
class Recorded:
    """The curves of a finished study, replayed: each configuration gets those of the nearest recorded trial.

    Nearest by decades of memory budget and of learning rate, among trials of the same method; the curve ends with
    the configuration's last epoch, or with the record. To replay pruning, record a study that keeps what it judges by
    and stops nothing: `pruning: {grace: 1000000}`.

        curves = Recorded.of(Path("runs/quickstart"))
        simulate(simulated_engine(spec, curves), curves)
    """

    trials: Mapping[int, tuple[Mapping[str, Any], Rows]]
    full_bytes: int
    rows: int
    click_rate: float

    @staticmethod
    def of(study: Path) -> "Recorded":
        """The curves in a study's folder."""
        ledger, data = Ledger(study), (facts.load(study) or facts.Facts())["data"]
        records = {n: r for n, r in ledger.records().items() if r.state == "finished"}
        curves = {n: (record.config, ledger.evaluations(n)) for n, record in records.items()}
        return Recorded(curves, data["full_bytes"], data["rows"]["validation"], data["click_rate"] or 0.0)

    def curve(self, config: TrialConfig) -> Rows:
        """The nearest trial's evaluations, as far as the configuration trains."""
        wanted = config.flat()
        same = [
            (c, rows) for c, rows in self.trials.values() if c["method"] == config.embedding.method and rows
        ]
        near = min(same, key=lambda trial: _distance(trial[0], wanted), default=None)
        if near is None:
            raise ValueError(f"nothing recorded with method {config.embedding.method}")
        return [row for row in near[1] if row.epoch <= config.search.epochs + 1e-9] or near[1][:1]


class Memory(Ledger):
    """A ledger that keeps everything in memory, for simulations whose end is all that is wanted."""

    def __init__(self) -> None:
        self.check = lambda: None
        self._records: dict[int, Record] = {}
        self.rows: dict[int, Rows] = {}

    def write(self, record: Record) -> None:
        """Keep a record."""
        self._records[record.trial_id] = record

    def records(self) -> dict[int, Record]:
        """All records by trial id."""
        return dict(self._records)

    def append_evaluation(self, trial_id: int, evaluation: Evaluation) -> None:
        """Keep an evaluation."""
        self.rows.setdefault(trial_id, []).append(evaluation)

    def write_evaluations(self, trial_id: int, evaluations: Sequence[Evaluation]) -> None:
        """Keep a trial's evaluations."""
        self.rows[trial_id] = list(evaluations)

    def evaluations(self, trial_id: int) -> Rows:
        """A trial's evaluations."""
        return list(self.rows.get(trial_id, ()))

    def count(self, trial_id: int) -> int | None:
        """How many evaluations a trial has."""
        return len(self.rows.get(trial_id, ()))

    def write_test(self, trial_id: int, scores: TestScores) -> None:
        """Nothing is tested in a simulation."""

    def test(self, trial_id: int) -> TestScores | None:
        """Nothing is tested in a simulation."""
        return None


@dataclass
class Simulated:
    """What a simulation came to; times in seconds."""

    trials: int = 0
    iterations: int = 0  # trained
    simulated_seconds: float = 0.0
    # Of each trial, in the order in which they ended
    engine_seconds: list[float] = field(default_factory=list)


def simulated_engine(spec: StudySpec, curves: Curves, folder: Path | None = None, **search: Any) -> Engine:
    """An engine whose trials are simulated.

    Args:
        spec: the study.
        curves: where evaluations come from.
        folder: the study's, for a real ledger; None for one in memory.
        search: further arguments of `Search`.
    """
    ledger = Ledger(folder) if folder else Memory()
    rule = Rule.of(spec, curves.rows, curves.click_rate) if spec.pruning else None
    engine = Engine(
        spec,
        folder or Path(),
        Search(spec, ledger, curves.full_bytes, **search),
        lambda event, record, values: None,
        rule,
        teacher=[Source(kind="scores", name="simulated", path="", digest="")],  # nobody asks it for scores
    )
    engine.shared.per_epoch = partial(_iterations_per_epoch, curves)
    return engine


def simulate(engine: Engine, curves: Curves, workers: int = 1, trials: int | None = None) -> Simulated:
    """Run a study's remaining trials on simulated workers.

    Args:
        engine: the study's, of `simulated_engine`.
        curves: where evaluations come from.
        workers: how many trials run at once.
        trials: after how many the driver dies: what runs then stays open, as in a study that was killed. None: never.

    Returns:
        What it came to, in simulated seconds.
    """
    found, clock, idle = Simulated(), 0.0, workers
    # (when, number of the event, trial, index of the evaluation)
    events: list[tuple[float, int, int, int]] = []
    rows: dict[int, Rows] = {}
    spent: dict[int, float] = {}  # the engine's seconds for each running trial
    count = 0

    def schedule(trial: int, index: int, begin: int = 0) -> None:
        nonlocal count
        before = rows[trial][index - 1]["train_seconds"] if index else 0.0
        if begin > (rows[trial][index - 1].iteration if index else 0):  # between two evaluations
            before = rows[trial][index]["train_seconds"] * begin / rows[trial][index].iteration
        count += 1
        heapq.heappush(events, (clock + rows[trial][index]["train_seconds"] - before, count, trial, index))

    while True:
        while idle and (trials is None or found.trials < trials):
            started = time.perf_counter()
            record = engine.next_trial()
            seconds = time.perf_counter() - started
            if record is None:
                break
            idle -= 1
            trial = record.trial_id
            rows[trial], spent[trial] = curves.curve(engine.search.config(record)), seconds
            begin, trained = _begun(engine, record, rows[trial])
            found.iterations -= trained
            schedule(trial, begin, trained)
        if not events or (trials is not None and found.trials >= trials):
            break
        clock, _, trial, index = heapq.heappop(events)
        started = time.perf_counter()
        engine.evaluated(trial, rows[trial][index])
        last = index == len(rows[trial]) - 1
        so_far = rows[trial][: index + 1]
        pruned = "" if last else engine.verdict(so_far)
        if last or pruned:
            engine.finished(trial, so_far, None, pruned)
            found.trials += 1
            found.iterations += so_far[-1].iteration
            found.engine_seconds.append(spent.pop(trial) + time.perf_counter() - started)
            del rows[trial]
            idle += 1
        else:
            spent[trial] += time.perf_counter() - started
            schedule(trial, index + 1)
    found.simulated_seconds = clock
    return found


def _begun(engine: Engine, record: Record, rows: Rows) -> tuple[int, int]:
    """How many of a trial's evaluations others had before it begins, and how many iterations they trained for it."""
    if kept := engine.shared.begins_at(record):
        begin = sum(row.iteration <= kept for row in rows)
        engine.resumed(record.trial_id, rows[:begin], [])
        return begin, kept
    known = engine.search.ledger.evaluations(record.reuses) if record.reuses is not None else []
    begin = min(sum(row in rows for row in _plain(known)), len(rows) - 1)
    return begin, rows[begin - 1].iteration if begin else 0


def _iterations_per_epoch(curves: Curves, config: TrialConfig) -> int:
    last = curves.curve(config)[-1]
    return round(last.iteration / last.epoch)


def config_numbers(config: TrialConfig) -> list[int]:
    """What a curve's noise is drawn from: not its length, so that a longer curve begins as the shorter one."""
    return list(config.curve().encode())


def _distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return sum(
        abs(math.log10(one[name] / other[name]))
        for name in ("memory_budget", "learning_rate")
        if one[name] > 0
    )


def _plain(rows: Rows) -> Rows:
    return [Evaluation({k: v for k, v in row.items() if k != "replicate"}, row.auc_parts) for row in rows]
