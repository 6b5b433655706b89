"""Weights at the end of a study: what stands on its front can be exported, and nothing else takes room."""

from pathlib import Path

import polars as pl

from sizewise import results
from sizewise.store.study_folder import StudyFolder, weights_iteration
from sizewise_core.stores.storage import Place, entries, remove


def keep_the_front(folder: Place) -> None:
    """Remove weights of evaluations that are neither their trial's best nor on the front of a finished study.

    Args:
        folder: the study's. In an object store nothing is removed, because listing every trial there takes long.
    """
    if not isinstance(folder, Path):
        return
    study = results.load(folder.parent, folder.name)
    front = study.front.select("configuration", "iteration").unique()
    # All seeds of a configuration, and the trials whose curves they share.
    rows = study.trials.select("configuration", "trial_id", "reuses", "key")
    own = rows.join(front, on="configuration").select("key", "iteration", "reuses")
    shared = own.filter(pl.col("reuses").is_not_null()).select("iteration", trial_id="reuses")
    lent = shared.join(rows.select("trial_id", "key"), on="trial_id")
    wanted = {*own.select("key", "iteration").iter_rows(), *lent.select("key", "iteration").iter_rows()}
    for key in rows["key"].unique():
        for entry in (
            entries(StudyFolder(folder).checkpoints_of(key).path, "front-*.safetensors") if key else []
        ):
            if (key, weights_iteration(entry.path)) not in wanted:
                remove(entry.path)
