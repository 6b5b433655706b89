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
    """Within the block SIGTERM is answered as SIGINT. To be repeated after Ray starts: it sets a handler too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code() -> int:
    """That of a command which a signal ended: 143 after SIGTERM, 130 after SIGINT."""
    return 128 + (signal.SIGTERM if _received else signal.SIGINT)


def terminated() -> KeyboardInterrupt:
    """What to raise where something else has answered SIGTERM in its own way."""
    _received.append(signal.SIGTERM)
    return KeyboardInterrupt()


def _interrupt(number: int, frame: Any) -> None:
    _received.append(number)
    os.kill(os.getpid(), signal.SIGINT)
