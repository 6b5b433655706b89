"""Studies side by side: hypervolume and the score that each attains at every size, with intervals.

    attained(study, sizes)                  # the best AUC at each size or below, with its interval
    volumes([one, other])                   # each study's hypervolume from one reference point

Where every configuration of a study was trained with several seeds, a replicate is the whole study with one of them:
values are means over replicates and intervals Student's t (95 %), which say what other seeds would find.
Otherwise a study is one run of a stochastic search, and intervals resample its trials with replacement (bootstrap,
95 %). Those say how much hangs on single trials, not what another seed would have found. A resample misses about a
third of the trials, and so attains less than the study did: the interval is as wide as resamples differ around their
mean, and lies around what the study attained.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import moocore
import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.results.columns.front import column
from sizewise.results.quality.hypervolume import hypervolume, scaled
from sizewise.results.reading import Study

RESAMPLES = 200
_VOLUME_RESAMPLES = 60  # a hypervolume takes milliseconds, an attained score takes none
_MOST_POINTS = 4_000
_ENDS = (2.5, 97.5)  # percent

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Attained(NamedTuple):
    """The best AUC at each size or below, NaN where there is none, and (samples, sizes) of the same.

    `samples` are of replicates, whose mean `best` is, or of resampled trials.
    """

    best: Floats
    samples: Floats
    of_replicates: bool

    @property
    def ends(self) -> tuple[Floats, Floats]:
        """The ends of the interval at each size."""
        if not self.of_replicates:
            return _ends(self.samples, self.best)
        half = _half_width([self.samples])
        return self.best - half, self.best + half


def replicas(study: Study) -> list[Study]:
    """The study once for each replicate that all its configurations with an evaluation have; none below two."""
    known = study.evaluations.filter(pl.col("auc").is_not_null(), pl.col("state") != "failed")
    seeds = known.group_by("configuration").agg(pl.col("replicate").unique())["replicate"].to_list()
    shared = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if len(shared) < 2:
        return []
    one = pl.col("replicate")
    return [
        replace(
            study,
            trials=study.trials.filter(one == seed),
            evaluations=study.evaluations.filter(one == seed),
        )
        for seed in shared
    ]


def attained(study: Study, sizes: Floats, size: str = "embedding_bytes", seed: int = 0) -> Attained:
    """The best validation AUC among models of at most each of `sizes` bytes.

    Args:
        study: whose models.
        sizes: (sizes,) float64 bytes, ascending.
        size: the size that is limited, embedding_bytes or model_bytes.
        seed: of the resampling, where there are no replicates.
    """
    if seeds := replicas(study):
        samples = np.stack([_best(each, sizes, size).max(axis=0) for each in seeds])
        return Attained(_defined(samples.mean(axis=0)), _defined(samples), True)
    best = _best(study, sizes, size)
    chosen = np.random.default_rng(seed).integers(0, len(best), (RESAMPLES, len(best)))
    resampled = np.stack([best[rows].max(axis=0) for rows in chosen])
    return Attained(_defined(best.max(axis=0)), _defined(resampled), False)


def _best(study: Study, sizes: Floats, size: str) -> Floats:
    """(trials, sizes): each trial's best AUC among its evaluations of at most that size, -inf where there is none."""
    points = study.candidates.drop_nulls([size])
    best = np.full((max(points["trial_id"].n_unique(), 1), len(sizes)), -np.inf)
    for row, (_, trial) in enumerate(points.group_by("trial_id", maintain_order=True)):
        place = np.searchsorted(sizes, trial[size].to_numpy().astype(np.float64))
        inside = place < len(sizes)
        np.maximum.at(best[row], place[inside], trial["auc"].to_numpy()[inside])
    return np.maximum.accumulate(best, axis=1)


def difference(one: Attained, other: Attained) -> tuple[Floats, Floats, Floats]:
    """`one` minus `other` at each size, with the ends of the interval: value, low, high.

    Between replicates of both it is Welch's; otherwise from resampled trials (replicates, where a study has them).
    """
    value = one.best - other.best
    if one.of_replicates and other.of_replicates:
        half = _half_width([one.samples, other.samples])
        return value, value - half, value + half
    rows = np.arange(RESAMPLES)
    low, high = _ends(one.samples[rows % len(one.samples)] - other.samples[rows % len(other.samples)], value)
    return value, low, high


def _half_width(groups: Sequence[Floats]) -> Floats:
    """Half the 95 % interval of a mean, or of the difference of two (Welch), down the first axis of each group."""
    from scipy import stats  # here, because it takes a second

    parts = [group.var(axis=0, ddof=1) / len(group) for group in groups]
    freedom = sum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
    variance = np.sum(parts, axis=0)
    degrees = np.where(freedom > 0, variance**2 / np.where(freedom > 0, freedom, 1.0), 1.0)
    half: Floats = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    return half


