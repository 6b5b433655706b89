"""The ledger: records survive, damage is noticed and mended, JSON stays strict."""

import json
from pathlib import Path

import pytest

from sizewise.metrics.evaluation import Evaluation, TestScores
from sizewise.metrics.scores import Scores
from sizewise.store.records import TrialRecord, parse
from sizewise.store.trials.curves import read_evaluations
from sizewise.store.trials.ledger import Ledger, Record
from sizewise_core.stores.storage_contents import read_all

TEST = TestScores(10, Scores(0.7, 0.5, 0.9, 1.0))


def record(trial_id: int, **changes: object) -> Record:
    fields = {"trial_id": trial_id, "state": "running", "key": f"{trial_id:04d}-0", "params": {"epochs": 2}}
    return Record.model_validate({**fields, "config": {"dim": 8}, "started": 1.5, **changes})


def test_records_come_back_as_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(record(0))
    ledger.write(record(1, state="failed", error="out of memory", finished=2.5))
    ledger.write(record(0, state="finished", values={"auc": 0.7}, finished=2.0))
    found = Ledger(tmp_path).records()
    assert found == {
        0: record(0, state="finished", values={"auc": 0.7}, finished=2.0),
        1: record(1, state="failed", error="out of memory", finished=2.5),
    }


def test_a_record_waits_for_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For itself and its name; the record before it, a spare, is not waited for."""
    flushed: list[int] = []
    ledger = Ledger(tmp_path)
    monkeypatch.setattr("os.fsync", flushed.append)
    ledger.write(record(0))
    assert len(flushed) == 2


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_single_bit_flip_is_noticed_or_harmless(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(record(0))
    ledger.write(record(0, state="finished", values={"auc": 0.7}, finished=2.0))
    path = tmp_path / "trials" / "0000.json"
    text, noticed = path.read_bytes(), 0
    for bit in range(0, 8 * len(text), 7):
        path.write_bytes(text)
        flip(path, bit)
        (found,) = ledger.records().values()
        assert found.state in ("running", "finished")
        if found.state == "running":  # the one before
            noticed += 1
            assert found == record(0)
        else:
            assert found == record(0, state="finished", values={"auc": 0.7}, finished=2.0)
    assert noticed > 0.9 * 8 * len(text) / 7


def test_the_record_before_takes_a_damaged_ones_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path)
    for trial_id in range(3):
        ledger.write(record(trial_id))
    ledger.write(record(1, state="finished", finished=2.0))
    (tmp_path / "trials" / "0001.json").write_text('{"trial_id": 1, "sta')
    assert ledger.records()[1] == record(1)
    assert (tmp_path / "trials" / "0001.damaged").exists()
    assert "0001.json is damaged: set aside as .damaged, the record before it is used" in caplog.text
    caplog.clear()
    assert ledger.records()[1] == record(1)  # and it is there for readers
    assert not caplog.text


def test_where_both_are_damaged_the_trial_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path)
    for trial_id in range(3):
        ledger.write(record(trial_id))
    (tmp_path / "trials" / "0001.json").write_text("")
    (tmp_path / "trials" / "0001.before").write_text("")
    assert list(ledger.records()) == [0, 2]
    assert "its trial starts anew" in caplog.text


def test_what_belongs_to_another_trial_counts_as_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path)
    for trial_id in range(2):
        ledger.write(record(trial_id))
        ledger.write(record(trial_id, state="finished", values={"auc": 0.7}, finished=2.0))
        ledger.write_evaluations(trial_id, [Evaluation({"iteration": 10, "auc": 0.7})])
        ledger.write_test(trial_id, TEST)
    for name in ("trials/000{}.json", "evaluations/000{}.jsonl", "test/000{}.json"):
        (tmp_path / name.format(0)).write_bytes((tmp_path / name.format(1)).read_bytes())
    found = ledger.records()
    assert found[0] == record(0)  # the one before
    assert found[1] == record(1, state="finished", values={"auc": 0.7}, finished=2.0)
    assert "0000.json is damaged: set aside as .damaged, the record before it is used" in caplog.text
    assert not ledger.intact(found[0])
    assert ledger.intact(found[1])
    assert ledger.evaluations(0) == []
    assert ledger.test(0) is None
    assert ledger.test(1) == TEST


def read(folder: Path) -> tuple[list[object], list[str]]:
    problems: list[str] = []
    rows = read_evaluations(read_all(folder / "evaluations", "*.jsonl"), False, problems)
    return rows["auc"].to_list(), problems


def test_a_flipped_bit_in_an_evaluation_leaves_that_line_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for iteration in (1, 2, 3):
        ledger.append_evaluation(4, Evaluation({"iteration": iteration, "auc": iteration / 4}))
    path = tmp_path / "evaluations" / "0004.jsonl"
    flip(path, 8 * path.read_bytes().index(b"0.5"))  # 1.5 is as good a number as 0.5
    assert b"1.5" in path.read_bytes()
    assert read(tmp_path) == (
        [0.25, 0.75],
        ["evaluations/0004.jsonl: line 2 is damaged and was left out"],
    )


def test_what_follows_a_line_cut_short_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append_evaluation(4, Evaluation({"iteration": 1, "auc": 0.25}))
    path = tmp_path / "evaluations" / "0004.jsonl"
    path.write_bytes(path.read_bytes() + b'{"trial_id": 4, "iteration": 2, "au')
    ledger.append_evaluation(4, Evaluation({"iteration": 3, "auc": 0.75}))
    assert read(tmp_path) == (
        [0.25, 0.75],
        ["evaluations/0004.jsonl: line 2 is damaged and was left out"],
    )


def test_undefined_scores_are_null_in_strict_json(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append_evaluation(4, Evaluation({"iteration": 1, "auc": float("nan"), "logloss": float("inf")}))
    ledger.append_evaluation(4, Evaluation({"iteration": 2, "auc": 0.5, "logloss": 0.6}))
    lines = (tmp_path / "evaluations" / "0004.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=lambda name: 1 / 0) for line in lines]
    assert [{k: v for k, v in row.items() if k != "crc32"} for row in rows] == [
        {"trial_id": 4, "iteration": 1, "auc": None, "logloss": None},
        {"trial_id": 4, "iteration": 2, "auc": 0.5, "logloss": 0.6},
    ]


@pytest.mark.parametrize("key", ["../../elsewhere", "/etc", "a/b", "a\\b", "..", "x" * 300])
def test_a_key_that_leads_out_of_the_study_is_no_record(tmp_path: Path, key: str) -> None:
    """Checkpoints are read, written and removed under the key's name."""
    ledger = Ledger(tmp_path)
    ledger.write(record(0))
    path = tmp_path / "trials" / "0000.json"
    content = json.loads(path.read_text())
    del content["crc32"]
    path.write_text(json.dumps(content | {"key": key}))
    assert ledger.records()[0].key == "0000-0"  # of the record before it
    assert read_trial_key(path, content | {"key": key}) is None


def read_trial_key(path: Path, content: dict[str, object]) -> str | None:
    """What a reader of the study takes from such a record."""
    found = parse(path, json.dumps(content).encode(), TrialRecord, [])
    return found.key if found else None


@pytest.mark.parametrize("config", [{"seed": 2**63 - 1}, {"learning_rate": 1e30}])
def test_the_driver_keeps_whatever_a_study_file_allows(tmp_path: Path, config: dict[str, float]) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(record(0, config=config))
    assert Ledger(tmp_path).records()[0].config == config
    problems: list[str] = []
    path = tmp_path / "trials" / "0000.json"
    assert (parse(path, path.read_bytes(), TrialRecord, problems) is None) == ("learning_rate" in config)
