"""What trials held while they ran, and what that costs."""

from typing import TypedDict

import polars as pl

from sizewise.store.driving.usage import last_seen, used
from sizewise.store.records import StudyRecord
from sizewise_core.stores.storage import Place

COLUMNS = {"cpu_seconds": pl.Float64(), "gpu_seconds": pl.Float64(), "money": pl.Float64()}


class Cost(TypedDict):
    """CPU and GPU seconds, all attempts counted, and money, null without prices."""

    cpu_seconds: float
    gpu_seconds: float
    money: float | None
    currency: str | None


def cost_table(folder: Place, study: StudyRecord, growing: bool, problems: list[str]) -> pl.DataFrame:
    """What each trial has used so far.

    Args:
        folder: the study's.
        study: `study.json`, for its prices.
        growing: a driver is at work.
        problems: gets a line for each thing that is missing or cannot be read.

    Returns:
        A row a trial: trial_id, cpu_seconds, gpu_seconds, and money, null without prices.
    """
    rows = [
        (trial_id, cpu, gpu, study.prices.of(cpu, gpu) if study.prices else None)
        for trial_id, (_, cpu, gpu) in used(folder, last_seen(folder), problems, growing).items()
    ]
    return pl.DataFrame(rows, schema={"trial_id": pl.Int64(), **COLUMNS}, orient="row")


def cost_of(folder: Place, study: StudyRecord, growing: bool, problems: list[str]) -> Cost:
    """What the study has used so far, all trials together.

    Args:
        folder: the study's.
        study: `study.json`, for its prices.
        growing: a driver is at work.
        problems: gets a line for each thing that is missing or cannot be read.
    """
    table = cost_table(folder, study, growing, problems)
    cpu, gpu = table.select("cpu_seconds", "gpu_seconds").sum().row(0)
    return {
        "cpu_seconds": cpu,
        "gpu_seconds": gpu,
        "money": study.prices.of(cpu, gpu) if study.prices else None,
        "currency": study.prices.currency if study.prices else None,
    }
