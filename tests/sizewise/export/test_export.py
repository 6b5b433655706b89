"""Exported models: the same predictions as the trained ones, from raw rows, without this platform."""

import contextlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from real_study import calm_study
from sizewise import cli, results
from sizewise.engine.kept_weights import keep_the_front
from sizewise.export import Deployed, evaluate, export, score
from sizewise.export.baseline import Where, recorded
from sizewise.results.commands import export as export_command
from sizewise.results.decision.baseline import Baseline, against
from sizewise.results.decision.intervals import point
from sizewise.results.weights import kept_weights
from sizewise.store.baselines import BaselineAsked
from sizewise_core.errors import InputError
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout

ROWS = 4_000


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted log, and its last tenth (the test split) as a file of its own."""
    folder = tmp_path_factory.mktemp("raw")
    planted.generate(folder, ROWS, seed=3)
    lines = (folder / "day_0.tsv").read_bytes().splitlines(keepends=True)
    (folder / "test.tsv").write_bytes(b"".join(lines[-ROWS // 10 :]))
    return folder


@pytest.fixture(scope="module")
def trained(raw: Path) -> Callable[..., tuple[Path, str]]:
    """Trains two trials of a configuration, once for all tests; gives the runs folder and the study's name."""
    made: dict[str, tuple[Path, str]] = {}

    def make(tokens: str = "raw", **embedding: Any) -> tuple[Path, str]:
        name = "-".join([tokens, *(str(value).replace(".", "_") for value in embedding.values())])
        if name not in made:
            shards = raw / tokens
            if not shards.exists():
                prepare([raw / "day_0.tsv"], shards, tokens=tokens)  # type: ignore[arg-type]
            full = embedding.get("method") in ("full", "cce")
            spec = {
                "name": name,
                "data": str(shards),
                "model": {"dim": 8, "bottom_mlp": [16], "top_mlp": [16]},
                "embedding": embedding,
                "search": {
                    "memory_budget": "1x" if full else 20_000,
                    "learning_rate": {"low": 0.03, "high": 0.05},
                    "epochs": 1,
                },
                "train": {"batch_size": 128, "evaluate_every": 0.25},
                "trials": 2,
            }
            (raw / f"{name}.yaml").write_text(json.dumps(spec))
            calm_study(raw / f"{name}.yaml", raw / "runs" / name)
            made[name] = raw / "runs", name
        return made[name]

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "embedding"),
    [
        ("raw", {"method": "robe"}),
        ("raw", {"method": "robe", "storage": "int8", "sign": True}),
        ("mlperf", {"method": "hash", "storage": "bfloat16", "width": 2}),
        ("contiguous", {"method": "full"}),
        ("raw", {"method": "qr", "storage": "int4", "group": "row"}),
        ("contiguous", {"method": "tt", "storage": "int2"}),
        ("raw", {"method": "cce", "cluster_every": 5}),
        ("raw", {"method": "robe", "width": 2, "storage": "int2", "float32_share": 1.0}),
        ("raw", {"method": "hot", "storage": "int8", "hashed_share": 0.2, "by": "chi2"}),
        ("contiguous", {"method": "hot", "width": 4, "storage": "int4", "group": "row", "min_count": 2}),
        ("raw", {"method": "robe", "storage": "int4", "group": 32, "float32_share": 0.5}),
    ],
)
def test_a_deployed_model_scores_raw_rows_as_the_study_scored_its_test_split(
    tokens: str,
    embedding: dict[str, Any],
    trained: Callable[..., tuple[Path, str]],
    raw: Path,
    tmp_path: Path,
) -> None:
    runs, name = trained(tokens, **embedding)
    description = export(runs, name, 0, tmp_path / "model")
    deployed = Deployed.open(tmp_path / "model")
    held = torch.export.load(tmp_path / "model" / "model.pt2").state_dict
    assert sum(t.nbytes for name, t in held.items() if ".embedding." in name) == description.embedding_bytes
    found = evaluate(deployed, [str(raw / "test.tsv")])
    assert found.scores
    assert found.rows == ROWS // 10
    assert found.scores.auc == pytest.approx(description.test["auc"], abs=1e-4)
    assert found.scores.logloss == pytest.approx(description.test["logloss"], abs=1e-6)
    study = results.load(runs, name)
    assert description.test["auc"] == study.trials["test_auc"][0]
    # As what runs today it is compared with itself: its scores of the shards' validation rows are the trial's own.
    folder, at = str(tmp_path / "model"), Where(None, raw / tokens, "embedding_bytes")
    today = recorded(BaselineAsked.read(folder), at)
    assert recorded(BaselineAsked.read(f"{folder}/model.pt2"), at) == today
    one = point(study, 0, description.iteration)
    (difference,) = against(study, one, Baseline.of(today))
    assert difference.basis == "paired"
    assert difference.value == pytest.approx(0, abs=1e-4)
    assert difference.rows_error < 1e-4 < one["auc_error"][0]
    assert (today.bytes, today.logloss) == (
        description.embedding_bytes,
        pytest.approx(one["logloss"][0], abs=1e-6),
    )


