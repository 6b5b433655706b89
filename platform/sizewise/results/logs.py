"""What a study keeps of a trial besides its numbers: the log of its failure, and its checkpoints."""

from sizewise.results.reading import Study
from sizewise.units import format_bytes
from sizewise_prep.names import is_plain_name
from sizewise_prep.storage import entries, read

_MOST = 200_000  # characters of a log; its end says what happened


def traceback(study: Study, trial_id: int) -> str:
    """The end of a failed trial's log; empty where there is none."""
    try:
        text = read(study.folder / "logs" / f"{trial_id:04d}.txt").decode("utf-8", errors="replace")
    except OSError:
        return ""
    return text[-_MOST:].strip()


def checkpoints(study: Study, trial_id: int) -> list[str]:
    """The files of a trial's checkpoints with their sizes, by name."""
    keys = [key for key, trial in study.trials.select("key", "trial_id").iter_rows() if trial == trial_id]
    if not keys or not is_plain_name(keys[0]):
        return []
    folder = study.folder / "checkpoints" / keys[0]
    try:
        files = sorted(entries(folder), key=lambda entry: entry.path.name)
        kept = [entry for entry in files if not entry.is_folder and entry.path.name != "lock"]
        return [f"{entry.path.name} ({format_bytes(entry.size)})" for entry in kept]
    except OSError:
        return []
