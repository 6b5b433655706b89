"""Folders on this machine or in an object store, behind the few operations in which the two differ.

    folder = place("runs")                     # a pathlib.Path
    folder = place("s3://bucket/runs")         # a UPath: any URI that fsspec knows
    write(folder / "a.json", b"{}")            # completely or not at all
    read(folder / "a.json")
    entries(folder)                            # its files, with sizes and times: one request for a thousand

On this machine neither a file nor the folder that holds it may be a link, and only regular files are opened (see
`local_files`), because a study's folder may come from another person. `links` allows links, for what a user has made
himself, such as data.

An object store has no folders to make, no rename and no append: one request writes a complete object, which everyone
reads from then on. docs/study_folder.md lists what is assumed of an object store. Credentials come from where the
backend's own client looks for them (environment, configuration files, the machine's role), never from here.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias, cast
from urllib.parse import urlsplit

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import write_atomic
from sizewise_core.files.local_files import check_folder, first_odd, open_file, read_file
from sizewise_core.files.local_files import read_end as read_local_end
from sizewise_core.stores.storage_errors import StorageError as StorageError
from sizewise_core.stores.storage_errors import reaching

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = "Path | UPath"

_EXTRAS = {"s3": "s3", "s3a": "s3"}  # what an extra of this package installs


class Entry(NamedTuple):
    """A file or folder in a folder: `version` changes with its content, `modified` is in unix seconds."""

    path: Place
    is_folder: bool
    size: int
    modified: float
    version: str
    is_file: bool = True  # on this machine there are pipes and devices as well


def place(text: str | Place) -> Place:
    """The folder or file that a path or URI names.

    Raises:
        InputError: a URI of no known kind, one whose backend is not installed, or one that holds a password.
    """
    if not isinstance(text, str):
        return text
    scheme, separator, _ = text.partition("://")
    if not separator:
        return Path(text)
    if scheme in ("file", "local"):
        return Path("/" + text.split("://", 1)[1].lstrip("/"))
    if "@" in urlsplit(text).netloc:
        raise InputError(
            f"{scheme}://...: credentials do not belong into a URI: set them in the environment, as the "
            "documentation of the storage says, and write the URI without them"
        )
    from fsspec import available_protocols, get_filesystem_class

    if scheme not in available_protocols():
        raise InputError(
            f"{text}: {scheme}:// is no kind of storage; s3:// and gs:// are, and so is a plain path"
        )
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        fix = f"pip install 'sizewise[{extra}]'" if extra else str(error)
        raise InputError(f"{text}: what reads {scheme}:// is not installed: {fix}") from None
    from upath import UPath

    logging.getLogger("asyncio").addFilter(_is_unreported)
    with reaching(text):
        # Listings must be those of now: other machines write there.
        return UPath(text.rstrip("/"), use_listings_cache=False)


def _is_unreported(record: logging.LogRecord) -> bool:
    """Drop asyncio's reports of requests that were cut off: the caller who waited for the answer got the error."""
    return "exception was never retrieved" not in record.getMessage()


def absolute(path: Place) -> Place:
    """The path as any process of this machine can use it, in whatever folder it runs."""
    return path.resolve() if isinstance(path, Path) else path


def make_folder(path: Place) -> None:
    """Make a folder and those above it; an object store needs none."""
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)


def exists(path: Place) -> bool:
    """Whether there is such a file or folder; in an object store a folder exists if it has files in it."""
    if isinstance(path, Path):
        return path.exists()
    with reaching(path):
        return bool(path.fs.exists(path.path))


def is_link(path: Place) -> bool:
    """Whether a file or folder is a link; in an object store there is no such thing."""
    return isinstance(path, Path) and path.is_symlink()


