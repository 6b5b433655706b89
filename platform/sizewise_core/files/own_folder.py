"""A folder of this user's own in the system's temporary folder, where other users can make folders too."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from sizewise_core.errors import InputError


def own_folder() -> Path:
    """The folder `sizewise-UID`, which nobody else may enter, in the temporary folder; made if need be.

    Raises:
        InputError: another user has made a folder, or a link, of that name; or none can be made.
    """
    folder = Path(tempfile.gettempdir()) / f"sizewise-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            raise InputError(f"{folder}: was made by another user: set TMPDIR to a folder of your own")
        if about.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made ({error.strerror}): set TMPDIR to a folder of your own"
        ) from None
    return folder
