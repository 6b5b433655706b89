"""Which trial is not worth training on, with AUC, bytes and iterations as objectives at once. No Ray here.

A trial is stopped when some model on record, its own earlier ones included, had no more bytes and no more
iterations and yet a higher AUC than it has now, by more than noise can explain. That model dominates this one,
as it dominates all later ones that are no better.

Noise. The AUC of a model on the validation split has the standard error of Hanley and McNeil (1982), which needs
only the AUC and the numbers of clicks and non-clicks. Two models are scored on the same rows, so their errors
are correlated and the error of their difference is smaller (Hanley and McNeil 1983):

    se^2 = se1^2 + se2^2 - 2 * correlation * se1 * se2 + 2 * seed_variance

`correlation` is a setting (benchmarks/RESULTS.md has measured ones); the variance over seeds is taken from the
replicates that the study has, and is 0 while it has none.

Risk. The chance that noise alone stops a trial that no model on record beats is at most `risk`, over all its
evaluations and all models it is compared with: the j-th comparison of a trial that was evaluated m times, against
m models of each of k trials, is made at level risk / (j * (j + 1) * k * m), and these sum to `risk` (Bonferroni).
This bounds errors of measurement. It does not cover a trial that is truly worse now and would have caught up
later: against that there is `grace`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from sizewise.spec import PruningSpec, StudySpec
from sizewise_prep.storage import Place, read, write

FILE = "pruning.json"


@dataclass
class Front:
    """The models that no other beats, out of all evaluations on record: least costs, highest AUC.

    costs: (models, 2) bytes and iterations. aucs: (models,).
    """

    costs: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    aucs: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def add(self, cost: Sequence[float], auc: float) -> bool:
        """Take in a model; False when one on record is as good in everything."""
        point = np.asarray(cost, float)
        if math.isnan(auc) or ((self.costs <= point).all(axis=1) & (self.aucs >= auc)).any():
            return False
        kept = ~((self.costs >= point).all(axis=1) & (self.aucs <= auc))
        self.costs = np.vstack([self.costs[kept], point])
        self.aucs = np.append(self.aucs[kept], auc)
        return True

    def best(self, cost: Sequence[float]) -> float:
        """The highest AUC at no more cost; minus infinity when there is none."""
        within = (self.costs <= np.asarray(cost, float)).all(axis=1)
        return float(self.aucs[within].max(initial=-math.inf))


class Standing(BaseModel):
    """What is on record of a study's models, as the driver writes it and a trial's worker reads it."""

    model_config = ConfigDict(extra="forbid")

    costs: list[tuple[float, float]] = []
    aucs: list[float] = []
    trials: int = 1
    seed_variance: float = 0.0


class Rule(BaseModel):
    """The rule for one study.

    clicks, others: rows of the validation split with and without a click.
    bytes_metric: which size an evaluation is compared by; "" where size is no objective.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: PruningSpec
    clicks: float
    others: float
    bytes_metric: str

    @staticmethod
    def of(spec: StudySpec, rows: int, click_rate: float) -> "Rule":
        """The rule that a study asks for; `rows` and `click_rate` are the validation split's."""
        assert spec.pruning is not None
        # Both sizes rise together, so of two the one that every model has is enough.
        sizes = [metric for metric in ("model_bytes", "embedding_bytes") if metric in spec.objectives]
        return Rule(
            spec=spec.pruning,
            clicks=rows * click_rate,
            others=rows * (1 - click_rate),
            bytes_metric=sizes[0] if sizes else "",
        )

    def cost(self, row: dict[str, Any]) -> tuple[float, float]:
        """Bytes and iterations of an evaluation."""
        return (float(row[self.bytes_metric]) if self.bytes_metric else 0.0, float(row["iteration"]))

    def verdict(
        self, rows: Sequence[dict[str, Any]], standing: Front, trials: int = 1, seed_variance: float = 0.0
    ) -> str:
        """Why the trial whose evaluations so far are `rows` should stop now; "" to train on.

        Args:
            rows: the trial's evaluations, the last one decides.
            standing: models on record, of this trial's or not.
            trials: that these models are of, at least.
            seed_variance: of AUC over replicates.
        """
        row = rows[-1]
        tests = sum(map(self._past_grace, rows))
        if not self._past_grace(row) or math.isnan(row["auc"]):
            return ""
        earlier = [r["auc"] for r in rows[:-1] if not math.isnan(r["auc"])]
        rival = max([standing.best(self.cost(row)), *earlier])
        if rival <= row["auc"]:
            return ""
        level = self.spec.risk / (tests * (tests + 1) * max(trials, 1) * len(rows))
        margin = -NormalDist().inv_cdf(level) * self.noise(row["auc"], rival, seed_variance)
        if rival - row["auc"] <= margin:
            return ""
        size = f"{self.bytes_metric.removesuffix('_bytes')} bytes and " if self.bytes_metric else ""
        return (
            f"AUC {row['auc']:.4f} at iteration {row['iteration']:,}, where {rival:.4f} was reached with no more "
            f"{size}iterations, and noise explains {margin:.4f}"
        )

    def noise(self, auc: float, other: float, seed_variance: float = 0.0) -> float:
        """Standard error of the difference of two AUCs on the same validation rows."""
        one, two = (standard_error(value, self.clicks, self.others) for value in (auc, other))
        shared = 2 * self.spec.correlation * one * two
        return math.sqrt(max(one * one + two * two - shared, 0.0) + 2 * seed_variance)

    def _past_grace(self, row: dict[str, Any]) -> bool:
        grace = self.spec.grace
        return bool(row["iteration"] >= grace if isinstance(grace, int) else row["epoch"] >= grace - 1e-9)


def standard_error(auc: float, clicks: float, others: float) -> float:
    """Of an AUC over so many rows of either label (Hanley and McNeil, Radiology 143, 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    squares = auc * (1 - auc) + (clicks - 1) * (q1 - auc * auc) + (others - 1) * (q2 - auc * auc)
    return math.sqrt(max(squares, 0.0) / (clicks * others))


def save(folder: Place, front: Front, trials: int, seed_variance: float) -> None:
    """Write what is on record for the workers of running trials."""
    standing = Standing(
        costs=[(b, i) for b, i in front.costs.tolist()],
        aucs=front.aucs.tolist(),
        trials=trials,
        seed_variance=seed_variance,
    )
    write(folder / FILE, standing.model_dump_json().encode())


def verdict_from(path: Place, rule: Rule, rows: Sequence[dict[str, Any]]) -> str:
    """`Rule.verdict` by what the driver last wrote to `path`; a trial is never stopped for want of it."""
    try:
        found = Standing.model_validate_json(read(path))
    except (OSError, ValidationError):
        found = Standing()
    front = Front(np.array(found.costs, float).reshape(-1, 2), np.array(found.aucs))
    return rule.verdict(rows, front, found.trials, found.seed_variance)
