"""What runs today, and how the models of a study compare with it.

    today = read_baseline("auc=0.7480,bytes=20MB,p99_ms=3.1", study, runs)
    today = read_baseline("today.parquet", study, runs)        # a score for every validation row, in their order
    against(study, study.front, today)                         # differences of AUC, as paired samples for scores
    break_even(today, row, loss, Prices(auc_value=5_000, gb_price=3.0, replicas=40)).text

Scores of the validation rows give a paired interval: both models are judged on the same rows. Figures alone do not say
how sure they are; the baseline's AUC is then taken as exact, and the interval is that of the study's model alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.metrics.scores import auc_parts, evaluate_scores
from sizewise.results.data import data_of
from sizewise.results.intervals import Interval
from sizewise.results.kept_errors import error_of
from sizewise.results.reading import Study
from sizewise.results.spread import Floats, half_width, seeds_of
from sizewise_core.errors import InputError, shown
from sizewise_core.storage import Place
from sizewise_core.units import format_auc, format_bytes, format_ratio, parse_bytes
from sizewise_prep.shards.files import read_shard

_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": pl.read_csv,
    ".parquet": pl.read_parquet,
    ".arrow": pl.read_ipc,
    ".feather": pl.read_ipc,
    ".ipc": pl.read_ipc,
}
_FIGURES = ("auc", "bytes", "p99_ms", "cost")
_HOW = "give figures (auc=0.75,bytes=20MB,p99_ms=3,cost=12) or a file of scores for the validation rows"


@dataclass(frozen=True, eq=False)
class Baseline:
    """What runs today.

    Attributes:
        name: as messages call it.
        auc: on the study's validation rows, or as it was given.
        bytes, p99_ms, cost: None where they were not given.
        parts: (GROUPS,) what its AUC's error is made of; None where its scores are not known.
    """

    name: str
    auc: float
    bytes: int | None = None
    p99_ms: float | None = None
    cost: float | None = None
    parts: Floats | None = None

    @property
    def text(self) -> str:
        """It in words."""
        size = f", {format_bytes(self.bytes)}" if self.bytes else ""
        return f"{self.name} (AUC {format_auc(self.auc)}{size})"


def read_baseline(text: str, study: Study, runs: Place) -> Baseline:
    """The baseline that was asked for.

    Args:
        text: figures, as name=value with commas, or the path of a file of scores; after it further figures may follow
            (`today.parquet,bytes=20MB`).
        study: with which it is to be compared.
        runs: the folder of studies, beside which the data may lie.

    Raises:
        InputError: neither of these; a file that cannot be read, or is not of the validation rows.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    file = words.pop(0) if words and "=" not in words[0] else None
    figures = _figures(words)
    if file is None:
        if "auc" not in figures:
            raise InputError(f"--baseline {shown(text)}: has no auc: {_HOW}")
        return _of(figures, "what runs today", figures["auc"], None)
    scores = _scores(Path(file))
    labels = _validation_labels(study, runs)
    if len(scores) != len(labels):
        raise InputError(
            f"{file}: has {len(scores):,} rows, and the validation split {len(labels):,}: score exactly those rows, in "
            "their order"
        )
    parts = auc_parts(labels, scores)
    known = parts if np.isfinite(parts).all() else None
    return _of(figures, Path(file).name, evaluate_scores(labels, scores).auc, known)


def _of(figures: Mapping[str, float], name: str, auc: float, parts: Floats | None) -> Baseline:
    size = figures.get("bytes")
    return Baseline(
        name, auc, None if size is None else int(size), figures.get("p99_ms"), figures.get("cost"), parts
    )