def refuse_odd_files(folder: Place) -> None:
    """Refuse to write into a folder of this machine that is a link, or that holds links, pipes or devices at any depth.

    Raises:
        InputError: it does; the message names it.
        OSError: it cannot be listed.
    """
    if not isinstance(folder, Path) or not os.path.lexists(folder):
        return
    check = "a study's folder holds files and folders alone: remove it, or put the file itself there"
    if folder.is_symlink():
        raise InputError(f"{folder}: is a link: name the folder itself, by --runs with what it lies in")
    if odd := first_odd(folder):
        raise InputError(f"{odd.filename}: is {odd.strerror}; {check}")


def is_folder(path: Place) -> bool:
    """Whether there is such a folder; in an object store, the bucket itself or what has files in it."""
    if isinstance(path, Path):
        return path.is_dir()
    with reaching(path):
        return bool(path.fs.isdir(path.path))


def read(path: Place, most: int | None = None, links: bool = False) -> bytes:
    """A file's content.

    Args:
        path: the file.
        most: the largest size in bytes that is read of a file on this machine; None: any size.
        links: follow links, for files that the user has made, such as data.

    Raises:
        OSError: it cannot be read, or is too large.
    """
    if isinstance(path, Path):
        return read_file(path, most, links)
    with reaching(path):
        content: bytes = path.fs.cat_file(path.path)
        return content


def read_end(path: Place, most: int) -> bytes:
    """The last `most` bytes of a file. Raises OSError."""
    return read_local_end(path, most) if isinstance(path, Path) else read(path)[-most:]


def write(path: Place, data: bytes, durable: bool = True) -> None:
    """Replace a file's content, completely or not at all.

    Args:
        path: the file.
        data: its new content.
        durable: wait until the disk of this machine has it; if not, a power cut may damage the file. An object store is
            always durable.

    Raises:
        OSError: it cannot be written.
    """
    if isinstance(path, Path):
        check_folder(path.parent)
        write_atomic(path, data, durable)
        return
    with reaching(path, writing=True):
        path.fs.pipe_file(path.path, data)


def create(path: Place, data: bytes) -> bool:
    """Write a new file unless one has this name: of all processes that try, one gets True. Raises OSError."""
    if isinstance(path, Path):
        try:
            check_folder(path.parent)
            with path.open("xb") as stream:  # which follows no link
                stream.write(data)
        except FileExistsError:
            return False
        return True
    with reaching(path, writing=True):
        try:
            path.fs.pipe_file(path.path, data, mode="create")
        except FileExistsError:
            # It may be from a first attempt of ours, whose answer was lost.
            return bool(path.fs.cat_file(path.path) == data)
        return True


def append_line(path: Place, line: bytes) -> None:
    """Add a line, which ends in a newline, to a file. A crash may cut it short; a full disk leaves none of it.

    Only one process may do so at a time: in an object store the file is written anew. Raises OSError.
    """
    if not isinstance(path, Path):
        try:
            before = read(path)
        except FileNotFoundError:
            before = b""
        write(path, before + line)
        return
    with open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
        end = file.seek(0, os.SEEK_END)
        if end and file.seek(end - 1) and file.read(1) != b"\n":
            line = b"\n" + line  # a crash cut the line before this one short
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(end)
            raise


def remove(path: Place) -> None:
    """Delete a file, if it is there. Raises OSError."""
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
        return
    with reaching(path, writing=True), contextlib.suppress(FileNotFoundError):
        path.fs.rm_file(path.path)


def rename(path: Place, name: str) -> None:
    """Give a file another name in its folder; an object store copies it. Raises OSError."""
    if isinstance(path, Path):
        path.rename(path.with_name(name))
        return
    write(path.with_name(name), read(path))
    remove(path)


def copy(path: Place, target: Place) -> None:
    """Copy a file within one storage. Raises OSError."""
    if isinstance(path, Path) or isinstance(target, Path):
        write(target, read(path))
        return
    with reaching(path):
        path.fs.cp_file(path.path, target.path)


def fetch(path: Place, target: Path) -> None:
    """Copy a file of any size to this machine, in constant memory. Raises OSError."""
    if isinstance(path, Path):
        shutil.copyfile(path, target)
        return
    with reaching(path):
        path.fs.get_file(path.path, str(target))


