"""Signals end a study cleanly, whichever comes: SIGINT, SIGTERM, or SIGHUP when its terminal is closed.

Ray Tune handles SIGINT; the others are passed on as that. What a terminal or a batch system sends, it sends to the
process group: a private Ray is started in groups of its own, so that it lives until the study has let go of it.
"""

import contextlib
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP are answered as SIGINT. A SIGHUP that is ignored (`nohup`) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt)}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """What would end a study is answered when the block has ended: what begins in it is not left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    wait = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in ENDING
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in wait.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def ended_within(seconds: float, force: Callable[[int], None]) -> Iterator[None]:
    """Call `force` with the signal's number, from another thread, where the block lasts so long after a signal.

    The main thread answers signals in Python code only, and may be waiting in Ray for what never answers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()  # of a study before, in the same process
    read, write = socket.socketpair()
    write.setblocking(False)
    ended = threading.Event()

    def watch() -> None:
        while number := read.recv(1):
            if number[0] in ENDING:
                _received.append(number[0])
                if not ended.wait(seconds):
                    force(number[0])
                return

    thread = threading.Thread(target=watch, daemon=True, name="signals")
    thread.start()
    before = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        write.close()
        thread.join()
        read.close()


def end_children() -> None:
    """SIGKILL to every process that this one has started, and to theirs.

    A private Ray's own would follow this process into its end, but not what they were just about to start.
    """
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


def received() -> int | None:
    """The signal that is ending the study, if one is."""
    return _received[0] if _received else None


def exit_code(number: int | None = None) -> int:
    """That of a command which a signal ended: 143 after SIGTERM, 129 after SIGHUP, else 130, as after SIGINT."""
    return 128 + (number or received() or signal.SIGINT)


def _interrupt(number: int, frame: Any) -> None:
    _received.append(number)
    if number == signal.SIGHUP:
        _leave_terminal()
    if not callable(signal.getsignal(signal.SIGINT)):
        raise KeyboardInterrupt  # ignored, as shells have it for what they start in the background
    os.kill(os.getpid(), signal.SIGINT)


def _leave_terminal() -> None:
    """Write to nowhere instead of to a terminal that is gone, where every line would be an error."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):  # whatever stands in for sys.stdout and sys.stderr just now
        with contextlib.suppress(OSError):  # closed
            # Not `isatty`: a terminal that was closed is none any more.
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
