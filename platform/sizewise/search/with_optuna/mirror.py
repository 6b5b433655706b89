"""A study's mirror in an Optuna storage (SQLite, PostgreSQL), for optuna-dashboard and Optuna's own tools.

The ledger stays the truth; nothing is ever read back from the mirror but what it already has, so that resuming,
or a kill at any moment, leaves each trial there once. A thread of its own keeps it: a storage that is slow or down
never holds the study up. Of a failure there is one warning, and what was missed is written at the next change, or at
the next start. A study of the same name that is another one (another seed, search or data set) is left as it is: a
digest of what defines a study, kept with it in the storage, distinguishes them.

    with mirrored(storage_url("sqlite:///optuna.db"), spec, ledger, full_bytes, on_event, warn) as on_event: ...
"""

import hashlib
import json
import math
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

from sizewise.config import StudySpec
from sizewise.metrics.registry import METRICS, SCORES
from sizewise.search.space import configure
from sizewise.store import facts
from sizewise.store.records import Record
from sizewise.store.trials.ledger import Event, Ledger
from sizewise_core.errors import InputError

# A trial that was interrupted waits: its study runs it again. What a pruner stopped is pruned.
STATES = {"running": TrialState.RUNNING, "finished": TrialState.COMPLETE, "failed": TrialState.FAIL}
RETRY_SECONDS = 30.0  # after a failure, before the storage is tried again
LAST_SECONDS = 20.0  # how long the end of a study waits for the storage
# Fields of a study file that may change while the study stays the same one; its data is known by its rows.
CHANGEABLE: set[str] = {"name", "data", "trials", "resources", "failures", "prices"}
TIMEOUTS: Mapping[str, Mapping[str, int | str]] = {
    "sqlite": {"timeout": 10},
    "postgresql": {"connect_timeout": 5, "options": "-c statement_timeout=20000"},
}


def summary() -> list[str]:
    """What the mirror has of each evaluation: when it was, and its scores."""
    return [
        name for name in METRICS if name in list(SCORES) or name in ("iteration", "epoch", "train_seconds")
    ]


