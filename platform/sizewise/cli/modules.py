"""Keeps modules of the working folder from being imported; the command line imports this before anything else.

`python -m` puts the working folder in front of `sys.path`, and so does an empty entry of `PYTHONPATH`, which
`PYTHONPATH=$PYTHONPATH:/mine` leaves where the variable was not set. A `random.py` or `torch.py` there would be
imported instead of the real one. Folders that `PYTHONPATH` names are still searched.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def installed_only() -> None:
    """In a process that runs the command, import only what is installed or on `PYTHONPATH`."""
    command = os.path.basename(sys.argv[0])
    if command == "-m" and "sizewise.cli" not in sys.orig_argv:
        return  # another program, which imports the command line
    try:
        here = os.getcwd()
    except OSError:
        return  # it was removed
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [name for name in named if name]
    if kept and len(kept) < len(named):
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    unasked = [here] * ((command == "-m") + (0 < len(kept) < len(named)))
    if command == "sizewise":
        unasked.append(os.path.dirname(os.path.realpath(sys.argv[0])))
    for folder in unasked:  # only the first entry: another one is from PYTHONPATH, or an installation
        if folder in sys.path and folder not in map(os.path.abspath, kept):
            sys.path.remove(folder)


@contextmanager
def installed_only_in_children() -> Iterator[None]:
    """The same for every Python process that is started within the block, including Ray's."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def set_home() -> None:
    """Set HOME where there is none, as for users that a container does not know: libraries would fail."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/"


installed_only()
