"""What runs today, and how the models of a study compare with it.

    today = of_study(study)                                    # what its study file names, as `run` scored it
    today = Baseline.of(record)                                # what `--baseline` names (`sizewise.export.baseline`)
    against(study, study.front, today)                         # differences of AUC, as paired samples for scores
    with_baseline(study, study.front, today)                   # the same as columns of a table
    break_even(today, row, loss, Prices(auc_value=5_000, gb_price=3.0, replicas=40)).text

Scores of the validation rows give a paired interval: both models are judged on the same rows. Figures alone do not say
how sure they are; the baseline's AUC is then taken as exact, and the interval is that of the study's model alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from sizewise.metrics.errors import decoded
from sizewise.results.columns.kept_errors import ERRORS, Score, error_of
from sizewise.results.columns.spread import Floats, half_width, seeds_of
from sizewise.results.decision.intervals import Interval
from sizewise.results.reading import Study
from sizewise.store.baselines import BaselineAsked
from sizewise.store.records import BaselineRecord
from sizewise_core.files.sealed import JsonObject
from sizewise_core.units import format_auc, format_bytes, format_ratio

COLUMNS = tuple(f"{score}_to_baseline{end}" for score in ERRORS for end in ("", "_low", "_high"))
"""Of tables: each score minus the baseline's, and the ends of the 95 % interval of that."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """What runs today.

    Attributes:
        name: as messages call it.
        auc: on the study's validation rows, or as it was given.
        bytes, p99_ms, cost: None where they were not given.
        parts: (GROUPS,) what its AUC's error is made of; None where its scores are not known.
        logloss: on the study's validation rows; None where its scores are not known.
        logloss_parts: as `parts`, of the log-loss.
    """

    name: str
    auc: float
    bytes: int | None = None
    p99_ms: float | None = None
    cost: float | None = None
    parts: Floats | None = None
    logloss: float | None = None
    logloss_parts: Floats | None = None

    @classmethod
    def of(cls, record: BaselineRecord) -> "Baseline":
        """What a record says of it."""

        def known(text: str) -> Floats | None:
            (parts,) = decoded([text])
            return parts if np.isfinite(parts).all() else None

        own = record.model_dump(include={"name", "auc", "bytes", "p99_ms", "cost", "logloss"})
        return cls(**own, parts=known(record.auc_parts), logloss_parts=known(record.logloss_parts))

    @property
    def text(self) -> str:
        """It in words."""
        size = f", {format_bytes(self.bytes)}" if self.bytes else ""
        return f"{self.name} (AUC {format_auc(self.auc)}{size})"


def of_figures(asked: BaselineAsked) -> BaselineRecord:
    """The baseline of which figures alone are known.

    Args:
        asked: without a path.
    """
    assert asked.auc is not None  # without a path there is one
    return BaselineRecord(name="what runs today", **asked.model_dump(exclude={"path"}))


def of_study(study: Study) -> Baseline | None:
    """What a study's file names as what runs today; None where it names nothing."""
    return None if study.record.baseline is None else Baseline.of(study.record.baseline)


def against(study: Study, points: pl.DataFrame, baseline: Baseline, score: Score = "auc") -> list[Interval]:
    """Each point's score minus the baseline's, with its 95 % interval.

    Args:
        study: the points'.
        points: rows of its candidates, or of a table made of these.
        baseline: what runs today; of a log-loss, its own must be known.
        score: which score.
    """
    own = study.errors.parts(points, score)
    value, parts = (
        (baseline.auc, baseline.parts) if score == "auc" else (baseline.logloss, baseline.logloss_parts)
    )
    assert value is not None
    errors = points[ERRORS[score]].cast(pl.Float64).fill_null(math.nan).to_numpy()
    paired = error_of(own - parts) if parts is not None else np.full(points.height, np.nan)
    kept = np.isfinite(paired)
    variance = np.where(kept, paired, errors) ** 2
    seeds = seeds_of(study.candidates, study.evaluations, score)
    replicates = points["replicates"].fill_null(1).to_numpy() if "replicates" in points.columns else 1.0
    of_seeds = (seeds.variance if seeds else 0.0) / replicates * np.ones(points.height)
    half = half_width(variance, of_seeds, seeds)
    found = []
    for number, at in enumerate(points[score]):
        difference, wide = math.nan if at is None else at - value, float(half[number])
        basis = "paired" if kept[number] else "independent" if math.isfinite(wide) else "unknown"
        seeds_error = math.sqrt(of_seeds[number]) if seeds else None
        ends = difference - wide, difference + wide
        found.append(Interval(difference, *ends, math.sqrt(variance[number]), seeds_error, basis))  # type: ignore[arg-type]
    return found


