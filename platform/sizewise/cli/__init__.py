"""The commands. Each checks its arguments, calls a function of another package, and prints the result.

Progress goes to standard error, results to standard output; with `--json` exactly one JSON object.
Exit codes: 0 success, 1 a failure of Sizewise or the machine, 2 bad input, 130 interrupted (SIGINT, Ctrl+C),
143 terminated (SIGTERM), 129 when the terminal was closed (SIGHUP).
"""

# isort: off
from sizewise.cli import modules  # first: from here on the working folder is not searched for modules

# isort: on

import errno
import io
import sys
from typing import Annotated, NoReturn

import typer

import sizewise

# For the commands that they add to the app, in the order in which `sizewise --help` lists them.
# isort: off
from sizewise.cli.commands import data as _data  # noqa: F401
from sizewise.cli.commands import studies as _studies  # noqa: F401
from sizewise.cli.commands import choosing as _choosing  # noqa: F401
from sizewise.cli.commands import answers as _answers  # noqa: F401
from sizewise.cli.commands import models as _models  # noqa: F401

# isort: on

from sizewise.cli import misuse
from sizewise.cli.shared import app
from sizewise_core.errors import InputError
from sizewise_core.files.local_files import OddFileError
from sizewise_core.machine.limits import TooFewProcessesError
from sizewise_core.printable import printable_lines
from sizewise_core.stores.storage import StorageError

__all__ = ["app", "main"]

INTERRUPTED = 130  # what typer returns after Ctrl+C
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    """The `sizewise` command."""
    modules.set_home()
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a name that the terminal's encoding lacks is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with modules.installed_only_in_children():
            code = app(prog_name="sizewise", standalone_mode=False)
        if code == INTERRUPTED:  # by a command that says nothing of it itself
            print("sizewise: interrupted", file=sys.stderr)
        sys.exit(code if isinstance(code, int) else 0)
    except misuse.UsageError as error:
        if misuse.is_call_for_help(error):
            print(error)
        else:
            print(misuse.sentence(error), file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(1)
    except InputError as error:
        _end(str(error), 2)
    except TooFewProcessesError as error:
        print(f"sizewise: {error}", file=sys.stderr)
        sys.exit(1)
    except StorageError as error:
        _end(str(error), 2 if error.fixable else 1)
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:
            _end(f"nothing more can be written ({error.strerror}): make room, and run the command again", 1)
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror}", 2 if isinstance(error, OddFileError) else 1)


def _end(message: str, code: int) -> NoReturn:
    """Print why there is no result, and exit. Control characters that a message quotes of a file are escaped."""
    print(f"sizewise: {printable_lines(message)}", file=sys.stderr)
    sys.exit(code)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"sizewise {sizewise.__version__}")
        raise typer.Exit


@app.callback()
def _version(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass
