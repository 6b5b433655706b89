"""What is damaged or gone in a study's files is said by every command that answers from them."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sizewise import cli, results
from sizewise.figures.paper.report import write
from sizewise.metrics.evaluation import Evaluation
from sizewise.results import load, status, studies
from sizewise.store.driving.usage import Usage
from sizewise.store.trials.ledger import Ledger, Record
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import sealed
from study_folder import StudyWriter, finished_study

ANSWERS = ("choose", "status", "results", "report")


@pytest.fixture
def sizewise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sizewise", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def best_line(writer: StudyWriter) -> tuple[Path, int]:
    """Where the best evaluation of a study stands."""
    study = load(writer.folder.parent, writer.folder.name)
    best = results.choose(study)
    path = writer.folder / f"evaluations/{best.trial_id:04d}.jsonl"
    lines = path.read_text().splitlines()
    return path, next(n for n, line in enumerate(lines) if json.loads(line)["iteration"] == best.iteration)


def test_a_damaged_or_lost_best_line_is_said_by_every_answer(
    tmp_path: Path, sizewise: Callable[..., Any]
) -> None:
    for name in ("flipped", "lost"):
        writer = finished_study(tmp_path, name, trials=4)
        before = results.choose(load(tmp_path, name))
        path, number = best_line(writer)
        lines = path.read_text().splitlines(keepends=True)
        if name == "flipped":
            lines[number] = lines[number].replace('"auc": 0.7', '"auc": 0.6')
        path.write_text("".join(lines[: number + 1] if name == "flipped" else lines[:number]))
        assert results.choose(load(tmp_path, name)) != before
        for command in ANSWERS:
            out = ("--out", tmp_path / "r.html") if command == "report" else ()
            code, said, err = sizewise(command, name, "--runs", tmp_path, "--json", *out)
            assert code == 0
            problems = json.loads(said)["problems"]
            assert any(path.name in problem for problem in problems)
            assert path.name in err
    assert f"evaluations/{path.name} holds {number} of {len(lines)} evaluations" in err


def test_a_study_of_an_older_version_lacks_its_best_line_not_in_silence(tmp_path: Path) -> None:
    """It did not count evaluations, but its record has the best one, and how far the trial went."""
    writer = StudyWriter(tmp_path, "old", trials=1)
    values = {"auc": 0.7, "iteration": 20.0}
    for iteration in (10, 20, 30):
        writer.evaluation(0, iteration, 0.7 if iteration == 20 else 0.6, epoch=iteration / 10)
    writer.ledger(0, values=values, trained_epochs=3.0)
    assert load(tmp_path, "old").problems == []
    path = writer.folder / "evaluations/0000.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    (problem,) = load(tmp_path, "old").problems
    assert "lacks the evaluation at iteration 20, the best of its trial" in problem
    path.write_text(lines[0] + lines[1])
    (problem,) = load(tmp_path, "old").problems
    assert "does not reach the end of its trial" in problem


def test_lines_that_vanish_from_a_running_trial_are_missed(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=1)
    writer.ledger(0, "running")
    ledger = Ledger(writer.folder)
    for iteration in (10, 20, 30):
        ledger.append_evaluation(0, Evaluation({"iteration": iteration, "auc": 0.6}))
    assert load(tmp_path, "s").problems == status(tmp_path, "s")["problems"] == []
    path = writer.folder / "evaluations/0000.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    for problems in (load(tmp_path, "s").problems, status(tmp_path, "s")["problems"]):
        assert problems == [
            "evaluations/0000.jsonl holds 2 of 3 evaluations: `sizewise resume` restores what it can"
        ]


def test_attempts_that_vanish_are_missed(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "s", trials=1)
    usage = Usage(writer.folder, "me", clock=iter(range(100)).__next__)
    for attempt in (1, 2):
        usage.begin(0, attempt, cpus=1, gpus=0)
        usage.end(0)
    assert status(tmp_path, "s")["problems"] == []
    path = writer.folder / "usage.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    lost = "usage.jsonl holds 1 of 2 attempts: the cost is too low"
    assert status(tmp_path, "s")["problems"] == [lost]
    Usage(writer.folder, "me").settle(None)  # the next driver does not forget
    assert status(tmp_path, "s")["problems"] == [lost]


def test_records_and_scores_that_are_gone_are_named(tmp_path: Path) -> None:
    writer = finished_study(tmp_path, "s", trials=3)
    shutil.copy(writer.folder / "trials/0001.json", writer.folder / "trials/0001.before")
    (writer.folder / "trials/0001.json").unlink()
    (writer.folder / "test/0002.json").unlink()
    text = "\n".join(load(tmp_path, "s").problems)
    assert "trials/0001.json is missing" in text
    assert "test/0002.json is missing" in text
    assert set(text.splitlines()) == set(status(tmp_path, "s")["problems"])


def test_a_ledger_takes_the_record_before_one_that_is_gone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    fields = {"trial_id": 0, "state": "running", "key": "0000-0", "params": {}, "config": {}, "started": 1.0}
    record = Record.model_validate(fields)
    ledger.write(record)
    (tmp_path / "trials" / "0000.json").unlink()
    assert Ledger(tmp_path).records() == {0: record}
    assert (tmp_path / "trials" / "0000.json").is_file()


def test_a_record_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Ledger(tmp_path)
    fields = {"trial_id": 0, "state": "running", "key": "0000-0", "params": {}, "config": {}, "started": 1.0}
    path = tmp_path / "trials" / "0000.json"
    path.write_text(sealed(json.dumps({**fields, "shape": "round"})))
    with pytest.raises(InputError, match="use the newer version that did"):
        Ledger(tmp_path).records()
    assert path.is_file()


def test_one_study_that_cannot_be_read_leaves_the_others_alone(
    tmp_path: Path, sizewise: Callable[..., Any]
) -> None:
    runs = tmp_path / "runs"
    finished_study(runs, "fine", trials=2)
    for name in ("loop", "deep", "huge", "part"):
        finished_study(runs, name, trials=2)
    (runs / "loop" / "again").symlink_to("again")
    (runs / "loop" / "study.json").unlink()
    (runs / "loop" / "study.json").symlink_to("study.json")
    (runs / "deep" / "trials/0001.json").write_text("[" * 3_000)
    (runs / "deep" / "evaluations/0000.jsonl").write_text("[" * 3_000)
    nines = "9" * 31
    (runs / "huge" / "trials/0000.json").write_text(f'{{"trial_id": {nines}, "state": "finished"}}')
    (runs / "huge" / "trials/0001.json").write_text(
        f'{{"trial_id": 1, "state": "running", "config": {{"epochs": {nines}, "x": 1e400}},'
        ' "values": {"auc": 1e400}}'
    )
    (runs / "huge" / "evaluations/0001.jsonl").write_text(
        f'{{"trial_id": 1, "iteration": {nines}, "auc": 0.5}}\n{{"trial_id": 1, "iteration": 3, "auc": 1e400}}\n'
    )
    for file in (runs / "part" / "evaluations").iterdir():
        file.unlink()
    (runs / "part" / "evaluations").rmdir()
    (runs / "part" / "evaluations").symlink_to(runs / "fine" / "evaluations")
    (runs / "link").symlink_to("fine")
    (runs / "itself").symlink_to("itself")
    listed = {study["name"]: study for study in studies(runs).iter_rows(named=True)}
    assert listed["fine"]["state"] == "finished"
    assert listed["fine"]["problems"] == []
    assert listed["link"]["state"] == "unreadable"
    assert set(listed) == {"fine", "loop", "deep", "huge", "part", "link"}
    for name in ("loop", "deep", "huge", "part"):
        assert listed[name]["problems"], name
        assert load(runs, name).problems, name
    assert load(runs, "part").evaluations.is_empty()
    code, said, err = sizewise("status", "--runs", runs)
    assert code == 0
    assert "fine" in said
    for name in ("loop", "deep", "huge", "part", "link"):
        assert f"\n{name}: " in f"\n{err}"
    code, _, err = sizewise("choose", "link", "--runs", runs)
    assert code == 2
    assert "is a link, which is not followed" in err
    code, _, err = sizewise("choose", "x" * 300, "--runs", runs)
    assert code == 2
    assert len(err) < 300


def test_what_a_link_leads_to_is_not_shown(tmp_path: Path, sizewise: Callable[..., Any]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password: 1234\n")
    writer = finished_study(tmp_path / "runs", "s", trials=2)
    writer.ledger(1, "failed", error="\x1b]0;title\x07 \x1b[31m[bold]red[/bold]\nsecond")
    (writer.folder / "logs").mkdir()
    for name in ("study.yaml", "logs/0001.txt"):
        (writer.folder / name).unlink(missing_ok=True)
        (writer.folder / name).symlink_to(secret)
    runs = ("--runs", tmp_path / "runs")
    shown = "".join("".join(sizewise("status", "s", *more, *runs)[1:]) for more in ((), ("--trial", 1)))
    assert "1234" not in shown
    assert "cannot be read: logs/0001.txt (a link" in shown
    assert "\x1b" not in shown
    assert r"\x1b[31m[bold]red[/bold]" in shown
    write(load(tmp_path / "runs", "s"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "password" not in page
    assert "study.yaml was skipped (a link" in page


def test_runs_itself_may_be_a_link(tmp_path: Path) -> None:
    finished_study(tmp_path / "disk", "s", trials=2)
    (tmp_path / "runs").symlink_to("disk")
    assert load(tmp_path / "runs", "s").problems == []
    assert studies(tmp_path / "runs")["name"].to_list() == ["s"]
