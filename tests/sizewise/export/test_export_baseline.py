"""What runs today as a model: TorchScript, torch.export, ONNX, or scores; named by the study file or after it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from sizewise import cli, results
from sizewise import config as spec
from sizewise.cli.shared import baseline_of
from sizewise.engine import run as study
from sizewise.export.baseline import Where, recorded, scoring
from sizewise.metrics.errors import error_parts
from sizewise.metrics.evaluation import Evaluation
from sizewise.results.decision.baseline import Baseline, against
from sizewise.store.baselines import BaselineAsked
from sizewise.store.study_folder import StudyFolder
from sizewise.training.input.batches import Split
from sizewise.training.scoring.predicting import evaluation_rows, predict
from sizewise_core.errors import InputError


class Today(nn.Module):
    """Somebody's model, of the columns that shards have."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.weights, self.table = nn.Linear(13, 1), nn.Embedding(1_000, 1)
        self.scale = scale

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        """Log-odds."""
        return self.scale * (self.weights(dense)[:, 0] + self.table(ids % 1_000)[:, :, 0].sum(1))


class Probability(Today):
    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        """The same as a probability, in a column."""
        return torch.sigmoid(super().forward(dense, ids)).unsqueeze(1)


EXAMPLE = torch.randn(4, 13), torch.randint(0, 9, (4, 26))
ROWS = Dim("rows")


def script(folder: Path, model: nn.Module | None = None) -> Path:
    torch.jit.save(torch.jit.trace(model or Today(), EXAMPLE), str(folder / "today.pt"))
    return folder / "today.pt"


def exported(folder: Path) -> Path:
    program = torch.export.export(Today(), EXAMPLE, dynamic_shapes=({0: ROWS}, {0: ROWS}))
    torch.export.save(program, str(folder / "today.pt2"))
    return folder / "today.pt2"


