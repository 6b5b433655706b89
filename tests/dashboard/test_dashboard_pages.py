"""The pages' logic, run by Streamlit's AppTest on study folders; what a browser draws is tested elsewhere."""

import json
import math
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from arrow_shards import read_shard
from sizewise import config, results
from sizewise.cli.commands.studies import overrides
from sizewise.cli.shared import app as main_app
from sizewise.results import Study, answer, choose, load, status
from sizewise.results.commands import run_longer
from sizewise.results.data import Data, frequencies
from sizewise.results.quality import searching
from sizewise_core.errors import InputError
from sizewise_core.units import format_bytes
from sizewise_dashboard import snapshots
from sizewise_dashboard.decision import limits
from sizewise_dashboard.elements import notes, today
from sizewise_dashboard.elements.notes import Key, Note
from sizewise_dashboard.launch import APP
from sizewise_dashboard.snapshots import Snapshot
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest
from study_folder import StudyWriter, finished_study

Open = Callable[..., AppTest]


def _page(runs: str, page: str) -> None:
    """What app.py does for one page, since AppTest cannot switch to a page that is a function."""
    from importlib import import_module
    from pathlib import Path

    from sizewise_dashboard.elements.parts import pick_study

    pick_study(Path(runs))
    import_module(f"sizewise_dashboard.content.{page}").page(Path(runs))


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Run one page on the studies under tmp_path and check that nothing broke."""
    monkeypatch.setattr(snapshots, "_SLOW", math.inf)  # these are small, however busy the machine

    def run(page: str, study: str | None = None, **address: str) -> AppTest:
        app = AppTest.from_function(_page, kwargs={"runs": str(tmp_path), "page": page}, default_timeout=20)
        for name, value in {"study": study, **address}.items():
            if value:
                app.query_params[name] = value
        app.run()
        assert not app.exception
        return app

    return run


def _home(runs: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr("sys.argv", ["app.py", str(runs)])
    app = AppTest.from_file(str(APP), default_timeout=20).run()
    assert not app.exception
    return app


def _text(app: AppTest) -> str:
    """All words on the page, with Markdown's escapes undone."""
    kinds = (
        "html",
        "title",
        "header",
        "subheader",
        "markdown",
        "caption",
        "text",
        "info",
        "warning",
        "error",
        "code",
    )
    words = [
        str(element.proto.body if kind == "html" else element.value)
        for kind in kinds
        for element in app.get(kind)
    ]
    return "\n".join(words).replace("\\", "")


def _card(app: AppTest) -> str:
    """The words on the card of the chosen model."""
    return "\n".join(
        str(element.proto.body) for element in app.get("html") if "sizewise-card" in element.proto.body
    )


def test_home_lists_every_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_study(tmp_path, "one", trials=3)
    StudyWriter(tmp_path, "under_way", trials=4).driver("running")
    app = _home(tmp_path, monkeypatch)
    links = app.get("page_link")
    assert {link.proto.label.replace("\\", "").strip("*") for link in links} == {"one", "under_way"}
    assert "study=under_way" in {link.proto.query_string for link in links}
    text = _text(app)
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
    text = _text(_home(tmp_path, monkeypatch))
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
    app = _home(tmp_path if exists else tmp_path / "nowhere", monkeypatch)
    assert "sizewise run STUDY.yaml" in app.info[0].value
    assert not app.error


def test_the_first_screen_of_a_finished_study(tmp_path: Path, show: Open) -> None:
    """The sentence, one figure, and the card of the very model that the sentence names."""
    finished_study(tmp_path, "demo")
    app = show("decide", "demo")
    study = load(tmp_path, "demo")
    found = answer(study)
    assert found.sentence in _text(app)
    assert found.smallest is not None
    assert f"Trial {found.smallest.trial_id}: robe" in _card(app)
    assert format_bytes(found.smallest.embedding_bytes) in _card(app)
    assert "Against the best trial</dt><dd>" in _card(app)
    assert f"{found.best.auc - found.smallest.auc:.4f} lower" in _card(app)
    assert len(app.get("bidi_component")) == 1
    assert not app.error
    assert not app.get("expander")  # no problems


