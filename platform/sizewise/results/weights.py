"""Which evaluations of a study can be exported: those whose weights are kept.

    kept_weights(study, trial_id=7)        # {200: .../front-000000000200.safetensors, 400: .../best-...}

A trial keeps the weights of its best evaluation, and of earlier ones that were the best until then, as far as these
take at most 64 MB (`EARLIER_BYTES` of `training.checkpoints.checkpoint`). A study that has finished keeps those on its
front.
"""

from pathlib import Path

from sizewise.results.reading import Study
from sizewise.store.study_folder import StudyFolder, weights_iteration
from sizewise_core.stores.storage import Place, entries


def kept_weights(study: Study, trial_id: int) -> dict[int, Place]:
    """The files of a trial's kept weights, by iteration: its own, or those of the one whose curve it shares."""
    files = StudyFolder(study.folder)
    rows = study.trials.filter(trial_id=trial_id)
    found: dict[int, Place] = {}
    for number in (trial_id, *rows["reuses"].to_list()):
        for key in study.trials.filter(trial_id=number)["key"].to_list() if number is not None else []:
            if not key or not any(entry.is_folder for entry in entries(files.checkpoints, key)):
                continue  # deleted, or a link, which is not followed
            folder = _current(files.checkpoints_of(key).path)
            for name in ("front-*.safetensors", "best-*.safetensors"):
                for entry in entries(folder, name):
                    found.setdefault(weights_iteration(entry.path), entry.path)
    return found


def _current(folder: Place) -> Place:
    """Where a trial's newest checkpoints lie. PyTorch, which takes seconds, is loaded for object stores alone."""
    if isinstance(folder, Path):
        return folder
    from sizewise.training.checkpoints import checkpoint

    return checkpoint.current(folder)
