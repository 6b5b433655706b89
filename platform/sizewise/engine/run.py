"""Starting and resuming a study.

A study is a folder (see `ledger`) and a driver, this process, which is the only writer in it. Ray Tune runs the
trials (see `tune`); what they report comes back here (see `engine`) and goes into the ledger. Resuming is running
again over a search that is filled from the ledger: no private file of Ray or Optuna is ever needed.

    run(load(Path("studies/quickstart.yaml")), Path("runs"))
    resume("quickstart", Path("runs"))
"""

import io
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import ValidationError

from sizewise import config as study_file
from sizewise.config import StudySpec
from sizewise.embedding import full_bytes
from sizewise.engine.decisions import Engine, scratch
from sizewise.engine.driver import only_driver
from sizewise.engine.leaving import STOP_SECONDS, give_up, leave_moved, stop_now
from sizewise.engine.ray_tune.placement import PlacementError
from sizewise.engine.signals import ended_within, terminate_as_interrupt
from sizewise.metrics.scores import too_small
from sizewise.search import warm_start
from sizewise.search.edited import disagreement
from sizewise.search.pruning import Rule
from sizewise.search.suggest import Search
from sizewise.search.teachers import method_of
from sizewise.store import data_identity, facts
from sizewise.store.ledger import NAME, Event, Ledger, Record
from sizewise.store.usage import Usage, last_seen
from sizewise.training.building import check_counts, model_sizes
from sizewise.training.teacher_sources import Source
from sizewise_core.claims import SupersededError
from sizewise_core.errors import InputError
from sizewise_core.local_files import open_file
from sizewise_core.printable import printable_lines
from sizewise_core.sealed import is_cut_short
from sizewise_core.storage import (
    Place,
    absolute,
    exists,
    make_folder,
    read,
    refuse_odd_files,
    remove_folder,
    write,
)
from sizewise_prep.shards.manifest import Manifest

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

log = logging.getLogger(__name__)


class PausedError(RuntimeError):
    """The study stopped because nothing could be written, or somebody else drives it; it can be resumed."""


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
    mirror_url = _mirror_url(optuna_storage)
    manifest = Manifest.load(spec.data)
    spec = study_file.resolve(spec, manifest, source)
    if wrong := data_identity.problem(spec.data, None):
        raise InputError(wrong)
    check_counts(spec, manifest)
    _scorable(spec, manifest)
    folder = absolute(runs) / spec.name
    _check_free(folder)
    teacher = _find_teacher(spec, absolute(runs), manifest, source)
    refuse_odd_files(folder)
    _check_writable(absolute(runs))
    known = _learn(spec, absolute(runs), manifest)
    try:
        make_folder(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    # Before Ray starts, so that whatever happens from here on can be resumed.
    begin = partial(_create, spec, folder, manifest, known, teacher)
    try:
        finished = _drive(spec, folder, manifest, on_event, mirror_url, ray, teacher, begin)
        if not exists(folder / "study.yaml"):
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
    mirror_url = _mirror_url(optuna_storage)
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a study name: use letters, digits, - and _ only")
    folder = absolute(runs) / name
    refuse_odd_files(folder)
    path = folder / "study.yaml"
    if not exists(path) and exists(path.with_suffix(".before")):
        raise InputError(f"{path}: is gone: bring it back with `cp {path.with_suffix('.before')} {path}`")
    if not exists(path):
        raise InputError(
            f"{folder}: there is no such study; `sizewise status --runs {shlex.quote(str(runs))}` lists those there are"
        )
    back = f"bring it back with `cp {path.with_suffix('.before')} {path}`"
    try:
        text = read(path, facts.MOST_YAML_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}): {back}") from None
    if is_cut_short(text, facts.yaml_before(folder)):
        raise InputError(f"{path}: ends too early: {back}")
    spec = study_file.with_defaults(study_file.from_text(text, path), "0.1")
    if wrong := data_identity.problem(spec.data, _known_data(folder)):
        raise InputError(f"{path}: {wrong}")
    manifest = Manifest.load(spec.data)
    ledger = Ledger(folder)
    if study_file.edited(text):
        spec = study_file.resolve(spec, manifest, str(path))
        if wrong := disagreement(spec, ledger.records().values(), _tables(spec, manifest)):
            raise InputError(
                f"{path}: {wrong}: put that back, or start another study: trials of one study must be comparable "
                "(`warm_start` lets it learn from this one)"
            )
    records = ledger.records().values()
    teacher = _known_teacher(folder) or _find_teacher(spec, absolute(runs), manifest, str(path))
    closed = sum(r.state not in ("running", "infeasible") and r.teacher is None for r in records)
    more = (
        mirror_url
        or (spec.replicates and _search(spec, manifest, ledger).remaining)
        or ledger.incomplete(records)  # whose evaluations a checkpoint may have
    )
    if closed >= spec.trials and not more:
        raise InputError(f"{folder}: all {closed} trials have run: there is nothing to resume")
    check_counts(spec, manifest)
    return _drive(spec, folder, manifest, on_event, mirror_url, ray, teacher)


