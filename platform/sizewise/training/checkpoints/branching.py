"""States that a trial keeps where its learning rate, or that of shorter ones, begins to fall, to go on from there.

Trials that differ only in length, and in how their rate falls, take the same steps up to then (`TrialConfig.
stable_part`). Such a state is a checkpoint under another name, which says as well where its best weights are.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence

from sizewise.config.trial import TrialConfig
from sizewise.metrics.evaluation import best, from_rows
from sizewise.store.study_folder import TrialFolder
from sizewise.training.checkpoints import checkpoint
from sizewise.training.steps.schedule import stable_iterations
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError
from sizewise_core.stores.storage import Place, entries

log = logging.getLogger(__name__)


def branch_points(config: TrialConfig, per_epoch: int, lengths: Iterable[int]) -> set[int]:
    """The iterations after which a trial keeps its state.

    Args:
        config: the trial.
        per_epoch: iterations of an epoch.
        lengths: epochs of trials that are to go on from it; none: it keeps no states.
    """
    wanted = set(lengths)
    if not wanted or not config.stable_part():
        return set()
    own = stable_iterations(config.train, per_epoch, config.search.epochs)
    points = {
        stable_iterations(config.train, per_epoch, epochs) for epochs in wanted | {config.search.epochs}
    }
    return {point for point in points if 0 < point <= own}


def keep(folder: Place, config: TrialConfig, state: checkpoint.State) -> None:
    """Keep a state for other trials; its best weights stay as long as it does.

    Args:
        folder: the trial's.
        config: the trial.
        state: what its checkpoint holds.
    """
    weights = best(from_rows(state["evaluations"])).iteration if state["evaluations"] else 0
    path = TrialFolder(folder).stable(state["iteration"], weights)
    if not any(entry.path.name == path.name for entry in entries(folder, "stable-*.state")):
        checkpoint.write_sealed(path, {**state, "of": _identity(config), "weights_of": state["of"]})


def branch(sources: Sequence[Place], folder: Place, config: TrialConfig, per_epoch: int) -> None:
    """Begin a trial with the latest state that another one kept before the trial's own rate falls, if there is any.

    Args:
        sources: the folders of trials with the same stable part.
        folder: the trial's; nothing is done where it has checkpoints of its own.
        config: the trial.
        per_epoch: iterations of an epoch.
    """
    if not sources or entries(folder, "*.ckpt"):
        return
    most = stable_iterations(config.train, per_epoch, config.search.epochs)
    found = [
        (int(iteration), int(weights), entry.path)
        for source in sources
        for entry in entries(checkpoint.current(source), "stable-*.state")
        for iteration, _, weights in [entry.path.stem.removeprefix("stable-").partition("-")]
        if iteration.isdecimal() and weights.isdecimal() and int(iteration) <= most
    ]
    for iteration, weights, path in sorted(found, key=lambda one: -one[0]):
        try:
            state = checkpoint.load(path, _identity(config))
            own = checkpoint.identity(config)
            if weights:
                tensors = checkpoint.load_weights(
                    TrialFolder(path.parent).weights(weights), state.get("weights_of", "")
                )
                checkpoint.save_weights(TrialFolder(folder).weights(weights), tensors, own)
        except (DamagedError, InputError) as error:
            log.warning("%s: the trial begins with an earlier state, or anew", error)
            continue
        checkpoint.save(folder, iteration, {**state, "of": own, "config": config.digest()})
        return


def _identity(config: TrialConfig) -> str:
    part = config.model_copy(update={"data": ""}).stable_part()
    return hashlib.sha256(part.encode()).hexdigest()[:16]
