"""Which trials are stopped early, with AUC, bytes and iterations as objectives at once. No Ray here.

A trial is stopped when some model on record, its own earlier ones included, had no more bytes and no more
iterations and yet a higher AUC than it has now, by more than noise can explain. That model dominates this one,
as it dominates all later ones that are no better.

Noise. All models are scored on the same validation rows, so their errors are correlated, by anything from 0.3 to
0.98 (benchmarks/RESULTS.md), and the error of a difference is smaller. Nothing is assumed of it: each evaluation keeps
what its AUC's error is made of, over 128 groups of rows (`metrics.scores.auc_parts`, after DeLong et al. 1988), and
so the standard error of each difference is known:

    se^2 = sum over groups of (part1 - part2)^2 + 2 * seed_variance

The variance over seeds is taken from the replicates that the study has, is 0 while it has none, and does not stand
between the evaluations of one trial. Evaluations without parts are taken for independent, with the standard error of
Hanley and McNeil (1982), which needs only the AUC and the numbers of clicks and non-clicks.

Risk. The chance that noise alone stops a trial that no model on record beats is at most `risk`, over all its
evaluations and all models it is compared with: the j-th comparison of a trial that was evaluated m times, against
m models of each of k trials, is made at level risk / (j * (j + 1) * k * m), and these sum to `risk` (Bonferroni).
This bounds errors of measurement. It does not cover a trial that is truly worse now and would have caught up
later: against that there is `grace`. Differences are compared with Student's t of 127 degrees of freedom.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.special import stdtrit

from sizewise.config import PruningSpec, StudySpec
from sizewise.metrics.errors import encoded
from sizewise.metrics.evaluation import Evaluation
from sizewise.metrics.scores import GROUPS
from sizewise.store.study_folder import StudyFolder
from sizewise_core.stores.storage import Place, read, write


@dataclass
class Front:
    """The models that no other beats, out of all evaluations on record: least costs, highest AUC.

    costs: (models, 2) bytes and iterations. aucs: (models,). parts: (models, GROUPS), NaN where there are none.
    """

    costs: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    aucs: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    parts: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, GROUPS), np.float32))

    def add(self, cost: Sequence[float], row: Evaluation) -> bool:
        """Take in a model by its evaluation; False when one on record is as good in everything."""
        point, auc = np.asarray(cost, float), row.auc
        if math.isnan(auc) or ((self.costs <= point).all(axis=1) & (self.aucs >= auc)).any():
            return False
        kept = ~((self.costs >= point).all(axis=1) & (self.aucs <= auc))
        self.costs = np.vstack([self.costs[kept], point])
        self.aucs = np.append(self.aucs[kept], auc)
        self.parts = np.vstack([self.parts[kept], parts_of(row)])
        return True

    def within(self, cost: Sequence[float]) -> npt.NDArray[np.bool_]:
        """(models,): which have no more cost."""
        return np.asarray((self.costs <= np.asarray(cost, float)).all(axis=1))


class FrontSnapshot(BaseModel):
    """The front of a study's models, as the driver writes it and a trial's worker reads it."""

    model_config = ConfigDict(extra="forbid")

    costs: list[tuple[float, float]] = []
    aucs: list[float] = []
    parts: str = ""
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
        """The rule that a study asks for.

        Args:
            spec: a study with pruning.
            rows: of its validation split.
            click_rate: of these rows, 0 to 1.
        """
        assert spec.pruning is not None
        # Both sizes rise together, so of two the one that every model has is enough.
        sizes = [metric for metric in ("model_bytes", "embedding_bytes") if metric in spec.objectives]
        return Rule(
            spec=spec.pruning,
            clicks=rows * click_rate,
            others=rows * (1 - click_rate),
            bytes_metric=sizes[0] if sizes else "",
        )

    def cost(self, row: Evaluation) -> tuple[float, float]:
        """Bytes and iterations of an evaluation."""
        return (float(row[self.bytes_metric]) if self.bytes_metric else 0.0, float(row.iteration))

    def verdict(
        self, rows: Sequence[Evaluation], front: Front, trials: int = 1, seed_variance: float = 0.0
    ) -> str:
        """Why the trial whose evaluations so far are `rows` should stop now; "" to train on.

        Args:
            rows: the trial's evaluations, the last one decides.
            front: the models on record, of this trial or others.
            trials: that these models are of, at least.
            seed_variance: of AUC over replicates.
        """
        row = rows[-1]
        tests = sum(map(self._past_grace, rows))
        if not self._past_grace(row) or math.isnan(row.auc):
            return ""
        earlier, there = rows[:-1], front.within(self.cost(row))
        rivals = np.append(front.aucs[there], [r.auc for r in earlier])
        parts = np.vstack([front.parts[there], *(parts_of(r) for r in earlier)])
        between = np.repeat([2 * seed_variance, 0.0], [there.sum(), len(earlier)])
        noise = self.noise(row, rivals, parts, between)
        ahead = np.divide(rivals - row.auc, noise, out=np.zeros(len(rivals)), where=rivals > row.auc)
        level = self.spec.risk / (tests * (tests + 1) * max(trials, 1) * len(rows))
        limit = -float(stdtrit(GROUPS - 1, level))
        if not ahead.max(initial=0.0) > limit:
            return ""
        best = int(ahead.argmax())
        size = f"{self.bytes_metric.removesuffix('_bytes')} bytes and " if self.bytes_metric else ""
        return (
            f"AUC {row.auc:.4f} at iteration {row.iteration:,}, where {rivals[best]:.4f} was reached with no "
            f"more {size}iterations, and noise explains {limit * noise[best]:.4f}"
        )

    def noise(
        self,
        row: Evaluation,
        rivals: npt.NDArray[np.float64],
        parts: npt.NDArray[np.float32],
        between: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Standard error of the difference between an evaluation's AUC and each rival's.

        From the parts of both AUCs, where the rival has them; else as of two independent samples.

        Args:
            row: the evaluation.
            rivals: (rivals,) float64 AUCs.
            parts: (rivals, GROUPS) float32; NaN where a rival has none.
            between: (rivals,) float64, the variance that other seeds add.

        Returns:
            (rivals,) float64.
        """
        measured = ((parts - parts_of(row)).astype(np.float64) ** 2).sum(axis=1)
        apart = [
            standard_error(row.auc, self.clicks, self.others) ** 2
            + standard_error(rival, self.clicks, self.others) ** 2
            for rival in rivals[np.isnan(measured)]
        ]
        measured[np.isnan(measured)] = apart
        return np.asarray(np.sqrt(measured + between))

    def _past_grace(self, row: Evaluation) -> bool:
        grace = self.spec.grace
        return row.iteration >= grace if isinstance(grace, int) else row.epoch >= grace - 1e-9


