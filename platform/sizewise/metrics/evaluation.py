"""Evaluations: one row of a trial's curve. And the scores of a trial's best model on the test split.

Both are frozen. What of them lies on disk, in a checkpoint or on its way through Ray is a `Row`: plain values by name,
as `as_row` gives them and `from_row` reads them.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sizewise.metrics.scores import Scores
from sizewise_core.files.sealed import JsonObject

_PARTS = ("auc_parts", "logloss_parts")
Row = dict[str, float | str | None]
STORAGES = "in_storages"
"""The column of what was measured of the rounded model, as JSON by storage."""


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, float]):
    """What was measured of a model on the validation split, by the names in METRICS; undefined metrics are NaN.

        evaluation["auc"], evaluation.get("train_seconds")

    It equals another one, or a dictionary, of the same measurements.

    Attributes:
        measured: in the order in which it is written.
        auc_parts, logloss_parts: what the errors of its AUC and its log-loss are made of, as text (see
            `metrics.errors`); empty where that was not kept.
        in_storages: by storage, such as int4: the measurements that are others where the model is rounded to it.
        parts_in_storages: by storage, and by field, what the errors of the rounded model's scores are made of.
    """

    measured: Mapping[str, float]
    auc_parts: str = ""
    in_storages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    logloss_parts: str = ""
    parts_in_storages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> float:
        return self.measured[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.measured)

    def __len__(self) -> int:
        return len(self.measured)

    @property
    def iteration(self) -> int:
        """After how many optimizer steps."""
        return int(self.measured["iteration"])

    @property
    def epoch(self) -> float:
        """After how many epochs; NaN where that was not kept."""
        return self.measured.get("epoch", math.nan)

    @property
    def auc(self) -> float:
        """Its AUC; NaN where that is undefined."""
        return self.measured["auc"]

    def of_replicate(self, replicate: int) -> "Evaluation":
        """The evaluation with its trial's replicate, where it has none yet."""
        return replace(self, measured={"replicate": replicate, **self.measured})

    def as_row(self) -> Row:
        """The evaluation as plain values."""
        parts = {name: text for name in _PARTS if (text := getattr(self, name))}
        row: Row = {**self.measured, **parts}
        if self.in_storages:
            finite = {
                storage: {name: value if math.isfinite(value) else None for name, value in measured.items()}
                | dict(self.parts_in_storages.get(storage, {}))
                for storage, measured in self.in_storages.items()
            }
            row[STORAGES] = json.dumps(finite, allow_nan=False)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The evaluation that `as_row` gave; null stands for NaN, and text that no metric is for nothing."""
        measured = {
            name: math.nan if value is None else value
            for name, value in row.items()
            if not isinstance(value, str) and name not in _PARTS
        }
        parts = {name: text for name in _PARTS if isinstance(text := row.get(name), str)}
        rounded = row.get(STORAGES)
        return cls(
            measured, in_storages=in_storages(rounded), parts_in_storages=parts_in_storages(rounded), **parts
        )


def parts_in_storages(text: object) -> dict[str, dict[str, str]]:
    """What the errors of rounded models' scores are made of, by storage and field, from the text of their column."""
    found = {
        storage: {name: text for name in _PARTS if isinstance(text := measured.get(name), str)}
        for storage, measured in _by_storage(text).items()
    }
    return {storage: parts for storage, parts in found.items() if parts}


def in_storages(text: object) -> dict[str, dict[str, float]]:
    """What was measured of rounded models, from the text of their column; what nobody can have measured is left out."""
    return {
        storage: {
            name: math.nan if value is None else value
            for name, value in measured.items()
            if value is None or (isinstance(value, int | float) and abs(value) <= 2**62)
        }
        for storage, measured in _by_storage(text).items()
    }


def _by_storage(text: object) -> dict[str, JsonObject]:
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {storage: measured for storage, measured in found.items() if isinstance(measured, dict)}


@dataclass(frozen=True)
class TestScores:
    """How good the best model of a trial is on the test split: to be reported, and never to decide by.

    Attributes:
        iteration: of the model.
        scores: on the test split.
        others: further metrics that `metrics.registry.computed` has, by name.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    iteration: int
    scores: Scores
    others: Mapping[str, float] = field(default_factory=dict)

    def as_row(self) -> Row:
        """The scores as plain values."""
        return {"iteration": self.iteration, **self.scores._asdict(), **self.others}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The scores that `as_row` gave; null stands for NaN."""

        def score(name: str) -> float:
            value = row.get(name)
            return math.nan if value is None else float(value)

        scores = Scores(
            score("auc"),
            score("logloss"),
            score("normalized_entropy"),
            score("calibration"),
            row.get("undefined", ""),
        )
        others = {name: score(name) for name in row if name not in ("iteration", *Scores._fields)}
        return cls(row["iteration"], scores, others)


def best(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluation with the highest AUC, the earliest of equals; undefined AUCs come last."""
    return max(evaluations, key=lambda row: -math.inf if math.isnan(row["auc"]) else row["auc"])


def as_rows(evaluations: Iterable[Evaluation]) -> list[Row]:
    """Evaluations as plain values."""
    return [evaluation.as_row() for evaluation in evaluations]


def from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Evaluation]:
    """The evaluations that `as_rows` gave."""
    return [Evaluation.from_row(row) for row in rows]
