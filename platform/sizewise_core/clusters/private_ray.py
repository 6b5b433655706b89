"""A Ray cluster for one command alone, on a machine that others use too.

    with private_ray(say=print) as folder:
        ...                                 # ray.init is done

With its default options, Ray listens on every network interface, keeps a readable token in the home folder, and never
deletes its session folders, which all users of the machine can read. Here it listens on 127.0.0.1 only and writes
everything (token, sockets, logs, spilled objects) to a new folder that only its owner may enter. The folder is deleted
after success, and kept after a failure, for its logs. At most `KEPT` of them stay.
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

from sizewise_core.clusters.ray_internals import (
    LOOPBACK_ENVIRONMENT,
    InstalledCode,
    loopback_only,
    read_settings_again,
)
from sizewise_core.errors import InputError
from sizewise_core.machine import limits

KEPT = 3
PREFIX = "sizewise-"
_LOCK = "in-use"
# A socket's path must not be longer than 107 bytes, of which Ray takes the last.
_FOLDER_BYTES = 107 - len("/r/session_2026-11-27_18-00-53_853791_1234567/sockets/plasma_store")
# Threads of Ray's own processes on a machine of two cores, and of one trial's.
_PROCESSES = 400


@contextmanager
def private_ray(say: Callable[[str], None], failed: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """Start a Ray cluster for this process, and stop it when the block ends.

    Args:
        say: called with a sentence that names the folder where Ray's logs are kept.
        failed: asked at the end of the block whether Ray's logs are to be kept, though nothing was raised.

    Yields:
        The folder that holds all its files.

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
        with _settings(_token(folder)):
            try:
                # Ray makes its own folder readable for all users, so it gets one within `folder`.
                ray.init(
                    "local",
                    num_cpus=limits.cpus(),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    job_config=InstalledCode(),
                    _temp_dir=str(folder / "r"),
                )
                yield folder
            finally:
                ray.shutdown()
        keep = failed()
    except (InputError, KeyboardInterrupt, SystemExit):  # Ray's logs would not explain these
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
    """The parent of the folders: RAY_TMPDIR, else the system's temporary folder, or /tmp where that is too long."""
    if named := os.environ.get("RAY_TMPDIR"):
        return Path(named)
    folder = Path(tempfile.gettempdir())
    short = len(os.fsencode(folder / f"{PREFIX}1234")) <= _FOLDER_BYTES
    return folder if short else Path("/tmp")


def _new_folder(base: Path) -> Path:
    """A folder that only its owner may enter, with a shorter name than `tempfile` would choose."""
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
    """A new token, without which no other user of this machine can connect to this Ray."""
    path = folder / "token"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


@contextmanager
def _settings(token: Path) -> Iterator[None]:
    """Set the environment that a Ray which is started in the block, and its processes, read their settings from."""
    # RAY_AUTH_TOKEN would take precedence, and be readable in the environment of every process.
    wanted = {
        **LOOPBACK_ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_AUTH_TOKEN": None,
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
    """Delete the folders that commands of this user left behind, except the newest; those in use do not count."""
    found = []
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and _is_left(folder):
                found.append((about.st_mtime, folder))
    for _, folder in sorted(found, reverse=True)[kept:]:
        _remove(folder)


def _is_left(folder: Path) -> bool:
    """Whether a folder was made by this module, in a process that has ended."""
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
    """Delete a folder, in several attempts: a process of Ray's that is just ending may still write to it."""
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
