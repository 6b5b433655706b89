"""What checkpoints still have of a trial that has ended."""

from sizewise.metrics.evaluation import Evaluation, from_rows
from sizewise.search.suggest import Search
from sizewise.store.study_folder import StudyFolder
from sizewise.training.checkpoints import checkpoint


def kept_evaluations(search: Search, trial_id: int, files: StudyFolder) -> list[Evaluation]:
    """An ended trial's evaluations as its checkpoint has them, or the longer trial whose curve it shares.

    Args:
        search: the study's search, with the records of its trials.
        trial_id: the ended trial.
        files: the study's folder.

    Returns:
        The evaluations up to the epoch that the trial reached; empty where no checkpoint is left.
    """
    record = search.records[trial_id]
    longer = search.records.get(record.reuses) if record.reuses is not None else None
    rows: list[Evaluation] = []
    for key in (record.key, *([longer.key] if longer else [])):
        folder = checkpoint.current(files.checkpoints_of(key).path)
        state = checkpoint.load_newest(folder, of=checkpoint.identity(search.config(record)))
        rows = from_rows(state["evaluations"]) if state else []
        if rows:
            break
    reached = record.trained_epochs
    return rows if reached is None else [row for row in rows if row.get("epoch", 0.0) <= reached + 1e-9]