def _find_teacher(spec: StudySpec, runs: Place, manifest: Manifest, source: str) -> list[Source]:
    """What the study's students learn from, checked; nothing where there is none, or the study trains it itself."""
    names = spec.train.distill_teacher
    if not names or method_of(spec):
        return []
    from sizewise.engine import teachers  # few studies have some

    try:
        return teachers.find(names, runs, spec.data, manifest, spec.name)
    except InputError as error:
        raise InputError(f"{source}: train.{error}") from None


def _known_teacher(folder: Place) -> list[Source]:
    """What its students have learned from so far."""
    known = facts.load(folder) or {}
    try:
        return [Source.model_validate(one) for one in known.get("teacher", [])]
    except (ValidationError, TypeError):
        return []


def _check_free(folder: Place) -> None:
    if exists(folder / "study.yaml"):
        raise InputError(
            f"{folder}: a study of this name exists: continue it with `sizewise resume {folder.name}`, or give another "
            "name (`--set name=...`)"
        )


def _scorable(spec: StudySpec, manifest: Manifest) -> None:
    """Refuse data on which no trial could be scored."""
    validation = manifest.splits["validation"]
    if not manifest.splits["train"].rows or not validation.rows:
        raise InputError(
            f"{spec.data}: has no training or no validation rows: prepare it with another --split"
        )
    if "auc" in spec.objectives and validation.click_rate in (0.0, 1.0):
        raise InputError(
            f"{spec.data}: all {validation.rows} rows of the validation split have the same label, so their AUC is "
            "undefined: prepare more rows, or with another --split"
        )


