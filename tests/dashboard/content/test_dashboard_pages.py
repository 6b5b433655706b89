"""The pages' logic, run by Streamlit's AppTest on study folders; what a browser draws is tested elsewhere."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.dashboard.content.pages import Open, card_of, home, text_of

from arrow_shards import read_shard
from sizewise import results
from sizewise.results import Study, answer, load, status
from sizewise.results.data import Data, frequencies
from sizewise_core.errors import InputError
from sizewise_core.units import format_bytes
from sizewise_dashboard import snapshots
from sizewise_dashboard.snapshots import Snapshot
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest
from study_folder import StudyWriter, finished_study


def test_home_lists_every_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_study(tmp_path, "one", trials=3)
    StudyWriter(tmp_path, "under_way", trials=4).driver("running")
    app = home(tmp_path, monkeypatch)
    links = app.get("page_link")
    assert {link.proto.label.replace("\\", "").strip("*") for link in links} == {"one", "under_way"}
    assert "study=under_way" in {link.proto.query_string for link in links}
    text = text_of(app)
    assert f"{load(tmp_path, 'one').candidates['auc'].max():.4f}" in text
    assert "running" in text
    assert "finished" in text


def test_home_says_what_studies_found_and_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = {"cpu_hour": 0.5, "gpu_hour": 2.0, "currency": "EUR"}
    writer = StudyWriter(tmp_path, "priced", trials=3, prices=prices)
    for trial_id, budget in enumerate((2_000_000, 20_000_000, 30_000_000)):
        writer.trial(trial_id, budget, evaluations=3)
    held = {"trial_id": 0, "attempt": 1, "cpus": 2.0, "gpus": 1.0, "since": 0.0, "seconds": 3_600.0}
    (writer.folder / "usage.jsonl").write_text(json.dumps(held) + "\n")
    writer.driver("finished")
    text = text_of(home(tmp_path, monkeypatch))
    now = status(tmp_path, "priced")
    best, smallest = now["best"], now["smallest"]
    assert best["auc"] >= smallest["auc"] >= best["auc"] - 0.002
    assert f"{best['auc']:.4f}, 30 MB" in text
    assert f"{smallest['auc']:.4f}, {format_bytes(smallest['bytes'])}" in text
    assert "3.00 EUR" in text


@pytest.mark.parametrize("exists", [True, False])
def test_home_without_studies_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    app = home(tmp_path if exists else tmp_path / "nowhere", monkeypatch)
    assert "sizewise run STUDY.yaml" in app.info[0].value
    assert not app.error


def test_the_study_picker_moves_the_address(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "one", trials=2)
    finished_study(tmp_path, "two", trials=3)
    app = show("decide", "one")
    assert f"Trial {answer(load(tmp_path, 'one')).smallest.trial_id}: " in card_of(app)
    app.selectbox(key="study").select("two").run()
    assert app.query_params["study"] == "two"
    assert f"Trial {answer(load(tmp_path, 'two')).smallest.trial_id}: " in card_of(app)


def test_odd_studies_show_something_sensible(tmp_path: Path, show: Open) -> None:
    StudyWriter(tmp_path, "started", trials=5).driver("running")
    failed = StudyWriter(tmp_path, "failed", trials=2)
    for trial_id in range(2):
        failed.ledger(trial_id, "failed", error="RuntimeError: <b>out</b> of *memory*")
    failed.driver("finished")
    undefined = StudyWriter(tmp_path, "undefined", trials=1)
    undefined.evaluation(0, 10, None)
    undefined.ledger(0)
    hurt = finished_study(tmp_path, "hurt", trials=3)
    (hurt.folder / "trials/0001.json").write_text("{")
    (hurt.folder / "study.json").write_text("[]")
    says = {
        "started": "No trial has been evaluated yet.",
        "failed": "Both trials failed",
        "undefined": "No evaluation has a defined AUC yet.",
        "hurt": "trials/0001.json was skipped",
    }
    for name, sentence in says.items():
        assert sentence in text_of(show("decide", name))
        show("trials", name)
    assert "Trial 0 failed: RuntimeError: <b>out</b> of *memory*" in text_of(show("decide", "failed"))
    assert "--trial 0" in show("decide", "failed").code[0].value
    for name in ("started", "failed", "undefined"):
        assert not show("decide", name).get("bidi_component")  # no axes without points
    assert "RuntimeError: <b>out</b> of *memory*" in show("trials", "failed").code[0].value


def test_a_study_that_vanishes_while_shown(tmp_path: Path, show: Open) -> None:
    writer = finished_study(tmp_path, "gone", trials=1)
    finished_study(tmp_path, "left", trials=1)
    app = show("decide", "gone")
    writer.folder.rename(tmp_path / ".trash")
    app.run()
    assert not app.exception
    assert "no study" in app.error[0].value


def test_a_growing_study_is_read_anew(tmp_path: Path, show: Open) -> None:
    writer = StudyWriter(tmp_path, "live", trials=3)
    writer.driver("running")
    writer.trial(0, 20_000)
    app = show("decide", "live", view="Pareto front")
    assert "Only one trial" in text_of(app)
    rows = len(app.dataframe[0].value)
    writer.trial(1, 2_000_000)
    app.run()
    assert len(app.dataframe[0].value) > rows
    assert "So far, with 2 of 3 trials finished" in text_of(app)


def test_nobody_waits_for_the_news_of_a_study_that_takes_long_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_SLOW", 0.0)
    may_read = threading.Event()
    writer = StudyWriter(tmp_path, "large", trials=3)
    writer.driver("running")
    writer.trial(0)
    first = snapshots.read(tmp_path, "large")

    def load_when_allowed(*arguments: Any) -> Study:
        assert may_read.wait(600)
        return load(*arguments)

    monkeypatch.setattr(results, "load", load_when_allowed)
    writer.trial(1)

    def shown(until: Callable[[Snapshot], bool]) -> bool:
        return any(until(snapshots.read(tmp_path, "large")) or time.sleep(0.05) for _ in range(6_000))

    assert shown(lambda now: now is first and bool(snapshots._READING))  # shown while the next is being read
    may_read.set()
    assert shown(lambda now: now.study.trials.height == 2)

    writer.folder.rename(tmp_path / ".trash")
    with pytest.raises(InputError, match="no such study"):
        shown(lambda now: False)


def test_limits_and_trials_of_one_study_do_not_break_another(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "many", trials=12)
    finished_study(tmp_path, "few", trials=1)
    app = show("decide", "many")
    app.text_input(key="max_bytes").set_value("1 kB").run()
    app.selectbox(key="study").select("few").run()
    assert not app.exception
    assert "no model has at most 1 kB" in text_of(app)
    app = show("trials", "many", trials="11")
    app.selectbox(key="study").select("few").run()
    assert not app.exception
    assert "**Trial 0**" in text_of(app)


@pytest.mark.slow
def test_every_page_of_every_odd_study_says_something(tmp_path: Path, show: Open) -> None:
    StudyWriter(tmp_path, "started", trials=5).driver("running")
    one = StudyWriter(tmp_path, "one_objective", trials=2, objectives={"auc": "maximize"})
    one.trial(0, 2_000)
    one.trial(1, 20_000)
    with (one.folder / "evaluations/0001.jsonl").open("a") as file:
        file.write('{"trial_id": 1, "iterat')
    one.driver("finished")
    for study in ("started", "one_objective"):
        for page in ("explore", "compare", "data", "decide", "trials"):
            assert text_of(show(page, study))
    assert "half-written" in text_of(show("explore", "one_objective"))
    assert "is not a folder" in show("data", "one_objective").warning[0].value


def test_the_data_page_reads_the_manifest(tmp_path: Path, show: Open) -> None:
    planted.generate(tmp_path / "raw", rows=3_000, seed=1)
    prepare([tmp_path / "raw" / "day_0.tsv"], tmp_path / "data")
    data = {"path": str(tmp_path / "data"), "rows": {"train": 2_400}, "full_bytes": 10**6, "features": 26}
    StudyWriter(tmp_path, "demo", trials=1, data=data).trial(0)
    app = show("data", "demo")
    manifest = Manifest.load(tmp_path / "data")
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics["Train"] == f"{manifest.splits['train'].rows:,}"
    assert metrics["Click rate"] == f"{manifest.click_rate:.2%}"
    assert "validation has 300 rows" in app.warning[0].value
    table = app.dataframe[0].value
    assert table["column"].to_list()[13:15] == ["C1", "C2"]
    assert table["cardinality"].to_list()[13:] == manifest.cardinalities
    found = frequencies(Data(tmp_path / "data", manifest), 2)
    shard = read_shard(tmp_path / "data" / manifest.splits["train"].shards[0].file)
    assert sorted(found.counts, reverse=True) == list(found.counts)
    assert found.counts.sum() == found.rows == len(shard.labels)
    assert len(found.counts) == len(set(shard.ids[:, 2].tolist()))


def test_studies_are_compared(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "one", trials=5)
    finished_study(tmp_path, "two", trials=4)
    app = show("compare", "one")
    table = app.dataframe[0].value
    assert table["study"].to_list() == ["one", "two"]
    assert table["trials"].to_list() == [5, 4]
    assert not app.warning
    assert len(app.get("bidi_component")) == 2


def test_a_study_is_compared_with_one_that_has_models(tmp_path: Path, show: Open) -> None:
    StudyWriter(tmp_path, "empty", trials=3)
    finished_study(tmp_path, "one", trials=5)
    finished_study(tmp_path, "two", trials=4)
    assert show("compare", "one").dataframe[0].value["study"].to_list() == ["one", "two"]


@pytest.mark.parametrize("page", ["decide", "trials", "explore", "compare", "data"])
def test_a_link_to_a_study_that_is_gone_shows_nothing_of_another(
    page: str, tmp_path: Path, show: Open
) -> None:
    finished_study(tmp_path, "remaining", trials=3)
    gone = "../../etc/passwd" if page == "data" else "gone"
    app = show(page, gone)
    assert [error.value.replace("\\", "") for error in app.error] == [
        f"There is no study {gone!r} here. Pick another one."
    ]
    assert app.selectbox[0].value is None
    assert app.selectbox[0].options == ["remaining"]
    assert not app.metric
    assert not app.dataframe
    assert not app.get("bidi_component")
    assert "remaining" not in text_of(app)
    assert app.query_params["study"] in (gone, [gone])  # a reload shows the same
    picked = app.selectbox[0].set_value("remaining").run()
    assert not picked.exception
    assert not picked.error
    assert picked.selectbox[0].value == "remaining"
