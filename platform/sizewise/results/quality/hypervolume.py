"""Hypervolume: how much of objective space a study's front covers, as one number to compare searches by."""

from collections.abc import Mapping
from dataclasses import dataclass

import moocore
import numpy as np
import numpy.typing as npt

from sizewise.metrics.registry import METRICS, Direction
from sizewise.results.columns.front import column
from sizewise.results.reading import Study


@dataclass(frozen=True)
class Hypervolume:
    """How much of objective space a study's front covers, and from which reference point."""

    value: float
    reference: dict[str, float]
    unit: str


def hypervolume(study: Study, reference: Mapping[str, float] | None = None) -> Hypervolume:
    """Volume that the front dominates, with sizes, iterations and losses in decades (log10), AUC as it is.

    Sizes span four decades, so without the logarithm only the largest would count. The reference
    point is AUC 0.5 (a coin toss), the full tables' bytes, and for every other objective the worst value
    measured; pass `reference` (by objective, unscaled) to compare studies from one point.
    """
    front, objectives = study.front, study.objectives
    given = dict(reference or {})
    point = {name: given.get(name, _reference(study, name, way)) for name, way in objectives.items()}
    unit = " x ".join(
        f"decades of {name}" if _in_decades(name) else METRICS[column(name)].label for name in objectives
    )
    if front.is_empty():
        return Hypervolume(0.0, point, unit)
    values = np.column_stack([scaled(front[column(name)].to_numpy(), name) for name in objectives])
    corner = [float(scaled(np.array([point[name]]), name)[0]) for name in objectives]
    directions = [way == "maximize" for way in objectives.values()]
    return Hypervolume(float(moocore.hypervolume(values, ref=corner, maximise=directions)), point, unit)


def _reference(study: Study, objective: str, way: Direction) -> float:
    metric = METRICS[column(objective)]
    if metric.worst is not None:
        return metric.worst
    full = study.record.data.full_bytes
    if metric.kind == "size" and full:
        return float(full)
    seen = study.candidates[column(objective)].drop_nulls().to_numpy()
    return 1.0 if not len(seen) else float(seen.min() if way == "maximize" else seen.max())


def scaled(values: npt.NDArray[np.generic], objective: str) -> npt.NDArray[np.float64]:
    """Values of an objective as the volume counts them: decades, but scores that are maximized as they are."""
    numbers = values.astype(np.float64)
    return np.log10(np.maximum(numbers, 1e-9)) if _in_decades(objective) else numbers


def _in_decades(objective: str) -> bool:
    return METRICS[column(objective)].in_decades
