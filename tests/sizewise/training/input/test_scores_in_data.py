"""Another model's scores as a column of raw logs: kept beside the rows in shards, and read as a teacher's."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sizewise import config as study_file
from sizewise.engine.preparing import teachers
from sizewise.training.input.batches import Split
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.files.sources import resolve
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.row_readers import for_scoring
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.verifying import verify

COLUMNS = {"row": "number", "ctr": "probability", "w": "weight", "y": "label", "t": "token", "age": "bucket"}
LAYOUT = Layout(separator=",", header=True, columns=COLUMNS, transforms={"row": "none"})


def frame() -> pl.DataFrame:
    rows = np.arange(200)
    columns = {
        "row": rows,
        "ctr": rows / 200,
        "w": 1 + rows % 3,
        "y": rows % 2,
        "t": rows % 5,
        "age": rows % 31,
    }
    return pl.DataFrame(columns)


def log_odds(rows: np.ndarray) -> np.ndarray:
    shares = np.clip(rows / 200, 1e-7, 1)
    return np.log(shares / (1 - shares))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores")
    frame().write_csv(folder / "log.csv")
    frame().write_parquet(folder / "log.parquet")
    for name in ("csv", "parquet"):
        prepare(folder / f"log.{name}", folder / name, layout=LAYOUT, shard_rows=60, shuffle=1)
    return folder


def test_shards_hold_the_log_odds_of_each_row(data: Path) -> None:
    shards = [
        [path.read_bytes() for path in sorted((data / name).glob("*.arrow"))] for name in ("csv", "parquet")
    ]
    assert shards[0] == shards[1]
    verify(data / "csv")
    for name in ("train", "validation", "test"):
        split = Split.open(data / "csv", name)
        for index in range(len(split.files)):
            rows = split.shard(index).stored()
            assert rows.scores is not None
            assert rows.weights is not None
            assert rows.dense.shape[1] == 1  # a score is no number that a model reads
            np.testing.assert_allclose(rows.scores, log_odds(rows.dense[:, 0]), rtol=1e-6, atol=1e-6)
            assert (rows.weights == 1 + rows.dense[:, 0] % 3).all()


def test_students_read_the_column_with_their_batches(data: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(data / "csv")
    path = tmp_path / "study.yaml"
    path.write_text(f"name: a\ndata: {data / 'csv'}\ntrain: {{distill: {{teacher: {{column: ctr}}}}}}\n")
    spec = study_file.load(path)
    assert study_file.from_text(study_file.to_text(spec), path) == spec
    sources = teachers.find(spec.train.distill_teacher, tmp_path, str(data / "csv"), manifest, "a")
    assert [source.name for source in sources] == ["column ctr"]
    scores = teachers.scores_of(sources, str(data / "csv"))
    scores.complete()
    batch = Split.open(data / "csv", "train").with_teacher(scores.shard).batch(0, 0, 100, seed=1)
    assert batch.teacher is not None
    np.testing.assert_allclose(batch.teacher, log_odds(batch.dense[:, 0].numpy()), rtol=1e-6, atol=1e-6)


def test_a_column_that_is_no_score_is_refused(data: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(data / "csv")
    with pytest.raises(InputError, match=r"'t' is no column of scores of .*whose column of scores is 'ctr'"):
        teachers.find(["column:t"], tmp_path, str(data / "csv"), manifest, "a")
    two = {"row": "number", "a": "score", "b": "probability", "y": "label", "t": "token"}
    with pytest.raises(ValueError, match="2 columns are the score; name one"):
        Layout(columns=two)


def test_probabilities_that_are_called_log_odds_are_named(tmp_path: Path) -> None:
    """As in a file of scores; a single value between 0 and 1 may well be log-odds."""
    layout = LAYOUT.model_copy(update={"columns": {**COLUMNS, "ctr": "score"}})
    for name, scores in {
        "named": np.arange(200) / 200,
        "fine": np.arange(200) / 100,
        "same": np.full(200, 0.5),
    }.items():
        frame().with_columns(ctr=scores).write_parquet(tmp_path / f"{name}.parquet")
        prepare(tmp_path / f"{name}.parquet", tmp_path / name, layout=layout, shard_rows=60)
    with pytest.raises(
        InputError, match=r"all scores of column 'ctr' lie between 0 and 1, .* call the column `prob"
    ):
        teachers.find(
            ["column:ctr"], tmp_path, str(tmp_path / "named"), Manifest.load(tmp_path / "named"), "a"
        )
    for name in ("fine", "same"):
        teachers.find(["column:ctr"], tmp_path, str(tmp_path / name), Manifest.load(tmp_path / name), "a")


@pytest.mark.parametrize(
    ("kind", "bad"), [("probability", ["1.5", "-0.1", "", "x"]), ("score", ["inf", "nan", "", "1e39"])]
)
def test_rows_without_a_usable_score_are_bad_rows(kind: str, bad: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    values = [*bad, *("0.25" for _ in range(100))]
    log.write_text("y,t,s\n" + "".join(f"{n % 2},{n},{value}\n" for n, value in enumerate(values)))
    layout = Layout(separator=",", header=True, columns={"y": "label", "t": "token", "s": kind})
    prepare(log, tmp_path / "out", layout=layout, max_bad_fraction=0.5)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["quarantine"]["reasons"] == {"score": 4}
    kept = Split.open(tmp_path / "out", "train").shard(0).stored().scores
    assert kept is not None
    np.testing.assert_allclose(kept, np.log(1 / 3) if kind == "probability" else 0.25, rtol=1e-6)


def test_rows_to_be_scored_need_no_score(tmp_path: Path) -> None:
    frame().drop("ctr", "w", "y").write_csv(tmp_path / "new.csv")
    found = for_scoring(resolve(tmp_path / "new.csv")[0], LAYOUT)
    assert found.score is None
