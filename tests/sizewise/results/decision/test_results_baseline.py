"""Against what runs today: figures, or scores of the same validation rows, which are compared as paired samples."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from sizewise import cli
from sizewise.cli.shared import baseline_of
from sizewise.metrics.errors import error_parts
from sizewise.metrics.scores import evaluate_scores
from sizewise.results import Study, load
from sizewise.results.decision.baseline import Baseline, against
from sizewise_core.errors import InputError
from sizewise_prep.shards.files import read_shard
from sizewise_prep.shards.manifest import Manifest
from study_folder import StudyWriter


def read_baseline(text: str, study: Study, runs: Path) -> Baseline:
    found = baseline_of(text, study, str(runs))
    assert found
    return found


Floats = npt.NDArray[np.float64]
Made = tuple[Path, Study, Floats, Floats]


@pytest.fixture(scope="module")
def made(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A study of one model of the planted rows, their labels, and what runs today: a little better, much alike."""
    runs, manifest = tmp_path_factory.mktemp("runs"), Manifest.load(shards)
    split = manifest.splits["validation"]
    labels = np.concatenate([read_shard(shards / s.file, manifest.shape(s)).labels for s in split.shards])
    labels = labels.astype(np.float64)
    rng = np.random.default_rng(1)
    today = labels + rng.normal(0, 1, len(labels))
    model = today + rng.normal(0, 0.3, len(labels))
    data = {"path": str(shards), "rows": {"train": 1, "validation": len(labels)}, "full_bytes": 10**8}
    writer = StudyWriter(runs, "s", trials=1, data=data | {"validation_click_rate": float(labels.mean())})
    scores = evaluate_scores(labels, model)
    writer.evaluation(0, 100, scores.auc, embedding_bytes=2_000_000, **error_parts(labels, model))
    writer.ledger(0)
    writer.driver("finished")
    pl.DataFrame({"log_odds": today}).write_parquet(runs / "today.parquet")
    return runs, load(runs, "s"), labels, today


def test_scores_of_the_same_rows_give_a_paired_interval(made: Made) -> None:
    runs, study, labels, today = made
    baseline = read_baseline(f"{runs / 'today.parquet'},bytes=20MB", study, runs)
    assert baseline.auc == pytest.approx(evaluate_scores(labels, today).auc)
    assert baseline.bytes == 20_000_000
    (found,) = against(study, study.candidates, baseline)
    assert found.basis == "paired"
    assert found.value == pytest.approx(study.candidates["auc"][0] - baseline.auc)
    assert found.low < found.value < found.high
    (alone,) = against(study, study.candidates, read_baseline(f"auc={baseline.auc}", study, runs))
    assert alone.basis == "independent"
    assert alone.rows_error == pytest.approx(study.candidates["auc_error"][0])
    assert found.rows_error < 0.8 * alone.rows_error


def test_choose_compares_and_says_when_it_pays(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, study, _, _ = made

    def chosen(*options: str) -> str:
        words = ["sizewise", "choose", "s", "--runs", str(runs), *options]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    auc = study.candidates["auc"][0]
    money = ["--auc-value", "500", "--gb-price", "4", "--serving-replicas", "50"]
    figures = ["--baseline", f"auc={auc + 0.002},bytes=20MB,p99_ms=3"]
    found = json.loads(chosen(*figures, *money, "--json"))["baseline"]
    saved = 0.018 * 4 * 50
    assert found["difference"]["value"] == pytest.approx(-0.002)
    assert found["money"] == pytest.approx(
        {"saved": saved, "gained": -1_000.0, "break_even_auc_value": saved / 2}
    )
    assert found["p99_ms"] == 3
    shown = " ".join(chosen(*figures, *money).split())
    assert f"Against what runs today (AUC {auc + 0.002:.4f}, 20 MB): AUC 0.0020 lower, between" in shown
    assert "10x smaller" in shown
    assert (
        "while 0.001 AUC brings in less than 1.80 (assuming 500.00 a month for 0.001 AUC, 4.00 for a GB"
        in shown
    )
    assert math.isclose(found["auc"], auc + 0.002)

    out = runs / "r.html"
    words = ["sizewise", "report", "s", "--runs", str(runs), "--out", str(out), *figures]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        cli.main()
    first = out.read_text().split('<section class="page-one">')[1].split("</section>")[0]
    assert "<th>against today</th>" in first
    assert "<td>0.0020 lower, between" in first
    assert "whose AUC is taken as exact" in first


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: "bytes=20MB", "has no auc"),
        (lambda f: "auc=2", "auc='2' is no such number"),
        (lambda f: "auc=0.7,size=3", "'size' is none of auc, bytes, p99_ms, cost"),
        (lambda f: str(f), "is a folder, and no exported model"),
        (lambda f: str(f / "none.parquet"), "there is no such file or folder"),
        (lambda f: _text(f, "none.xyz"), "ends as no model and no file of scores does, which is in .pt"),
        (lambda f: _text(f, "none.parquet"), "cannot be read (it is damaged"),
        (lambda f: _text(f, "none.pt"), "is no TorchScript and no torch.export program"),
        (lambda f: f"{_text(f, 'none.csv')},auc=0.7", "is scored, which gives its AUC: leave auc out"),
        (lambda f: _file(f, pl.DataFrame({"log_odds": [0.1, 0.2]})), "has 2 rows, and the validation split "),
        (lambda f: _file(f, pl.DataFrame({"other": [0.1, 0.2]})), "has no column of numbers log_odds"),
        (
            lambda f: _file(f, pl.DataFrame({"score": [0.1, None] + [0.1] * 398})),
            "has no finite number in row 2",
        ),
    ],
)
def test_what_is_no_baseline_is_said(
    make: Callable[[Path], str], says: str, made: Made, tmp_path: Path
) -> None:
    runs, study, _, _ = made
    with pytest.raises(InputError) as caught:
        read_baseline(make(tmp_path), study, runs)
    assert says in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


def _text(folder: Path, name: str) -> str:
    (folder / name).write_text("no table\n")
    return str(folder / name)


def _file(folder: Path, table: pl.DataFrame) -> str:
    table.write_parquet(folder / "scores.parquet")
    return str(folder / "scores.parquet")
