"""A study's logs: where they go, and what is written to them while a driver runs."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

from sizewise.config import StudySpec
from sizewise.store.study_folder import StudyFolder
from sizewise_core.files.local_files import open_file
from sizewise_core.files.own_folder import own_folder
from sizewise_core.printable import printable_lines
from sizewise_core.stores.storage import Place


def scratch(spec: StudySpec, folder: Place) -> Path:
    """Where logs go, and Ray's own files, which nothing ever needs again: beside ours, if Ray can write there."""
    if isinstance(folder, Path):
        return folder / StudyFolder(folder).logs.name
    return own_folder() / spec.name


@contextmanager
def logged(logs: Path) -> Iterator[None]:
    """Write Sizewise's messages (where it runs, damage, losses) to the study's logs as well as to the terminal.

    What Ray prints goes to the logs alone: standard output is for results.

    Raises:
        OSError: the folder cannot be made.
    """
    logs.mkdir(parents=True, exist_ok=True)
    logger, shown, kept = (
        logging.getLogger("sizewise"),
        _Shown(),
        logging.StreamHandler(_Log(logs / "study.log")),
    )
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in (shown, kept):
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    ray_tune = logging.getLogger("ray.tune")  # whose files nobody needs, nor its messages about them
    ray_tune.addHandler(kept)
    ray_tune.propagate = False
    printed = _Log(logs / "ray.txt", passes_on=sys.stdout)
    try:
        with redirect_stdout(printed):
            yield
    finally:
        printed.over = True
        for handler in (shown, kept):
            logger.removeHandler(handler)
        ray_tune.removeHandler(kept)


class _Shown(logging.Handler):
    """Lines on standard error as it is at the time: above the progress bar, while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print."""
        with suppress(OSError):  # whoever read it has gone, and the study goes on
            print(printable_lines(self.format(record)), file=sys.stderr, flush=True)


class _Log(io.TextIOBase):
    """Text appended to a file as far as the disk has room for it.

    Once it is `over`, text goes to what this stood in for: a progress bar of a caller's, begun in its time and ended
    after it, puts it back as standard output.
    """

    def __init__(self, path: Path, passes_on: TextIO | None = None) -> None:
        self._path, self._passes_on = path, passes_on
        self.over = False

    def write(self, text: str) -> int:
        """Append."""
        if self.over and self._passes_on is not None:
            return self._passes_on.write(text)
        with suppress(OSError), open_file(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        return len(text)
