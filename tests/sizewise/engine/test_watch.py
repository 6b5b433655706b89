"""Time limits are kept by the driver's own clock."""

import time

import pytest

from sizewise.config.sections.running import FailuresSpec
from sizewise.engine import time_limits as watch
from sizewise.engine.time_limits import Watch


def test_a_trial_is_ended_after_its_time() -> None:
    ended: list[str] = []
    watch = Watch(FailuresSpec(trial_seconds=1.5, silent_seconds=None), ended.append, lambda trial_id: None)
    watch.begin(0, "node a")
    watch.begin(1, "node b")
    watch.forget(1)
    wait(ended)
    for _ in range(20):
        watch.extend(0)  # which is no excuse
    assert ended == ["node a"]
    assert watch.forget(0) == "trained for longer than failures.trial_seconds (2 s)"
    assert watch.forget(1) is None
    watch.close()


def test_a_silent_trial_is_ended_unless_it_saves_checkpoints() -> None:
    ended: list[str] = []
    newest = {0: "a.ckpt", 1: "a.ckpt"}
    watch = Watch(FailuresSpec(silent_seconds=1.5), ended.append, lambda trial_id: newest[trial_id])
    watch.begin(0, "stuck")
    watch.begin(1, "busy")
    end = time.monotonic() + 60
    while not ended and time.monotonic() < end:
        newest[1] = f"{time.monotonic()}.ckpt"
        time.sleep(0.05)
    assert ended == ["stuck"]
    assert "neither evaluated nor saved a checkpoint" in str(watch.forget(0))
    assert watch.forget(1) is None
    watch.close()


def test_an_end_that_does_not_work_is_no_end_of_the_watch() -> None:
    calls: list[str] = []

    def end(place: str) -> None:
        calls.append(place)
        raise RuntimeError("its node cannot be reached")

    watch = Watch(FailuresSpec(trial_seconds=0.5), end, lambda trial_id: None)
    watch.begin(0, "first")
    wait(calls)
    watch.begin(1, "second")
    end_time = time.monotonic() + 60
    while len(calls) < 2 and time.monotonic() < end_time:
        time.sleep(0.05)
    assert calls == ["first", "second"]
    watch.close()


def test_the_time_for_which_the_driver_was_suspended_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    away, clock = [0.0], time.monotonic
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock() + away[0])
    watching = Watch(
        FailuresSpec(trial_seconds=30, silent_seconds=20), ended.append, lambda trial_id: "a.ckpt"
    )
    watching.begin(0, "worker")
    away[0] = 3600.0  # as after SIGSTOP and SIGCONT
    time.sleep(2.5)
    assert ended == []
    assert watching.forget(0) is None
    watching.close()


def wait(ended: list[str]) -> None:
    end = time.monotonic() + 60
    while not ended:
        assert time.monotonic() < end
        time.sleep(0.05)
