"""Signals end a study whatever it is doing: none is lost, and none breaks off what must be whole."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sizewise.engine.driving import signals


@contextmanager
def answered(number: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.fixture(autouse=True)
def none_received(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", [])


def interrupted(sent: signal.Signals, in_between: Callable[[], object]) -> None:
    with signals.terminate_as_interrupt(), signals.deferred():
        signal.raise_signal(sent)
        in_between()


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 128 + signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_a_signal_waits_for_what_must_be_whole(sent: signal.Signals, code: int) -> None:
    whole: list[str] = []
    with answered(signal.SIGINT, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        interrupted(sent, lambda: whole.append("done"))
    assert whole == ["done"]
    assert signals.exit_code() == code


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_sigterm_ends_what_a_shell_has_ignore_sigint(handler: signal.Handlers) -> None:
    """As it does in the background of a script."""
    with answered(signal.SIGINT, handler), pytest.raises(KeyboardInterrupt):
        interrupted(signal.SIGTERM, lambda: None)
    assert signals.exit_code() == 128 + signal.SIGTERM
