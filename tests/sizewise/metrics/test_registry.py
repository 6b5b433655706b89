"""A metric is one entry of METRICS: everything that reads, searches, draws or writes evaluations finds it there."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from sizewise import config, figures, results
from sizewise.cli.commands.answers import TableName, results_
from sizewise.config.trial import TrialConfig
from sizewise.figures.paper.report import trial_rows
from sizewise.metrics.registry import METRICS, Metric, constrainable, objectives
from sizewise.results.quality.hypervolume import hypervolume
from sizewise.results.quality.searching import importances
from sizewise.search.suggest import Search
from sizewise.search.with_optuna.mirror import summary
from sizewise.store.trials.ledger import Ledger
from sizewise.training.loop import Outcome, train
from sizewise_core.errors import InputError
from sizewise_dashboard.elements import tables
from study_folder import StudyWriter

STUDY = """\
name: scored
data: {data}
trials: 2
search: {{memory_budget: {{low: 10kB, high: 100kB}}}}
objectives: {{brier: minimize, embedding_bytes: minimize}}
constraints: {{brier: {{max: 0.5}}}}
"""


def brier(labels: npt.NDArray[np.floating], logits: npt.NDArray[np.floating]) -> float:
    """Mean squared error of the predicted probabilities (Brier 1950)."""
    return float(np.mean((1 / (1 + np.exp(-logits.astype(np.float64))) - labels) ** 2))


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Metric(
        "Brier score", "score", "minimize", text="{:.3f}".format, spreadsheet="%.3f", compute=brier
    )
    monkeypatch.setitem(METRICS, "brier", entry)


@pytest.fixture
def outcome(added: None, trial_config: Callable[..., TrialConfig], tmp_path: Path) -> Outcome:
    """What the trainer leaves of a short trial."""
    return train(trial_config(epochs=1), tmp_path / "checkpoints", report=lambda row: None)


@pytest.fixture
def study(outcome: Outcome, tmp_path: Path) -> results.Study:
    """A study on disk whose only trial is that one."""
    wanted = {"brier": "minimize", "embedding_bytes": "minimize"}
    writer = StudyWriter(
        tmp_path / "runs", "scored", 1, objectives=wanted, constraints={"brier": {"max": 0.5}}
    )
    for row in outcome.evaluations:
        writer.evaluation(0, **row)
    writer.ledger(0, evaluations=len(outcome.evaluations), tested=True)
    writer.json("test/0000.json", {"trial_id": 0, **outcome.test.as_row()})
    writer.driver("finished")
    return results.load(tmp_path / "runs", "scored")


def test_trained_and_read_from_disk(outcome: Outcome, study: results.Study) -> None:
    """It is computed from the validation rows, and the evaluations that are read have it as a column."""
    values = [row["brier"] for row in outcome.evaluations]
    assert len(values) == 2
    assert all(0 < value < 0.5 for value in values)
    assert study.problems == []
    assert study.evaluations["brier"].to_list() == values
    assert study.front["brier"].min() == min(values)
    assert study.trials["brier"].is_not_null().all()
    assert study.trials["test_brier"].to_list() == [outcome.test.others["brier"]]
    assert 0 < outcome.test.others["brier"] < 0.5


def test_objective_and_constraint(added: None, shards: Path, tmp_path: Path) -> None:
    """A study file may ask for it and limit it, and the search goes by it."""
    file = tmp_path / "scored.yaml"
    file.write_text(STUDY.format(data=shards))
    spec = config.load(file)
    assert objectives()["brier"] == "minimize"
    assert "brier" in constrainable()
    search = Search(spec, Ledger(tmp_path / "study"), 1_000_000)
    first = search.ask()
    assert first is not None
    row = {"iteration": 10, "auc": 0.7, "embedding_bytes": 1_000, "brier": 0.6}
    closed = search.finish(first.trial_id, [row])
    assert closed.values is not None
    assert closed.values["brier"] == 0.6
    assert closed.violations == {"brier": pytest.approx(0.2)}
    file.write_text(STUDY.format(data=shards).replace("brier: minimize", "brier: maximize"))
    with pytest.raises(InputError, match="brier can only be asked to minimize"):
        config.load(file)


def test_a_limit_that_the_trial_breaks(study: results.Study, outcome: Outcome, tmp_path: Path) -> None:
    """Evaluations beyond the limit are no candidates, and the trial says which constraint it breaks."""
    strict = {"brier": {"max": min(row["brier"] for row in outcome.evaluations) / 2}}
    record = json.loads((study.folder / "study.json").read_text())
    (study.folder / "study.json").write_text(json.dumps(record | {"constraints": strict}))
    again = results.load(tmp_path / "runs", "scored")
    assert again.candidates.is_empty()
    assert again.trials["breaks"].to_list() == ["brier"]


def test_axis(study: results.Study) -> None:
    """The figures offer it as a score, whose best is the lowest."""
    assert list(figures.SCORES) == ["auc", "logloss", "normalized_entropy", "brier"]
    figure = figures.accuracy_against_size(study, axes=figures.Axes(score="brier"))
    assert figure.layout.yaxis.title.text == "Brier score (validation split)"
    assert figure.layout.title.text.startswith("Brier score against size")
    line = next(trace for trace in figure.data if trace.name == "best at this size or below")
    assert list(line.y) == [study.candidates["brier"].min()]
    assert (
        "Brier score" in figures.tradeoff_3d(study, figures.Axes(score="brier")).layout.scene.zaxis.title.text
    )
    assert hypervolume(study).unit == "decades of brier x decades of embedding_bytes"
    assert importances(study, "brier") == {}  # of one trial


def test_terminal_table(study: results.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its heading and its values stand in the tables that the commands print."""
    for table in (TableName.trials, TableName.front):
        results_(name="scored", runs=str(tmp_path / "runs"), table=table, wide=True)
        printed = capsys.readouterr().out
        assert "Brier" in printed
        assert f"{getattr(study, table.value)['brier'][0]:.3f}" in printed
        tested = f"{study.trials['test_brier'][0]:.3f}" in printed
        assert tested or table is TableName.front