@pytest.fixture(scope="module")
def several_sizes(raw: Path, trained: Callable[..., tuple[Path, str]]) -> tuple[Path, str]:
    """A study of two trials in float32, whose evaluations are those of rounded models, too."""
    trained("raw", method="robe")  # prepares the data
    spec = {
        "name": "several",
        "data": str(raw / "raw"),
        "model": {"dim": 8, "bottom_mlp": [16], "top_mlp": [16]},
        "embedding": {"method": "robe", "also_stored_as": ["int4", "int2"]},
        "search": {"memory_budget": 20_000, "learning_rate": {"low": 0.03, "high": 0.05}, "epochs": 1},
        "train": {"batch_size": 128, "evaluate_every": 0.5},
        "trials": 2,
    }
    (raw / "several.yaml").write_text(json.dumps(spec))
    calm_study(raw / "several.yaml", raw / "runs" / "several")
    return raw / "runs", "several"


@pytest.mark.slow
def test_one_training_answers_for_models_of_several_sizes(
    several_sizes: tuple[Path, str],
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = results.load(*several_sizes)
    assert study.problems == [
        "several/study.json was skipped (No such file or directory)"
    ]  # a calm one has none
    assert study.evaluations.height == 4
    assert "stored_as" not in study.evaluations.columns
    assert study.candidates.height == 3 * 4
    sizes = study.candidates.group_by("stored_as").agg(pl.col("embedding_bytes").unique().first())
    assert dict(sizes.iter_rows()) == {None: 20_000, "int4": 2_502, "int2": 1_252}
    trained, int4 = (
        study.candidates.filter(pl.col("stored_as").eq_missing(storage)).sort("trial_id", "iteration")
        for storage in (None, "int4")
    )
    assert (trained["auc"] - int4["auc"]).abs().max() < 0.02
    assert trained["auc"].to_list() != int4["auc"].to_list()
    assert trained["iteration"].to_list() == int4["iteration"].to_list()
    assert "int4" in study.front["stored_as"].to_list() or "int2" in study.front["stored_as"].to_list()

    choice = results.choose(study, max_bytes=2_600, max_iterations=25)
    assert choice.stored_as in ("int4", "int2")
    assert choice.embedding_bytes < 2_600
    runs, name = several_sizes
    monkeypatch.setattr(sys, "argv", ["sizewise", "choose", name, "--runs", str(runs), "--max-bytes", "2600"])
    with contextlib.suppress(SystemExit):
        cli.main()
    printed = capsys.readouterr().out
    assert f"--storage {results.choose(study, max_bytes=2_600).stored_as}" in printed

    description = export(runs, name, 0, tmp_path / "int4", storage="int4")
    row = study.trials.row(0, named=True)
    wanted = int4.filter(trial_id=0, iteration=row["iteration"]).row(0, named=True)
    assert (description.stored_as, description.embedding_bytes) == ("int4", 2_502)
    assert description.validation["auc"] == wanted["auc"]
    assert description.model_bytes == row["model_bytes"] - 20_000 + 2_502
    assert description.compression_ratio == pytest.approx(row["compression_ratio"] * 20_000 / 2_502)
    found = evaluate(Deployed.open(tmp_path / "int4"), [str(raw / "test.tsv")])
    assert found.scores
    assert found.scores.auc == pytest.approx(row["test_auc"], abs=0.02)
    with zipfile.ZipFile(tmp_path / "int4" / "model.pt2") as archive:
        held = [info.file_size for info in archive.infolist()]
    assert 2_500 in held
    assert 20_000 not in held
    # Of a storage that nobody measured there are no scores.
    assert export(runs, name, 1, tmp_path / "int8", storage="int8").validation["auc"] is None


@pytest.mark.slow
def test_what_cannot_be_rounded_is_refused(
    several_sizes: tuple[Path, str], trained: Callable[..., tuple[Path, str]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--storage 'int3': choose one of bfloat16, int8, int4, int2"):
        export(*several_sizes, 0, tmp_path / "model", storage="int3")
    stored = trained("raw", method="robe", storage="int8", sign=True)
    with pytest.raises(InputError, match="was not trained in float32"):
        export(*stored, 0, tmp_path / "model", storage="int4")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_runs_where_there_is_no_sizewise_and_holds_no_pickle(
    trained: Callable[..., tuple[Path, str]], raw: Path, tmp_path: Path
) -> None:
    export(*trained("raw", method="robe", storage="int8", sign=True), 0, tmp_path / "model")
    program = (
        "import sys, torch\n"
        "model = torch.export.load(sys.argv[1]).module()\n"
        "dense, tokens = torch.full((3, 13), float('nan')), torch.arange(78).view(3, 26).to(torch.uint32)\n"
        "assert not [name for name in sys.modules if name.startswith('sizewise')]\n"
        "print(torch.sigmoid(model(dense, tokens)).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model" / "model.pt2")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    tokens = np.arange(78, dtype=np.uint32).reshape(3, 26)
    logits = Deployed.open(tmp_path / "model")(np.full((3, 13), np.nan, np.float32), tokens)
    assert json.loads(done.stdout) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    with zipfile.ZipFile(tmp_path / "model" / "model.pt2") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert not [name for name, data in members.items() if data[:2] in (b"\x80\x02", b"\x80\x04", b"PK")]
    # One byte a number of the pool, which leaves four of the 20,000 to the scale; not four bytes a number.
    sizes = [len(data) for data in members.values()]
    assert 19_996 in sizes
    assert 4 * 19_996 not in sizes


def test_a_score_a_row_with_its_file_and_line(
    trained: Callable[..., tuple[Path, str]], raw: Path, tmp_path: Path
) -> None:
    export(*trained("raw", method="robe"), 0, tmp_path / "model")
    deployed = Deployed.open(tmp_path / "model")
    lines = (raw / "test.tsv").read_bytes().splitlines(keepends=True)
    (tmp_path / "mixed.tsv").write_bytes(b"".join([*lines[:5], b"no row\n", *lines[5:9]]))
    with pytest.raises(InputError, match=r"mixed.tsv, line 6: has 1 tab-separated fields"):
        score(deployed, [str(tmp_path / "mixed.tsv")], tmp_path / "scores.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed.tsv", "model"]
    done = score(deployed, [str(raw / "test.tsv"), str(tmp_path / "mixed.tsv")], tmp_path / "s.parquet", 0.1)
    assert (done.rows, done.bad_rows) == (ROWS // 10 + 9, 1)
    scores = pl.read_parquet(tmp_path / "s.parquet")
    mixed = scores.filter(pl.col("file").str.ends_with("mixed.tsv"))
    assert mixed["line"].to_list() == [1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert mixed["probability"].to_list() == pytest.approx(scores["probability"].head(9).to_list(), abs=1e-6)
    assert scores["label"].head(9).to_list() == [int(line[:1]) for line in lines[:9]]
    with pytest.raises(InputError, match=r"1 of 10 rows are bad, more than --max-bad-fraction 0.05"):
        score(deployed, [str(tmp_path / "mixed.tsv")], tmp_path / "t.parquet", 0.05)
    assert not (tmp_path / "t.parquet").exists()
    for ending, read in {".csv": pl.read_csv, ".ARROW": pl.read_ipc, ".feather": pl.read_ipc}.items():
        score(deployed, [str(raw / "test.tsv")], out := tmp_path / f"s{ending}")
        assert read(out).cast(scores.schema).equals(scores.head(ROWS // 10))
    with pytest.raises(InputError, match=r"s\.npz: scores are written as the name ends, in \.csv, \.parquet"):
        score(deployed, [str(raw / "test.tsv")], tmp_path / "s.npz")


def test_the_commands_speak_json(
    trained: Callable[..., tuple[Path, str]],
    raw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs, name = trained("raw", method="robe")

    def reported(*arguments: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["sizewise", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    model, log = tmp_path / "model", raw / "test.tsv"
    exported = reported("export", name, "--trial", 0, "--out", model, "--runs", runs)
    assert [at["rows"] for at in exported["latency"]] == [1, 128, 4096]
    assert reported("evaluate", model, log)["auc"] == pytest.approx(exported["test"]["auc"], abs=1e-4)
    assert reported("score", model, log, "--out", tmp_path / "s.parquet")["rows"] == ROWS // 10
    calibration = f"calibration {reported('evaluate', model, log)['calibration']:.4f}"
    monkeypatch.setattr(sys, "argv", ["sizewise", "evaluate", str(model), str(log)])
    with pytest.raises(SystemExit):
        cli.main()
    assert calibration in capsys.readouterr().out


def test_what_cannot_be_exported_is_said(trained: Callable[..., tuple[Path, str]], tmp_path: Path) -> None:
    runs, name = trained("raw", method="robe")
    with pytest.raises(InputError, match=r"no trial 7; its trials: 0, 1"):
        export(runs, name, 7, tmp_path / "model")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match=r"taken: exists already"):
        export(runs, name, 0, tmp_path / "taken")
    (weights,) = (runs / name / "checkpoints").glob("0001-*/best-*.safetensors")
    away = weights.rename(weights.with_suffix(".away"))
    with pytest.raises(
        InputError, match=r"no weights of trial 1 at iteration \d+; train the trial again: sizewise run"
    ):
        export(runs, name, 1, tmp_path / "model")
    away.rename(weights)  # other tests' too
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_what_stands_on_the_front_can_be_exported(
    trained: Callable[..., tuple[Path, str]], raw: Path, tmp_path: Path
) -> None:
    """Earlier evaluations too, with the weights that they were scored with; and no others take room in the end."""
    runs, name = trained("raw", method="robe", width=2)
    study = results.load(runs, name)
    lines = (raw / "day_0.tsv").read_bytes().splitlines(keepends=True)
    (tmp_path / "validation.tsv").write_bytes(b"".join(lines[-ROWS // 5 : -ROWS // 10]))
    front = study.front.sort("iteration")
    assert front["iteration"].n_unique() > 1
    best = dict(study.trials.select("trial_id", "iteration").iter_rows())
    for row in [front.row(0, named=True), front.row(-1, named=True)]:
        out = tmp_path / f"{row['trial_id']}-{row['iteration']}"
        description = export(runs, name, row["trial_id"], out, iteration=row["iteration"])
        assert (description.iteration, description.validation["auc"]) == (row["iteration"], row["auc"])
        assert bool(description.test) == (row["iteration"] == best[row["trial_id"]])
        found = evaluate(Deployed.open(out), [str(tmp_path / "validation.tsv")])
        assert found.scores
        assert found.scores.auc == pytest.approx(row["auc"], abs=1e-4)
        with_it = f" --trial {row['trial_id']} --iteration {row['iteration']} "
        command = export_command(study, row["trial_id"], iteration=row["iteration"])
        assert (with_it in command) == (row["iteration"] != best[row["trial_id"]])

    before = {trial_id: set(kept_weights(study, trial_id)) for trial_id in (0, 1)}
    keep_the_front(runs / name)
    on_front = {(row["trial_id"], row["iteration"]) for row in front.iter_rows(named=True)}
    for trial_id in (0, 1):
        expected = {at for at in before[trial_id] if (trial_id, at) in on_front or at == best[trial_id]}
        assert set(kept_weights(study, trial_id)) == expected
    with pytest.raises(InputError, match="was not evaluated at iteration 7;"):
        export(runs, name, 0, tmp_path / "none", iteration=7)


@pytest.mark.slow
def test_a_model_of_ratings_without_numbers_scores_the_formats_that_it_was_prepared_from(
    tmp_path: Path,
) -> None:
    """No dense column, a rule for the label: Parquet and JSON lines give what the study's own test split gave."""
    draw = np.random.default_rng(1)
    users, movies = draw.integers(0, 40, 3000), draw.integers(-60, 0, 3000)
    rows = {
        "rating": np.clip((users + movies) % 5 + draw.integers(0, 2, 3000), 1, 5),
        "user": users,
        "movie": movies,
    }
    table = pa.table(rows)
    pq.write_table(table, tmp_path / "ratings.parquet")
    layout = Layout(columns={"user": "token", "movie": "token", "rating": "label >= 4"})
    prepare([tmp_path / "ratings.parquet"], tmp_path / "shards", layout=layout)
    spec = {
        "name": "ratings",
        "data": str(tmp_path / "shards"),
        "model": {"dim": 4, "top_mlp": [8]},
        "embedding": {"method": "robe"},
        "search": {"memory_budget": 2_000, "learning_rate": 0.05, "epochs": 1},
        "train": {"batch_size": 128},
        "trials": 1,
    }
    (tmp_path / "ratings.yaml").write_text(json.dumps(spec))
    calm_study(tmp_path / "ratings.yaml", tmp_path / "runs" / "ratings")
    description = export(tmp_path / "runs", "ratings", 0, tmp_path / "model")
    test = table.slice(2700)
    pq.write_table(test, tmp_path / "test.parquet")
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test.to_pylist()))
    for name in ("test.parquet", "test.jsonl"):
        found = evaluate(Deployed.open(tmp_path / "model"), [str(tmp_path / name)])
        assert found.rows == 300
        assert found.scores
        assert found.scores.auc == pytest.approx(description.test["auc"], abs=1e-4)