class Comparison(NamedTuple):
    """What a trial's worker needs to know when to stop: the rule, and where the driver writes what is on record."""

    rule: Rule
    path: str

    def as_plain(self) -> Mapping[str, Any]:
        """The same as plain values."""
        return {"rule": self.rule.model_dump(), "path": self.path}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Comparison":
        """What `as_plain` gave."""
        return cls(Rule.model_validate(plain["rule"]), plain["path"])


def parts_of(row: Evaluation) -> npt.NDArray[np.float32]:
    """(GROUPS,): what an evaluation kept; NaN where it kept nothing."""
    return _decoded(row.auc_parts)[0] if row.auc_parts else np.full(GROUPS, np.nan, np.float32)


def _decoded(text: str) -> npt.NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(-1, GROUPS)


def standard_error(auc: float, clicks: float, others: float) -> float:
    """Standard error of an AUC over so many rows of either label.

    Source: Hanley and McNeil, Radiology 143, 1982.

    Args:
        auc: 0 to 1.
        clicks: rows with a click.
        others: rows without one.
    """
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    squares = auc * (1 - auc) + (clicks - 1) * (q1 - auc * auc) + (others - 1) * (q2 - auc * auc)
    return math.sqrt(max(squares, 0.0) / (clicks * others))


def save(folder: Place, front: Front, trials: int, seed_variance: float) -> None:
    """Write what is on record for the workers of running trials.

    Args:
        folder: the study's.
        front: the models on record.
        trials: how many trials these are of, at least.
        seed_variance: of AUC over replicates.
    """
    snapshot = FrontSnapshot(
        costs=[(b, i) for b, i in front.costs.tolist()],
        aucs=front.aucs.tolist(),
        parts=encoded(front.parts),
        trials=trials,
        seed_variance=seed_variance,
    )
    write(StudyFolder(folder).pruning, snapshot.model_dump_json().encode())


def verdict_from(path: Place, rule: Rule, rows: Sequence[Evaluation]) -> str:
    """`Rule.verdict` by what the driver last wrote.

    Args:
        path: the file that `save` wrote; where it cannot be read, only the trial's own evaluations count.
        rule: the study's.
        rows: the trial's evaluations so far; the last one decides.

    Returns:
        Why the trial should stop now; "" to train on.
    """
    try:
        found = FrontSnapshot.model_validate_json(read(path))
    except (OSError, ValidationError):
        found = FrontSnapshot()
    front = Front(np.array(found.costs, float).reshape(-1, 2), np.array(found.aucs), _decoded(found.parts))
    return rule.verdict(rows, front, found.trials, found.seed_variance)
