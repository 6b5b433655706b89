"""Starting and resuming a study.

A study is a folder (`store.study_folder`) and a driver, this process, which alone writes to it. Ray Tune runs the
trials (`ray_tune.tune`); what they report goes through `deciding.decisions` into the ledger (`store.trials.ledger`).
To resume is to run again with a search that is filled from the ledger: no private file of Ray or Optuna is needed.

    run(load(Path("studies/quickstart.yaml")), Path("runs"))
    resume("quickstart", Path("runs"))
"""

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sizewise import config as study_file
from sizewise.config import StudySpec
from sizewise.engine.deciding.decisions import Engine
from sizewise.engine.driving.driver import only_driver
from sizewise.engine.driving.leaving import STOP_SECONDS, give_up, leave_moved, stop_now
from sizewise.engine.driving.signals import ended_within, terminate_as_interrupt
from sizewise.engine.driving.study_log import logged, scratch
from sizewise.engine.kept_weights import keep_the_front
from sizewise.engine.preparing import own_models
from sizewise.engine.preparing.creating import (
    check_free,
    check_writable,
    create,
    find_baseline,
    find_teacher,
    known_baseline,
    known_teacher,
    learn,
    scorable,
    tables_bytes,
    unwritable,
    update_facts,
)
from sizewise.engine.ray_tune.placement import PlacementError
from sizewise.metrics.scores import too_small
from sizewise.search.edited import disagreement
from sizewise.search.pruning import Rule
from sizewise.search.suggest import Search
from sizewise.search.with_optuna import warm_start
from sizewise.store import data_identity, facts
from sizewise.store.driving.usage import Usage, last_seen
from sizewise.store.records import Record
from sizewise.store.study_folder import MOST_YAML_BYTES, NAME, StudyFolder
from sizewise.store.trials.ledger import Event, Ledger
from sizewise.training.building import check_counts, model_sizes
from sizewise.training.footprint import values_looked_up
from sizewise.training.teachers.teacher_sources import Source, incomplete
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import is_cut_short
from sizewise_core.stores.claims import SupersededError
from sizewise_core.stores.storage import (
    Place,
    absolute,
    exists,
    make_folder,
    read,
    refuse_odd_files,
    remove_folder,
)
from sizewise_prep.shards.manifest import Manifest

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

log = logging.getLogger(__name__)


class PausedError(RuntimeError):
    """The study stopped because nothing could be written, or somebody else drives it; it can be resumed."""


class _Caller(NamedTuple):
    """What the caller of `run` or `resume` wants besides the study."""

    on_event: Event | None
    mirror_url: "URL | None"
    ray: str | None  # address of the cluster