def test_report_and_mirror(study: results.Study) -> None:
    """The report's table of trials has it, on both splits, and Optuna's tools get it with each evaluation."""
    (row,) = trial_rows(study)
    assert row["Brier score"] == f"{study.trials['brier'][0]:.3f}"
    assert row["test Brier score"] == f"{study.trials['test_brier'][0]:.3f}"
    assert summary() == [
        *("iteration", "epoch", "auc", "logloss", "normalized_entropy"),
        "train_seconds",
        "brier",
    ]


def test_dashboard_download(study: results.Study, tmp_path: Path) -> None:
    """The dashboard shows it, and what it offers to download has it."""

    def page(runs: str) -> None:
        from pathlib import Path

        from sizewise import results
        from sizewise_dashboard.elements import tables

        front = results.load(Path(runs), "scored").front
        tables.show(front, "front", tables.evaluation_columns())

    app = AppTest.from_function(page, kwargs={"runs": str(tmp_path / "runs")}, default_timeout=300).run()
    assert not app.exception
    assert "Brier score" in app.dataframe[0].value.columns
    downloaded = pl.read_csv(tables.as_csv(study.front))
    assert downloaded["brier"].to_list() == study.front["brier"].to_list()
    assert pl.read_parquet(io.BytesIO(tables.as_parquet(study.front)))["brier"].dtype == pl.Float64


def test_built_in_names() -> None:
    """What study files and readers of evaluations have always been given, in that order."""
    assert list(objectives()) == [
        *("auc", "logloss", "normalized_entropy", "embedding_bytes", "model_bytes", "iterations"),
        *("train_seconds", "cpu_seconds", "gpu_seconds"),
    ]
    titles = [
        axis.title for kind in (figures.SIZES, figures.SCORES, figures.EFFORTS) for axis in kind.values()
    ]
    assert titles == [
        "Size of the embeddings (bytes, log scale)",
        "Size of the whole model (bytes, log scale)",
        "AUC (validation split)",
        "Log-loss (validation split, nats)",
        "Normalized entropy (validation split)",
        "Iterations (optimizer steps, log scale)",
        "Samples (rows trained on, log scale)",
        "Training time (log scale)",
    ]