def _figures(words: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in _FIGURES:
            raise InputError(f"--baseline: {shown(name)} is none of {', '.join(_FIGURES)}: {_HOW}")
        try:
            given = (
                float(parse_bytes(int(value) if value.isdigit() else value))
                if name == "bytes"
                else float(value)
            )
        except ValueError:
            given = math.nan
        if not 0 <= given < 2**62 or (name == "auc" and given > 1):
            raise InputError(f"--baseline: {name}={shown(value)} is no such number: {_HOW}")
        found[name] = given
    return found


def _scores(file: Path) -> Floats:
    """The log-odds in a file, in the order of its rows."""
    if file.is_dir():
        raise InputError(
            f"{file}: is a folder; score the raw rows of the validation split with `sizewise score` and give that file"
        )
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"{file}: a file of scores ends in {', '.join(_READERS)}; else {_HOW}")
    try:
        table = reader(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        why = getattr(error, "strerror", None) or "it is no such file"
        raise InputError(f"{file}: cannot be read ({why}): name a file of scores") from None
    column = next((name for name in ("log_odds", "score", "probability") if name in table.columns), None)
    if column is None or not table[column].dtype.is_numeric():
        raise InputError(f"{file}: has no column of numbers log_odds, score or probability: name it so")
    scores = table[column].cast(pl.Float64).fill_null(math.nan).to_numpy()
    if not np.isfinite(scores).all():
        raise InputError(
            f"{file}: column {column} has rows without a finite number: score every validation row"
        )
    return np.asarray(scores)


def _validation_labels(study: Study, runs: Place) -> npt.NDArray[np.uint8]:
    """The labels of the validation rows, in their order."""
    folder, manifest = data_of(study, runs)
    if not isinstance(folder, Path):
        raise InputError(
            "--baseline: scores are compared where the shards lie on this machine; give figures instead"
        )
    shards = manifest.splits["validation"].shards
    try:
        labels = [read_shard(folder / shard.file, manifest.shape(shard)).labels for shard in shards]
    except OSError as error:
        raise InputError(f"{folder}: shards cannot be read ({error.strerror or error})") from None
    return np.concatenate(labels) if labels else np.empty(0, np.uint8)


def against(study: Study, points: pl.DataFrame, baseline: Baseline) -> list[Interval]:
    """Each point's AUC minus the baseline's, with its 95 % interval.

    Args:
        study: the points'.
        points: rows of its candidates.
        baseline: what runs today.
    """
    own = study.errors.parts(points, "auc")
    errors = points["auc_error"].cast(pl.Float64).fill_null(math.nan).to_numpy()
    paired = error_of(own - baseline.parts) if baseline.parts is not None else np.full(points.height, np.nan)
    kept = np.isfinite(paired)
    variance = np.where(kept, paired, errors) ** 2
    seeds = seeds_of(study.candidates, study.evaluations)
    of_seeds = (seeds.variance if seeds else 0.0) / points["replicates"].fill_null(1).to_numpy()
    half = half_width(variance, of_seeds, seeds)
    found = []
    for number, auc in enumerate(points["auc"]):
        value, wide = auc - baseline.auc, float(half[number])
        basis = "paired" if kept[number] else "independent" if math.isfinite(wide) else "unknown"
        seeds_error = math.sqrt(of_seeds[number]) if seeds else None
        rows_error = math.sqrt(variance[number])
        found.append(Interval(value, value - wide, value + wide, rows_error, seeds_error, basis))  # type: ignore[arg-type]
    return found


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
    return f"Against {baseline.text}: AUC {difference.text} ({how}){smaller}."


def as_json(baseline: Baseline, difference: Interval, even: BreakEven | None) -> dict[str, Any]:
    """The comparison as one object.

    Args:
        baseline: what runs today.
        difference: of a model's AUC to it.
        even: None without prices.
    """
    own = {name: getattr(baseline, name) for name in ("name", "auc", "bytes", "p99_ms", "cost")}
    limit = None if even is None or math.isinf(even.auc_value) else even.auc_value
    money = {"saved": even.saved, "gained": even.gained, "break_even_auc_value": limit} if even else None
    return {**own, "difference": difference.as_json(), "money": money}
