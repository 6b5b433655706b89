"""What version 0.1 wrote is still read, resumed and scored: `tests/data/version_0_1` was made by that version.

Shards of 1,600 planted rows; a study of three trials whose driver was killed while the second one trained; the
evaluations that the same study had when nobody killed it; an export of its first trial, and what that scored.
"""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from sizewise import cli, export, results
from sizewise.store.trials.ledger import Ledger
from sizewise_prep import planted
from sizewise_prep.shards.verifying import verify

WRITTEN = Path(__file__).parent / "data" / "version_0_1"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A copy of the interrupted study, with its data beside it."""
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "runs" / "version-0-1" / "study.yaml"
    lines = path.read_text().splitlines()
    assert lines[-1].startswith("# crc32")
    # Elsewhere than where it was written, and said so in the way that Sizewise asks for: without the checksum.
    path.write_text("\n".join(lines[:-1]).replace("/srv/sizewise/shards", str(tmp_path / "shards")) + "\n")
    return path.parent


def test_its_shards_are_intact() -> None:
    assert verify(WRITTEN / "shards") == []


def test_its_study_is_read_without_a_problem(study: Path) -> None:
    read = results.load(study.parent, study.name)
    assert read.state == "interrupted"
    assert read.problems == []
    assert read.trials["state"].to_list() == ["finished", "running"]
    assert results.answer(read).sentence


@pytest.mark.slow
def test_its_study_goes_on_to_what_it_would_have_found(study: Path) -> None:
    resumed = CliRunner().invoke(
        cli.app, ["resume", study.name, "--runs", str(study.parent), "--ray=local", "--json"]
    )
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout)["trials"]["finished"] == 3
    ledger = Ledger(study)
    found = [{"trial_id": trial, **row} for trial in range(3) for row in ledger.evaluations(trial)]
    expected = json.loads((WRITTEN / "evaluations.json").read_text())
    assert [(row["trial_id"], row["iteration"]) for row in found] == [
        (row["trial_id"], row["iteration"]) for row in expected
    ]
    for name in ("auc", "logloss"):  # other processors may add in another order
        assert [row[name] for row in found] == pytest.approx([row[name] for row in expected], rel=1e-5)


def test_its_export_scores_as_it_did(tmp_path: Path) -> None:
    planted.generate(tmp_path / "raw", 1_600, seed=3)
    export.score(
        export.Deployed.open(WRITTEN / "model"),
        [str(tmp_path / "raw" / "day_0.tsv")],
        tmp_path / "scores.parquet",
    )
    found, expected = (
        pl.read_parquet(tmp_path / "scores.parquet").head(100),
        pl.read_csv(WRITTEN / "scores.csv"),
    )
    assert found["label"].to_list() == expected["label"].to_list()
    assert found["log_odds"].to_list() == pytest.approx(expected["log_odds"].to_list(), rel=1e-4, abs=1e-5)