def run(
    spec: StudySpec,
    runs: Place,
    *,
    source: str = "study file",
    on_event: Event | None = None,
    optuna_storage: str | None = None,
    ray: str | None = None,
) -> bool:
    """Start a study and drive it to its end.

    Args:
        spec: the study file.
        runs: the folder of studies, in which it makes its own.
        source: what errors call the study file.
        on_event: called with what happens, as it happens.
        optuna_storage: address of a mirror of the study for Optuna's tools; None for none.
        ray: address of the cluster, as `cluster.connect` takes it.

    Returns:
        True when every trial was run, False when it was interrupted (and can be resumed).

    Raises:
        InputError: the name is taken, the data is missing or too small, the folder cannot be written.
        PausedError: there is no room to write to; everything written so far is complete.
    """
    caller = _Caller(on_event, _mirror_url(optuna_storage), ray)
    manifest = Manifest.load(spec.data)
    spec = study_file.resolve(spec, manifest, source)
    if wrong := data_identity.problem(spec.data, None):
        raise InputError(wrong)
    check_counts(spec, manifest, source)
    scorable(spec, manifest)
    code = own_models.of_new_study(spec, manifest, source)
    folder = absolute(runs) / spec.name
    check_free(folder)
    teacher = find_teacher(spec, absolute(runs), manifest, source)
    refuse_odd_files(folder)
    check_writable(absolute(runs))
    baseline = find_baseline(spec, folder, source, programs_too=True)
    known = learn(spec, absolute(runs), manifest)
    try:
        make_folder(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    # Before Ray starts, so that whatever happens from here on can be resumed.
    begin = partial(create, spec, folder, manifest, known, teacher, code, baseline)
    try:
        finished = _drive(spec, folder, manifest, caller, teacher, begin)
        if not exists(StudyFolder(folder).study_yaml):
            raise KeyboardInterrupt  # before there was a study to resume
        return finished
    except PlacementError:  # no trial can ever have started
        remove_folder(folder)
        raise


def resume(
    name: str,
    runs: Place,
    *,
    on_event: Event | None = None,
    optuna_storage: str | None = None,
    ray: str | None = None,
) -> bool:
    """Continue an interrupted study. Of a finished one, only the mirror is completed.

    Args:
        name: of the study.
        runs: the folder of studies that it is in.
        on_event: called with what happens, as it happens.
        optuna_storage: address of a mirror of the study for Optuna's tools; None for none.
        ray: address of the cluster, as `cluster.connect` takes it.

    Returns:
        True when every trial was run, False when it was interrupted (and can be resumed).

    Raises:
        InputError: no such study, it is finished, or its data is gone.
        PausedError: as `run`.
    """
    caller = _Caller(on_event, _mirror_url(optuna_storage), ray)
    folder = _folder_of(name, runs)
    path = StudyFolder(folder).study_yaml
    text = _study_text(folder, runs)
    spec = study_file.with_defaults(study_file.from_text(text, path), "0.1")
    if wrong := data_identity.problem(spec.data, facts.data_fingerprint(folder)):
        raise InputError(f"{path}: {wrong}")
    manifest = Manifest.load(spec.data)
    ledger = Ledger(folder)
    if study_file.edited(text):
        spec = study_file.resolve(spec, manifest, str(path))
        if wrong := disagreement(spec, ledger.records().values(), tables_bytes(spec, manifest)):
            raise InputError(
                f"{path}: {wrong}: put that back, or start another study: trials of one study must be comparable "
                "(`warm_start` lets it learn from this one)"
            )
    records = ledger.records().values()
    teacher = known_teacher(folder)
    if not teacher or (study_file.edited(text) and all(record.teacher is not None for record in records)):
        teacher = find_teacher(spec, absolute(runs), manifest, str(path))
    closed = sum(r.state not in ("running", "infeasible") and r.teacher is None for r in records)
    more = (
        caller.mirror_url
        or (spec.replicates and _search(spec, manifest, ledger).remaining)
        or ledger.incomplete(records)  # whose evaluations a checkpoint may have
    )
    if closed >= spec.trials and not more:
        raise InputError(f"{folder}: all {closed} trials have run: there is nothing to resume")
    if wrong := incomplete(teacher, spec.data):
        raise InputError(f"{path}: train.{wrong}")
    check_counts(spec, manifest, str(path))
    own_models.of_resumed_study(spec, manifest, folder)
    baseline = known_baseline(spec, folder, str(path))
    begin = partial(update_facts, spec, folder, manifest, teacher, baseline)
    return _drive(spec, folder, manifest, caller, teacher, begin)


def _folder_of(name: str, runs: Place) -> Place:
    """A study's folder by its name. Raises InputError."""
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a study name: use letters, digits, - and _ only")
    folder = absolute(runs) / name
    refuse_odd_files(folder)
    return folder


def _study_text(folder: Place, runs: Place) -> bytes:
    """What is in a study's file.

    Raises:
        InputError: there is no such study, or its file is gone, unreadable or cut short.
    """
    files = StudyFolder(folder)
    path, back = files.study_yaml, f"bring it back with `cp {files.study_before} {files.study_yaml}`"
    if not exists(path) and exists(files.study_before):
        raise InputError(f"{path}: is gone: {back}")
    if not exists(path):
        raise InputError(
            f"{folder}: there is no such study; `sizewise status --runs {shlex.quote(str(runs))}` lists those there are"
        )
    try:
        text = read(path, MOST_YAML_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}): {back}") from None
    if is_cut_short(text, facts.yaml_before(folder)):
        raise InputError(f"{path}: ends too early: {back}")
    return text


