"""Who drives a study, and whether that driver is alive: what `driver.json` says, read by whoever asks."""

import os
import time
from pathlib import Path
from typing import TypedDict, cast

from sizewise.store.study_folder import MOST_BYTES
from sizewise_core.files.sealed import DamagedError, unsealed
from sizewise_core.stores.storage import Place, StorageError, read

HEARTBEAT_SECONDS = 2.0
WATCH_SECONDS = 4 * HEARTBEAT_SECONDS  # a living driver's heart beats several times in this time


class DriverFacts(TypedDict, total=False):
    """What `driver.json` says: `pid` and `host` always."""

    host: str
    pid: int
    machine: str
    born: int | None
    folder: str | None
    claim: str
    started: float
    beat: float
    monotonic: float
    state: str
    message: str


def claim(path: Place) -> DriverFacts | None:
    """What `driver.json` says; None where there is none to be read."""
    try:
        facts = unsealed(read(path, MOST_BYTES))
    except StorageError:
        raise  # it is not known whether there is one
    except (OSError, DamagedError):
        return None
    known = (
        isinstance(facts.get("pid"), int) and 0 <= facts["pid"] < 2**31 and isinstance(facts.get("host"), str)
    )
    return cast(DriverFacts, facts) if known else None


def lives(path: Place, driver: DriverFacts, seconds: float = WATCH_SECONDS) -> bool:
    """Whether a driver is alive: looked up on its own machine, else watched for a while.

    Args:
        path: `driver.json`.
        driver: what it said.
        seconds: how long to watch for another heartbeat.

    Raises:
        StorageError: the storage does not say whether there is such a file.
    """
    if driver.get("machine") and driver["machine"] == machine():
        return drives(path.parent, driver)
    end = time.monotonic() + seconds
    while (now := claim(path)) is not None and now.get("state") == "running":
        if now.get("beat") != driver.get("beat"):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return False


def drives(folder: Place, driver: DriverFacts) -> bool:
    """Whether a driver of this machine is alive and means this folder, of which its own may be the original."""
    here = identity(folder)
    return born(driver["pid"]) == driver.get("born") and (driver.get("folder") or here) == here


def identity(folder: Place) -> str:
    """What a folder keeps under every path that leads to it, and a copy of it does not have."""
    if not isinstance(folder, Path):
        return str(folder)
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def machine() -> str:
    """What distinguishes this machine's processes from others': its boot, and the namespace of its process ids."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # not Linux: heartbeats decide


def born(pid: int) -> int | None:
    """When a process of this machine started, in clock ticks since boot, which nobody can set; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
