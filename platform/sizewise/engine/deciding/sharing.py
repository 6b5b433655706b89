"""What trials take from others, and keep for them: the parts of their curves that are the same.

A trial begins with what an ended one has trained of its curve, or with the latest state that another one has kept
before its learning rate falls; the other one may still run. A trial that would train what a running one is just
training is put off until that has come so far, or has ended, and others begin meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sizewise.config.trial import TrialConfig
from sizewise.metrics.evaluation import Evaluation, TestScores, best
from sizewise.search.curves import lengths
from sizewise.search.suggest import Search
from sizewise.store.records import Record
from sizewise.store.study_folder import StudyFolder
from sizewise.training.checkpoints import checkpoint
from sizewise.training.checkpoints.branching import branch_points
from sizewise.training.how import How
from sizewise.training.steps.schedule import stable_iterations

MOST_PUT_OFF = 4  # trials: the sampler suggests them without knowing how those before them end
PerEpoch = Callable[[TrialConfig], int]
"""Iterations of an epoch."""


@dataclass
class _Trial:
    """A trial that trains, or has trained.

    Attributes:
        config: of it.
        curve, stable: what tells its curve, and the part before its rate falls, from others.
        reached: the iteration of its newest evaluation.
        trains: whether it may come further.
    """

    config: TrialConfig
    curve: str
    stable: str
    reached: int = 0
    trains: bool = True


class SharedCurves:
    """The parts of curves that trials share.

    Args:
        search: the study's, which knows the trials that have ended.
        files: the study's folder.
        per_epoch: of a trial; unknown (0), none waits for another's state.
    """

    def __init__(self, search: Search, files: StudyFolder, per_epoch: PerEpoch = lambda config: 0) -> None:
        self._search, self._files, self.per_epoch = search, files, per_epoch
        self._lengths = lengths(search.spec)
        self._trials: dict[int, _Trial] = {}  # that began since this process did
        self._put_off: dict[int, Record] = {}

    # -- what happens to trials

    def begin(self, record: Record) -> None:
        """A trial is given to the backend."""
        config, before = self._search.config(record), self._trials.get(record.trial_id)
        reached = before.reached if before else 0
        self._trials[record.trial_id] = _Trial(config, config.curve(), config.stable_part(), reached)

    def reach(self, trial_id: int, iteration: int) -> None:
        """A trial was evaluated; states that it keeps by then are there."""
        if trial_id in self._trials:
            self._trials[trial_id].reached = max(self._trials[trial_id].reached, iteration)

    def resume(self, trial_id: int, evaluations: Sequence[Evaluation]) -> None:
        """A trial goes on from these evaluations: its own, or others' where it has none on record."""
        if not evaluations:
            return
        self.reach(trial_id, evaluations[-1].iteration)
        if not self._search.ledger.count(trial_id):
            self._search.inherit(trial_id, evaluations[-1].epoch)

    def end(self, trial_id: int) -> None:
        """A trial trains no further, for now at least."""
        if trial_id in self._trials:
            self._trials[trial_id].trains = False

    # -- what that means for others

    @property
    def waiting(self) -> int:
        """Trials that are put off and have to wait."""
        return sum(map(self._has_to_wait, self._put_off.values()))

    @property
    def is_full(self) -> bool:
        """Whether no more trials are to be put off."""
        return len(self._put_off) >= MOST_PUT_OFF

    def next(self) -> Record | None:
        """The next trial to begin: one that was put off, else what the search suggests; None where all have to wait.

        Raises:
            InputError: as `Search.ask`.
        """
        for trial_id, record in self._put_off.items():
            if not self._has_to_wait(record):
                del self._put_off[trial_id]
                return self._search.begin_late(record)
        while not self.is_full and (asked := self._search.ask()) is not None:
            if not self._has_to_wait(asked) or self._has_checkpoints(asked):
                return asked
            self._put_off[asked.trial_id] = asked
        return None

    def how(self, record: Record) -> How:
        """The arguments of `train` by which a trial shares the stable part of its curve."""
        config = self._search.config(record)
        stable = config.stable_part()
        if not stable:
            return {}
        ended = self._search.curves.stable_with(config)
        running = [
            self._search.records[number]
            for number, trial in self._trials.items()
            if trial.trains and trial.stable == stable and number != record.trial_id
        ]
        folders = [str(self._files.checkpoints_of(other.key).path) for other in [*ended, *running]]
        return {"stable": folders, "lengths": self._lengths}

    def begins_at(self, record: Record) -> int:
        """The iteration of the latest state that others have kept for a trial since this process began; 0 for none."""
        config = self._search.config(record)
        others = [other for number, other in self._trials.items() if number != record.trial_id]
        points = [p for other in others for p in self._points(other, config) if p <= other.reached]
        return max(points, default=0)

    def _has_to_wait(self, record: Record) -> bool:
        """Whether a running trial will have trained more of a trial's curve than there is of it now."""
        config = self._search.config(record)
        curve = config.curve()
        return any(
            other.curve == curve or max(self._points(other, config), default=0) > other.reached
            for other in self._trials.values()
            if other.trains
        )

    def _points(self, other: _Trial, config: TrialConfig) -> list[int]:
        """The iterations after which a trial keeps its state, as far as another can go on from there."""
        if not other.stable or other.stable != config.stable_part():
            return []
        if not (per_epoch := self.per_epoch(config)):
            return []
        most = stable_iterations(config.train, per_epoch, config.search.epochs)
        return [p for p in branch_points(other.config, per_epoch, self._lengths) if p <= most]

    def _has_checkpoints(self, record: Record) -> bool:
        """Whether a trial that was interrupted has something of its own to go on from."""
        folder = self._files.checkpoints_of(record.key).path
        return record.attempts > 1 and checkpoint.newest(folder) is not None


def known_answer(search: Search, record: Record) -> tuple[list[Evaluation], TestScores | None] | None:
    """The evaluations and test scores of a trial whose curve a longer one has drawn; None where there are none.

    Args:
        search: the study's.
        record: the trial.
    """
    if record.reuses is None:
        return None
    longer, epochs = search.records[record.reuses], record.config["epochs"]
    if (longer.trained_epochs or 0.0) < epochs:
        return None  # it goes on where that one ended
    known = search.ledger.evaluations(longer.trial_id)
    rows = [row for row in known if row["epoch"] <= epochs + 1e-9]
    if not rows or rows[-1]["epoch"] < epochs - 1e-9:
        return None
    # Test scores are of one model, so they are this trial's only if its best model is the same.
    test = search.ledger.test(longer.trial_id)
    same = test is not None and test.iteration == best(rows).iteration
    return rows, test if same else None
