"""One driver a study: a lock that a second driver finds held, and a heartbeat for whoever watches.

`driver.json` says which process drives the study and that it lives. The lock is the kernel's, so it is free the
instant that the driver dies. Machines that share a folder may not share locks: there a second driver watches the
first one's heartbeat, and a driver that finds another's claim instead of its own (it was suspended, say, and
taken for dead) stops at once. So does one whose folder is moved or removed meanwhile. An object store has no locks at
all: there drivers claim numbers (see `claims`).
Whether a driver lives is never concluded from two clocks that may disagree: it is
a living process of this machine, or a heartbeat that is seen to beat.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sizewise.engine.driving.held_folder import HeldFolder
from sizewise.engine.driving.signals import deferred
from sizewise.store.driving.heartbeat import (
    HEARTBEAT_SECONDS,
    DriverFacts,
    born,
    claim,
    drives,
    identity,
    lives,
    machine,
)
from sizewise.store.study_folder import StudyFolder
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import sealed
from sizewise_core.stores.claims import Claim, SupersededError
from sizewise_core.stores.storage import Place, write

STORE_WATCH_SECONDS = 30.0  # the same in an object store, whose client tries again before it gives up


class Driver:
    """This process's claim on a study, kept fresh in `driver.json` for whoever watches.

    Args:
        folder: the study's.
        facts: what `driver.json` says of this process.
        mine: its numbered claim, in an object store.
        held: the study's folder, held open, on a file system.
    """

    def __init__(
        self,
        folder: Place,
        facts: DriverFacts,
        mine: Claim | None = None,
        held: HeldFolder | None = None,
    ) -> None:
        self._finished = False
        self._message = ""  # why the study stopped, for `sizewise status`
        self.claim = facts["claim"]  # unique to this driver
        self._on_taken: Callable[[str], None] = lambda reason: None
        self._on_moved: Callable[[Path | None], None] = lambda now: None
        self._path, self._facts, self._claim, self._held = StudyFolder(folder).driver, facts, mine, held
        self._taken = ""  # by whom
        self._moved = False  # to where nobody knows
        # Where a full disk keeps this claim from being written, the dead driver's is still there.
        self._known: set[str | None] = {facts["claim"], None}
        with suppress(OSError):
            self._known.add((claim(self._path) or DriverFacts()).get("claim"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self.write("running")
        self._thread.start()

    def call(self, on_taken: Callable[[str], None], on_moved: Callable[[Path | None], None]) -> None:
        """Have functions called from another thread.

        Args:
            on_taken: when another driver took over, with the reason.
            on_moved: when the study's folder was moved, with where it is now, or removed; it should end this process,
                which is not to make anything at the old path any more.
        """
        self._on_taken, self._on_moved = on_taken, on_moved

    def stops(self, why: str) -> None:
        """Keep why the study stops, for whoever asks how it stands."""
        self._message = why

    def ends(self, finished: bool) -> None:
        """Keep whether every trial was run."""
        self._finished = finished

    def write(self, state: str) -> None:
        """Write that this process is alive and what it is doing. A full disk does not end the study."""
        # `beat` is for people, and for other machines with a right clock; what is measured goes by `monotonic`.
        if self._moved:
            return
        now = {"beat": time.time(), "monotonic": time.monotonic()}
        facts = {**self._facts, **now, "state": state, "message": self._message}
        with suppress(OSError):
            write(self._path, sealed(json.dumps(facts)).encode())

    def close(self) -> None:
        """Stop beating and leave the final state behind."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * HEARTBEAT_SECONDS)  # it may be about to end this process itself
        with suppress(OSError):
            if not self._taken_over():
                self.write("finished" if self._finished else "stopped")

    def check(self) -> None:
        """To be called before anything is written that a successor may have written too.

        Raises:
            SupersededError: another driver took over while this process was suspended, or cut off; or the study's
                folder is not where it was.
            OSError: that cannot be determined.
        """
        if reason := self._look_for_folder() or self._taken_over():
            raise SupersededError(reason)

    def _look_for_folder(self) -> str:
        """Why nothing can be written any more, or nothing."""
        if not self._held or not self._held.gone():
            return ""
        known = claim(self._path) or DriverFacts()
        if known.get("claim") == self.claim:
            return ""  # there is a file system that gives folders new numbers now and then
        now = self._held.now()
        if now:
            self._path = now / self._path.name
        else:
            self._moved = True
        self._on_moved(now)
        return f"its folder, {self._held.path}, was moved or removed while it ran"

    def _taken_over(self) -> str:
        """By whom, or nothing."""
        if not self._taken:
            other = claim(self._path)
            written = other and other.get("claim") not in self._known
            if self._claim.superseded() if self._claim else written:
                self._taken = f"{_who(other if written else None)} has taken this study over"
        return self._taken

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                if reason := self._look_for_folder() or self._taken_over():
                    self._on_taken(reason)
                    return
            self.write("running")


