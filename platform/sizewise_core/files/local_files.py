"""Files of this machine that another person may have made: opened without following links and without waiting.

A study's folder may come from an archive. Instead of one of its files it can hold a link to a private file of the
reader, a pipe that never ends, a device, or a file that is far too large; none of these is opened. Neither the file nor
the folder that holds it may be a link. Folders above may be links, such as `runs` itself.

    read_file(path, most=1 << 20)              # OddFileError, another OSError, or the content
    with open_file(path, os.O_WRONLY) as file: ...
    first_odd(folder)                          # the first thing in a folder that is neither file nor folder
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a link, and links are not followed here",
    stat.S_IFDIR: "a folder instead of a file",
    stat.S_IFIFO: "a pipe instead of a file",
    stat.S_IFSOCK: "a socket instead of a file",
    stat.S_IFCHR: "a device instead of a file",
    stat.S_IFBLK: "a device instead of a file",
}


class OddFileError(OSError):
    """Not a regular file; `strerror` says what it is instead."""


class TooLargeError(OddFileError):
    """A file that is larger than such a file can be."""


def odd_file(path: Path, mode: int) -> OddFileError:
    """The error for something that is no regular file; `mode` as `os.stat` gives it."""
    kind = _KINDS.get(stat.S_IFMT(mode), "not a file")
    number = errno.ELOOP if stat.S_ISLNK(mode) else errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    return OddFileError(number, kind, str(path))


def open_file(path: Path, flags: int = os.O_RDONLY, links: bool = False) -> io.FileIO:
    """A regular file, opened without waiting; its mode follows from `flags` (`os.O_RDONLY`, `os.O_APPEND`, ...).

    Args:
        path: the file.
        flags: as for `os.open`.
        links: follow links, for files that the user has made, such as data.

    Raises:
        OddFileError: not a regular file, or a link, or in a folder that is one.
        OSError: as `os.open`.
    """
    flags |= os.O_NONBLOCK | os.O_CLOEXEC
    if links:
        descriptor = os.open(path, flags, 0o666)
    else:
        folder = _open_folder(path.parent)
        try:
            descriptor = _open_in(folder, path, flags | os.O_NOFOLLOW)
        finally:
            os.close(folder)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise odd_file(path, mode)
        return io.FileIO(descriptor, "r" if flags & os.O_ACCMODE == os.O_RDONLY else "r+")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, most: int | None = None, links: bool = False) -> bytes:
    """A file's content.

    Args:
        path: the file.
        most: the largest size in bytes that is read; None: any size.
        links: as for `open_file`.

    Raises:
        TooLargeError: it has more than `most` bytes; nothing is read then.
        OSError: as `open_file`.
    """
    with open_file(path, links=links) as file:
        if most is None:
            return file.readall()
        content = b"" if os.fstat(file.fileno()).st_size > most else file.read(most + 1)
        if len(content) > most or os.fstat(file.fileno()).st_size > most:
            raise TooLargeError(errno.EFBIG, f"larger than {most >> 20} MB", str(path))
        return content


def read_end(path: Path, most: int) -> bytes:
    """The last `most` bytes of a file. Raises OSError as `open_file`."""
    with open_file(path) as file:
        file.seek(max(os.fstat(file.fileno()).st_size - most, 0))
        return file.read(most)


def check_folder(path: Path) -> None:
    """Raise OddFileError where a folder is a link. A missing one, or one that is no folder, is not checked here."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if stat.S_ISLNK(mode):
        raise odd_file(path, mode)


def first_odd(folder: Path) -> OddFileError | None:
    """The first thing in a folder, however deep, that is neither a file nor a folder; links are not followed."""
    return next((odd_file(Path(entry), mode) for entry, mode in _odd(folder)), None)


def _odd(folder: Path) -> Iterator[tuple[str, int]]:
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as listed:
            for entry in listed:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    yield entry.path, entry.stat(follow_symlinks=False).st_mode


def _open_folder(path: Path) -> int:
    try:
        return os.open(path, _FOLDER)
    except OSError:  # "not a directory" or "too many links": so systems call a link that is not followed
        check_folder(path)
        raise


def _open_in(folder: int, path: Path, flags: int) -> int:
    """Open a file of an open folder. A device is not even opened, because some act when they are."""
    try:
        mode = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode):
            raise odd_file(path, mode)
        return os.open(path.name, flags, 0o666, dir_fd=folder)
    except FileNotFoundError as error:
        if not flags & os.O_CREAT:
            raise _named(error, path) from None
        return os.open(path.name, flags, 0o666, dir_fd=folder)
    except OddFileError:
        raise
    except OSError as error:
        raise _named(error, path) from None


def _named(error: OSError, path: Path) -> OSError:
    """The same error with the whole path: relative to a folder that is open, the system reports the name alone."""
    return OSError(error.errno, error.strerror, str(path))
