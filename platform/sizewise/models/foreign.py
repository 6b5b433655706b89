"""Runs code of somebody else's: what it prints is kept off standard output, where results go, and it ends no process.

    with foreign("mynets:Net: its module is being imported"):
        importlib.import_module("mynets")

Where it takes long, it is said what is being done and at which line, so that an endless loop can be found. What it
draws at random, from PyTorch, NumPy or Python, follows from a seed, and leaves the draws of others as they are.
"""

import logging
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout

import numpy as np
import torch

log = logging.getLogger(__name__)
SLOW_SECONDS = 20.0


class ExitedError(Exception):
    """The code has called `sys.exit`."""


@contextmanager
def foreign(doing: str, seed: int | None = None) -> Iterator[None]:
    """Run a block that calls such code.

    Args:
        doing: what the code does, for the message if it takes long.
        seed: of the random numbers that it draws; None: those of the surrounding code.

    Raises:
        ExitedError: it has ended the program.
    """
    timer = threading.Timer(SLOW_SECONDS, _say, (doing, threading.get_ident()))
    timer.daemon = True
    timer.start()
    try:
        with redirect_stdout(sys.stderr), nullcontext() if seed is None else _draws_from(seed):
            yield
    except SystemExit as error:
        raise ExitedError(f"it calls sys.exit({error.code!r})") from error
    finally:
        timer.cancel()


@contextmanager
def _draws_from(seed: int) -> Iterator[None]:
    before = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before[0])
            random.setstate(before[1])


def _say(doing: str, thread: int) -> None:
    frame = sys._current_frames().get(thread)
    where = f", now at {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
    log.warning("%s for %.0f seconds%s: Ctrl+C ends it", doing, SLOW_SECONDS, where)
