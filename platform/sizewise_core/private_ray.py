"""A Ray for one command alone, on a machine that others use too.

    with private_ray(say=print) as folder:
        ...                                 # ray.init is done

A Ray that is started without further options listens on every network interface, keeps its token readable in the home
folder, and its sessions, which all users of the machine can read, for ever. Here it listens on 127.0.0.1 only, and all
that it writes lies in a new folder that only its owner may enter: token, sockets, logs, spilled objects. The folder is
removed when the work has ended well, and kept, with Ray's logs, when it has failed. At most `KEPT` of them stay.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray

from sizewise_core import limits
from sizewise_core.errors import InputError
from sizewise_core.ray_internals import (
    LOOPBACK_ENVIRONMENT,
    InstalledCode,
    loopback_only,
    read_settings_again,
)

KEPT = 3
PREFIX = "sizewise-"
_LOCK = "in-use"
# A socket's path must not be longer than 107 bytes, of which Ray takes the last.
_FOLDER_BYTES = 107 - len("/r/session_2026-11-27_18-00-53_853791_1234567/sockets/plasma_store")
# Threads of Ray's own processes on a machine of two cores, and of one trial's.
_PROCESSES = 400


@contextmanager
def private_ray(say: Callable[[str], None], failed: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Start a Ray of this process's own, and end it with the block.

    Args:
        say: called with a sentence about where Ray's logs are kept.
        failed: asked at the end of the block whether Ray's logs are to be kept, though nothing was raised.

    Yields:
        The folder of all that it writes.

    Raises:
        OSError, RuntimeError or an error of Ray's: it did not start. The text says why, as far as it is known.
    """
    limits.check_processes(_PROCESSES, "Ray")
    base = temporary_folder()
    _remove_old(base, KEPT)
    folder = _new_folder(base)
    keep = True
    in_use = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with _steered(_token(folder)):
            try:
                ray.init(
                    "local",
                    num_cpus=limits.cpus(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    job_config=InstalledCode(),
                    _temp_dir=str(folder / "r"),  # which Ray opens to all users
                )
                yield folder
            finally:
                ray.shutdown()
        keep = failed()
    except (InputError, KeyboardInterrupt, SystemExit):  # not for Ray's logs to explain
        keep = False
        raise
    finally:
        if not keep:
            _remove(folder)
        os.close(in_use)
        if keep:
            say(f"Ray's logs are kept in {folder} (the last {KEPT} such folders are)")
            _remove_old(base, KEPT)


def temporary_folder() -> Path:
    """Where the folders are made: RAY_TMPDIR, else the system's, or /tmp where paths below that are too long."""
    if named := os.environ.get("RAY_TMPDIR"):
        return Path(named)
    folder = Path(tempfile.gettempdir())
    short = len(os.fsencode(folder / f"{PREFIX}1234")) <= _FOLDER_BYTES
    return folder if short else Path("/tmp")


def _new_folder(base: Path) -> Path:
    """A folder that nobody else may enter, of a shorter name than `tempfile` would give it."""
    for _ in range(100):
        folder = base / f"{PREFIX}{secrets.token_urlsafe(3)}"
        try:
            folder.mkdir(mode=0o700)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(
                f"{base}: {error.strerror}: set RAY_TMPDIR to a folder that can be written to"
            ) from None
    raise FileExistsError(f"{base}: no name for a new folder was free")


def _token(folder: Path) -> Path:
    """A new token, without which no other user of this machine can speak to this Ray."""
    path = folder / "token"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


@contextmanager
def _steered(token: Path) -> Iterator[None]:
    """What a Ray that is started in the block, and its processes, find in the environment."""
    wanted = {
        **LOOPBACK_ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_AUTH_TOKEN": None,  # would be preferred, and stand in every process's environment
    }
    before = {name: os.environ.get(name) for name in wanted}
    _set(wanted)
    try:
        with loopback_only():
            yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    read_settings_again()


def _remove_old(base: Path, kept: int) -> None:
    """Remove what commands of this user have left, but for the newest; what is in use is not counted."""
    found = []
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and _is_left(folder):
                found.append((about.st_mtime, folder))
    for _, folder in sorted(found, reverse=True)[kept:]:
        _remove(folder)


def _is_left(folder: Path) -> bool:
    """Whether a folder was made here, and whoever made it has ended."""
    try:
        in_use = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(in_use)


def _remove(folder: Path) -> None:
    """Remove a folder; a process of Ray's that is just ending may still write to it."""
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