@contextmanager
def only_driver(folder: Place, begin: Callable[[], None] = lambda: None) -> Iterator[Driver]:
    """Hold the study: a second driver is refused with the first one's host and process id.

    `begin` is called as soon as nobody else can hold it.
    """
    facts: DriverFacts = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": machine(),
        "born": born(os.getpid()),
        "folder": identity(folder),
        "claim": secrets.token_hex(8),
        "started": time.time(),
    }
    with _locked(folder) if isinstance(folder, Path) else nullcontext():
        mine = None if isinstance(folder, Path) else _claimed(folder, facts)
        held = HeldFolder(folder) if isinstance(folder, Path) else None
        driver = None
        try:
            with deferred():  # a file that says "running" must not stay behind an interrupt
                begin()
                driver = Driver(folder, facts, mine, held)
            yield driver
        finally:
            if driver:
                driver.close()
            if held:
                held.close()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The study's lock, where files can be locked; where not, the heartbeat alone has to do."""
    files = StudyFolder(folder)
    lock = FileLock(str(files.driver_lock))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _refused(folder, claim(files.driver)) from None
    except (OSError, NotImplementedError):
        pass  # what filelock raises where the file system has no locks
    try:
        other = claim(files.driver)
        if other and other.get("state") == "running" and lives(files.driver, other):
            raise _refused(folder, other)
        yield
    finally:
        lock.release()


def _claimed(folder: Place, facts: DriverFacts) -> Claim:
    """The next claim on a study in an object store, once whoever holds the newest one is known to be gone."""
    files = StudyFolder(folder)
    path, newest = files.driver, Claim.newest(files.drivers)
    if newest.number:
        holder = json.loads(newest.content())
        other = claim(path)
        if other is None or other.get("claim") != holder["claim"]:
            if _starts(path, holder):
                raise _refused(folder, holder)
        elif other.get("state") == "running" and lives(path, other, STORE_WATCH_SECONDS):
            raise _refused(folder, other)
    mine = newest.next(json.dumps(facts).encode())
    if mine is None:  # somebody was faster by a moment
        raise _refused(folder, json.loads(Claim.newest(files.drivers).content()))
    return mine


def _starts(path: Place, holder: DriverFacts) -> bool:
    """Whether a driver that has claimed a study, but not written `driver.json` yet, is about to."""
    if holder.get("machine") and holder["machine"] == machine():
        return drives(path.parent, holder)
    end = time.monotonic() + STORE_WATCH_SECONDS
    while time.monotonic() < end:
        if (claim(path) or DriverFacts()).get("claim") == holder["claim"]:
            return True
        time.sleep(0.2)
    return False


def _refused(folder: Place, other: DriverFacts | None) -> InputError:
    return InputError(f"{folder}: {_who(other)} is running this study: wait for it, or stop it first")


def _who(other: DriverFacts | None) -> str:
    return f"process {other['pid']} on {other['host']}" if other else "another process"
