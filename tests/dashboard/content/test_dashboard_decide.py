"""The page to decide on: its sentence, its card, limits and their reasons, and what runs today."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.dashboard.content.pages import Open, card_of, text_of
from typer.testing import CliRunner

from sizewise.cli.shared import app as main_app
from sizewise.results import answer, choose, load
from sizewise_core.units import format_bytes
from sizewise_dashboard.decision import card, limits
from sizewise_dashboard.elements import today
from study_folder import StudyWriter, finished_study


def test_the_first_screen_of_a_finished_study(tmp_path: Path, show: Open) -> None:
    """The sentence, one figure, and the card of the very model that the sentence names."""
    finished_study(tmp_path, "demo")
    app = show("decide", "demo")
    study = load(tmp_path, "demo")
    found = answer(study)
    assert found.sentence in text_of(app)
    assert found.smallest is not None
    assert f"Trial {found.smallest.trial_id}: robe" in card_of(app)
    assert format_bytes(found.smallest.embedding_bytes) in card_of(app)
    assert "Against the best trial</dt><dd>" in card_of(app)
    assert found.smallest == replace(found.best, why=found.smallest.why)  # no smaller one loses so little
    assert "Against the best trial</dt><dd>the same<" in card_of(app)
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


def test_choosing_follows_the_limits(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo")
    study = load(tmp_path, "demo")
    app = show("decide", "demo")
    app.text_input(key="max_lost").set_value("").run()
    best = choose(study, min_auc=float(study.candidates["auc"].max()))
    assert f"Trial {best.trial_id}: " in card_of(app)
    app.text_input(key="max_bytes").set_value("150 kB").run()
    fits = study.candidates.filter(study.candidates["embedding_bytes"] <= 150_000).sort("auc")["trial_id"][-1]
    assert f"Trial {fits}: " in card_of(app)
    assert f"Without the limit on size: trial {best.trial_id}" in text_of(app)
    runners = app.dataframe[0].value
    assert fits not in runners["trial"].to_list()
    assert runners["AUC"].is_monotonic_decreasing
    assert (runners["embeddings (kB)"] <= 131.587).all()
    app.text_input(key="min_auc").set_value("0.760").run()
    assert "no model has at most 150 kB and an AUC of at least 0.76" in text_of(app)
    assert not card_of(app)
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
    assert f"the model that is kept is of iteration {last:,}" in text_of(app)
    assert not [code.value for code in app.code if "--iteration" in code.value]
    app = show("decide", "kept", **limited)
    assert "the model that is kept" not in text_of(app)
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
    assert said in text_of(app)
    assert not card_of(app)


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
    assert f"Trial {found.trial_id}: " in card_of(app)
    paid = show("decide", "demo", max_lost="0.02", max_cost="$0.1", price="36")
    assert card_of(paid) == card_of(app)


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
    assert f"Against today</dt><dd>{abs(difference):.4f} " in card_of(app)
    assert f"{40e6 / found.embedding_bytes:.3g}x smaller than today" in card_of(app)
    assert f"{money['saved']:,.2f} saved in memory, {money['gained']:,.2f} by accuracy" in card_of(app)
    assert "assuming 5,000.00 a month for 0.001 AUC, 3.00 for a GB, 40 replicas" in card_of(app)
    assert "today&#x27;s 3 ms" in card_of(app)
    assert "today&#x27;s 12" in card_of(app)
    table = app.dataframe[0].value
    assert table["AUC against today"].to_list() == pytest.approx((table["AUC"] - 0.76).to_list())
    lost = show("decide", "demo", **typed, lost_against="what runs today", max_lost="0.03")
    least = choose(study, min_auc=0.73)
    assert f"Trial {least.trial_id}: " in card_of(lost)
    assert "known against the best trial alone" in text_of(
        show("decide", "demo", **typed, lost_against="what runs today", confident="true")
    )
    named = {"name": "today.parquet", "auc": 0.75, "bytes": 8_000_000, "p99_ms": 4.5}
    writer = finished_study(tmp_path, "named")
    record = json.loads((writer.folder / "study.json").read_text())
    writer.json("study.json", {**record, "baseline": named})
    of_file = show("decide", "named")
    assert f"{abs(found.auc - 0.75):.4f} " in card_of(of_file)
    assert "today&#x27;s 4.5 ms" in card_of(of_file)
    assert "today.parquet, of the study file" in text_of(of_file)
    assert "fill in its AUC" in text_of(show("decide", "demo", today_bytes="40 MB"))
    assert "fill in both" in text_of(show("decide", "demo", **typed, gb_price="3"))


def test_the_view_comes_from_the_address(tmp_path: Path, show: Open) -> None:
    finished_study(tmp_path, "demo", trials=3)
    app = show("decide", "demo", size="whole model", score="log-loss", effort="samples", trials="1")
    assert [app.selectbox(key=key).value for key in ("size", "score", "effort")] == [
        "model_bytes",
        "logloss",
        "samples",
    ]
    assert "Trial 1" in text_of(app)


def test_a_study_that_cannot_go_on_is_not_said_to_be_resumed(tmp_path: Path, show: Open) -> None:
    """All its teachers failed, and its message says that another one must be started."""
    why = "demo cannot go on, for all of its 2 teachers failed: start another study with a lower distill.learning_rate"
    # The other one was stopped by request, before a third teacher began.
    for name, message in (("ended", why), ("stopped", "")):
        writer = StudyWriter(tmp_path, name, trials=3)
        for trial_id in (0, 1):
            writer.ledger(trial_id, "failed", error="DivergedError: diverged", teacher=trial_id)
        writer.driver("stopped", message=message)
    words = text_of(show("decide", "ended"))
    assert f"Stopped: {why}." in words
    assert "sizewise resume" not in words
    assert "sizewise resume stopped" in text_of(show("decide", "stopped"))


def test_the_card_of_a_student_says_what_its_teachers_took(tmp_path: Path) -> None:
    """As the sentence does; that of a teacher has nothing to say of it."""
    writer = StudyWriter(tmp_path, "demo", trials=3)
    for trial_id in (0, 1):
        writer.trial(
            trial_id, 2_000_000, evaluations=2, teacher=trial_id, replicate=trial_id, configuration=0
        )
    writer.trial(2, 20_000)
    writer.ledger(
        2, config={"method": "robe", "distill_teacher": ["full"]}, values={"auc": 0.7}, evaluations=8
    )
    writer.driver("finished")
    study = load(tmp_path, "demo")
    said = [
        card.facts(study, study.evaluations.filter(trial_id=trial_id).tail(1), limits.Asked(limits.Limits()))
        for trial_id in (0, 2)
    ]
    assert "Teachers" not in said[0]
    assert said[1]["Teachers"] == "2, together 156 iterations (8 s)"
    assert "2 teachers, which took 156 iterations (8 s) on top" in answer(study).sentence
