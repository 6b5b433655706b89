"""The pages of trials: one in full, several side by side, their table, notes and logs."""

import shlex
from pathlib import Path

import polars as pl
import pytest
from tests.dashboard.content.pages import Open, text_of

from sizewise import config
from sizewise.cli.commands.studies import overrides
from sizewise.results import load
from sizewise.results.commands import run_longer
from sizewise.results.quality import searching
from sizewise_core.errors import InputError
from sizewise_dashboard.elements import notes
from sizewise_dashboard.elements.notes import Key, Note
from study_folder import StudyWriter, finished_study


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
    assert "**Trial 0, a teacher**" in text_of(app)
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
    assert "2 settings differ" in text_of(app)


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
    assert "Traceback: <b>deep</b> inside" in text_of(app)
    assert "Checkpoints: best-12.safetensors (1.5 kB)" in text_of(app)
    assert "lock (" not in text_of(app)


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


def test_pruned_trials_say_why(tmp_path: Path, show: Open) -> None:
    writer = finished_study(tmp_path, "demo", trials=3)
    writer.trial(
        3, 30_000, evaluations=2, state="pruned", reason="<i>dominated</i> by trial 2 at iteration 78"
    )
    app = show("explore", "demo")
    table = app.dataframe[-1].value
    assert table["state"].to_list() == ["pruned"]
    assert table["why"].to_list() == ["<i>dominated</i> by trial 2 at iteration 78"]


def test_the_table_of_trials_is_filtered_and_columns_hidden(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo", trials=6)
    app = show("explore", "demo", filter="auc>0.75 trial_id<5 method=robe")
    rows = load(tmp_path, "demo").trials.filter(pl.col("auc") > 0.75, pl.col("trial_id") < 5)
    assert app.dataframe[0].value["trial"].to_list() == rows["trial_id"].to_list()
    app.multiselect(key="hidden").set_value(["iteration"]).run()
    assert "iterations" not in app.dataframe[0].value.columns
    assert "no column speed" in text_of(show("explore", "demo", filter="speed>3"))


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
    assert "holds no notes" in text_of(show("explore", "demo"))
    with pytest.raises(InputError, match="holds no notes"):
        notes.change(tmp_path, Key("demo"), Note(star=True))  # what somebody wrote is not lost


def test_a_setting_that_is_an_objective_does_not_explain_itself(tmp_path: Path) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    assert "memory_budget" in searching.importances(study, "auc")
    assert "memory_budget" not in searching.importances(study, "embedding_bytes")
