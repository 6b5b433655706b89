"""One kind of error for all that backends of object stores report.

with reaching(path):
    path.fs.cat_file(path.path)            # FileNotFoundError, or StorageError
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sizewise_core.errors import InputError

if TYPE_CHECKING:
    from upath import UPath


class StorageError(OSError):
    """A storage that cannot be used; the message says where and why, and never holds credentials.

    `fixable` is True where its owner can fix it (access denied, no such bucket), False where it is gone.
    """

    def __init__(self, message: str, fixable: bool) -> None:
        super().__init__(errno.EIO, message)
        self.fixable = fixable

    def __reduce__(self) -> tuple[Any, ...]:
        return StorageError, (self.strerror, self.fixable)  # it travels between processes

    def __str__(self) -> str:
        return str(self.strerror)


# Not every message about a file in a bucket that is called so: its path is in the message.
_NO_BUCKET = re.compile(r"bucket (does not|doesn't) exist|no such bucket", re.IGNORECASE)
# Errors of backends about credentials and names that are wrong, by class name: their modules may not be installed.
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "RefreshError"}
_BAD_NAME = {"ParamValidationError", "InvalidBucketName", "ValueError"}


@contextlib.contextmanager
def reaching(path: Path | UPath | str, writing: bool = False) -> Iterator[None]:
    """Raise one kind of error, of one line, for all that backends report.

    A file that is missing stays FileNotFoundError, one that exists FileExistsError; the rest is a StorageError.
    """
    try:
        yield
    except (InputError, StorageError, FileExistsError):
        raise
    except FileNotFoundError as error:
        if writing or _NO_BUCKET.search(str(error)):  # what is written to need not exist, but its bucket must
            raise StorageError(f"{path}: there is no such bucket", fixable=True) from None
        raise
    except Exception as error:
        kind = type(error).__name__
        if isinstance(error, OSError) and error.filename is not None:
            raise  # a file of this machine, not of the storage
        if isinstance(error, PermissionError):
            why = f"access denied ({error}): check the credentials that this process finds"
        elif kind in _NO_CREDENTIALS:
            why = f"no credentials were found ({error})"
        elif kind in _BAD_NAME:
            why = f"is no valid name ({error})"
        else:
            raise StorageError(f"{path}: cannot be reached ({kind}: {error})", fixable=False) from None
        raise StorageError(f"{path}: {why}", fixable=True) from None
