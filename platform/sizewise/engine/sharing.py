"""What a trial takes from others, and keeps for them, of what comes before its learning rate falls."""

from sizewise.config.trial import TrialConfig
from sizewise.search.curves import lengths
from sizewise.search.suggest import Search
from sizewise.store.study_folder import StudyFolder
from sizewise.training.how import How


def stable_part(search: Search, files: StudyFolder, config: TrialConfig) -> How:
    """The arguments of `train` by which trials share the stable part of their curves.

    Args:
        search: the study's, which knows the trials that have ended.
        files: the study's folder.
        config: of the trial.
    """
    if not config.stable_part():
        return {}
    others = [files.checkpoints_of(record.key).path for record in search.curves.stable_with(config)]
    return {"stable": [str(path) for path in others], "lengths": lengths(search.spec)}
