"""Which evaluations are of models whose learning rate has fallen: what a comparison of iterations may compare.

Where the rate falls at a trial's end, evaluations before are of models that would gain by ending there. They are real,
and stand on the front; but an iteration count of one of them is none of a trained model's.
"""

from collections.abc import Iterable, Mapping

import polars as pl

from sizewise.store.records import TrialRecord

COOLED = "cooled_down"


def with_cooling(evaluations: pl.DataFrame, ledger: Iterable[TrialRecord]) -> pl.DataFrame:
    """Evaluations with the column `cooled_down`, where the rate of any trial falls; else as they are.

    Args:
        evaluations: with trial_id, iteration and epoch.
        ledger: the trials.
    """
    falling = {
        trial.trial_id: trial.config for trial in ledger if trial.config.get("decay", "none") != "none"
    }
    if not falling:
        return evaluations
    rows = evaluations.select("trial_id", "iteration", "epoch").iter_rows()
    cooled = [
        trial_id not in falling or _has_cooled_down(falling[trial_id], iteration, epoch)
        for trial_id, iteration, epoch in rows
    ]
    return evaluations.with_columns(pl.Series(COOLED, cooled, pl.Boolean))


def cooled_down(candidates: pl.DataFrame) -> pl.DataFrame:
    """Those candidates whose iterations can be compared; all of them where none has cooled down yet."""
    if COOLED not in candidates.columns:
        return candidates
    cooled = candidates.filter(pl.col(COOLED).fill_null(True))
    return candidates if cooled.is_empty() else cooled


def _has_cooled_down(config: Mapping[str, object], iteration: int | None, epoch: float | None) -> bool:
    """Whether a model has come to where its rate falls no further; as `training.steps.schedule.Rates` has it."""
    epochs = config.get("epochs")
    if not iteration or not epoch or not isinstance(epochs, int | float):
        return True  # nothing that could be said of it
    total = round(round(iteration / epoch) * epochs)
    start, share = config.get("decay_start"), config.get("decay_share", 1.0)
    if not isinstance(start, int | float) or not isinstance(share, int | float):
        return iteration >= total
    begin = max(_iterations(start, total), _iterations(config.get("schedule_warmup", 0), total))
    falling = share if isinstance(share, int) else max(min(_iterations(share, total), total - begin), 1)
    return iteration >= min(begin + falling, total)


def _iterations(length: object, total: int) -> int:
    if isinstance(length, int):
        return length
    return round(length * total) if isinstance(length, float) else 0
