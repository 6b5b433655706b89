"""Files that are either complete or absent.

    write_atomic(path, data)                   # a small file at once
    with atomic_file(path) as stream: ...      # a large one, written as it comes
    with atomic_folder(path) as folder: ...    # many files that belong together
    with resumable_folder(path) as folder: ... # the same, for work that can be resumed

A reader never sees half a file, and after a power cut the path holds the old content or the new, never a
mixture: the data goes to a temporary file in the same folder (a rename across file systems would copy),
reaches the disk, and is renamed into place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sizewise_core.errors import InputError

CACHED = 1 << 20
"""Bytes that stay in a processor's cache while something is done with them twice, such as written and digested."""


class BusyError(InputError):
    """Another process is writing the same folder, or has not ended yet."""


def is_free(folder: Path) -> bool:
    """Whether a folder is still to be written: it is absent or empty. Raises InputError where it is a file."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a new or empty folder")
    return not any(folder.iterdir())


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` (new files, renames) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A binary stream whose content appears as `path` when the block ends well, and nowhere when it does not.

    With `durable` false, the disk is not waited for: a power cut may leave `path` with anything in it.

    Raises OSError as `open` and `write` do (no permission, no space); an older file at `path` then stays as
    it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace the content of a file completely or not at all.

    Args:
        path: the file, in a folder that exists.
        data: its new content.
        durable: wait until the disk has it. If not, a power cut may leave `path` with anything in it.

    Raises:
        OSError: it cannot be written; an older file then stays as it was.
    """
    with atomic_file(path, durable) as stream:
        stream.write(data)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A working folder that becomes the folder `path` when the block ends well, and else vanishes.

    `path` must be absent or an empty folder. What a killed run left is cleared away.

    Raises InputError when another process is writing the same folder, OSError as the file system does.
    """
    with _working_folder(path) as working:
        _empty(working)
        try:
            yield working
            publish(working, path)
        except BaseException:
            shutil.rmtree(working, ignore_errors=True)
            raise


@contextmanager
def resumable_folder(path: Path) -> Iterator[Path]:
    """A working folder like that of `atomic_folder`, but with what a run that did not end has left in it.

    It stays until `publish(working, path)` makes it the folder `path`.

    Raises BusyError when another process is writing the same folder, OSError as the file system does.
    """
    with _working_folder(path) as working:
        yield working


def publish(working: Path, path: Path) -> None:
    """Make everything in a working folder durable and give the folder its name."""
    for name in working.rglob("*"):
        if name.is_dir():
            fsync_folder(name)
    fsync_folder(working)
    working.rename(path.resolve())
    fsync_folder(path.resolve().parent)


@contextmanager
def _working_folder(path: Path) -> Iterator[Path]:
    """The folder beside `path` where it is prepared, locked for as long as this process lives."""
    path = path.resolve()
    working = path.parent / f".{path.name}.partial"
    try:
        working.mkdir(parents=True, exist_ok=True)
        lock = os.open(working, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "wait for it or choose another"
            raise BusyError(f"{path}: another process is writing this folder; {fix}") from None
        yield working
    finally:
        os.close(lock)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class HashingWriter:
    """Passes bytes on to a binary stream, and knows how many there were and their digest.

    Closing it leaves the stream open.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data` and return its length in bytes."""
        left = memoryview(data).cast("B")
        self.bytes += left.nbytes
        for start in range(0, left.nbytes, CACHED):
            self._stream.write(left[start : start + CACHED])
            self._digest.update(left[start : start + CACHED])
        return left.nbytes

    @property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of what was written so far."""
        return self._digest.hexdigest()

    def tell(self) -> int:
        """How many bytes were written."""
        return self.bytes

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def close(self) -> None:
        """Accept no more (for writers that close what they write to)."""
        self.closed = True


@contextmanager
def hashed_file(path: Path, durable: bool = True) -> Iterator[HashingWriter]:
    """Like `atomic_file`, for a writer that knows the size and digest of what it wrote. Raises OSError."""
    with atomic_file(path, durable) as stream:
        yield HashingWriter(stream)
