"""SIGTERM ends a study as cleanly as SIGINT does, which Ray Tune handles."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_received: list[int] = []


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within the block SIGTERM is answered as SIGINT."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def deferred() -> Iterator[None]:
    """SIGINT and SIGTERM are answered when the block has ended: what begins in it is not left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    wait = {
        n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in wait.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def exit_code() -> int:
    """That of a command which a signal ended: 143 after SIGTERM, 130 after SIGINT."""
    return 128 + (signal.SIGTERM if _received else signal.SIGINT)


def _interrupt(number: int, frame: Any) -> None:
    _received.append(number)
    if not callable(signal.getsignal(signal.SIGINT)):
        raise KeyboardInterrupt  # ignored, as shells have it for what they start in the background
    os.kill(os.getpid(), signal.SIGINT)
