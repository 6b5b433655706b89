"""What trials held: closed attempts, attempts under way, and those of a driver that was killed."""

import json
from pathlib import Path

import pytest

from sizewise.results import load, status
from sizewise.store.driving.usage import Sign, Usage, used
from sizewise_core.stores.claims import SupersededError
from study_folder import StudyWriter


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_every_attempt_counts_for_what_it_held_as_long_as_it_held_it(tmp_path: Path) -> None:
    clock = Clock()
    usage = Usage(tmp_path, "me", clock=clock)
    usage.begin(0, 1, cpus=2, gpus=0.5)
    clock.now += 10
    assert used(tmp_path, Sign("me", clock.now)) == {0: (10, 20, 5)}  # while it goes on
    usage.end(0)
    usage.end(0)  # it has ended: nothing more
    usage.begin(0, 2, cpus=2, gpus=0.5)
    usage.begin(1, 1, cpus=1, gpus=0)
    clock.now += 4
    usage.close()
    assert used(tmp_path, Sign("me", clock.now + 99)) == {0: (14, 28, 7), 1: (4, 4, 0)}


def test_a_killed_driver_held_until_its_last_sign_of_life(tmp_path: Path) -> None:
    clock = Clock()
    Usage(tmp_path, "me", clock=clock).begin(3, 1, cpus=1, gpus=1)
    again = Usage(tmp_path, "me", clock=clock)  # another process; the first is gone without a word
    again.settle(Sign("me", clock.now + 30))
    assert used(tmp_path, None) == {3: (30, 30, 30)}
    again.settle(Sign("me", clock.now + 60))  # once
    assert used(tmp_path, None) == {3: (30, 30, 30)}


def test_another_drivers_clock_says_nothing_of_an_attempt(tmp_path: Path) -> None:
    """Two drivers were killed before the second could settle what the first was holding."""
    clock = Clock()
    Usage(tmp_path, "first", clock=clock).begin(3, 1, cpus=1, gpus=1)
    second = Sign("second", clock.now + 10**6)
    assert used(tmp_path, second) == {3: (0, 0, 0)}
    Usage(tmp_path, "third", clock=clock).settle(second)
    assert used(tmp_path, None) == {3: (0, 0, 0)}


def test_who_was_superseded_writes_nothing(tmp_path: Path) -> None:
    def gone() -> None:
        raise SupersededError

    with pytest.raises(SupersededError):
        Usage(tmp_path, "me", gone).begin(0, 1, cpus=1, gpus=0)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_the_two_files_counts_an_attempt_once(tmp_path: Path) -> None:
    clock = Clock()
    usage = Usage(tmp_path, "me", clock=clock)
    usage.begin(0, 1, cpus=1, gpus=0)
    held = (tmp_path / "holding.json").read_bytes()
    clock.now += 10
    usage.end(0)
    (tmp_path / "holding.json").write_bytes(held)  # as a kill before its second write leaves it
    assert used(tmp_path, Sign("me", clock.now + 50)) == {0: (10, 10, 0)}
    Usage(tmp_path, "me", clock=clock).settle(Sign("me", clock.now + 70))
    assert used(tmp_path, None) == {0: (10, 10, 0)}


def test_half_a_line_and_a_damaged_file_cost_no_more_than_themselves(tmp_path: Path) -> None:
    clock = Clock()
    usage = Usage(tmp_path, "me", clock=clock)
    for trial in (0, 1):
        usage.begin(trial, 1, cpus=1, gpus=0)
        clock.now += 5
        usage.end(trial)
    text = (tmp_path / "usage.jsonl").read_text()
    (tmp_path / "usage.jsonl").write_text('{"trial_id": 7}\n[]\n' + text[:-20])
    (tmp_path / "holding.json").write_text("{")
    assert used(tmp_path, Sign("me", clock.now)) == {0: (5, 5, 0)}


@pytest.mark.parametrize("prices", [None, {"cpu_hour": 0.36, "gpu_hour": 3.6, "currency": "EUR"}])
def test_status_and_tables_tell_it_with_prices_in_money(
    tmp_path: Path, prices: dict[str, object] | None
) -> None:
    writer = StudyWriter(tmp_path, "one", trials=2, prices=prices)
    for trial in (0, 1):
        writer.trial(trial)
    clock = Clock()
    usage = Usage(writer.folder, "me", clock=clock)
    usage.begin(0, 1, cpus=1, gpus=0.25)
    clock.now += 100
    usage.close()
    cost = status(tmp_path, "one")["cost"]
    assert (cost["cpu_seconds"], cost["gpu_seconds"]) == (100, 25)
    assert cost["money"] == (pytest.approx(0.035) if prices else None)
    assert cost["currency"] == ("EUR" if prices else None)
    json.dumps(cost, allow_nan=False)
    trials = load(tmp_path, "one").trials
    assert trials.select("cpu_seconds", "gpu_seconds").rows() == [(100, 25), (None, None)]
    assert trials["money"][0] == (pytest.approx(0.035) if prices else None)
