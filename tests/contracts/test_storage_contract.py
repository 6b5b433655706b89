"""What a study needs of the place that it lies in, over every kind of place: a folder, and S3 by its protocol."""

import itertools
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from s3_server import S3Server
from sizewise import results
from sizewise.engine.driving import driver
from sizewise.engine.driving.driver import only_driver
from sizewise.metrics.evaluation import Evaluation, TestScores
from sizewise.metrics.scores import Scores
from sizewise.store.driving import heartbeat
from sizewise.store.driving.usage import Usage
from sizewise.store.trials.ledger import Ledger, Record
from sizewise.training.checkpoints import checkpoint
from sizewise_core.errors import InputError
from sizewise_core.stores import storage, storage_contents
from sizewise_core.stores.claims import Claim, SupersededError
from sizewise_core.stores.storage import Place, StorageError, place

_numbers = itertools.count()


@pytest.fixture(params=["local", "s3"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A runs folder, empty."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return place(f"s3://studies/runs-{next(_numbers)}")
    return tmp_path / "runs"


@pytest.fixture
def study(runs: Place) -> Place:
    Ledger(runs / "demo")
    storage.write(runs / "demo" / "study.json", json.dumps({"name": "demo", "trials": 3}).encode())
    return runs / "demo"


def record(trial_id: int, **changes: Any) -> Record:
    fields = {"trial_id": trial_id, "state": "running", "key": f"{trial_id:04d}-0", "params": {"epochs": 2}}
    return Record.model_validate({**fields, "config": {"dim": 8}, "started": 1.5, **changes})


def evaluation(iteration: int, auc: float) -> Evaluation:
    return Evaluation({"iteration": iteration, "auc": auc, "embedding_bytes": 1_000, "model_bytes": 5_000})


TEST = TestScores(10, Scores(0.6, 0.5, 0.9, 1.0))


# Files


def test_files_are_written_read_listed_renamed_and_removed(runs: Place) -> None:
    storage.make_folder(runs / "a" / "b")
    for name, content in (("two.json", b"22"), ("one.json", b""), ("one.txt", b"1")):
        storage.write(runs / "a" / name, content)
    storage.write(runs / "a" / "b" / "deep.json", b"deep")
    storage.write(runs / "a" / "two.json", b"twice")
    assert storage.read(runs / "a" / "two.json") == b"twice"
    listed = storage.entries(runs / "a")
    assert [entry.path.name for entry in listed] == ["b", "one.json", "one.txt", "two.json"]
    assert [entry.is_folder for entry in listed] == [True, False, False, False]
    assert [entry.size for entry in listed[1:]] == [0, 1, 5]
    assert storage_contents.read_all(runs / "a", "*.json") == {
        runs / "a" / "one.json": b"",
        runs / "a" / "two.json": b"twice",
    }
    assert storage.exists(runs / "a" / "one.txt")
    assert not storage.exists(runs / "a" / "none.txt")
    assert storage.is_folder(runs / "a")
    assert not storage.is_folder(runs / "c")
    assert storage.entries(runs / "nowhere") == []
    with pytest.raises(FileNotFoundError):
        storage.read(runs / "a" / "none.txt")
    storage.rename(runs / "a" / "one.txt", "other.txt")
    storage.copy(runs / "a" / "other.txt", runs / "a" / "third.txt")
    storage.remove(runs / "a" / "other.txt")
    storage.remove(runs / "a" / "other.txt")  # is no error
    assert [entry.path.name for entry in storage.entries(runs / "a", "*.txt")] == ["third.txt"]
    storage.remove_folder(runs / "a")
    assert storage.entries(runs / "a") == []


def test_what_another_process_changes_is_seen_at_once(runs: Place, request: pytest.FixtureRequest) -> None:
    storage.make_folder(runs)
    storage.write(runs / "a.json", b"one")
    assert storage_contents.read_all(runs, "*.json") == {runs / "a.json": b"one"}
    other = "import sys; from sizewise_core.stores.storage import place, write;"
    other += "write(place(sys.argv[1]) / 'a.json', b'two'); write(place(sys.argv[1]) / 'b.json', b'new')"
    subprocess.run([sys.executable, "-c", other, str(runs)], check=True)
    # the same size, and perhaps in the same second: contents are distinguished by more than that
    assert storage_contents.read_all(runs, "*.json") == {runs / "a.json": b"two", runs / "b.json": b"new"}
    assert [entry.path.name for entry in storage.entries(runs)] == ["a.json", "b.json"]


def test_of_many_who_create_a_file_one_is_told_so(runs: Place) -> None:
    storage.make_folder(runs)
    meet = threading.Barrier(8)

    def claim(number: int) -> bool:
        meet.wait()
        return storage.create(runs / "claim", str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(claim, range(8)))
    assert won.count(True) == 1
    assert storage.read(runs / "claim") == str(won.index(True)).encode()


def test_lines_are_added_to_what_is_there(runs: Place) -> None:
    storage.make_folder(runs)
    for line in (b"one\n", b"two\n"):
        storage.append_line(runs / "lines", line)
    assert storage.read(runs / "lines") == b"one\ntwo\n"


def test_a_place_keeps_its_text_and_travels_between_processes(runs: Place) -> None:
    assert place(str(runs)) == runs
    assert str(pickle.loads(pickle.dumps(runs)) / "a") == f"{runs}/a"
    assert isinstance(place("file:///tmp/runs"), Path)
    assert place("file:///tmp/runs") == Path("/tmp/runs")


# The ledger, and what readers see of it


def test_records_come_back_as_written(study: Place) -> None:
    ledger = Ledger(study)
    ledger.write(record(0))
    ledger.write(record(1, state="failed", error="out of memory", finished=2.5))
    ledger.write(record(0, state="finished", values={"auc": 0.7}, finished=2.0))
    assert Ledger(study).records() == {
        0: record(0, state="finished", values={"auc": 0.7}, finished=2.0),
        1: record(1, state="failed", error="out of memory", finished=2.5),
    }


def test_a_damaged_record_gives_way_to_the_one_before(study: Place) -> None:
    ledger = Ledger(study)
    ledger.write(record(0))
    ledger.write(record(0, state="finished", values={"auc": 0.7}, finished=2.0))
    path = study / "trials" / "0000.json"
    storage.write(path, storage.read(path)[:40])
    assert Ledger(study).records() == {0: record(0)}
    assert storage.exists(study / "trials" / "0000.damaged")
    assert Ledger(study).records() == {0: record(0)}


def test_results_are_read_back_equal(study: Place, runs: Place, tmp_path: Path) -> None:
    def fill(ledger: Ledger) -> None:
        for trial_id in range(3):
            ledger.write(record(trial_id))
            for step in range(1, 5):
                ledger.append_evaluation(trial_id, evaluation(step * 10, 0.6 + step / 100 + trial_id / 1000))
        ledger.write_evaluations(1, [evaluation(10, 0.61), evaluation(20, float("nan"))])
        ledger.write_test(1, TEST)
        ledger.write(record(1, state="finished", values={"auc": 0.61}, finished=9.0))

    fill(Ledger(study))
    storage.make_folder(tmp_path / "calm" / "demo")
    storage.write(tmp_path / "calm" / "demo" / "study.json", storage.read(study / "study.json"))
    fill(Ledger(tmp_path / "calm" / "demo"))
    ours, calm = results.load(runs, "demo"), results.load(tmp_path / "calm", "demo")
    assert ours.problems == calm.problems == []
    assert ours.evaluations.equals(calm.evaluations)
    assert ours.evaluations.height == 4 + 2 + 4
    assert ours.trials.equals(calm.trials)
    assert ours.front.equals(calm.front)
    assert results.names(runs) == ["demo"]
    now, then = (results.status(where, "demo") for where in (runs, tmp_path / "calm"))
    assert abs(now.pop("last_change") - then.pop("last_change")) < 60
    assert now == then
    before = results.fingerprint(runs, "demo")
    assert results.fingerprint(runs, "demo") == before
    Ledger(study).append_evaluation(2, evaluation(50, 0.7))
    assert results.fingerprint(runs, "demo") != before
    assert results.load(runs, "demo").evaluations.height == 11
    with pytest.raises(InputError, match="gone: no such study; studies there: demo"):
        results.load(runs, "gone")


# Checkpoints


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    study: Place, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = study / "checkpoints" / "0000-1a2b3c4d"
    for iteration in (10, 20, 30):
        checkpoint.save(folder, iteration, {"iteration": iteration, "pool": torch.arange(3) * iteration})
    assert len(storage.entries(folder, "*.ckpt")) == checkpoint.KEPT
    newest = folder / "000000000030.ckpt"
    data = bytearray(storage.read(newest))
    data[len(data) // 2] ^= 1
    storage.write(newest, {"truncated": bytes(data[:100]), "flipped": bytes(data), "empty": b""}[damage])
    state = checkpoint.load_newest(folder)
    assert state is not None
    assert state["pool"].tolist() == [0, 20, 40]
    assert "000000000030.ckpt is damaged" in caplog.text
    assert storage.exists(newest.with_suffix(".damaged"))


def test_weights_come_back_and_damage_in_them_is_noticed(study: Place) -> None:
    path = study / "best-000000000010.safetensors"
    checkpoint.save_weights(path, {"pool": torch.arange(5.0)})
    assert checkpoint.load_weights(path)["pool"].tolist() == [0, 1, 2, 3, 4]
    data = bytearray(storage.read(path))
    data[-1] ^= 64
    storage.write(path, bytes(data))
    with pytest.raises(checkpoint.DamagedError, match="checksum"):
        checkpoint.load_weights(path)


def test_files_that_go_while_they_are_copied_are_looked_for_again(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place(f"s3://studies/trial-{next(_numbers)}")
    own, _ = checkpoint.take_over(folder)
    for iteration in (10, 20):
        checkpoint.save(own, iteration, {"iteration": iteration})
    copy = storage.copy

    def copy_late(path: Place, target: Place) -> None:
        if path.name == "000000000010.ckpt":
            checkpoint.save(own, 30, {"iteration": 30})  # which removes the one of 10
        copy(path, target)

    monkeypatch.setattr(checkpoint, "copy", copy_late)
    successor, _ = checkpoint.take_over(folder)
    state = checkpoint.load_newest(successor)
    assert state is not None
    assert state["iteration"] == 30
    assert storage.entries(own) == []


# One driver


DRIVER = """
import sys, time
from sizewise.engine.driving.driver import only_driver
from sizewise.store.driving.usage import Usage
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import place
try:
    with only_driver(place(sys.argv[1])) as driver:
        driver.call(lambda reason: print(reason, flush=True), lambda now: None)
        print("holds", flush=True)
        time.sleep(600)
except InputError as error:
    print(error, flush=True)
"""


def drive(study: Place) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(study)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_second_driver_is_refused_and_a_dead_one_is_followed(study: Place) -> None:
    first = drive(study)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "holds\n"
        with (
            pytest.raises(InputError, match=rf"process {first.pid} on \S+ is running this study"),
            only_driver(study),
        ):
            pass
        assert results.status(study.parent, "demo")["state"] == "running"
    finally:
        first.kill()
        first.communicate()
    assert results.status(study.parent, "demo")["state"] == "interrupted"
    with only_driver(study) as mine:
        assert results.status(study.parent, "demo")["state"] == "running"
        mine.ends(finished=True)
    assert results.status(study.parent, "demo")["state"] == "finished"


def test_a_superseded_driver_writes_nothing_more(study: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was suspended, and is faster than its next heartbeat."""
    monkeypatch.setattr(driver, "HEARTBEAT_SECONDS", 600.0)
    with only_driver(study) as first:
        ledger, usage = Ledger(study, first.check), Usage(study, first.claim, first.check)
        ledger.write(record(0))
        claim = json.dumps({"host": "elsewhere", "pid": 1, "claim": "another", "state": "running"}).encode()
        if not isinstance(study, Path):
            assert Claim.newest(study / "drivers").next(claim)
        storage.write(study / "driver.json", claim)
        for write in (
            lambda: ledger.write(record(1)),
            lambda: ledger.append_evaluation(0, evaluation(1, 0.7)),
            lambda: ledger.write_evaluations(0, [evaluation(1, 0.7)]),
            lambda: ledger.write_test(0, TEST),
            lambda: usage.begin(0, 1, cpus=1, gpus=0),
        ):
            with pytest.raises(SupersededError, match="process 1 on elsewhere has taken this study over"):
                write()
    assert Ledger(study).records() == {0: record(0)}
    assert storage.read(study / "driver.json") == claim
    assert not storage.exists(study / "holding.json")


@pytest.mark.slow
def test_in_an_object_store_a_driver_of_another_machine_is_watched(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = place(f"s3://studies/runs-{next(_numbers)}") / "demo"
    monkeypatch.setattr(driver, "STORE_WATCH_SECONDS", 6.0)
    first = drive(study)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "holds\n"
        monkeypatch.setattr(driver, "machine", lambda: "another one")
        monkeypatch.setattr(heartbeat, "machine", lambda: "another one")
        with pytest.raises(InputError, match=f"process {first.pid} on"), only_driver(study):
            pass
        first.send_signal(19)  # SIGSTOP: it looks dead
        with only_driver(study):
            assert Claim.newest(study / "drivers").number == 2
            first.send_signal(18)  # SIGCONT: its next heartbeat finds that it was followed
            assert "has taken this study over" in first.stdout.readline()
    finally:
        first.kill()
        first.communicate()


# What goes wrong


def test_what_cannot_be_a_place_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match="s4:// is no kind of storage"):
        place("s4://bucket/runs")
    with pytest.raises(InputError, match="credentials do not belong into a URI") as caught:
        place("s3://key:secret@bucket/runs")
    assert "secret" not in str(caught.value)


def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    with pytest.raises(StorageError, match="s3://absent/runs/a: there is no such bucket") as caught:
        storage.write(place("s3://absent/runs/a"), b"")
    assert caught.value.fixable
    with pytest.raises(InputError, match="s3://absent/runs: no such folder"):
        results.studies(place("s3://absent/runs"))


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StorageError("s3://a: is gone", fixable=False)))
    assert (str(error), error.fixable, error.strerror) == ("s3://a: is gone", False, "s3://a: is gone")