def with_baseline(study: Study, table: pl.DataFrame, baseline: Baseline | None) -> pl.DataFrame:
    """A table of trials, evaluations or candidates with `COLUMNS`; as it is without a baseline.

    Args:
        study: the table's.
        table: its rows have a configuration, an iteration and scores, null where nothing was evaluated.
        baseline: what runs today.
    """
    if baseline is None or table.is_empty():
        return table
    for score in ERRORS:
        if score == "logloss" and baseline.logloss is None:
            continue
        found = against(study, table, baseline, score)
        for end, numbers in {
            "": [one.value for one in found],
            "_low": [one.low for one in found],
            "_high": [one.high for one in found],
        }.items():
            column = pl.Series(f"{score}_to_baseline{end}", numbers, dtype=pl.Float64).fill_nan(None)
            table = table.with_columns(column)
    return table


@dataclass(frozen=True)
class Prices:
    """What accuracy and memory are taken to cost a month.

    Attributes:
        auc_value: what 0.001 AUC brings in.
        gb_price: of a GB of memory in serving.
        replicas: how many copies of the model are served.
    """

    auc_value: float
    gb_price: float
    replicas: int = 1


@dataclass(frozen=True)
class BreakEven:
    """What a month with another model brings: memory saved, accuracy gained (below 0: lost), and when it pays."""

    saved: float
    gained: float
    auc_value: float
    """What 0.001 AUC may bring in at most for the smaller model to pay; infinite where it loses nothing."""
    prices: Prices

    @property
    def text(self) -> str:
        """It in a sentence, with what it assumes."""
        assumed = (
            f"(assuming {self.prices.auc_value:,.2f} a month for 0.001 AUC, {self.prices.gb_price:,.2f} for a GB, "
            f"{self.prices.replicas:,} replicas)"
        )
        pays = (
            f"it pays while 0.001 AUC brings in less than {self.auc_value:,.2f}"
            if math.isfinite(self.auc_value)
            else "it loses no AUC by the estimate"
        )
        return f"A month: {self.saved:,.2f} saved in memory, {self.gained:,.2f} by accuracy; {pays} {assumed}"


def break_even(baseline: Baseline, size: int, difference: Interval, prices: Prices) -> BreakEven | None:
    """What a model brings in place of the baseline; None where the baseline's size is not known.

    Args:
        baseline: what runs today.
        size: of the model, in bytes.
        difference: of its AUC to the baseline's.
        prices: what is assumed.
    """
    if baseline.bytes is None:
        return None
    saved = (baseline.bytes - size) / 1e9 * prices.gb_price * prices.replicas
    thousandths = difference.value / 0.001
    limit = saved / -thousandths if thousandths < 0 else math.inf
    return BreakEven(saved, thousandths * prices.auc_value, limit, prices)


def in_words(baseline: Baseline, size: int, difference: Interval) -> str:
    """A model against the baseline, in a sentence.

    Args:
        baseline: what runs today.
        size: of the model, in bytes.
        difference: of its AUC to the baseline's.
    """
    how = {
        "paired": "on the same rows",
        "independent": "the baseline's AUC taken as exact",
        "unknown": "without a known error",
    }[difference.basis]
    smaller = ""
    if baseline.bytes and size:
        times = baseline.bytes / size
        smaller = f", {format_ratio(times)} smaller" if times >= 1 else f", {format_ratio(1 / times)} larger"
    return f"Against {baseline.text}: AUC {difference.detail} ({how}){smaller}."


def described(baseline: Baseline) -> JsonObject:
    """What is known of it as one object."""
    return {name: getattr(baseline, name) for name in ("name", "auc", "logloss", "bytes", "p99_ms", "cost")}


def as_json(
    baseline: Baseline,
    difference: Interval,
    even: BreakEven | None = None,
    of_logloss: Interval | None = None,
) -> JsonObject:
    """The comparison as one object.

    Args:
        baseline: what runs today.
        difference: of a model's AUC to it.
        even: None without prices.
        of_logloss: of the model's log-loss; None where the baseline's is not known.
    """
    own = described(baseline)
    limit = None if even is None or math.isinf(even.auc_value) else even.auc_value
    money = {"saved": even.saved, "gained": even.gained, "break_even_auc_value": limit} if even else None
    loss = of_logloss.as_json() if of_logloss else None
    return {**own, "difference": difference.as_json(), "logloss_difference": loss, "money": money}
