"""How long a running study still takes, by what its trials were measured to take for an epoch.

Neither pauses nor clocks that were set count: a trial's seconds are those for which it held its machines.
"""

import polars as pl

from sizewise.store.driving.usage import last_seen, under_way, used
from sizewise.store.records import TrialRecord
from sizewise_core.stores.storage import Place


def seconds_left(folder: Place, ledger: list[TrialRecord], live: pl.DataFrame, asked: int) -> float | None:
    """An estimate in seconds; None before anything was measured.

    Args:
        folder: the study's.
        ledger: all its trials.
        live: evaluations of the running ones.
        asked: trials in all.
    """
    seen, known = last_seen(folder), {trial.trial_id: trial for trial in ledger}
    held = used(folder, seen)
    closed = [trial for trial in ledger if trial.trained_epochs is not None]
    running = {t.trial_id: _planned(t) for t in ledger if t.state == "running"}
    # The last row of each.
    reached = {row["trial_id"]: row for row in live.sort("iteration").iter_rows(named=True)}
    epochs = sum(_own_epochs(trial, known) for trial in closed)
    seconds = sum(held[trial.trial_id].seconds for trial in closed if trial.trial_id in held)
    if epochs and seconds:
        usual = epochs / len(closed)
    else:  # as long as no trial is closed: what training alone took so far
        epochs = sum(row["epoch"] or 0.0 for row in reached.values())
        seconds = sum(row["train_seconds"] or 0.0 for row in reached.values())
        usual = max(running.values(), default=0.0)
    if not epochs or not seconds:
        return None
    waiting = asked - sum(trial.state != "infeasible" for trial in ledger)
    under_training = sum(
        max(planned - (reached[number]["epoch"] or 0.0 if number in reached else 0.0), 0.0)
        for number, planned in running.items()
    )
    at_once = len(under_way(folder, seen)) or len(running) or 1
    return seconds / epochs * (usual * waiting + under_training) / at_once


def _planned(trial: TrialRecord) -> float:
    """The epochs that a trial is to train; 0 where its configuration does not say."""
    epochs = trial.config.get("epochs")
    return float(epochs) if isinstance(epochs, int | float) and 0 <= epochs < 2**31 else 0.0


def _own_epochs(trial: TrialRecord, known: dict[int, TrialRecord]) -> float:
    """What a trial trained itself, without the epochs that others had trained before it began."""
    before = known.get(trial.reuses) if trial.reuses is not None else None
    inherited = trial.inherited_epochs or (before and before.trained_epochs) or 0.0
    return max((trial.trained_epochs or 0.0) - inherited, 0.0)
