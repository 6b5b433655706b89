"""The commands. Thin: each checks its arguments, calls one function of another room, and prints.

Progress goes to standard error, results to standard output; with `--json` exactly one JSON object.
Exit codes: 0 success, 1 a failure that is ours or the machine's, 2 bad input, 130 interrupted (SIGINT, Ctrl+C),
143 terminated (SIGTERM).
"""

import sys
from typing import Annotated

import typer

import sizewise

# For the commands that they add to the app, in the order in which `sizewise --help` lists them.
# isort: off
from sizewise.cli import data as _data  # noqa: F401
from sizewise.cli import studies as _studies  # noqa: F401
from sizewise.cli import answers as _answers  # noqa: F401
from sizewise.cli import models as _models  # noqa: F401

# isort: on

from sizewise.cli.shared import app
from sizewise_prep.errors import InputError
from sizewise_prep.storage import StorageError

__all__ = ["app", "main"]


def main() -> None:
    """The `sizewise` command."""
    try:
        app(prog_name="sizewise")
    except InputError as error:
        print(f"sizewise: {error}", file=sys.stderr)
        sys.exit(2)
    except StorageError as error:
        print(f"sizewise: {error}", file=sys.stderr)
        sys.exit(2 if error.mendable else 1)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"sizewise {sizewise.__version__}")
        raise typer.Exit
