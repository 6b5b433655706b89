"""What the engine does about losses, failures and disks without room, told by a backend of the test's own."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sizewise.config import SizeRange, StudySpec
from sizewise.engine.deciding.decisions import Engine
from sizewise.metrics.evaluation import Evaluation, TestScores, as_rows
from sizewise.metrics.scores import Scores
from sizewise.search.suggest import Search
from sizewise.store.trials.ledger import Ledger
from sizewise.training.checkpoints import checkpoint

ROW = Evaluation({"auc": 0.7, "embedding_bytes": 1000, "model_bytes": 2000, "iteration": 10})
TEST = TestScores(10, Scores(0.7, 0.5, 0.9, 1.0))


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., Engine]:
    """An engine over the ledger in the test's folder; a second one is what `resume` makes."""

    def make(**fields: Any) -> Engine:
        budget = {"memory_budget": SizeRange(low=1000, high=9000)}
        spec = StudySpec.model_validate({"name": "s", "data": "d", "search": budget, "trials": 2, **fields})
        (tmp_path / "logs").mkdir(exist_ok=True)
        return Engine(spec, tmp_path, Search(spec, Ledger(tmp_path), 10_000), lambda *_: None)

    return make


def begin(engine: Engine) -> int:
    record = engine.next_trial()
    assert record is not None
    return record.trial_id


def test_a_lost_trial_is_next_again_with_another_attempt(
    engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    study = engine()
    assert begin(study) == 0
    study.evaluated(0, ROW)
    study.lost(0, "its node died")
    assert (study.remaining, study.waiting) == (2, 0)  # it waits for what took it to pass
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.1)
    assert (study.remaining, study.waiting) == (2, 2)
    assert begin(study) == 0
    assert begin(study) == 1
    assert study.waiting == 0
    records = study.search.records
    assert [(r.state, r.attempts) for r in records.values()] == [("running", 2), ("running", 1)]
    study.finished(0, [ROW], TEST)
    study.finished(1, [ROW], TEST)
    assert study.remaining == 0


def test_a_trial_that_fails_for_want_of_data_pauses_the_study(engine: Callable[..., Engine]) -> None:
    study = engine()
    number = begin(study)
    study.know_data(lambda: "data/mine: is not a folder")
    study.failed(number, "FileNotFoundError: data/mine")
    assert study.paused == "data/mine: is not a folder"
    assert [r.state for r in study.search.records.values()] == ["running"]


def test_data_that_was_replaced_is_noticed_before_the_next_trial(engine: Callable[..., Engine]) -> None:
    study = engine()
    number = begin(study)
    study.evaluated(number, ROW)
    study.know_data(lambda: "data/mine: holds other rows")
    study.finished(number, [ROW], None)
    assert study.next_trial() is None
    assert study.paused == "data/mine: holds other rows"
    assert [r.state for r in study.search.records.values()] == ["finished"]


def test_losses_in_a_row_end_in_failure_and_evaluations_between_do_not(engine: Callable[..., Engine]) -> None:
    study = engine(failures={"retries": 2})
    for _ in range(5):
        begin(study)
        study.evaluated(0, ROW)
        study.lost(0, "its node died")
    for _ in range(2):
        begin(study)
        study.lost(0, "its worker process died")
    record = study.search.records[0]
    assert record.state == "failed"
    assert record.error == "lost its worker 3 times without an evaluation between: its worker process died"
    assert record.attempts == 7
    assert list(record.lost) == [1, 2, 3, 4, 5, 6, 7]
    assert (record.lost[5], record.lost[6]) == ("its node died", "its worker process died")
    assert study.search.ledger.records()[0] == record
    assert begin(study) == 1  # the study goes on


@pytest.mark.parametrize("call", ["next_trial", "evaluated", "finished", "failed"])
def test_a_disk_without_room_pauses_the_study_and_resuming_goes_on(
    engine: Callable[..., Engine], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = engine()
    begin(study)
    ledger = study.search.ledger

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "trials/0000.json")

    for name in ("write", "append_evaluation"):
        monkeypatch.setattr(ledger, name, full)
    arguments: dict[str, tuple[Any, ...]] = {
        "next_trial": (),
        "evaluated": (0, ROW),
        "finished": (0, [ROW], TEST),
        "failed": (0, "DivergedError: no"),
    }
    assert getattr(study, call)(*arguments[call]) is None
    assert study.paused == "trials/0000.json: No space left on device"
    assert study.waiting == 0
    again = engine()
    assert again.remaining == 2
    assert begin(again) == 0


