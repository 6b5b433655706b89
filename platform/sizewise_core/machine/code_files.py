"""Compiled functions on disk: one file each, whose name is a digest of all that the code was compiled from.

This is the one module that uses `numba.core.caching`, which is not Numba's public interface. Tried with Numba 0.68;
with one that lacks what is used here, or calls it differently, `compiled.jit` keeps nothing on disk, and each process
compiles for itself.

Numba's own cache numbers its files and lists them in an index. Two processes that compile at once, as the workers of a
study do on a new machine, can give one number to two functions, and from then on one of them runs the other's code,
with no error (Numba 0.68: a few of 40 functions, in every second try). It also does not notice that a function of
another file changed which was compiled into this one, and fails on a damaged file or a full disk. Here a file's name
is a digest of all that its code was compiled from, so there are no such races, and code that cannot be read or written
is compiled again.

The folder is `NUMBA_CACHE_DIR`, or `__pycache__` beside the source, or Numba's own below the user's cache folder, or
one in the temporary folder: the first that can be written to and that nobody else can, since code from there is run.
"""

import ast
import grp
import hashlib
import logging
import os
import pwd
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import __version__
from numba.core import caching
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile

log = logging.getLogger(__name__)


def distrust(folder: Path) -> str:
    """Why code in a folder may be another user's; empty where only this user and root can have written it."""
    about, users = folder.stat(), {os.getuid(), 0}
    if about.st_uid not in users:
        return "belongs to another user"
    if _open_to_others(about):
        return "can be written to by other users"
    users |= _strangers()
    for parent in folder.resolve().parents:
        above = parent.stat()
        others = _open_to_others(above) and not above.st_mode & stat.S_ISVTX
        if others or above.st_uid not in users:  # whose owner could replace it
            return f"lies in {parent}, which other users can write to"
    return ""


def _strangers() -> set[int]:
    """The user id that root's folders show in a container whose only user is this one."""
    with suppress(OSError):
        first, outside, _ = map(int, Path("/proc/self/uid_map").read_text().split()[:3])
        if (first, outside) != (0, 0):
            return {int(Path("/proc/sys/kernel/overflowuid").read_text())}
    return set()


def _open_to_others(about: os.stat_result) -> bool:
    if about.st_mode & stat.S_IWOTH:
        return True
    return bool(about.st_mode & stat.S_IWGRP) and not _has_own_group(about)


def _has_own_group(about: os.stat_result) -> bool:
    """Whether a folder's group is its owner's alone, as many systems give each user one."""
    with suppress(KeyError):
        group, owner = grp.getgrgid(about.st_gid), pwd.getpwuid(about.st_uid)
        return group.gr_name == owner.pw_name and set(group.gr_mem) <= {owner.pw_name}
    return about.st_gid == 0


class _Private:
    """Makes one of Numba's locators skip a folder that others may have written to."""

    get_cache_path: Callable[[], str]

    def ensure_cache_path(self) -> None:
        """Make the folder, for this user alone, and see that it can be written to by this user and by nobody else."""
        folder = Path(self.get_cache_path())
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if reason := distrust(folder):
            _refused[folder] = reason
            raise PermissionError(f"{folder}: {reason}")
        tempfile.TemporaryFile(dir=folder).close()


class _Named(_Private, caching.UserProvidedCacheLocator):  # type: ignore[misc]
    pass


class _InTree(_Private, caching.InTreeCacheLocator):  # type: ignore[misc]
    pass


class _UserWide(_Private, caching.UserWideCacheLocator):  # type: ignore[misc]
    pass


class _Temporary(_Private, caching.UserWideCacheLocator):  # type: ignore[misc]
    def get_cache_path(self) -> str:
        """A folder for containers and nodes where neither the installation nor the home folder can be written to."""
        return f"{tempfile.gettempdir()}/sizewise-code-{os.getuid()}/{Path(super().get_cache_path()).name}"


_refused: dict[Path, str] = {}  # folders of this process's functions, and why they are not trusted


class _Compiled(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Named, _InTree, _UserWide, _Temporary]


class CodeCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function's code, kept in `CodeFiles`.

    Raises:
        RuntimeError: no folder to keep it in can be written to.
    """

    _impl_class = _Compiled

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        source = _digest(Path(function.__code__.co_filename))
        self._cache_file = CodeFiles(self.cache_path, self._impl.filename_base, source)
        _say_refused(Path(self.cache_path))


def keep_code(dispatcher: Any, function: Callable[..., Any]) -> None:
    """Let a function that Numba has not yet compiled look for its code on disk first, and keep it there.

    Raises:
        RuntimeError: no folder can be written to.
    """
    dispatcher._cache = CodeCache(function)


class CodeFiles(IndexDataCacheFile):  # type: ignore[misc]
    """Files of one function's code, by types of arguments, processor, constants and source."""

    def save(self, key: Any, data: Any) -> None:
        """Keep code, if the disk takes it."""
        with suppress(OSError):
            self._save_data(self._file(key), data)

    def load(self, key: Any) -> Any:
        """What was kept, or None: also where it is damaged, in whatever way."""
        try:
            return self._load_data(self._file(key))
        except Exception:
            return None

    def _file(self, key: Any) -> str:
        origin = repr((__version__, self._source_stamp, key))
        name: str = self._data_name(int.from_bytes(hashlib.sha256(origin.encode()).digest()[:16]))
        return name


def _say_refused(used: Path) -> None:
    """Log which folder is skipped, once and not in every process: a file in the used folder marks it."""
    for folder, reason in _refused.items():
        mark = used / f"instead-of-{hashlib.sha256(bytes(folder)).hexdigest()[:16]}"
        with suppress(OSError):
            mark.touch(mode=0o600, exist_ok=False)
            log.warning("%s %s: compiled code is kept in %s instead", folder, reason, used)
    _refused.clear()


@cache
def _digest(source: Path) -> str:
    """The digest of a module and of all that it imports of its package, since they can be compiled into its code."""
    top = source.parent
    while (top.parent / "__init__.py").exists():
        top = top.parent
    own = top.name if (top / "__init__.py").exists() else ""
    found, left = set[Path](), [source]
    while left:
        if (file := left.pop()) not in found:
            found.add(file)
            for name in _imported(file):
                if not own or name.partition(".")[0] == own:
                    place = (top.parent if own else top).joinpath(*name.split("."))
                    left += [
                        path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()
                    ]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(found))).hexdigest()


@cache
def _imported(source: Path) -> set[str]:
    """Names that a module imports, whether they are modules or not."""
    names = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names
