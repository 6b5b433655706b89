"""Starting and resuming without Ray: what is refused, what is mended, and what becomes of two who start one study."""

import io
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from sizewise import config as spec
from sizewise import results
from sizewise.engine import run as study
from sizewise.metrics.evaluation import Evaluation
from sizewise.store.trials.ledger import Ledger
from sizewise_core.errors import InputError

ROW = Evaluation({"auc": 0.7, "embedding_bytes": 1000, "model_bytes": 2000, "iteration": 10, "epoch": 1.0})


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that are told to have ended."""

    def run_trials(engine: Any, *_: Any) -> None:
        while (record := engine.next_trial()) is not None:
            engine.finished(record.trial_id, [ROW], None)

    monkeypatch.setattr(study, "_run_trials", run_trials)


@pytest.fixture
def asked(tmp_path: Path, shards: Path) -> spec.StudySpec:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: some\ndata: {shards}\ntrials: 2\nsearch: {{memory_budget: 20kB, epochs: 1}}\n")
    return spec.load(path)


def test_of_two_who_start_a_study_of_one_name_the_first_one_keeps_it(
    asked: spec.StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has found the name free, but is not there first."""
    looked, begun = threading.Event(), threading.Event()
    learn = study.learn

    def slowly(spec: spec.StudySpec, *arguments: Any) -> Any:
        if spec.seed == 2:
            looked.set()
            assert begun.wait(60)
        return learn(spec, *arguments)

    monkeypatch.setattr(study, "learn", slowly)
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(InputError) as error:
            study.run(asked.model_copy(update={"seed": 2}), tmp_path / "runs")
        refused.append(str(error.value))

    other = threading.Thread(target=second)
    other.start()
    assert looked.wait(60)
    assert study.run(asked, tmp_path / "runs")
    begun.set()
    other.join()
    assert "a study of this name exists" in refused[0]
    folder = tmp_path / "runs" / "some"
    assert spec.from_text((folder / "study.yaml").read_bytes(), folder / "study.yaml").seed == 1
    assert results.status(tmp_path / "runs", "some")["state"] == "finished"


def test_a_bar_of_the_callers_that_outlives_the_study_loses_no_output(
    asked: spec.StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun while Ray's output goes to the logs, rich's bar puts that back in the place of standard output."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    bar = Live("bar", console=Console(file=io.StringIO(), force_terminal=True))

    def on_event(*_: Any) -> None:
        bar.start()
        print("while it runs")

    assert study.run(asked, tmp_path / "runs", on_event=on_event)
    bar.stop()
    print("the answer")
    assert out.getvalue() == "the answer\n"


def test_facts_that_are_damaged_or_edited_are_told_again(
    asked: spec.StudySpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "some"
    assert study.run(asked, runs)
    facts = json.loads((folder / "study.json").read_bytes())
    text = (folder / "study.yaml").read_text()
    text = text[: text.rindex("# crc32")].replace("trials: 2", "trials: 3")
    (folder / "study.yaml").write_text(text.replace("constraints: {}", "constraints: {auc: {min: 0.5}}"))
    (folder / "study.json").write_text("{")
    assert study.resume("some", runs)
    assert "study.json is damaged: written again" in caplog.text
    told = json.loads((folder / "study.json").read_bytes())
    assert told["constraints"] == {"auc": {"min": 0.5, "max": None}}
    assert (told["trials"], told["data"]) == (3, facts["data"])
    assert len(Ledger(folder).records()) == 3


def test_a_study_file_that_does_not_tell_of_its_trials_is_refused(
    asked: spec.StudySpec, tmp_path: Path
) -> None:
    runs, path = tmp_path / "runs", tmp_path / "runs" / "some" / "study.yaml"
    assert study.run(asked, runs)
    text = path.read_text()
    path.write_text(text[: text.rindex("# crc32")].replace("trials: 2\nseed: 1", "trials: 3\nseed: 4"))
    with pytest.raises(
        InputError, match=r"study\.yaml: seed: was 1 for trial 0, and is 4 now: put that back"
    ):
        study.resume("some", runs)
    path.unlink()
    with pytest.raises(InputError, match=r"study\.yaml: is gone: bring it back with `cp "):
        study.resume("some", runs)


def test_a_study_with_cce_of_version_0_1_goes_on_with_the_schedule_of_then(
    asked: spec.StudySpec, tmp_path: Path
) -> None:
    asked = asked.model_copy(
        update={
            "embedding": spec.StudySpec.model_validate(
                {"name": "some", "data": "d", "embedding": {"method": "cce", "count_pointers": False}}
            ).embedding
        }
    )
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "some"
    assert study.run(asked, runs)
    assert [r.config["cluster_every"] for r in Ledger(folder).records().values()] == [1.0, 1.0]
    # As version 0.1 left it: the option is in neither file, and its default was 100 iterations.
    found = spec.from_text((folder / "study.yaml").read_bytes(), folder / "study.yaml")
    old = {k: v for k, v in found.embedding.options.items() if k != "cluster_every"}
    embedding = type(found.embedding).model_validate({"method": "cce", **old})
    (folder / "study.yaml").write_bytes(
        spec.to_text(found.model_copy(update={"embedding": embedding, "trials": 3}))
    )
    ledger = Ledger(folder)
    for record in ledger.records().values():
        ledger.write(
            record.model_copy(
                update={"config": {k: v for k, v in record.config.items() if k != "cluster_every"}}
            )
        )
    assert study.resume("some", runs)
    assert Ledger(folder).records()[2].config["cluster_every"] == 100


def test_nothing_that_can_be_trained_is_said_in_the_status(
    asked: spec.StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizewise.search.suggest.DRAWS", 3)
    limits = {"embedding_bytes": spec.Limit(max=10.0)}
    with pytest.raises(InputError, match="3 suggestions in a row cannot be trained"):
        study.run(asked.model_copy(update={"constraints": limits}), tmp_path)
    assert "3 suggestions in a row cannot be trained" in results.status(tmp_path, "some")["message"]


def test_few_validation_rows_are_said_before_training_and_with_the_answer(
    asked: spec.StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before: list[str] = []
    train = study._run_trials

    def run_trials(*arguments: Any) -> None:
        before.append(capsys.readouterr().err)
        train(*arguments)

    monkeypatch.setattr(study, "_run_trials", run_trials)
    assert study.run(asked, tmp_path / "runs")
    rows = json.loads((Path(asked.data) / "manifest.json").read_text())["splits"]["validation"]["rows"]
    assert f"validation has {rows:,} row" in before[0]
    assert "validation rows would bring it to 0.002" in before[0]
    sentence = results.answer(results.load(tmp_path / "runs", "some")).sentence
    assert f"With {rows:,} validation rows, differences below about" in sentence
