import dataclasses
import re
from pathlib import Path

import pytest

from sizewise.figures.paper.report import write
from sizewise.results import answer, load
from sizewise_core.errors import InputError
from study_folder import StudyWriter, finished_study


def _without_script(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_report_holds_answer_figures_front_trials_and_configuration(tmp_path: Path) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    write(study, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert len(re.findall(r"Plotly\.newPlot\(\s*\"(?:size|iterations|tradeoff)\"", page)) == 3
    text = _without_script(page)
    assert answer(study).sentence in text
    for row in study.front.iter_rows(named=True):
        assert f"<td>{row['auc']:.4f}</td>" in text
    assert "test AUC" in text
    assert "trials: 12" in text  # study.yaml
    assert (tmp_path / "report.html").stat().st_size < 6_000_000


def test_the_report_needs_no_network(tmp_path: Path) -> None:
    finished_study(tmp_path, "demo", trials=3)
    write(load(tmp_path, "demo"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", page)
    assert "http" not in _without_script(page)


def test_what_comes_from_the_study_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    writer = StudyWriter(tmp_path, "evil", trials=2)
    writer.trial(0)
    writer.ledger(1, "failed", error=evil, config={evil: evil, "memory_budget": 1})
    (writer.folder / "study.yaml").write_text(f"name: {evil}\n")
    (writer.folder / "trials/0002.json").write_text(
        '{"trial_id": 2, "state": "' + evil.replace("/", "") + '"}'
    )
    write(load(tmp_path, "evil"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert evil not in page
    assert page.count("&lt;script&gt;alert(1)") >= 3
    assert "was skipped" in page


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    StudyWriter(tmp_path, "none")
    write(load(tmp_path, "none"), tmp_path / "report.html")
    text = _without_script((tmp_path / "report.html").read_text())
    assert "No trial has been evaluated yet." in text
    assert "Nothing yet." in text


@pytest.mark.slow
def test_a_large_study_stays_under_six_megabytes(tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "large", trials=150)
    for trial_id in range(150):
        writer.trial(trial_id, 2_000 + 10_007 * trial_id, evaluations=100)
    write(load(tmp_path, "large"), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 6_000_000


@pytest.mark.slow
def test_whatever_a_study_holds_its_report_stays_under_six_megabytes(tmp_path: Path) -> None:
    """A hundred thousand evaluations without a record, and records and a study file that have grown beyond measure."""
    huge = "x" * 2_000_000
    writer = StudyWriter(tmp_path, "huge", trials=40)
    for trial_id in range(40):
        writer.trial(trial_id, 2_000 + 10_007 * trial_id, evaluations=2)
        many = {f"{huge[:1000]}{key}": key for key in range(300)} | {
            f"option_{key}": key for key in range(300)
        }
        writer.ledger(
            trial_id,
            reason=huge,
            config={"memory_budget": 2_000, "learning_rate": 0.1, "epochs": 1, "method": f"{trial_id}{huge}"}
            | many,
            params={"memory_budget": 2_000 + trial_id},
        )
    (writer.folder / "study.yaml").write_text(f"name: {huge}{huge}{huge}\n")
    study = load(tmp_path, "huge")
    orphans = [f"evaluations/{number}.jsonl has no readable ledger record" for number in range(100_000)]
    write(dataclasses.replace(study, problems=[huge, *study.problems, *orphans]), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 6_000_000
    text = _without_script((tmp_path / "report.html").read_text())
    assert re.search(r"99,9\d\d more; all: sizewise results huge --runs \S+ --problems", text)


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    finished_study(tmp_path / "runs", "demo", trials=1)
    study = load(tmp_path / "runs", "demo")
    with pytest.raises(InputError, match=r"nowhere/report.html: the report cannot be written"):
        write(study, tmp_path / "nowhere" / "report.html")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(InputError, match=r"taken.html"):
        write(study, tmp_path / "taken.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "taken.html"]


def test_an_older_report_is_replaced_whole(tmp_path: Path) -> None:
    finished_study(tmp_path, "demo", trials=1)
    out = tmp_path / "report.html"
    out.write_text("old")
    write(load(tmp_path, "demo"), out)
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert out.stat().st_mode & 0o777 == 0o644
