"""What decides in a study: which trial is next, and what a trial's evaluations and its end mean. No Ray here.

A backend carries the decisions out and reports what happened: `tune` on Ray's workers, `simulated` without training.
It asks for `next_trial`, and reports with `resumed`, `evaluated`, `finished`, `failed` and `lost`; everything that
must survive goes into the ledger before the call returns. What cannot be written (a full disk) pauses the study, as
`pause` does for whatever else is no trial's fault: the backend starts nothing more and stops, and the study can be
resumed.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sizewise.config import StudySpec
from sizewise.engine.deciding import own_teachers
from sizewise.engine.deciding.early_failures import EarlyFailures, Failure
from sizewise.engine.deciding.front_on_record import FrontOnRecord
from sizewise.engine.deciding.restoring import kept_evaluations
from sizewise.engine.deciding.sharing import MOST_PUT_OFF, PerEpoch, SharedCurves, known_answer
from sizewise.engine.messages import Assignment, Resources
from sizewise.engine.resources import Sharing, held
from sizewise.metrics.evaluation import Evaluation, TestScores
from sizewise.search.pruning import Rule
from sizewise.search.suggest import Search
from sizewise.search.teachers import wanted as wanted_teachers
from sizewise.store import facts
from sizewise.store.driving.usage import Sign, Usage
from sizewise.store.records import Record
from sizewise.store.study_folder import StudyFolder
from sizewise.store.trials.ledger import Event
from sizewise.training.checkpoints import checkpoint
from sizewise.training.how import How
from sizewise.training.teachers.teacher_sources import Source, scored
from sizewise_core.errors import InputError
from sizewise_core.stores.claims import SupersededError
from sizewise_core.stores.storage import Place, make_folder, write

log = logging.getLogger(__name__)


class Engine:
    """One study's decisions, for whichever backend runs its trials.

    Args:
        spec: the study.
        folder: the study's.
        search: which trials.
        on_event: called with what happens, as it happens.
        rule: when a trial is stopped early; None for never.
        usage: where it is kept what the trials hold.
        teacher: what students learn from, unless the study trains that itself.
    """

    def __init__(
        self,
        spec: StudySpec,
        folder: Place,
        search: Search,
        on_event: Event,
        rule: Rule | None = None,
        usage: Usage | None = None,
        teacher: Sequence[Source] = (),
    ) -> None:
        self.spec, self.folder, self.search, self.on_event = spec, folder, search, on_event
        self.files = StudyFolder(folder)
        self.paused: str | None = None  # why nothing goes on
        self.ended = False  # for a reason that no resume changes
        self.usage = usage or Usage(folder)
        self.teacher = list(teacher)
        self.shared = SharedCurves(search, self.files)
        self._sharing = Sharing((0, 0))
        self._data_problem: Callable[[], str] = lambda: ""
        self._open: set[int] = set()  # trials that the backend has
        self._again: deque[tuple[int, float]] = deque()  # trials to be started once more, and from when on
        self._losses: Counter[int] = Counter()  # of a trial, since it last got on
        self._began: set[int] = set()  # trials whose workers have begun
        self._early = EarlyFailures()
        self.front = FrontOnRecord(rule, search, folder) if rule else None
        self._planned = -1

    @property
    def remaining(self) -> int:
        """Trials still to run as far as is known, interrupted ones included."""
        return self.search.remaining

    @property
    def waiting(self) -> int:
        """Trials that the backend could start now, or as soon as others have ended.

        None while a lost one waits a little for what took it to pass: it keeps its turn, so that the sampler
        suggests what it would have without the loss. Nor those that wait for what another trial is about to keep.
        """
        if self.paused or (self._again and time.monotonic() < self._again[0][1]):
            return 0
        if self.shared.is_full:
            return MOST_PUT_OFF - self.shared.waiting
        return self.remaining - len(self._open) - self.shared.waiting

    def next_trial(self) -> Record | None:
        """The next trial to train, in the ledger as running; None when there is none, or none as yet, or a pause.

        A trial that a longer one has already answered is closed first. Data that is not what it was when the study
        began pauses it: trials of different data cannot be compared.
        """
        with self._or_pause():
            if problem := self._data_problem():
                self.pause(problem)
                return None
            if not self.find_teachers():
                return None
            if self._again:
                return self._started(self.search.again(self._again.popleft()[0]))
            while (record := self.shared.next()) is not None:
                self._started(record)
                if not self._answered(record):
                    return record
            self._report_set_aside()
            self._judge_early_failures(none_is_next=not self.shared.waiting)
        return None

    def payload(self, record: Record) -> Assignment:
        """What a worker needs to train a trial."""
        compared = self.front.comparison() if self.front else None
        shorter = self.search.records[record.reuses] if record.reuses is not None else None
        config = self.search.config(record)
        # Not teachers, which students need; nor trials whose rate is still to fall, and their AUC to rise with it.
        pruned = record.teacher is None and config.train.decay == "none"
        return {
            "config": config.model_dump(),
            "folder": str(self.files.checkpoints_of(record.key).path),
            "resources": self.resources(record),
            "uses": held(self.resources(record)),
            "how": {
                "continues": str(self.files.checkpoints_of(shorter.key).path) if shorter else None,
                "pruning": compared.as_plain() if compared and pruned else None,
                **self.shared.how(record),
                **self._teacher(record),
            },
        }

    def find_teachers(self) -> bool:
        """Whether students have the teachers that the study trains itself, where it has; else it ends here."""
        records, wanted = self.search.teachers, wanted_teachers(self.spec)
        try:
            self.teacher = self.teacher or own_teachers.trained(self.folder, records, wanted)
        except InputError as error:
            self.paused, self.ended = str(error), True
        return not self.ended

    def _teacher(self, record: Record) -> How:
        """The argument of `train` by which a student learns from its teacher."""
        if record.teacher is not None or not self.spec.train.distill_teacher:
            return {}
        return {"teacher": [source.model_dump() for source in self.teacher]}

    def began(self, trial_id: int) -> None:
        """Take that a trial's workers have begun, and hold what they asked for."""
        record = self.search.records[trial_id]
        cpus, gpus = held(self.resources(record)).values()
        self._began.add(trial_id)
        with self._or_pause():
            self.usage.begin(trial_id, record.attempts, cpus, gpus)
            self.on_event("began", record, None)

    def resources(self, record: Record) -> Resources:
        """What a trial's workers ask for; a share of a GPU that is left to us follows from the configuration."""
        return self._sharing.resources(self.spec.resources, record.trial_id, self.search.config(record))

    def know_data(
        self,
        problem: Callable[[], str],
        inputs: tuple[int, int] | tuple[int, int, float] = (0, 0),
        per_epoch: PerEpoch = lambda config: 0,
    ) -> None:
        """Take what decisions depend on in the data.

        Args:
            problem: called when a trial begins and when one fails; what is wrong with it, "" for nothing.
            inputs: its categorical features and dense values a row, and values looked up where some are lists, by which
                trials share GPUs.
            per_epoch: iterations of a trial's epoch, by which trials wait for what others keep.
        """
        self._data_problem, self._sharing, self.shared.per_epoch = problem, Sharing(inputs), per_epoch

    def place(self, spec: StudySpec) -> None:
        """Go on with the study as it was placed on a cluster, with what that has."""
        self.spec = spec

    def progress(self, trial_id: int) -> Any:
        """What changes while a trial makes progress without a message: its newest checkpoint, its teacher's scores."""
        record = self.search.records[trial_id]
        newest = checkpoint.newest(self.files.checkpoints_of(record.key).path)
        return newest if newest or not self._teacher(record) else scored(self.teacher, self.spec.data)

    def resumed(self, trial_id: int, evaluations: Sequence[Evaluation], damage: Sequence[str]) -> None:
        """Take what a trial's checkpoint carried: the crash may have come before its report.

        Args:
            trial_id: the trial.
            evaluations: all those in the checkpoint.
            damage: what could not be read, a sentence each, for the study's log.
        """
        for line in damage:
            log.warning("trial %d: %s", trial_id, line)
        with self._or_pause():
            self.shared.resume(trial_id, evaluations)
            self._write_evaluations(trial_id, evaluations)

    def evaluated(self, trial_id: int, evaluation: Evaluation) -> None:
        """Take an evaluation, as it happens."""
        del self._losses[trial_id]
        self.shared.reach(trial_id, evaluation.iteration)
        record = self.search.records[trial_id]
        with self._or_pause():
            self.search.ledger.append_evaluation(trial_id, evaluation.of_replicate(record.replicate))
            self._trials_are_possible()
            if self.front:
                self.front.add([evaluation])
            self.on_event("evaluated", record, evaluation)

    def verdict(self, rows: Sequence[Evaluation]) -> str:
        """Why the trial with these evaluations should stop now; "" to train on."""
        return self.front.verdict(rows) if self.front else ""

    def finished(
        self, trial_id: int, evaluations: Sequence[Evaluation], test: TestScores | None, pruned: str = ""
    ) -> None:
        """Close a trial that was trained.

        Args:
            trial_id: the trial.
            evaluations: all of them, in order.
            test: scores of its best evaluation's model on the test split; None where there are none.
            pruned: why it was stopped before its last iteration; empty where it was not.
        """
        with self._or_pause():
            self._write_evaluations(trial_id, evaluations)
            if test is not None:
                self.search.ledger.write_test(trial_id, test)
            if self.front:
                self.front.add(evaluations)
            self._closed(self.search.finish(trial_id, evaluations, pruned, test is not None))
            self._judge_early_failures()

    def failed(self, trial_id: int, reason: str, traceback: str = "") -> None:
        """Close a trial whose configuration or code made it fail; its traceback goes into the study's logs.

        It stays open where the study is paused, and while it may be that every trial would fail so: see
        `early_failures`.

        Args:
            trial_id: the trial.
            reason: in one line.
            traceback: of its worker's exception; empty where there is none.
        """
        if problem := self._data_problem():
            self.pause(problem)  # so would every other trial
        if self.paused:
            return
        with self._or_pause():
            self.search.ledger.check()  # the study's folder is ours, and where it was
            if traceback:
                make_folder(self.files.logs)
                write(self.files.traceback(trial_id), traceback.encode())
            self.shared.end(trial_id)
            if self._early.doubtful(reason):
                self._early.add(trial_id, Failure(reason, trial_id in self._began))
                self.usage.end(trial_id)
                log.warning("trial %d failed before its first evaluation: %s", trial_id, reason)
                self._judge_early_failures()
            else:
                self._close_failed(trial_id, reason)
                self._trials_are_possible()

    def _close_failed(self, trial_id: int, reason: str) -> None:
        self._closed(self.search.fail(trial_id, own_teachers.advised(self.search.records[trial_id], reason)))
        if self.front:
            self.front.fill()

    def _trials_are_possible(self) -> None:
        """One was evaluated, so those that failed before are themselves to blame."""
        self._early.possible = True
        self._close_early_failures()

    def _judge_early_failures(self, none_is_next: bool = False) -> None:
        """Pause where every trial fails for one reason; close those that failed where no other is left to try."""
        held = self._early.held
        none_is_next = none_is_next or self.remaining == len(held)
        last = none_is_next and self._open == held.keys() and not self._again
        if held and (reason := self._early.common(last)):
            self.pause(reason)
        elif last:
            self._close_early_failures()

    def _close_early_failures(self) -> None:
        """Close as failed what was held open."""
        while held := self._early.held:
            trial_id = next(iter(held))
            self._close_failed(trial_id, held.pop(trial_id).reason)

    def lost(self, trial_id: int, reason: str, traceback: str = "") -> None:
        """Have a trial go on from its checkpoint elsewhere: its worker or machine went away, which is no failure.

        Args:
            trial_id: the trial.
            reason: in one line.
            traceback: written where it was lost too often and has failed; empty where there is none.
        """
        self._losses[trial_id] += 1
        with self._or_pause():
            self.search.lost(trial_id, reason)
            self.usage.end(trial_id)
        if (times := self._losses[trial_id]) > self.spec.failures.retries:
            self.failed(
                trial_id, f"lost its worker {times} times without an evaluation between: {reason}", traceback
            )
            return
        log.warning("trial %d: lost its worker (%s): it goes on from its last checkpoint", trial_id, reason)
        self._open.discard(trial_id)
        self.shared.end(trial_id)
        self._began.discard(trial_id)
        self._again.append((trial_id, time.monotonic() + 4 ** (times - 1)))  # 1 second, 4, 16, 64

    def settle(self, last_seen: Sign | None) -> None:
        """Count what a driver that died was holding, up to its last sign of life."""
        with self._or_pause():
            self.usage.settle(last_seen)

    def pause(self, reason: str) -> None:
        """Stop, with everything written that there is, because of something that no trial is to blame for."""
        self.paused = self.paused or reason

    def restore_evaluations(self) -> None:
        """Write the evaluations of ended trials again where some are damaged or gone: checkpoints have them too."""
        for trial_id in self.search.ledger.incomplete(self.search.records.values()):
            with self._or_pause():
                rows = kept_evaluations(self.search, trial_id, self.files)
                better = bool(rows) and len(rows) >= len(self.search.ledger.evaluations(trial_id))
                how = "written again from its checkpoint" if better else "no checkpoint has them"
                log.warning("trial %d: its evaluations are damaged: %s", trial_id, how)
                if better:
                    self._write_evaluations(trial_id, rows)

    def _started(self, record: Record) -> Record:
        self._open.add(record.trial_id)
        self.shared.begin(record)
        self._report_set_aside()
        self._save_planned()
        self.on_event("started", record, None)
        return record

    def _report_set_aside(self) -> None:
        """Report suggestions that are not trained."""
        while self.search.set_aside:
            record = self.search.set_aside.popleft()
            self.on_event(record.state, record, None)

    def _write_evaluations(self, trial_id: int, evaluations: Sequence[Evaluation]) -> None:
        replicate = self.search.records[trial_id].replicate
        rows = [evaluation.of_replicate(replicate) for evaluation in evaluations]
        self.search.ledger.write_evaluations(trial_id, rows)

    def _answered(self, record: Record) -> bool:
        """Close a trial whose curve a longer one has already drawn."""
        answer = known_answer(self.search, record)
        if answer is None:
            return False
        self.finished(record.trial_id, *answer)
        return True

    def _save_planned(self) -> None:
        """Keep study.json's number of trials up to date: replicates and infeasible suggestions change it on the way."""
        planned = self.search.planned
        if planned == self._planned:
            return
        self._planned = planned
        facts.save_trials(self.folder, planned)

    def _closed(self, record: Record) -> None:
        self.usage.end(record.trial_id)
        self.shared.end(record.trial_id)
        self._open.discard(record.trial_id)
        self._save_planned()
        self.on_event(record.state, record, record.values)

    @contextmanager
    def _or_pause(self) -> Iterator[None]:
        """What cannot be written pauses the study: its trials are as the disk last knew them."""
        try:
            yield
        except SupersededError as error:
            self.pause(str(error))
        except OSError as error:
            with suppress(SupersededError, OSError):
                self.search.ledger.check()  # ends this process where the study's folder has gone
            where = f"{error.filename}: " if error.filename else ""
            self.pause(f"{where}{error.strerror or error}")
