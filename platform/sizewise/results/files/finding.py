"""Which studies a folder holds, and whether somebody drives one."""

import socket
import time
from typing import cast

import psutil

from sizewise.store.driving.heartbeat import DriverFacts, drives, lives, machine
from sizewise.store.files import StudyFiles
from sizewise.store.records import DriverRecord
from sizewise.store.study_folder import NAME, StudyFolder
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Entry, Place, StorageError, entries, exists, is_folder, is_link

_NAMED = 8  # studies that a message names
STALE_SECONDS = 30.0  # a driver writes its beat every few seconds; one this old has died, or its clock is off
_DEAD: set[tuple[Place, float]] = set()  # heartbeats that were watched, and had stopped


def names(runs: Place) -> list[str]:
    """The studies under `runs`, in order of name; InputError if there is no such folder."""
    try:
        listed = entries(runs, links=True)
    except StorageError:
        raise
    except OSError as error:
        raise InputError(f"{runs}: cannot be read ({error.strerror or error})") from None
    if not listed and not is_folder(runs):
        raise InputError(f"{runs}: no such folder; --runs names the folder that holds the studies")
    return [e.path.name for e in listed if NAME.fullmatch(e.path.name) and _looks_like_study(e)]


def _looks_like_study(entry: Entry) -> bool:
    """Whether it is a study's folder, or may be one: a study that cannot be read is listed with its problem."""
    if is_link(entry.path):
        paths = StudyFolder(entry.path)
        return exists(paths.study_yaml) or exists(paths.facts)
    try:
        return entry.is_folder and StudyFiles(entry.path).is_study
    except StorageError:
        raise
    except OSError:
        return True


def files_of(runs: Place, name: str) -> StudyFiles:
    """The study's files. A name has no dot and no slash, so nothing outside `runs` is reached.

    `runs` may be a link, for its user has named it. A study in it may not: it may have come with a received folder,
    and lead to a study that was not sent.
    """
    if not NAME.fullmatch(name):
        if name.endswith((".yaml", ".yml")):
            raise InputError(f"{name:.80}: is a file; give the name of the study, the `name:` in it")
        raise InputError(f"study name {name:.80}: use letters, digits, - and _ only, at most 255 of them")
    files = StudyFiles(runs / name)
    if is_link(files.folder):
        raise InputError(
            f"{files.folder}: is a link, which is not followed: use --runs with the folder that it is in"
        )
    try:
        found = files.is_study
    except StorageError:
        raise
    except OSError as error:
        raise InputError(f"{files.folder}: cannot be read ({error.strerror or error})") from None
    if not found:
        known = names(runs)
        more = f" and {len(known) - _NAMED:,} more" if len(known) > _NAMED else ""
        there = (
            f"studies there: {', '.join(known[:_NAMED])}{more}" if known else "there are no studies there yet"
        )
        raise InputError(f"{runs / name}: no such study; {there}")
    return files


def driver_state(files: StudyFiles, problems: list[str]) -> tuple[str, str]:
    """State of the study and the driver's last message."""
    if files.paths.driver not in files:
        return "created", ""
    driver = files.driver(problems)
    if driver is None:
        return "interrupted", ""
    if driver.state != "running":
        return driver.state, driver.message
    return ("running" if _alive(files.paths.driver, driver) else "interrupted"), driver.message


def _alive(path: Place, driver: DriverRecord) -> bool:
    """Whether the driver lives. Only where its machine cannot be asked do two clocks have to agree, or time pass."""
    if driver.machine and driver.machine == machine():
        return drives(path.parent, cast(DriverFacts, driver.model_dump()))
    fresh = abs(time.time() - driver.beat) < STALE_SECONDS
    if driver.host == socket.gethostname():
        return fresh and (bool(driver.machine) or psutil.pid_exists(driver.pid))
    if fresh or (path, driver.beat) in _DEAD:
        return fresh
    if lives(path, cast(DriverFacts, driver.model_dump())):  # its clock is not ours, but its heart beats
        return True
    _DEAD.add((path, driver.beat))
    return False