def volumes(studies: Sequence[Study], seed: int = 0) -> list[Interval]:
    """The hypervolume of each study, all from one reference point: the worst of theirs in every objective.

    Objectives are those that all studies share. Raises ValueError when there are none.
    """
    shared = [name for name in studies[0].objectives if all(name in study.objectives for study in studies)]
    if not shared:
        raise ValueError("these studies share no objective")
    ways = [studies[0].objectives[name] for name in shared]
    corners = [hypervolume(study).reference for study in studies]
    corner = [
        (min if way == "maximize" else max)(at[name] for at in corners)
        for name, way in zip(shared, ways, strict=True)
    ]
    reference = [float(scaled(np.array([at]), name)[0]) for at, name in zip(corner, shared, strict=True)]
    maximise = [way == "maximize" for way in ways]
    found = []
    for study in studies:
        if seeds := replicas(study):
            values = np.array([_volume(each, shared, maximise, reference, 0, 0).value for each in seeds])
            mean, half = float(values.mean()), float(_half_width([values[:, None]])[0])
            found.append(Interval(mean, mean - half, mean + half))
        else:
            found.append(_volume(study, shared, maximise, reference, seed, _VOLUME_RESAMPLES))
    return found


def _volume(
    study: Study,
    objectives: list[str],
    maximise: list[bool],
    reference: list[float],
    seed: int,
    resamples: int,
) -> Interval:
    columns = [column(name) for name in objectives]
    points = study.candidates.drop_nulls(columns)
    if points.is_empty():
        return Interval(0.0, 0.0, 0.0)
    trials, who = np.unique(points["trial_id"].to_numpy(), return_inverse=True)
    values = np.column_stack([scaled(points[column(name)].to_numpy(), name) for name in objectives])
    whole = float(moocore.hypervolume(_front(values, maximise), ref=reference, maximise=maximise))
    # the same share of every trial's evaluations, so that no resample takes seconds
    keep = np.zeros(len(values), dtype=bool)
    keep[:: max(1, len(values) // _MOST_POINTS)] = True
    keep |= moocore.is_nondominated(values, maximise=maximise)
    values, who = values[keep], who[keep]
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = np.zeros(len(trials), dtype=bool)
        drawn[generator.integers(0, len(trials), len(trials))] = True
        some = values[drawn[who]]
        found.append(
            float(moocore.hypervolume(_front(some, maximise), ref=reference, maximise=maximise))
            if len(some)
            else 0.0
        )
    low, high = np.percentile(found, _ENDS) - np.mean(found) if found else (0.0, 0.0)
    return Interval(whole, whole + min(float(low), 0.0), whole + max(float(high), 0.0))


def _front(values: Floats, maximise: list[bool]) -> Floats:
    front: Floats = values[moocore.is_nondominated(values, maximise=maximise)]
    return front


def _defined(values: Floats) -> Floats:
    return np.where(np.isinf(values), np.nan, values)


def _ends(values: Floats, around: Floats) -> tuple[Floats, Floats]:
    """The interval around values, as wide as their resamples differ from their mean.

    Args:
        values: (resamples, n).
        around: (n,) what was resampled.

    Returns:
        low, high: (n,), NaN where fewer than half of the resamples have a value.
    """
    enough = np.isfinite(values).mean(axis=0) > 0.5
    filled = np.where(enough, values, 0.0)
    low, high = np.nanpercentile(filled, _ENDS, axis=0) - np.nanmean(filled, axis=0)
    low, high = around + np.minimum(low, 0.0), around + np.maximum(high, 0.0)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def span(studies: Sequence[Study], size: str = "embedding_bytes", steps: int = 120) -> Floats:
    """Sizes from the smallest to the largest model of all studies, evenly spaced in their logarithm.

    Args:
        studies: whose models.
        size: the size that is meant, embedding_bytes or model_bytes.
        steps: how many sizes.

    Returns:
        (steps,) float64 bytes, ascending; a single size where all models have the same, or there are none.
    """
    seen = pl.concat([study.candidates[size].drop_nulls() for study in studies])
    seen = seen.filter(seen > 0)
    if seen.is_empty():
        return np.array([1.0])
    low, high = float(seen.min()), float(seen.max())  # type: ignore[arg-type]
    sizes = np.geomspace(low, high, steps) if high > low else np.array([low])
    sizes[-1] = high  # rounding must not leave the largest out
    return sizes
