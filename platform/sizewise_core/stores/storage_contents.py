"""The contents of many files at once, from an object store by one request, and only of what has changed.

read_all(folder, "*.json")                 # by path: the content, or the error of one that cannot be read
read_entries(listed)                       # the same of files that `storage.entries` has listed
"""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cachetools import LRUCache

from sizewise_core.files.local_files import TooLargeError, read_file
from sizewise_core.stores.storage import Entry, Place, entries
from sizewise_core.stores.storage_errors import reaching

if TYPE_CHECKING:
    from upath import UPath

_S3 = ("s3", "s3a")
_CACHED_BYTES = 64 << 20
# Contents by (path, version).
_cached: LRUCache[tuple[str, str], bytes] = LRUCache(_CACHED_BYTES, getsizeof=len)
_lock = threading.Lock()


def read_all(folder: Place, pattern: str, most: int | None = None) -> dict[Place, bytes | OSError]:
    """The contents of all files in a folder, in order of name; the error for one that cannot be read.

    From an object store all are fetched at once, and only those that have changed since this process last looked.

    Args:
        folder: the folder.
        pattern: of the files' names, as `fnmatch` has it.
        most: the largest size in bytes that is read of a file; larger ones give an error. None: any size.

    Raises:
        OSError: the folder cannot be listed, or its storage cannot be reached.
    """
    return read_entries(entries(folder, pattern), most)


def read_entries(listed: list[Entry], most: int | None = None) -> dict[Place, bytes | OSError]:
    """The contents of files that `entries` has listed; see `read_all`."""
    found: dict[Place, bytes | OSError] = {}
    missing: list[tuple[Entry, UPath]] = []
    for entry in listed:
        path = entry.path
        if isinstance(path, Path):
            try:
                found[path] = read_file(path, most)
            except OSError as error:
                found[path] = error
        elif most is not None and entry.size > most:
            found[path] = TooLargeError(errno.EFBIG, f"larger than {most >> 20} MB", str(path))
        elif not entry.is_folder:
            found[path] = b""  # keeps the order
            with _lock:
                known = _cached.get((str(path), entry.version))
            if known is None:
                missing.append((entry, path))
            else:
                found[path] = known
    if missing:
        with reaching(missing[0][1]):
            # One request a file: without this, s3fs first asks for the size of each.
            one_request = {"max_concurrency": 1} if missing[0][1].protocol in _S3 else {}
            contents = missing[0][1].fs.cat(
                [path.path for _, path in missing], on_error="return", **one_request
            )
        if not isinstance(contents, dict):
            contents = {missing[0][1].path: contents}
        for entry, path in missing:
            content = contents[path.path]
            if isinstance(content, bytes):
                found[path] = content
                if len(content) <= _CACHED_BYTES:
                    with _lock:
                        _cached[str(path), entry.version] = content
            else:
                try:
                    with reaching(path):
                        raise content
                except FileNotFoundError as error:
                    # Removed since. Any other error means that the storage cannot be read.
                    found[path] = error
    return found
