"""Snapshots of studies, read again only when they have changed on disk, and their figures, drawn once.

    now = snapshots.read(runs, "quickstart")        # now.study, now.answer, now.status
    snapshots.drawn(now, "by_size", lambda: accuracy_against_size(now.study))

They are kept in memory and shared by all visitors; a study's folder is never written to. A large study that grows is
read in a thread, while visitors see the snapshot before.
"""

import hashlib
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

# Plotly uses pandas where it is installed, even if another thread has only half loaded it, so it is loaded here first.
import pandas  # type: ignore[import-untyped]  # noqa: F401
import plotly.graph_objects as go
from cachetools import LRUCache, cached

from sizewise import results
from sizewise.figures.elements import style
from sizewise.results import Answer, Status, Study
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, StorageError

_MOST_STUDIES = 8
_MOST_DRAWN = 100
_SLOW = 0.3  # seconds; a study that takes longer to read is read in a thread
_FRESH = 30.0  # seconds for which the snapshot of such a study is shown without a look at the disk
_LOOK_FACTOR = 5.0  # a look at a folder is valid for this many times as long as it took

Value = TypeVar("Value")


class Snapshot(NamedTuple):
    """A study at one moment; `version` differs whenever anything else does."""

    study: Study
    answer: Answer
    status: Status
    version: str


class Drawing(NamedTuple):
    """A figure as the browser takes it; equal digests are equal drawings."""

    figure: str
    digest: str


class _Read(NamedTuple):
    """A snapshot, when the disk was last seen to hold it, and how many seconds it took to read."""

    snapshot: Snapshot
    at: float
    seconds: float


def _kept(most: int) -> Callable[[Any, Callable[[], Any]], Any]:
    """A function (key, make) that keeps the last few values; one that several threads need at once is made once."""

    def make_value(key: Any, make: Callable[[], Any]) -> Any:
        return make()

    cache: LRUCache[Any, Any] = LRUCache(most)
    wrap = cached(cache, key=lambda key, make: key, condition=threading.Condition())
    kept_values: Callable[[Any, Callable[[], Any]], Any] = wrap(make_value)
    return kept_values


_STUDIES, _STATES, _DRAWN = _kept(_MOST_STUDIES), _kept(_MOST_DRAWN), _kept(_MOST_DRAWN)
_READ: dict[tuple[str, str], _Read] = {}
_READING: set[tuple[str, str]] = set()
_LOOKS: dict[tuple[str, str], tuple[float, str]] = {}  # until when a version counts as the newest


def read(runs: Place, name: str) -> Snapshot:
    """The study as it is on disk now, or a moment ago if it is large.

    Raises InputError when there is none, or its storage cannot be reached.
    """
    key = (str(runs), name)
    last = _READ.get(key)
    age = time.monotonic() - last.at if last else math.inf
    if last and last.seconds > _SLOW and age < _FRESH:
        if age > 2 * last.seconds and key not in _READING:
            _READING.add(key)
            threading.Thread(target=_read_in_thread, args=(runs, name), daemon=True).start()
        return last.snapshot
    return _read_now(runs, name)


def _read_in_thread(runs: Place, name: str) -> None:
    key = (str(runs), name)
    try:
        _read_now(runs, name)
    except InputError:
        _READ.pop(key, None)  # the next visitor gets the error
    finally:
        _READING.discard(key)


def _read_now(runs: Place, name: str) -> Snapshot:
    key, start = (str(runs), name), time.monotonic()
    try:
        snapshot = _snapshot(runs, name)
    except StorageError as error:
        raise InputError(str(error)) from error
    last, end = _READ.pop(key, None), time.monotonic()
    known = last is not None and last.snapshot.version == snapshot.version
    _READ[key] = _Read(snapshot, end, last.seconds if last and known else end - start)
    while len(_READ) > _MOST_STUDIES:
        _READ.pop(next(iter(_READ)), None)
    return snapshot


def _snapshot(runs: Place, name: str) -> Snapshot:
    version = _version(runs, name)
    study, answer = _STUDIES((str(runs), name, version), lambda: _read(runs, name))
    return Snapshot(study, answer, _status(runs, name, version), f"{runs}/{name}/{version}")


def _now(runs: Place, name: str) -> Status:
    return _status(runs, name, _version(runs, name))


def _status(runs: Place, name: str, version: str) -> Status:
    # The time left changes with the clock too, but not by the second.
    tick = int(time.time() / 2) if version.startswith("running") else 0
    status: Status = _STATES((str(runs), name, version, tick), lambda: results.status(runs, name))
    return status


def listed(runs: Place) -> list[Status]:
    """The status of every study under `runs` (`results.status`), most recently changed first.

    One that cannot be read has the state "unreadable", and `problems` say why.

    Raises InputError when there is no such folder, or its storage cannot be reached.
    """
    try:
        found = [results.isolated(name, partial(_now, runs, name)) for name in results.names(runs)]
    except StorageError as error:
        raise InputError(str(error)) from error
    return sorted(found, key=lambda status: (-status["last_change"], status["name"]))


def drawn(now: Snapshot, what: Any, draw: Callable[[], go.Figure]) -> Drawing:
    """A figure of a snapshot, drawn once.

    Args:
        now: the snapshot.
        what: any hashable value that names the figure and its options.
        draw: makes the figure.
    """
    found: Drawing = _DRAWN((now.version, what), lambda: drawing(draw()))
    return found


def kept(now: Snapshot, what: Any, make: Callable[[], Value]) -> Value:
    """Any other value of a snapshot, computed once.

    Args:
        now: the snapshot.
        what: any hashable value that names it and its options.
        make: computes it.
    """
    value: Value = _DRAWN((now.version, what), make)
    return value


def drawing(figure: go.Figure) -> Drawing:
    """A figure for the browser; one without data says so instead of drawing axes."""
    style.say_if_empty(figure)
    text = figure.to_json()
    return Drawing(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _version(runs: Place, name: str) -> str:
    """The study's fingerprint, which takes long for large studies, so it is not computed at every visit."""
    until, version = _LOOKS.get((str(runs), name), (0.0, ""))
    start = time.monotonic()
    if start < until:
        return version
    version = results.fingerprint(runs, name)
    end = time.monotonic()
    _LOOKS[str(runs), name] = (end + _LOOK_FACTOR * (end - start), version)
    return version


def _read(runs: Place, name: str) -> tuple[Study, Answer]:
    study = results.load(runs, name)
    return study, results.answer(study)