def test_figures_and_the_front_are_behind_tabs(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    for tab in ("Against iterations", "In three dimensions", "All evaluations"):
        assert len(show("decide", "demo", view=tab).get("bidi_component")) == 2
    front = show("decide", "demo", view="Pareto front")
    assert front.dataframe[0].value["AUC"].to_list() == study.front["auc"].to_list()


def test_the_study_picker_moves_the_address(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "one", trials=2)
    finished_study(tmp_path, "two", trials=3)
    app = show("decide", "one")
    assert f"Trial {answer(load(tmp_path, 'one')).smallest.trial_id}: " in _card(app)
    app.selectbox(key="study").select("two").run()
    assert app.query_params["study"] == "two"
    assert f"Trial {answer(load(tmp_path, 'two')).smallest.trial_id}: " in _card(app)


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
        assert sentence in _text(show("decide", name))
        show("trials", name)
    assert "Trial 0 failed: RuntimeError: <b>out</b> of *memory*" in _text(show("decide", "failed"))
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
    assert "Only one trial" in _text(app)
    rows = len(app.dataframe[0].value)
    writer.trial(1, 2_000_000)
    app.run()
    assert len(app.dataframe[0].value) > rows
    assert "So far, with 2 of 3 trials finished" in _text(app)


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
        assert may_read.wait(60)
        return load(*arguments)

    monkeypatch.setattr(results, "load", load_when_allowed)
    writer.trial(1)

    def shown(until: Callable[[Snapshot], bool]) -> bool:
        return any(until(snapshots.read(tmp_path, "large")) or time.sleep(0.05) for _ in range(600))

    assert shown(lambda now: now is first and bool(snapshots._READING))  # shown while the next is being read
    may_read.set()
    assert shown(lambda now: now.study.trials.height == 2)

    writer.folder.rename(tmp_path / ".trash")
    with pytest.raises(InputError, match="no such study"):
        shown(lambda now: False)


def test_choosing_follows_the_limits(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    app = show("decide", "demo")
    app.text_input(key="max_lost").set_value("").run()
    best = choose(study, min_auc=float(study.candidates["auc"].max()))
    assert f"Trial {best.trial_id}: " in _card(app)
    app.text_input(key="max_bytes").set_value("150 kB").run()
    fits = study.candidates.filter(study.candidates["embedding_bytes"] <= 150_000).sort("auc")["trial_id"][-1]
    assert f"Trial {fits}: " in _card(app)
    assert f"Without the limit on size: trial {best.trial_id}" in _text(app)
    runners = app.dataframe[0].value
    assert fits not in runners["trial"].to_list()
    assert runners["AUC"].is_monotonic_decreasing
    assert (runners["embeddings (kB)"] <= 131.587).all()
    app.text_input(key="min_auc").set_value("0.760").run()
    assert "no model has at most 150 kB and an AUC of at least 0.76" in _text(app)
    assert not _card(app)
    assert not app.exception


def test_the_choice_comes_with_the_command_that_exports_it(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo")
    app = show("decide", "demo")
    fits = answer(load(tmp_path, "demo")).smallest
    assert fits is not None
    command = f"sizewise export demo --runs {tmp_path} --trial {fits.trial_id}"
    assert [code.value for code in app.code if code.value == f"{command} --out demo-trial{fits.trial_id}"]
    app.session_state["longer"] = True  # as the button does
    app.run()
    assert [code.value for code in app.code if "-longer" in code.value]


def test_an_earlier_evaluation_is_exported_where_its_weights_are_kept(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    found = choose(study, max_iterations=39, min_auc=0.75)
    ((last, folder),) = study.trials.filter(trial_id=found.trial_id).select("iteration", "key").rows()
    assert last > 39
    weights = finished_study(tmp_path, "kept").folder / "checkpoints" / folder
    weights.mkdir(parents=True)
    (weights / "front-000000000039.safetensors").write_bytes(b"x")
    limited = {"max_lost": "no limit", "min_auc": "0.75", "max_iterations": "39"}
    app = show("decide", "demo", **limited)
    assert f"the model that is kept is of iteration {last:,}" in _text(app)
    assert not [code.value for code in app.code if "--iteration" in code.value]
    app = show("decide", "kept", **limited)
    assert "the model that is kept" not in _text(app)
    asked = f"--trial {found.trial_id} --iteration 39 --out kept-trial{found.trial_id}-39"
    assert [code.value for code in app.code if code.value.endswith(asked)]


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("max_bytes", "ten", "Size at most: 'ten' is not a size"),
        ("max_bytes", "-5 MB", "Size at most: '-5 MB' is not a size"),
        ("max_lost", "nan", "AUC lost at most: 'nan' is not a number from 0 to 1"),
        ("max_iterations", "1e9", "Iterations at most: '1e9' is not a number of iterations"),
        ("max_time", "soon", "Training at most: 'soon' is not a duration"),
        ("price", "-1", "Price of an hour of one trial: '-1' is not an amount"),
    ],
)
def test_a_limit_that_is_none_is_refused_and_nothing_chosen(
    tmp_path: Path, show: Open, field: str, text: str, said: str
) -> None:
    finished_study(tmp_path, "demo", trials=3)
    app = show("decide", "demo", **{field: text})
    assert said in _text(app)
    assert not _card(app)


def test_limits_are_read_as_people_write_them() -> None:
    assert limits.count("12,000") == 12_000
    assert limits.duration("2 h 30 min") == 9_000
    assert limits.duration("90") == 90
    assert today.score("0.002") == 0.002


def test_limits_of_time_and_money_are_those_of_choose(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    top = float(study.candidates["auc"].max())
    found = choose(study, min_auc=top - 0.02, max_seconds=10)
    app = show("decide", "demo", max_lost="0.02", max_time="10 s")
    assert f"Trial {found.trial_id}: " in _card(app)
    paid = show("decide", "demo", max_lost="0.02", max_cost="$0.1", price="36")
    assert _card(paid) == _card(app)


def test_models_are_compared_with_what_runs_today(tmp_path: Path, show: Open) -> None:
    """The card, the table and the figure say what `choose --baseline` says."""
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    found = answer(study).smallest
    assert found is not None
    typed = {"today_auc": "0.7600", "today_bytes": "40 MB", "today_p99": "3", "today_cost": "12"}
    prices = {"auc_value": "5000", "gb_price": "3", "replicas": "40"}
    app = show("decide", "demo", **typed, **prices, view="Pareto front")
    asked = ["choose", "demo", "--runs", str(tmp_path), "--baseline", "auc=0.76,bytes=40MB", "--json"]
    said = CliRunner().invoke(main_app, [*asked, "--auc-value=5000", "--gb-price=3", "--serving-replicas=40"])
    of_cli = json.loads(said.stdout)["baseline"]
    difference, money = of_cli["difference"]["value"], of_cli["money"]
    assert f"Against today</dt><dd>{abs(difference):.4f} " in _card(app)
    assert f"{40e6 / found.embedding_bytes:.3g}x smaller than today" in _card(app)
    assert f"{money['saved']:,.2f} saved in memory, {money['gained']:,.2f} by accuracy" in _card(app)
    assert "assuming 5,000.00 a month for 0.001 AUC, 3.00 for a GB, 40 replicas" in _card(app)
    assert "today&#x27;s 3 ms" in _card(app)
    assert "today&#x27;s 12" in _card(app)
    table = app.dataframe[0].value
    assert table["AUC against today"].to_list() == pytest.approx((table["AUC"] - 0.76).to_list())
    lost = show("decide", "demo", **typed, lost_against="what runs today", max_lost="0.03")
    least = choose(study, min_auc=0.73)
    assert f"Trial {least.trial_id}: " in _card(lost)
    assert "known against the best trial alone" in _text(
        show("decide", "demo", **typed, lost_against="what runs today", confident="true")
    )
    named = {"name": "today.parquet", "auc": 0.75, "bytes": 8_000_000, "p99_ms": 4.5}
    writer = finished_study(tmp_path, "named")
    record = json.loads((writer.folder / "study.json").read_text())
    writer.json("study.json", {**record, "baseline": named})
    of_file = show("decide", "named")
    assert f"{abs(found.auc - 0.75):.4f} " in _card(of_file)
    assert "today&#x27;s 4.5 ms" in _card(of_file)
    assert "today.parquet, of the study file" in _text(of_file)
    assert "fill in its AUC" in _text(show("decide", "demo", today_bytes="40 MB"))
    assert "fill in both" in _text(show("decide", "demo", **typed, gb_price="3"))


def test_limits_and_trials_of_one_study_do_not_break_another(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "many", trials=12)
    finished_study(tmp_path, "few", trials=1)
    app = show("decide", "many")
    app.text_input(key="max_bytes").set_value("1 kB").run()
    app.selectbox(key="study").select("few").run()
    assert not app.exception
    assert "no model has at most 1 kB" in _text(app)
    app = show("trials", "many", trials="11")
    app.selectbox(key="study").select("few").run()
    assert not app.exception
    assert "**Trial 0**" in _text(app)


def test_one_trial_in_full(tmp_path: Path, show: Open) -> None:
    writer = finished_study(tmp_path, "demo", trials=3)
    writer.ledger(3, "failed", error="ValueError: budget too small")
    app = show("trials", "demo")
    assert (
        "test AUC" not in app.dataframe[0].value.columns
    )  # beside the other it would invite to choose by it
    app.toggle(key="test").set_value(True).run()
    table = app.dataframe[0].value
    assert table["trial"].to_list() == [0, 1, 2, 3]
    assert table["test AUC"].notna().to_list() == [True, True, True, False]
    app = show("trials", "demo", trials="3")
    assert app.code[0].value == "ValueError: budget too small"
    assert len(show("trials", "demo", trials="1").dataframe[1].value) == 7


def test_a_teacher_is_shown_as_one(tmp_path: Path, show: Open) -> None:
    writer = StudyWriter(tmp_path, "demo", trials=2)
    writer.trial(0, memory_budget=2_000_000, evaluations=4, teacher=0)
    writer.trial(1)
    app = show("trials", study="demo", trials="0")
    assert "**Trial 0, a teacher**" in _text(app)
    table = app.dataframe[0].value
    assert table["role"].to_list()[0] == "teacher"


def test_picked_trials_are_compared_setting_by_setting(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo", trials=3)
    app = show("trials", "demo", trials="2,0")
    table = app.dataframe[1].value
    assert list(table.columns) == ["", "trial 2", "trial 0"]
    rows = table.set_index("").to_dict("index")
    assert rows["memory budget"] == {"trial 2": "20,000 kB", "trial 0": "2 kB"}  # in one unit
    assert "block len" not in rows  # equal, and counted as such
    assert "2 settings differ" in _text(app)


def test_trials_that_do_not_exist_are_not_picked(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo", trials=3)
    app = show("trials", "demo", trials="7,x,-1,<b>,2")
    assert app.query_params["trials"] == "2"


def test_a_trials_log_and_checkpoints_are_shown(tmp_path: Path, show: Open) -> None:
    writer = finished_study(tmp_path, "demo", trials=1)
    writer.ledger(1, "failed", error="RuntimeError: no", key="0001-aaaa")
    (writer.folder / "logs").mkdir()
    (writer.folder / "logs/0001.txt").write_text("Traceback: <b>deep</b> inside")
    (writer.folder / "checkpoints/0001-aaaa").mkdir(parents=True)
    (writer.folder / "checkpoints/0001-aaaa/best-12.safetensors").write_bytes(b"x" * 1500)
    (writer.folder / "checkpoints/0001-aaaa/lock").touch()
    app = show("trials", "demo", trials="1")
    assert "Traceback: <b>deep</b> inside" in _text(app)
    assert "Checkpoints: best-12.safetensors (1.5 kB)" in _text(app)
    assert "lock (" not in _text(app)


def test_the_view_comes_from_the_address(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo", trials=3)
    app = show("decide", "demo", size="whole model", score="log-loss", effort="samples", trials="1")
    assert [app.selectbox(key=key).value for key in ("size", "score", "effort")] == [
        "model_bytes",
        "logloss",
        "samples",
    ]
    assert "Trial 1" in _text(app)


def test_the_command_that_trains_longer_is_one_that_sizewise_takes(tmp_path: Path) -> None:
    writer = finished_study(tmp_path, "demo", trials=2)
    (writer.folder / "study.yaml").write_text(
        "name: demo\ndata: d\nembedding: {method: {choices: [robe, hash]}, block_len: {choices: [8, 16]}}\n"
    )
    words = shlex.split(run_longer(load(tmp_path, "demo"), 1))
    assert words[:5] == ["sizewise", "run", str(writer.folder / "study.yaml"), "--runs", str(tmp_path)]
    longer = config.load(Path(words[2]), overrides(words[6::2]))
    assert (longer.name, longer.trials) == ("demo-trial1-longer", 1)
    assert longer.embedding.method == "robe"
    assert longer.embedding.options == {"block_len": 16}
    assert longer.search.memory_budget == 20_000_000
    assert longer.search.epochs == 4  # seven evaluations, four an epoch, twice as long
    assert not list(longer.searched())


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
            assert _text(show(page, study))
    assert "half-written" in _text(show("explore", "one_objective"))
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


def test_pruned_trials_say_why(tmp_path: Path, show: Open) -> None:
    writer = finished_study(tmp_path, "demo", trials=3)
    writer.trial(
        3, 30_000, evaluations=2, state="pruned", reason="<i>dominated</i> by trial 2 at iteration 78"
    )
    app = show("explore", "demo")
    table = app.dataframe[-1].value
    assert table["state"].to_list() == ["pruned"]
    assert table["why"].to_list() == ["<i>dominated</i> by trial 2 at iteration 78"]


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
    assert "remaining" not in _text(app)
    assert app.query_params["study"] in (gone, [gone])  # a reload shows the same
    picked = app.selectbox[0].set_value("remaining").run()
    assert not picked.exception
    assert not picked.error
    assert picked.selectbox[0].value == "remaining"


def test_the_table_of_trials_is_filtered_and_columns_hidden(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo", trials=6)
    app = show("explore", "demo", filter="auc>0.75 trial_id<5 method=robe")
    rows = load(tmp_path, "demo").trials.filter(pl.col("auc") > 0.75, pl.col("trial_id") < 5)
    assert app.dataframe[0].value["trial"].to_list() == rows["trial_id"].to_list()
    app.multiselect(key="hidden").set_value(["iteration"]).run()
    assert "iterations" not in app.dataframe[0].value.columns
    assert "no column speed" in _text(show("explore", "demo", filter="speed>3"))


def test_notes_are_read_and_changed_one_at_a_time(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo", trials=3)
    notes.change(tmp_path, Key("demo", 1), Note(star=True, tags=("a", "b"), text="<b>kept</b>"))
    notes.change(tmp_path, Key("demo", 2), Note(archived=True))
    table = show("explore", "demo").dataframe[0].value
    assert table["trial"].to_list() == [0, 1]  # the other one is archived
    assert table["star"].to_list()[1] == "★"
    assert table["note"].to_list()[1] == "<b>kept</b>"
    notes.change(tmp_path, Key("demo", 2), Note())
    assert list(notes.load(tmp_path)) == ["demo/1"]
    (tmp_path / notes.FILE).write_text("[")
    assert "holds no notes" in _text(show("explore", "demo"))
    with pytest.raises(InputError, match="holds no notes"):
        notes.change(tmp_path, Key("demo"), Note(star=True))  # what somebody wrote is not lost


def test_a_setting_that_is_an_objective_does_not_explain_itself(tmp_path: Path) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    assert "memory_budget" in searching.importances(study, "auc")
    assert "memory_budget" not in searching.importances(study, "embedding_bytes")
