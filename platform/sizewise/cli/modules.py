"""Keeps modules of the working folder from being imported; the command line imports this before anything else.

`python -m` puts the working folder in front of `sys.path`, and so does an empty entry of `PYTHONPATH`, which
`PYTHONPATH=$PYTHONPATH:/mine` leaves where the variable was not set. A `random.py` or `torch.py` there would be
imported in place of the real one. A folder that `PYTHONPATH` names is searched as ever.
"""

import os
import sys


def installed_only() -> None:
    """Have this process, where it is the command, import only what is installed or on `PYTHONPATH`."""
    command = os.path.basename(sys.argv[0])
    if command == "-m" and "sizewise.cli" not in sys.orig_argv:
        return  # another program, which imports the command line
    # The first entry is the working folder (`-m`), or the folder of the script.
    if command in ("-m", "sizewise") and not sys.flags.safe_path:
        del sys.path[0]
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [name for name in named if name]
    if len(kept) < len(named) and "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
        here = os.getcwd()
        if here not in map(os.path.abspath, kept):
            sys.path[:] = [folder for folder in sys.path if folder != here]


def installed_only_in_children() -> None:
    """The same for every Python process that this one starts, Ray's included."""
    os.environ["PYTHONSAFEPATH"] = "1"


installed_only()