def onnx_program(folder: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    model = Today()
    weight, bias = (p.detach().numpy() for p in (model.weights.weight, model.weights.bias))
    numbers = {
        "weight": weight.T.copy(),
        "bias": bias,
        "table": model.table.weight.detach().numpy(),
        "thousand": np.array(1_000, np.int64),
        "axes": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["dense", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["linear"]),
        helper.make_node("Mod", ["ids", "thousand"], ["hashed"]),
        helper.make_node("Gather", ["table", "hashed"], ["vectors"]),
        helper.make_node("ReduceSum", ["vectors", "axes"], ["sum"], keepdims=0),
        helper.make_node("Unsqueeze", ["sum", "one"], ["column"]),
        helper.make_node("Add", ["linear", "column"], ["logit"]),
    ]
    numbers["one"] = np.array([1], np.int64)
    graph = helper.make_graph(
        nodes,
        "today",
        [
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["rows", 13]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", 26]),
        ],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(values, name) for name, values in numbers.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, str(folder / "today.onnx"))
    return folder / "today.onnx"


def where(shards: Path, workers: int = 1, folder: Path | None = None) -> Where:
    return Where(folder, shards, "embedding_bytes", workers)


def trained_scores(shards: Path, rank: int = 0, world: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of a worker's validation rows by the model itself, in the order of its batches."""
    split = Split.open(shards, "validation")
    device = torch.device("cpu")

    class Wide(Today):
        def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
            return super().forward(dense, ids.to(torch.int64))

    return predict(Wide(), split.in_order(evaluation_rows(device), rank, world), device)


@pytest.mark.parametrize("make", [script, exported, onnx_program])
def test_programs_of_others_are_scored_as_trials_are(
    make: Callable[[Path], Path], shards: Path, tmp_path: Path
) -> None:
    path = make(tmp_path)
    labels, logits = trained_scores(shards)
    found = recorded(BaselineAsked.read(f"{path},p99_ms=3"), where(shards))
    expected = Baseline.of(found)
    parts = error_parts(labels, logits)
    assert found.name == path.name
    assert (found.bytes, found.p99_ms) == (path.stat().st_size, 3)
    own = Baseline.of(found.model_copy(update=parts))
    assert own.parts is not None
    assert expected.parts == pytest.approx(own.parts, abs=1e-7)
    assert found.logloss == pytest.approx(
        np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean(), abs=1e-6
    )


def test_errors_are_grouped_as_several_workers_group_them(shards: Path, tmp_path: Path) -> None:
    path = script(tmp_path)
    shares = [trained_scores(shards, rank, 3) for rank in range(3)]
    labels, logits = (np.concatenate(column) for column in zip(*shares, strict=True))
    one, three = (recorded(BaselineAsked.read(str(path)), where(shards, n)) for n in (1, 3))
    assert three.auc == pytest.approx(one.auc)
    wanted = Baseline.of(three.model_copy(update=error_parts(labels, logits))).parts
    assert Baseline.of(three).parts == pytest.approx(wanted, abs=1e-7)
    assert Baseline.of(one).parts != pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: _saved(f, Today().state_dict()), "holds weights without a program: save the model"),
        (lambda f: script(f, _Other()), "fails on dense ("),
        (lambda f: script(f, _Wide()), "it must give one number a row, ("),
        (
            lambda f: script(f, Today(float("nan"))),
            "gives nan for validation row 1: it must be a finite number",
        ),
        (lambda f: f / "gone.pt", "there is no such file or folder"),
    ],
)
def test_what_is_no_such_program_is_said(
    make: Callable[[Path], Path], says: str, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        recorded(BaselineAsked.read(str(make(tmp_path))), where(shards))
    assert says in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


def test_onnx_without_its_runtime_says_what_to_install(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "today.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="needs ONNX Runtime: pip install onnxruntime"):
        recorded(BaselineAsked.read(str(tmp_path / "today.onnx")), where(shards))


class _Other(nn.Module):
    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        return dense.view(4, 13).sum(1)  # only of the batch that it was traced with


class _Wide(nn.Module):
    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        return dense[:, :2] + ids[:, :2]


def _saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "weights.pt")
    return folder / "weights.pt"


@pytest.fixture
def asked(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., spec.StudySpec]:
    """Makes study files with a baseline; their trials, run without Ray, score a little worse than it."""
    labels, logits = trained_scores(shards)
    rng = np.random.default_rng(1)
    noisy = logits + rng.normal(0, 0.1, len(logits)).astype(np.float32)

    def run_trials(engine: Any, *_: Any) -> None:
        while (record := engine.next_trial()) is not None:
            measured = {"auc": 0.5, "logloss": 0.7, "embedding_bytes": 1000, "model_bytes": 2000}
            measured |= {"iteration": 10, "epoch": 1.0}
            engine.finished(record.trial_id, [Evaluation(measured, **error_parts(labels, noisy))], None)

    monkeypatch.setattr(study, "_run_trials", run_trials)

    def make(baseline: str, overrides: dict[str, Any] | None = None) -> spec.StudySpec:
        path = tmp_path / "study.yaml"
        path.write_text(
            f"name: some\ndata: {shards}\ntrials: 1\nbaseline: {baseline}\nsearch: {{epochs: 1}}\n"
        )
        return spec.load(path, overrides)

    return make


def test_a_study_knows_what_its_file_names_and_every_command_shows_it(
    asked: Callable[..., spec.StudySpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs, program = tmp_path / "runs", script(tmp_path, Probability())

    def printed(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["sizewise", *map(str, words), "--runs", str(runs)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    assert study.run(asked(f"{{path: {program}, bytes: 20MB, cost: 12}}"), runs)
    program.unlink()  # it has been scored
    known = results.load(runs, "some")
    today = baseline_of(None, known, str(runs))
    assert today is not None
    (of_auc,) = against(known, known.candidates, today)
    (of_loss,) = against(known, known.candidates, today, "logloss")
    assert (of_auc.basis, of_loss.basis) == ("paired", "paired")
    assert of_loss.value == pytest.approx(0.7 - (today.logloss or 0))
    chosen = json.loads(printed("choose", "some", "--json"))["baseline"]
    assert chosen["name"] == "today.pt"
    assert (chosen["auc"], chosen["bytes"], chosen["cost"]) == (today.auc, 20_000_000, 12)
    assert chosen["difference"] == of_auc.as_json()
    assert chosen["logloss_difference"] == of_loss.as_json()
    shown = " ".join(printed("choose", "some").split())
    assert f"Against today.pt (AUC {today.auc:.4f}, 20 MB): AUC {of_auc.text} (on the same rows), " in shown
    rows = json.loads(printed("results", "some", "--table", "front", "--json"))
    assert rows["baseline"]["name"] == "today.pt"
    assert rows["rows"][0]["auc_to_baseline_low"] == of_auc.low
    assert rows["rows"][0]["logloss_to_baseline"] == of_loss.value
    printed("report", "some", "--out", tmp_path / "r.html")
    assert "Today is today.pt (AUC" in (tmp_path / "r.html").read_text()
    # The command line overrides the study file.
    other = json.loads(printed("choose", "some", "--json", "--baseline", "auc=0.4"))["baseline"]
    assert (other["auc"], other["logloss_difference"]) == (0.4, None)
    assert "Against" not in printed("choose", "some", "--baseline", "none")


def test_a_study_that_goes_on_loads_no_program(
    asked: Callable[..., spec.StudySpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It has what was scored; of a file that was edited, figures and scores are read, and other programs are not."""
    runs, program = tmp_path / "runs", script(tmp_path)
    folder = runs / "some"
    assert study.run(asked(str(program)), runs)
    before = results.load(runs, "some").record.baseline
    assert before is not None
    monkeypatch.setattr(scoring.programs, "scores", lambda *_: pytest.fail("a program was loaded"))

    def resumed(old: str, new: str) -> Any:
        text = (folder / "study.yaml").read_text()
        text = text.rpartition("# crc32")[0] or text
        trials = int(text.partition("\ntrials: ")[2].split()[0])
        text = text.replace(f"\ntrials: {trials}", f"\ntrials: {trials + 1}").replace(old, new)
        (folder / "study.yaml").write_text(text)
        assert study.resume("some", runs)
        return results.load(runs, "some").record.baseline

    program.rename(tmp_path / "moved.pt")
    assert resumed("nothing", "") == before
    (folder / "study.json").write_text("{")
    assert resumed("nothing", "") is None
    assert "there is no such file or folder" in caplog.text
    (tmp_path / "moved.pt").rename(program)
    assert resumed("nothing", "") is None
    assert "only `run` and --baseline load one; the study goes on without it" in caplog.text
    # What --baseline has scored is kept, and serves from then on.
    monkeypatch.undo()
    known = results.load(runs, "some")
    assert baseline_of(str(program), known, str(runs)) is not None
    (kept,) = (folder / "baselines").iterdir()
    assert kept == StudyFolder(folder).baseline(before.digest)
    monkeypatch.setattr(scoring.programs, "scores", lambda *_: pytest.fail("a program was loaded"))
    again = baseline_of(str(program), known, str(runs))
    assert again is not None
    assert again.auc == before.auc


def test_a_baseline_that_cannot_be_scored_ends_a_study_before_it_begins(
    asked: Callable[..., spec.StudySpec], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"study file: baseline: .*gone\.parquet: there is no such file"):
        study.run(asked(str(tmp_path / "gone.parquet")), tmp_path / "runs")
    assert not (tmp_path / "runs" / "some").exists()
    with pytest.raises(InputError, match=r"study\.yaml:4: baseline: has no auc"):
        asked("{bytes: 20MB}")
    with pytest.raises(InputError, match=r"study\.yaml:4: baseline\.bytes: "):
        asked("{auc: 0.7, bytes: many}")
    overridden = asked("none.pt", overrides={"baseline": "auc=0.75,bytes=20MB"})
    assert overridden.baseline == BaselineAsked(auc=0.75, bytes=20_000_000)


def test_columns_of_scores_mean_what_they_are_called(shards: Path, tmp_path: Path) -> None:
    """Probabilities have a log-loss as log-odds do; scores of no known scale have none."""
    _, logits = trained_scores(shards)

    def of(column: str, values: np.ndarray) -> Any:
        path = tmp_path / f"{column}.csv"
        pl.DataFrame({"row": range(len(values)), column: values.astype(np.float64)}).write_csv(path)
        return recorded(BaselineAsked.read(str(path)), where(shards))

    odds = of("log_odds", logits)
    share = of("probability", 1 / (1 + np.exp(-logits.astype(np.float64))))
    unknown = of("score", logits / 7)
    assert odds.auc == share.auc == unknown.auc
    assert share.logloss == pytest.approx(odds.logloss)
    assert (unknown.logloss, unknown.logloss_parts) == (None, "")
    with pytest.raises(InputError, match="has values that are not between 0 and 1"):
        of("probability", logits)
