"""How a study's driver ends before the study does: what it leaves behind, and the message that it prints.

The ledger holds everything at every moment, so the process can end at any: from a thread of its own where the main one
waits for something that never answers.
"""

import os
import shlex
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sizewise.engine.driving.driver import Driver
from sizewise.engine.driving.signals import end_children, exit_code, received
from sizewise_core.stores.storage import Place

STOP_SECONDS = 10.0  # how long an orderly shutdown of Ray may take after a signal
_leaving = threading.Lock()
before_leaving: list[Callable[[], None]] = []  # such as to take a bar from the terminal


def give_up(driver: Driver, folder: Place, reason: str) -> None:
    """End this process at once, with the study as the ledger has it: what it waits for will never answer.

    Args:
        driver: of the study; its last message is the reason.
        folder: the study's.
        reason: what never answers, in a sentence without a full stop.
    """
    if number := received():  # which is why
        stop_now(driver, folder, number)
    driver.stops(reason)
    _leave(driver, f"sizewise: {to_continue(folder.name, str(folder.parent), reason)}", 1)


def stop_now(driver: Driver, folder: Place, number: int) -> None:
    """End this process as its signal wants it, where Ray does not shut down: it may have got the signal too.

    Args:
        driver: of the study.
        folder: the study's.
        number: of the signal, which the exit code follows.
    """
    _leave(driver, interrupted(folder.name, str(folder.parent)), exit_code(number))


def leave_moved(driver: Driver, folder: Place, now: Path | None) -> None:
    """End this process at once: an orderly shutdown of Ray would create the folder again at its old path.

    Args:
        driver: of the study.
        folder: where the study's was.
        now: where it is; None where it was removed.
    """
    if now is None:
        message = (
            f"{folder}: the study's folder was removed while it ran, so there is nothing to resume; if you moved it to "
            "another file system, resume it there"
        )
    else:
        driver.stops(f"its folder was moved here from {folder} while it ran")
        message = (
            f"{folder.name} is paused: its folder was moved to {now} while it ran: nothing is lost, continue with "
            f"`sizewise resume {now.name} --runs {shlex.quote(str(now.parent))}`"
        )
    _leave(driver, f"sizewise: {message}", 1)


def _leave(driver: Driver, message: str, code: int) -> None:
    """End this process, from any thread: the main one handles no signal while it waits for Ray."""
    _leaving.acquire()  # never released: two threads may find a reason at once
    with suppress(OSError):
        driver.close()
    for end in before_leaving:
        with suppress(Exception):
            end()
    with suppress(OSError):  # a terminal that was closed
        print(message, file=sys.stderr, flush=True)
    end_children()
    os._exit(code)


def interrupted(name: str, runs: str) -> str:
    """The message for an interrupted study."""
    return f"interrupted: continue with `sizewise resume {name} --runs {shlex.quote(runs)}`"


def to_continue(name: str, runs: str, reason: str) -> str:
    """The message for a study that has paused.

    Args:
        name: of the study.
        runs: the folder of studies that it is in.
        reason: why it paused, in a sentence without a full stop.

    Returns:
        A sentence with the command that continues it.
    """
    return (
        f"{name} is paused: {reason}: nothing is lost; when that is fixed, continue with "
        f"`sizewise resume {name} --runs {shlex.quote(runs)}`"
    )