def send(path: Path, target: Place) -> None:
    """Copy a file of any size from this machine, in constant memory; it is there completely or not at all.

    Raises OSError.
    """
    if isinstance(target, Path):
        write(target, path.read_bytes())
        return
    with reaching(target, writing=True):
        target.fs.put_file(str(path), target.path)


def remove_folder(path: Place) -> None:
    """Delete a folder and all that it holds. Raises OSError."""
    if isinstance(path, Path):
        shutil.rmtree(path)
        return
    with reaching(path, writing=True):
        path.fs.rm(path.path, recursive=True)


def entries(folder: Place, pattern: str = "*", links: bool = False) -> list[Entry]:
    """The files and folders in a folder, in order of name; none where it is absent.

    Args:
        folder: the folder. A link in it counts as neither file nor folder.
        pattern: of their names, as `fnmatch` has it.
        links: whether the folder itself may be a link.

    Raises:
        OSError: it cannot be listed, or is a link.
    """
    found = []
    if isinstance(folder, Path):
        if not links:
            check_folder(folder)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as listed_here:
            for seen in listed_here:
                if fnmatchcase(seen.name, pattern):
                    with contextlib.suppress(FileNotFoundError):  # removed since
                        found.append(_local_entry(folder / seen.name, seen.stat(follow_symlinks=False)))
        return sorted(found, key=lambda entry: entry.path.name)
    with reaching(folder), contextlib.suppress(FileNotFoundError):
        for listed in folder.fs.ls(folder.path, detail=True):
            path = folder / listed["name"].rstrip("/").rpartition("/")[2]
            if listed["name"].rstrip("/") != folder.path.rstrip("/") and fnmatchcase(path.name, pattern):
                found.append(_entry(path, listed))
    return sorted(found, key=lambda entry: entry.path.name)


def entry(path: Place) -> Entry:
    """A single file or folder as `entries` has it. Raises OSError."""
    if isinstance(path, Path):
        return _local_entry(path, path.stat())
    with reaching(path):
        return _entry(path, path.fs.info(path.path))


def matches(pattern: str) -> list[str]:
    """The URIs that a URI with a glob pattern in it names, in no order. Raises InputError as `place`, OSError."""
    from fsspec.core import url_to_fs

    place(pattern.partition("*")[0])  # says what is wrong with the kind of URI
    with reaching(pattern):
        filesystem, inner = url_to_fs(pattern, use_listings_cache=False)
        return [filesystem.unstrip_protocol(match) for match in filesystem.glob(inner)]


def open_to_read(path: Place) -> BinaryIO:
    """A file's content as a binary stream that can seek. Raises OSError."""
    if isinstance(path, Path):
        return path.open("rb")
    with reaching(path):
        return cast(BinaryIO, path.fs.open(path.path, "rb"))


def _local_entry(path: Path, info: os.stat_result) -> Entry:
    version = f"{info.st_size}-{info.st_mtime_ns}-{info.st_ino}"
    kinds = stat.S_ISDIR(info.st_mode), stat.S_ISREG(info.st_mode)
    return Entry(path, kinds[0], info.st_size, info.st_mtime, version, kinds[1])


def _entry(path: UPath, listed: Mapping[str, Any]) -> Entry:
    modified = next(
        (listed[key] for key in ("LastModified", "mtime", "updated", "created") if listed.get(key)), 0.0
    )
    if isinstance(modified, str):
        from datetime import datetime

        modified = datetime.fromisoformat(modified)
    seconds = modified.timestamp() if hasattr(modified, "timestamp") else float(modified)
    size = int(listed.get("size") or 0)
    version = str(
        next((listed[key] for key in ("ETag", "etag", "generation") if listed.get(key)), f"{size}-{seconds}")
    )
    return Entry(path, listed["type"] == "directory", size, seconds, version)
