"""Where compiled functions are kept on disk: one file each, named by all that its content follows from.

Numba's own cache numbers its files and lists them in an index. Two processes that compile at once, as the workers of a
study do on a new machine, can give one number to two functions, and one of them then runs the other's code, without a
word and from then on (Numba 0.68: a few of 40 functions, in every second try). Nor does it see that a function of
another file changed which was compiled into this one, and a damaged file, or a full disk, is an error to it. A name
made from the content's origin has no such races, and what cannot be read or written is only compiled once more.

Numba looks in `__pycache__` beside the source, or in `NUMBA_CACHE_DIR`.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import __version__
from numba.core.caching import FunctionCache, IndexDataCacheFile


class CodeCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function's code, kept in `CodeFiles`.

    Raises:
        RuntimeError: no folder to keep it in can be written to.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        source = _digest(Path(function.__code__.co_filename).parent)
        self._cache_file = CodeFiles(self.cache_path, self._impl.filename_base, source)


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


@cache
def _digest(folder: Path) -> str:
    """Of the sources that lie together, since each can be compiled into the others."""
    sources = b"\0".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(sources).hexdigest()