def test_damaged_evaluations_of_a_finished_trial_come_back_from_its_checkpoint(
    engine: Callable[..., Engine], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = engine()
    begin(study)
    rows = [ROW, Evaluation({**ROW, "iteration": 20, "auc": 0.8})]
    study.finished(0, rows, TEST)
    path = tmp_path / "evaluations" / "0000.jsonl"
    whole = path.read_bytes()
    key = study.search.records[0].key
    checkpoint.save(tmp_path / "checkpoints" / key, 20, {"evaluations": as_rows(rows)})
    engine().restore_evaluations()
    assert not caplog.text
    path.write_bytes(whole.replace(b"0.8", b"0.9"))
    engine().restore_evaluations()
    assert path.read_bytes() == whole
    assert "trial 0: its evaluations are damaged: written again from its checkpoint" in caplog.text


def test_missing_evaluations_of_a_finished_trial_come_back_from_its_checkpoint(
    engine: Callable[..., Engine], tmp_path: Path
) -> None:
    """Cut between two lines, a file has no damage in it: the record tells how far its trial went."""
    study = engine()
    begin(study)
    rows = [Evaluation({**ROW, "epoch": 0.5}), Evaluation({**ROW, "epoch": 1.0, "iteration": 20})]
    study.finished(0, rows, TEST)
    path = tmp_path / "evaluations" / "0000.jsonl"
    whole = path.read_bytes()
    folder = tmp_path / "checkpoints" / study.search.records[0].key
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    checkpoint.save(folder, 10, {"evaluations": as_rows(rows[:1])})
    engine().restore_evaluations()
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]  # this checkpoint knows no more
    checkpoint.save(folder, 20, {"evaluations": as_rows(rows)})
    engine().restore_evaluations()
    assert path.read_bytes() == whole


BROKEN = "ImportError: libcudart.so.12: cannot open shared object file"


def test_a_failure_that_hits_every_trial_pauses_the_study_and_leaves_them_open(
    engine: Callable[..., Engine], tmp_path: Path
) -> None:
    study = engine(trials=6)
    for number in range(3):
        assert begin(study) == number
        study.failed(number, f"{BROKEN} (process {4711 + number})", "Traceback ...")
    assert study.waiting == 0
    assert "3 trials of 3 failed before the first evaluation" in str(study.paused)
    assert BROKEN in str(study.paused)
    study.failed(0, "whatever follows from the pause")
    assert [r.state for r in Ledger(tmp_path).records().values()] == ["running"] * 3
    assert (tmp_path / "logs" / "0000.txt").read_text() == "Traceback ..."

    resumed = engine(trials=6)
    for number in range(6):
        assert begin(resumed) == number
        resumed.evaluated(number, ROW)
        resumed.finished(number, [ROW], None)
    assert resumed.remaining == 0
    assert [r.attempts for r in Ledger(tmp_path).records().values()] == [2, 2, 2, 1, 1, 1]


def test_trials_that_fail_by_their_own_doing_are_closed_as_soon_as_that_shows(
    engine: Callable[..., Engine],
) -> None:
    study = engine(trials=5)
    states = lambda: [r.state for r in study.search.records.values()]  # noqa: E731
    for number, reason in enumerate(("ValueError: one", "ValueError: two", "ValueError: one")):
        begin(study)
        study.failed(number, reason)
    assert states() == ["running"] * 3  # different reasons: nothing is known yet
    begin(study)
    study.evaluated(3, ROW)
    assert states() == ["failed"] * 3 + ["running"]
    study.finished(3, [ROW], None)
    begin(study)
    study.failed(4, "ValueError: one")
    assert (states()[-1], study.remaining, study.paused) == ("failed", 0, None)


@pytest.mark.parametrize(
    ("trials", "began", "reason", "paused"),
    [
        (1, False, BROKEN, True),  # no worker could begin: that is no configuration's doing
        (1, True, BROKEN, False),  # who knows
        (2, True, BROKEN, True),
        (2, True, "DivergedError: the loss is not finite", False),
        (2, True, "out of memory: 8 GB", False),
    ],
)
def test_few_trials_that_all_fail(
    engine: Callable[..., Engine], trials: int, began: bool, reason: str, paused: bool
) -> None:
    study = engine(trials=trials, replicates={"seeds": 2, "of": "all"})
    for _ in range(trials):
        number = begin(study)
        if began:
            study.began(number)
        study.failed(number, reason)
        assert not study.paused or number == trials - 1
    assert study.next_trial() is None
    assert bool(study.paused) == paused
    assert {r.state for r in study.search.records.values()} == {"running" if paused else "failed"}


def test_trials_are_given_what_others_trained_before_their_rate_falls(
    engine: Callable[..., Engine], tmp_path: Path
) -> None:
    """And keep their states where those of other lengths fall; trials of other settings share nothing."""
    fixed = {"memory_budget": 5000, "learning_rate": 0.02}
    study = engine(
        embedding={"method": "robe"},
        search={**fixed, "epochs": {"choices": [1, 2, 4]}},
        first_trials=[{"epochs": 2}, {"epochs": 4}, {"epochs": 1}],
        train={"schedule": {"warmup": 100, "decay": "cosine", "decay_share": 0.2}},
        trials=3,
    )
    given = []
    for trial in range(3):
        record = study.next_trial()
        assert record is not None
        how = study.payload(record)["how"]
        assert (how["continues"], how["pruning"], how["lengths"]) == (None, None, [1, 2, 4])
        given.append([int(Path(folder).name[:4]) for folder in how["stable"]])
        study.finished(trial, [Evaluation({**ROW, "epoch": float(record.config["epochs"])})], TEST)
    assert given == [[], [0], [1, 0]]
    plain = engine(
        embedding={"method": "robe"}, search={**fixed, "epochs": 1}, train={"schedule": {"decay": "linear"}}
    ).payload
    assert "stable" not in plain(study.search.records[0])["how"]
