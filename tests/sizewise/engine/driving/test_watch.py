"""Time limits are kept by the driver's own clock, which moves here when a test says so."""

import threading
from collections.abc import Callable

from sizewise.config.sections.running import FailuresSpec
from sizewise.engine.time_limits import AGAIN_SECONDS, Watch


class Clock:
    """Seconds that pass when a test adds to them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watching(
    clock: Clock,
    end: Callable[[str], None],
    progress: Callable[[int], object] = lambda trial_id: None,
    **limits: float | None,
) -> Watch:
    """A watch that looks when it is asked to."""
    return Watch(FailuresSpec.model_validate(limits), end, progress, clock, tick=None)


def test_a_trial_is_ended_after_its_time() -> None:
    clock, ended = Clock(), list[str]()
    watch = watching(clock, ended.append, trial_seconds=1.5, silent_seconds=None)
    watch.begin(0, "node a")
    watch.begin(1, "node b")
    watch.forget(1)
    clock.now += 1.4
    watch.extend(0)  # a message does not prolong the time
    watch.look()
    assert ended == []
    clock.now += 0.2
    for _ in range(3):
        watch.look()
    assert ended == ["node a"]
    assert watch.forget(0) == "trained for longer than failures.trial_seconds (2 s)"
    assert watch.forget(1) is None


def test_a_silent_trial_is_ended_unless_it_saves_checkpoints() -> None:
    clock, ended = Clock(), list[str]()
    newest = {0: "a.ckpt", 1: "a.ckpt"}
    watch = watching(clock, ended.append, newest.get, silent_seconds=1.5)
    watch.begin(0, "stuck")
    watch.begin(1, "busy")
    for step in range(4):
        clock.now += 1.0
        newest[1] = f"{step}.ckpt"
        watch.look()
    assert ended == ["stuck"]
    assert "neither evaluated nor saved a checkpoint" in str(watch.forget(0))
    assert watch.forget(1) is None


def test_a_message_is_a_sign_of_life() -> None:
    clock, ended = Clock(), list[str]()
    watch = watching(clock, ended.append, silent_seconds=1.5)
    watch.begin(0, "worker")
    for _ in range(5):
        clock.now += 1.0
        watch.extend(0)
        watch.look()
    assert ended == []
    clock.now += 2.0
    watch.look()
    assert ended == ["worker"]


def test_an_end_that_fails_is_tried_again_and_others_are_ended() -> None:
    clock, calls = Clock(), list[str]()

    def end(worker: str) -> None:
        calls.append(worker)
        raise RuntimeError("its node cannot be reached")

    watch = watching(clock, end, trial_seconds=0.5)
    watch.begin(0, "first")
    clock.now += 1
    watch.look()
    watch.begin(1, "second")
    clock.now += 1
    watch.look()
    assert calls == ["first", "second"]
    for _ in range(int(AGAIN_SECONDS) + 1):
        clock.now += 1
        watch.look()
    assert calls == ["first", "second", "first", "second"]


def test_the_time_for_which_the_driver_was_suspended_does_not_count() -> None:
    clock, ended = Clock(), list[str]()
    watch = watching(clock, ended.append, lambda trial_id: "a.ckpt", trial_seconds=30, silent_seconds=20)
    watch.begin(0, "worker")
    watch.look()
    clock.now += 3600  # as after SIGSTOP and SIGCONT
    watch.look()
    assert ended == []
    for _ in range(31):
        clock.now += 1
        watch.look()
    assert ended == ["worker"]


def test_a_thread_looks_by_itself() -> None:
    ended = threading.Event()
    limits = FailuresSpec(trial_seconds=0.01)
    watch = Watch(limits, lambda worker: ended.set(), lambda trial_id: None, tick=0.01)
    watch.begin(0, "worker")
    assert ended.wait(60)
    watch.close()
