"""A study's folder, held open while it is driven: what becomes of it when it is moved or removed meanwhile.

The folder is known by what the file system calls it (device and inode), not by its path, where somebody may have put
another one. An open descriptor leads to it wherever it is, and Linux gives the path of what is open.
"""

import os
from contextlib import suppress
from pathlib import Path


class HeldFolder:
    """A folder of this machine, as long as it is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Hold it no more."""
        os.close(self._descriptor)

    def gone(self) -> bool:
        """Whether its path no longer leads to it. False where that is unknown, as on a network that is down."""
        try:
            there = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return not self._is(there)

    def now(self) -> Path | None:
        """Where it is now; None where it was removed, or that is unknown."""
        with suppress(OSError):
            found = Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))
            if self._is(found.stat()):
                return found
        return None

    def _is(self, other: os.stat_result) -> bool:
        mine = os.fstat(self._descriptor)
        return (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)