def _check_writable(runs: Place) -> None:
    """Refuse a folder that no study can be written to before anything has started."""
    if not isinstance(runs, Path):
        return  # the first write will show it
    there = next(path for path in (runs, *runs.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{runs}: {there} is not a folder that can be written to: choose another --runs")


def _facts(spec: StudySpec, manifest: Manifest, teacher: Sequence[Source] = ()) -> dict[str, Any]:
    """What readers need to know of the study beside its trials."""
    return {
        "schema_version": 1,
        "name": spec.name,
        "created": time.time(),
        "trials": spec.trials,  # the engine updates it where replicates or a grid's end change it
        **_wanted(spec),
        "data": {
            "path": spec.data,
            "fingerprint": data_identity.fingerprint(manifest),
            "rows": {name: split.rows for name, split in manifest.splits.items()},
            "full_bytes": full_bytes(manifest.cardinalities, spec.model.largest_dim),
            "features": len(manifest.cardinalities),
            "click_rate": manifest.click_rate,
            "validation_click_rate": manifest.splits["validation"].click_rate,
        },
        **({"teacher": [source.model_dump() for source in teacher]} if teacher else {}),
    }


def _wanted(spec: StudySpec) -> dict[str, Any]:
    """What is wanted of trials."""
    return {
        "objectives": spec.objectives,
        "prices": spec.prices.model_dump() if spec.prices else None,
        "constraints": {metric: limit.model_dump() for metric, limit in spec.constraints.items()},
    }


def _update_facts(spec: StudySpec, folder: Place, manifest: Manifest, teacher: Sequence[Source] = ()) -> None:
    """Bring what readers need to know up to date: the study file may have been edited, or these facts damaged."""
    known = facts.load(folder)
    try:
        wanted = {**known, **_wanted(spec), "trials": int(known["trials"])} if known else None
    except (ValueError, KeyError, TypeError):
        wanted = None
    if wanted is None:
        log.warning("%s is damaged: written again from study.yaml and the data", folder / facts.FILE)
        wanted = _facts(spec, manifest, teacher)
    if wanted != known:
        facts.save(folder, wanted)


def _known_data(folder: Place) -> str | None:
    """The fingerprint of the data when the study began."""
    try:
        return str((facts.load(folder) or {})["data"]["fingerprint"])
    except (KeyError, TypeError):
        return None


def _learn(spec: StudySpec, runs: Place, manifest: Manifest) -> list[warm_start.Known]:
    """The trials of `warm_start`'s study that the sampler may use; those that do not fit are reported."""
    if spec.warm_start is None:
        return []
    source = warm_start.find(spec.warm_start, runs)
    known, left_out = warm_start.learn(source, spec, _tables(spec, manifest))
    reasons = "; ".join(f"{count} whose trial {reason}" for reason, count in left_out.most_common())
    if not known:
        raise InputError(
            f"warm_start: none of the trials of {source} fits this study ({reasons or 'it has none'}): "
            "search the same fields, or drop warm_start"
        )
    report = log.warning if left_out else log.info
    report(
        "warm_start: the sampler learns from %d trials of %s%s",
        len(known),
        source,
        reasons and f", without {reasons}",
    )
    return known


def _create(
    spec: StudySpec,
    folder: Place,
    manifest: Manifest,
    known: list[warm_start.Known],
    teacher: Sequence[Source],
) -> None:
    """Create a new study's folder; `study.yaml` comes last, and with it the study exists."""
    _check_free(folder)  # again, now that nobody else can begin one here
    try:
        facts.save(folder, _facts(spec, manifest, teacher))
        if known:
            warm_start.save(known, folder)
        for name in ("study.before", "study.yaml"):
            write(folder / name, study_file.to_text(spec))
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Place, error: OSError) -> InputError:
    return InputError(f"{folder}: cannot be written ({error.strerror or error}): choose another --runs")


def _drive(
    spec: StudySpec,
    folder: Place,
    manifest: Manifest,
    on_event: Event | None,
    mirror_url: "URL | None",
    ray: str | None,
    teacher: Sequence[Source] = (),
    begin: Callable[[], None] | None = None,
) -> bool:
    """Drive a study to its end, or until it is interrupted. `begin` makes it, where it is new."""
    seen = last_seen(folder)  # of a driver that died
    # First the lock, so that a second driver is refused before Ray has started. Tune catches the interrupts that come
    # while trials run, except for the second.
    begin = begin or partial(_update_facts, spec, folder, manifest, teacher)
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
        with _mirrored(mirror_url, search, _unless_closed(on_event)) as report:
            usage = Usage(folder, driver.claim, driver.check)
            engine = Engine(spec, folder, search, report, rule, usage, teacher)
            engine.inputs = len(manifest.cardinalities), len(manifest.dense_missing)
            engine.data_problem = partial(data_identity.problem, spec.data, _known_data(folder))
            driver.on_taken = engine.pause
            driver.on_moved = partial(leave_moved, driver, folder)
            engine.settle(seen)
            engine.restore_evaluations()
            if search.remaining and not engine.paused:
                try:
                    _run_trials(engine, partial(give_up, driver, folder), ray)
                except InputError as error:
                    driver.message = str(error)
                    raise
        if engine.paused:
            driver.message = engine.paused
            raise PausedError(engine.paused)
        driver.finished = search.remaining == 0
        return driver.finished
    return False


def _search(spec: StudySpec, manifest: Manifest, ledger: Ledger) -> Search:
    return Search(
        spec,
        ledger,
        _tables(spec, manifest),
        sizes=lambda config: model_sizes(config, manifest),
        known=warm_start.load(ledger.study) if spec.warm_start else (),
    )


def _tables(spec: StudySpec, manifest: Manifest) -> int:
    return full_bytes(manifest.cardinalities, spec.model.largest_dim)


def _run_trials(engine: Engine, on_lost: Callable[[str], None], ray: str | None) -> None:
    # Here, because importing Ray takes seconds that bad input should not wait for.
    from sizewise.engine import failures
    from sizewise.engine.ray_tune import cluster, tune

    def failed() -> bool:
        return engine.paused is not None

    try:
        with terminate_as_interrupt(), cluster.connect(engine.spec, on_lost, ray, failed) as placed:
            engine.spec = placed
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


def _unless_closed(on_event: Event | None) -> Event:
    """`on_event`, for a study that goes on after its output was closed: a terminal, a pipe."""

    def report(event: str, record: Record, values: dict[str, Any] | None) -> None:
        # SystemExit is how rich takes a broken pipe.
        with suppress(OSError, SystemExit):
            if on_event:
                on_event(event, record, values)

    return report


def _mirror_url(optuna_storage: str | None) -> "URL | None":
    if optuna_storage is None:
        return None
    from sizewise.search.mirror import storage_url  # SQLAlchemy is for those who want it

    return storage_url(optuna_storage)


def _mirrored(url: "URL | None", search: Search, on_event: Event) -> AbstractContextManager[Event]:
    """`on_event`, which keeps the mirror up to date as well where there is one."""
    if url is None:
        return nullcontext(on_event)
    from sizewise.search.mirror import mirrored

    return mirrored(url, search.spec, search.ledger, search.full_bytes, on_event, log.warning)


@contextmanager
def _logged(logs: Path) -> Iterator[None]:
    """Write Sizewise's messages (where it runs, damage, losses) to the study's logs as well as to the terminal.

    What Ray prints goes to the logs alone: standard output is for results.
    """
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(logs, error) from None
    logger, shown, kept = (
        logging.getLogger("sizewise"),
        _Shown(),
        logging.StreamHandler(_Log(logs / "study.log")),
    )
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in (shown, kept):
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    ray_tune = logging.getLogger("ray.tune")  # whose files nobody needs, nor its messages about them
    ray_tune.addHandler(kept)
    ray_tune.propagate = False
    printed = _Log(logs / "ray.txt", passes_on=sys.stdout)
    try:
        with redirect_stdout(printed):
            yield
    finally:
        printed.over = True
        for handler in (shown, kept):
            logger.removeHandler(handler)
        ray_tune.removeHandler(kept)


class _Shown(logging.Handler):
    """Lines on standard error as it is at the time: above the progress bar, while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print."""
        with suppress(OSError):  # whoever read it has gone, and the study goes on
            print(printable_lines(self.format(record)), file=sys.stderr, flush=True)


class _Log(io.TextIOBase):
    """Text appended to a file as far as the disk has room for it.

    Once it is `over`, text goes to what this stood in for: a progress bar of a caller's, begun in its time and ended
    after it, puts it back as standard output.
    """

    def __init__(self, path: Path, passes_on: TextIO | None = None) -> None:
        self._path, self._passes_on = path, passes_on
        self.over = False

    def write(self, text: str) -> int:
        """Append."""
        if self.over and self._passes_on is not None:
            return self._passes_on.write(text)
        with suppress(OSError), open_file(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        return len(text)
