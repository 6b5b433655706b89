"""Columns of lists from a Parquet file to an export: prepared, trained on, exported and scored."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from real_study import calm_study
from sizewise import results
from sizewise.cli import app
from sizewise.config import StudySpec, resolve
from sizewise.embedding import FeatureCounts, build
from sizewise.export.deployed import DESCRIPTION, PROGRAM, Deployed, Description
from sizewise.export.program import to_program
from sizewise.export.scoring import evaluate, score
from sizewise.models import build as build_model
from sizewise.training.input.batches import Split
from sizewise.training.scoring.predicting import predict
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.counts import training_counts
from sizewise_prep.shards.values.vocabulary import Vocabulary

SCHEMA = """
columns:
  clicked: label
  age: integer
  user: token
  history: tokens
  tags: tokens
"""
CPU = torch.device("cpu")


def write_log(folder: Path, rows: int) -> None:
    """Rows whose clicks follow from what their histories hold; some lists are empty, some missing."""
    random = np.random.default_rng(1)
    lengths, tags = random.integers(0, 9, rows), random.integers(0, 3, rows)
    history: list[list[int] | None] = [(random.zipf(1.5, n) % 500).tolist() for n in lengths]
    history[5] = None
    liked = np.array([sum(value % 3 == 0 for value in row or []) > len(row or []) / 3 for row in history])
    clicked = random.random(rows) < np.where(liked, 0.7, 0.2)
    frame = {
        "clicked": clicked.astype(np.int64),
        "age": random.integers(0, 90, rows),
        "user": random.integers(0, 60, rows),
        "history": history,
        "tags": [[f"t{value}" for value in random.integers(0, 12, n)] for n in tags],
    }
    pl.DataFrame(frame, strict=False).write_parquet(folder / "log.parquet")
    (folder / "log.yaml").write_text(SCHEMA)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    write_log(folder, 600)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "tokens"), [("robe", "raw"), ("hot", "raw"), ("full", "contiguous"), ("qr", "contiguous")]
)
def test_raw_rows_are_scored_as_their_shards_are(log: Path, method: str, tokens: Any, tmp_path: Path) -> None:
    layout = Layout.load(log / "log.yaml")
    manifest = prepare(log / "log.parquet", tmp_path / "data", layout=layout, tokens=tokens, max_list=6)
    size = sum(manifest.cardinalities) * 8 * 4
    embedding = build(method, manifest.cardinalities, 8, size if method == "full" else 9_000, 1)
    if embedding.needs_counts:
        embedding.assign_rows([FeatureCounts(*counts) for counts in training_counts(str(tmp_path / "data"))])
    widths = {"bottom_mlp": [8], "top_mlp": [8]}
    model = build_model("dlrm", embedding, 1, widths)
    splits = [Split.open(tmp_path / "data", name) for name in ("train", "validation", "test")]
    wanted = np.concatenate([predict(model, split.in_order(64), CPU)[1] for split in splits])
    write_export(tmp_path / "model", model, manifest, tmp_path / "data")
    score(Deployed.open(tmp_path / "model"), [str(log / "log.parquet")], tmp_path / "scores.parquet")
    found = pl.read_parquet(tmp_path / "scores.parquet")["log_odds"].to_numpy()
    assert len(np.unique(wanted)) > 500
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert evaluate(Deployed.open(tmp_path / "model"), [str(log / "log.parquet")]).rows == 600


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"target": "usr"}, r"s.yaml: model.target: 'usr' is none of the data's token columns \(did you mean user\?\)"),
        ({"target": "user"}, r"model.history: name one of the data's columns of lists: 'history, tags'"),
        ({"target": "user", "history": "user"}, r"model.history: 'user' is none of the data's columns of lists"),
        ({"target": {"choices": ["user", 3]}, "history": 1}, r"model.target: '3' is none of the data's token"),
    ],
)  # fmt: skip
def test_columns_that_the_data_does_not_have_are_refused(
    log: Path, model: dict[str, Any], message: str, tmp_path: Path
) -> None:
    manifest = prepare(log / "log.parquet", tmp_path / "data", layout=Layout.load(log / "log.yaml"))
    spec = StudySpec(name="s", data=str(tmp_path / "data"), model={"kind": "din", **model})
    with pytest.raises(InputError, match=message):
        resolve(spec, manifest, "s.yaml")


def write_export(folder: Path, model: Any, manifest: Manifest, data: Path) -> None:
    buffer = io.BytesIO()
    vocabulary = Vocabulary.load(data) if manifest.settings.tokens == "contiguous" else None
    torch.export.save(to_program(model, manifest.settings.tokens, vocabulary, manifest.layout, 2), buffer)
    content = buffer.getvalue()
    description = Description(
        sizewise="0", study="s", trial_id=0, iteration=1, config={}, layout=manifest.layout,
        tokens=manifest.settings.tokens, max_list=6, validation={}, test={}, embedding_bytes=0, model_bytes=0,
        compression_ratio=1, latency=[], measured_on="", program_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    folder.mkdir()
    (folder / PROGRAM).write_bytes(content)
    (folder / DESCRIPTION).write_text(description.model_dump_json())


@pytest.mark.slow
def test_a_study_on_lists_from_prep_to_score(tmp_path: Path) -> None:
    write_log(tmp_path, 4_000)
    raw, data, runs = tmp_path / "log.parquet", tmp_path / "data", tmp_path / "runs"
    (tmp_path / "study.yaml").write_text(
        f"name: lists\ndata: {data}\nmodel: {{kind: {{choices: [mlp, din]}}, dim: 8, top_mlp: [16], target: user, "
        "history: history}\nembedding: {method: robe, pooling: sum}\nsearch: {memory_budget: 6kB, epochs: 4, "
        "learning_rate: 0.05}\ntrain: {batch_size: 64}\nsampler: grid\ntrials: 2\n"
    )

    def run(*arguments: object) -> Any:
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    run("prep", raw, "--schema", tmp_path / "log.yaml", "--out", data)
    calm_study(tmp_path / "study.yaml", runs / "lists")  # on Ray: the layouts of `test_your_own_data.py`
    trials = {row["model"]: row for row in results.load(runs, "lists").trials.to_dicts()}
    assert trials.keys() == {"mlp", "din"}
    assert trials["mlp"]["auc"] > 0.6
    run("export", "lists", "--trial", trials["din"]["trial_id"], "--runs", runs, "--out", tmp_path / "model")
    description = Deployed.open(tmp_path / "model").description
    assert description.validation["auc"] is not None
    assert description.validation["auc"] > 0.6  # what histories say is learnt
    scored = run("evaluate", tmp_path / "model", raw)
    assert scored["rows"] == 4_000
    assert scored["auc"] > 0.6
    run("score", tmp_path / "model", raw, "--out", tmp_path / "scores.parquet")
    assert pl.read_parquet(tmp_path / "scores.parquet").height == 4_000