def storage_url(text: str) -> URL:
    """The storage's address, its driver loaded. The message of an InputError never shows a password."""
    try:
        url = make_url(text)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect().import_dbapi()
    except sqlalchemy.exc.ArgumentError as error:
        missing = isinstance(error, sqlalchemy.exc.NoSuchModuleError)
        what = "there is no such kind of database" if missing else "this is not a database's address"
        raise InputError(
            f"--optuna-storage: {what}: write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    except ImportError as error:
        fix = "install 'sizewise[postgres]'" if "psycopg" in str(error) else f"install {error.name}"
        raise InputError(f"--optuna-storage: the database's driver is missing: {fix}") from None
    return url


class ForeignStudyError(Exception):
    """The storage has a study of this name that is another one; the message says what differs."""


def identity(spec: StudySpec, ledger: Ledger) -> dict[str, str]:
    """Digests of what makes a study this one, as a user attribute of its mirror.

    Returns:
        "origin": of its seed, its data and the time it was created, which never change. Data may be moved, so its
        rows' fingerprint is taken where the study's folder has it, and the path only where not.
        "search": of what it searches and how, which stays too, unless its file is edited.
    """
    known = facts.load(ledger.study) or facts.Facts()
    origin = [
        spec.seed,
        known.get("created"),
        (known.get("data") or facts.DataFacts()).get("fingerprint") or spec.data,
    ]
    search = spec.model_dump(mode="json", exclude=CHANGEABLE)
    del search["train"]["checkpoint_seconds"]
    return {"origin": _digest(origin), "search": _digest(search)}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Mirror:
    """The mirror's side that talks to the storage; every call may raise whatever the database does."""

    def __init__(self, url: URL, spec: StudySpec, ledger: Ledger, full_bytes: int) -> None:
        self.spec, self.ledger, self.full_bytes = spec, ledger, full_bytes
        options = {"connect_args": TIMEOUTS.get(url.get_backend_name(), {}), "pool_pre_ping": True}
        self.storage = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
        study = optuna.create_study(
            study_name=spec.name,
            storage=self.storage,
            directions=list(spec.objectives.values()),
            load_if_exists=True,
        )
        self.study = study
        self._claim()
        self.there = {
            trial.user_attrs["trial_id"]: (trial._trial_id, trial.state)
            for trial in reversed(study.get_trials(deepcopy=False))
            if "trial_id" in trial.user_attrs
        }

    def _claim(self) -> None:
        """Make sure that the storage's study is this one, and note it there.

        Raises:
            ForeignStudyError: it is another one.
        """
        ours, noted = identity(self.spec, self.ledger), self.study.user_attrs
        if noted.get("identity") != ours:
            trials = self.study.get_trials(deepcopy=False)
            if noted or trials:
                self._check_contents(noted, trials, ours)
            self.study.set_user_attr("identity", ours)  # first: with it the study is ours
        attributes = {"seed": self.spec.seed, "full_bytes": self.full_bytes, "data": self.spec.data}
        for key in (key for key, value in attributes.items() if noted.get(key) != value):
            self.study.set_user_attr(key, attributes[key])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self.study.metric_names is None:
                self.study.set_metric_names(list(self.spec.objectives))

    def _check_contents(
        self, noted: Mapping[str, Any], trials: list[FrozenTrial], ours: dict[str, str]
    ) -> None:
        """ForeignStudyError unless the storage's study is an earlier state of this one.

        That is so where its origin is known and the same, or was not kept (by version 0.1), and its objectives and all
        its trials are this study's.
        """
        known = noted.get("identity")
        differs = "its search differs"
        if noted.get("data", self.spec.data) != self.spec.data or noted.get("full_bytes") != self.full_bytes:
            differs = "its data differs"
        if noted.get("seed", self.spec.seed) != self.spec.seed:
            raise ForeignStudyError("its seed differs")
        if "seed" not in noted and not known:
            raise ForeignStudyError("Sizewise did not write it")
        if known and known.get("origin") != ours["origin"]:
            raise ForeignStudyError("its data differs, or it was created at another time")
        if [d.name.lower() for d in self.study.directions] != list(self.spec.objectives.values()):
            raise ForeignStudyError("its objectives differ")
        records = self.ledger.records()
        for trial in trials:
            record = records.get(trial.user_attrs.get("trial_id", -1))
            if record is None or not _same(trial, record):
                raise ForeignStudyError(differs if known else f"{differs}, or its trials do")
        if not trials and not known and differs == "its data differs":
            raise ForeignStudyError(differs)

    def sync(self, record: Record) -> None:
        """Make the mirror's trial what the record says; a trial that is closed there is as it should be."""
        state = _state(record)
        number, known = self.there.get(record.trial_id, (None, None))
        if known is not None and known.is_finished():
            return
        trial = self._trial(record, state)
        if number is None:
            number = self.storage.create_new_trial(self.study._study_id, template_trial=trial)
        else:
            for step, value in trial.intermediate_values.items():
                self.storage.set_trial_intermediate_value(number, step, value)
            for key, attribute in trial.user_attrs.items():
                self.storage.set_trial_user_attr(number, key, attribute)
            self.storage.set_trial_state_values(number, state, trial.values)
        self.there[record.trial_id] = number, state

    def release(self) -> None:
        """Leave nothing running that nobody runs: open trials wait for the study to be resumed."""
        for trial_id, (number, state) in self.there.items():
            if state == TrialState.RUNNING:
                self.storage.set_trial_state_values(number, TrialState.WAITING)
                self.there[trial_id] = number, TrialState.WAITING

    def close(self) -> None:
        """Close the connections."""
        self.storage.engine.dispose()

    def _trial(self, record: Record, state: TrialState) -> FrozenTrial:
        rows = self.ledger.evaluations(record.trial_id)
        attributes = {
            "trial_id": record.trial_id,
            "key": record.key,
            "attempts": record.attempts,
            "config": record.config,
            "metrics": record.values,
            "error": record.error,
            "evaluations": [{k: row[k] for k in summary() if _defined(row.get(k))} for row in rows],
        }
        values = [(record.values or {}).get(metric, float("nan")) for metric in self.spec.objectives]
        # Optuna has no intermediate values where there are several objectives.
        metric = next(iter(self.spec.objectives))
        curve = {row.iteration: row.get(metric) for row in rows} if len(self.spec.objectives) == 1 else {}
        trial = optuna.trial.create_trial(
            state=state,
            params=record.params,
            distributions=self._distributions(record),
            values=values if state == TrialState.COMPLETE else None,
            user_attrs={k: v for k, v in attributes.items() if v is not None},
            intermediate_values={
                step: value for step, value in curve.items() if value is not None and _defined(value)
            },
        )
        return trial

    def _distributions(self, record: Record) -> dict[str, BaseDistribution]:
        asked = optuna.trial.FixedTrial(record.params)
        configure(self.spec, asked, self.full_bytes)
        return {name: found for name, found in asked.distributions.items() if name in record.params}


def _defined(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _state(record: Record) -> TrialState:
    return STATES.get(record.state, TrialState.PRUNED)


def _same(trial: FrozenTrial, record: Record) -> bool:
    """Whether a trial in the storage is the ledger's: the same settings and, once it has ended, the same outcome."""

    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True)  # in which NaN equals NaN

    there = trial.user_attrs
    if (there.get("key"), trial.params) != (record.key, record.params):
        return False
    if text(there.get("config")) != text(record.config):
        return False
    ended = trial.state.is_finished()
    return not ended or (trial.state, text(there.get("metrics"))) == (_state(record), text(record.values))


@contextmanager
def mirrored(
    url: URL,
    spec: StudySpec,
    ledger: Ledger,
    full_bytes: int,
    on_event: Event,
    warn: Callable[[str], None],
) -> Iterator[Event]:
    """`on_event`, extended to keep the mirror while the block lasts.

    Args:
        url: of the storage, from `storage_url`.
        spec: the study.
        ledger: its records and evaluations.
        full_bytes: bytes of the full tables at the longest searched vector (`spec.model.largest_dim`).
        on_event: called first with every event.
        warn: called with the first failure.
    """
    writer = _Writer(lambda: Mirror(url, spec, ledger, full_bytes), url, warn)
    for record in ledger.records().values():  # what an earlier attempt could not write
        if record.teacher is None:  # teachers are none of the search
            writer.put(record)
    several = len(spec.objectives) > 1

    def both(event: str, record: Record, values: Mapping[str, float] | None) -> None:
        on_event(event, record, values)
        if record.teacher is None and event != "began" and (event != "evaluated" or not several):
            writer.put(record)

    writer.start()
    try:
        yield both
    finally:
        writer.finish()


class _Writer(threading.Thread):
    """Writes every change to the mirror, and tries again what failed."""

    def __init__(self, connect: Callable[[], Mirror], url: URL, warn: Callable[[str], None]) -> None:
        super().__init__(daemon=True, name="mirror")
        self._connect, self._warn = connect, warn
        self._where = url.render_as_string(hide_password=True)
        self._password = str(url.password or "")
        self._changes: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._unwritten: dict[int, Record] = {}
        self._mirror: Mirror | None = None
        self._failed_at = -RETRY_SECONDS
        self._said = self._foreign = False

    def put(self, record: Record) -> None:
        """Enqueue a change; returns at once."""
        self._changes.put(record)

    def finish(self) -> None:
        """Write what is left, in bounded time."""
        self._changes.put(None)
        self.join(LAST_SECONDS)
        if self.is_alive():
            self._say("it does not answer")

    def run(self) -> None:
        """Write changes until `finish` is called."""
        last = False
        while not last:
            record = self._changes.get()
            last = record is None
            if record is not None:
                self._unwritten[record.trial_id] = record
            if self._changes.empty() and (last or time.monotonic() - self._failed_at > RETRY_SECONDS):
                self._attempt(last)
        if self._mirror:
            self._mirror.close()

    def _attempt(self, last: bool) -> None:
        if self._foreign:
            return
        try:
            if self._mirror is None:
                self._mirror = self._connect()
            for trial_id in sorted(self._unwritten):
                self._mirror.sync(self._unwritten[trial_id])
                del self._unwritten[trial_id]
            if last:
                self._mirror.release()
        except ForeignStudyError as error:
            self._foreign = True
            self._warn(
                f"the Optuna storage {self._where} already has another study of this name ({error}): it stays as it "
                "is, and this study goes on without a mirror: use another storage, or another name (`--set name=...`)"
            )
        except Exception as error:  # whatever a database driver raises: the study goes on
            self._failed_at = time.monotonic()
            lines = str(getattr(error, "orig", None) or error.__cause__ or error).strip().splitlines() or [""]
            self._say(f"{type(error).__name__}: {lines[0]}")

    def _say(self, why: str) -> None:
        """Once, and without the password, which a driver's message may hold."""
        if not self._said:
            self._said = True
            hidden = why.replace(self._password, "***") if self._password else why
            self._warn(
                f"the Optuna storage {self._where} failed ({hidden}): the study goes on, and the mirror is completed "
                "when it answers again, or by `sizewise resume` with the same --optuna-storage"
            )