def _drive(
    spec: StudySpec,
    folder: Place,
    manifest: Manifest,
    caller: _Caller,
    teacher: Sequence[Source],
    begin: Callable[[], None],
) -> bool:
    """Drive a study to its end, or until it is interrupted. `begin` makes it, or brings its facts up to date."""
    seen = last_seen(folder)  # of a driver that died
    # First the lock, so that a second driver is refused before Ray has started. Tune catches the interrupts that come
    # while trials run, except for the second.
    with (
        suppress(KeyboardInterrupt),
        only_driver(folder, begin) as driver,
        ended_within(STOP_SECONDS, partial(stop_now, driver, folder)),
        _logged(scratch(spec, folder)),
    ):
        search = _search(spec, manifest, Ledger(folder, driver.check))
        validation = manifest.splits["validation"]
        if small := too_small(validation.rows, validation.click_rate):
            log.warning("%s: %s", spec.data, small)
        rule = Rule.of(spec, validation.rows, validation.click_rate or 0.0) if spec.pruning else None
        with _mirrored(caller.mirror_url, search, _unless_closed(caller.on_event)) as report:
            usage = Usage(folder, driver.claim, driver.check)
            engine = Engine(spec, folder, search, report, rule, usage, teacher)
            known = facts.data_fingerprint(folder)
            engine.know_data(
                lambda: data_identity.problem(spec.data, known) or incomplete(engine.teacher, spec.data),
                (len(manifest.cardinalities), len(manifest.dense_missing), values_looked_up(manifest)),
                lambda config: -(-manifest.splits["train"].rows // config.train.batch_size),
            )
            driver.call(engine.pause, partial(leave_moved, driver, folder))
            engine.settle(seen)
            engine.restore_evaluations()
            if search.remaining and not engine.paused and engine.find_teachers():
                try:
                    _run_trials(engine, partial(give_up, driver, folder), caller.ray)
                except InputError as error:
                    driver.stops(str(error))
                    raise
        if engine.paused:
            driver.stops(engine.paused)
            raise (InputError if engine.ended else PausedError)(engine.paused)
        finished = search.remaining == 0
        if finished:
            with suppress(OSError, InputError):  # they take room, and nothing else
                keep_the_front(folder)
        driver.ends(finished)
        return finished
    return False


def _search(spec: StudySpec, manifest: Manifest, ledger: Ledger) -> Search:
    return Search(
        spec,
        ledger,
        tables_bytes(spec, manifest),
        sizes=lambda config: model_sizes(config, manifest),
        known=warm_start.load(ledger.study) if spec.warm_start else (),
    )


def _run_trials(engine: Engine, on_lost: Callable[[str], None], ray: str | None) -> None:
    # Here, because importing Ray takes seconds that bad input should not wait for.
    from sizewise.engine import failures
    from sizewise.engine.ray_tune import cluster, tune

    def failed() -> bool:
        return engine.paused is not None

    try:
        with terminate_as_interrupt(), cluster.connect(engine.spec, on_lost, ray, failed) as placed:
            engine.place(placed)
            if engine.teacher:
                from sizewise.engine.ray_tune import teacher_scores

                teacher_scores.compute(engine.teacher, engine.spec.data)
            tune.run_trials(engine)
    except cluster.StartError as error:
        engine.pause(str(error))
    except Exception as error:
        if not failures.starved(error):
            raise
        engine.pause(f"its driver, process {os.getpid()}, has no memory or no threads left: give it more")
    finally:
        with suppress(OSError, SupersededError):  # else the next driver closes them
            engine.usage.close()


@contextmanager
def _logged(logs: Path) -> Iterator[None]:
    """As `logged`. Raises InputError where the folder cannot be made."""
    with ExitStack() as stack:
        try:
            stack.enter_context(logged(logs))
        except OSError as error:
            raise unwritable(logs, error) from None
        yield


def _unless_closed(on_event: Event | None) -> Event:
    """`on_event`, for a study that goes on after its output was closed: a terminal, a pipe."""

    def report(event: str, record: Record, values: Mapping[str, float] | None) -> None:
        # SystemExit is how rich takes a broken pipe.
        with suppress(OSError, SystemExit):
            if on_event:
                on_event(event, record, values)

    return report


def _mirror_url(optuna_storage: str | None) -> "URL | None":
    if optuna_storage is None:
        return None
    from sizewise.search.with_optuna.mirror import storage_url  # SQLAlchemy is for those who want it

    return storage_url(optuna_storage)


def _mirrored(url: "URL | None", search: Search, on_event: Event) -> AbstractContextManager[Event]:
    """`on_event`, which keeps the mirror up to date as well where there is one."""
    if url is None:
        return nullcontext(on_event)
    from sizewise.search.with_optuna.mirror import mirrored

    return mirrored(url, search.spec, search.ledger, search.full_bytes, on_event, log.warning)
