"""What a study keeps of a trial besides its numbers: the log of its failure, and its checkpoints."""

from sizewise.results import reading
from sizewise.results.reading import Study
from sizewise.store.study_folder import StudyFolder, TrialFolder
from sizewise_core.names import is_plain_name
from sizewise_core.stores.storage import Entry, entries
from sizewise_core.units import format_bytes


def traceback(study: Study, trial_id: int) -> str:
    """The end of a failed trial's log; empty where there is none."""
    return reading.traceback(study.folder, trial_id)


def checkpoints(study: Study, trial_id: int) -> list[str]:
    """The files of a trial's checkpoints with their sizes, by name."""
    keys = study.trials.filter(trial_id=trial_id)["key"].to_list()
    if not keys or not is_plain_name(keys[0]):
        return []
    try:
        files = _kept(study, keys[0])
    except OSError:
        return []
    return [f"{file.path.name} ({format_bytes(file.size)})" for file in files]


def _kept(study: Study, key: str) -> list[Entry]:
    """What lies in a trial's folder of checkpoints, if that, and what it lies in, is none of a link."""
    folders = [entry for entry in entries(StudyFolder(study.folder).checkpoints, key) if entry.is_folder]
    files = [entry for folder in folders for entry in entries(folder.path)]
    return [
        entry
        for entry in files
        if not entry.is_folder and entry.path.name != TrialFolder(entry.path.parent).lock.name
    ]
