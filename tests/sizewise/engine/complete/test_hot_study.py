"""A study of `hot` on data that an older version prepared: counted once, trained on Ray, exported, scored."""

import json
import re
from pathlib import Path

import pytest

from real_study import Command
from sizewise import cli, results
from sizewise.config import load, resolve
from sizewise.embedding import smallest_budget
from sizewise.training.building import check_counts
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import COUNTS, NAME, Manifest
from sizewise_prep.shards.values.counts import FILE
from sizewise_prep.shards.verifying import verify

STUDY = """\
name: hot
data: {data}
model: {{dim: 8, bottom_mlp: [16], top_mlp: [16]}}
embedding: {{method: hot, width: {{choices: [1, 2, 4]}}, storage: int8}}
search: {{memory_budget: 5kB, epochs: 1}}
train: {{batch_size: 128, evaluate_every: 0.5}}
trials: 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 rows in a folder without counts."""
    folder = tmp_path_factory.mktemp("hot")
    planted.generate(folder / "raw", 4_000, seed=3)
    prepare([folder / "raw" / "day_0.tsv"], folder / "shards", shard_rows=700)
    manifest = json.loads((folder / "shards" / NAME).read_text())
    del manifest["counts"]
    (folder / "shards" / NAME).write_text(json.dumps(manifest))
    (folder / "shards" / FILE).unlink()
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("embedding.min_count=100000", "min_count 100000: no value occurs so often .* set a lower min_count"),
        (
            "embedding.min_count.low=3 embedding.min_count.high=5000",
            "min_count 5000: no value occurs so often",
        ),
        ("search.memory_budget=30", "30 B is too small for hot at dim 8: give at least 37 B"),
        ("embedding.width=3", "width 3 does not divide dim 8: set width: 2"),
        ("embedding.fingerprint_bits=2", "fingerprint_bits: .*greater than or equal to 4"),
        ("embedding.by=clicks", "by: .*'count' or 'chi2'"),
    ],
)
def test_what_leaves_hot_nothing_is_refused_before_anything_is_trained(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: str,
    message: str,
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.format(data=data / "shards"))
    settings = [part for change in changes.split() for part in ("--set", change)]
    arguments = ["run", str(tmp_path / "study.yaml"), "--runs", str(tmp_path / "runs"), *settings]
    monkeypatch.setattr("sys.argv", ["sizewise", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in said
    assert len(said) < 300

    assert re.search(message, said), said
    assert not (tmp_path / "runs" / "hot").exists()


def test_widths_that_a_budget_has_no_room_for_do_not_refuse_the_others(data: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.format(data=data / "shards"))
    manifest = Manifest.load(data / "shards")
    spec = resolve(load(tmp_path / "study.yaml", {"search.memory_budget": 60}), manifest, "study.yaml")
    for width, fits in ((1, True), (4, False)):
        needed = smallest_budget("hot", manifest.cardinalities, 8, width=width, storage="int8")
        assert (needed <= 60) is fits
    check_counts(spec, manifest)


@pytest.mark.slow
def test_two_trials_on_ray_then_export_and_score(data: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.format(data=data / "shards"))
    with Command("run", tmp_path / "study.yaml", "--runs", tmp_path / "runs", "--json") as run:
        code, out, err = run.end()
    assert code == 0, err
    assert json.loads(out)["trials"]
    assert (data / "shards" / COUNTS).is_dir()
    assert verify(data / "shards") == []
    study = results.load(tmp_path / "runs", "hot")
    trials, evaluations = study.trials, study.evaluations
    assert all(0 < share < 0.1 for share in evaluations["mistaken_lookups"])
    assert all(0.3 < share < 1 for share in evaluations["hot_lookups"])
    assert all(0 < found < 5_000 for found in evaluations["hot_values"])
    assert set(trials["state"]) == {"finished"}
    assert all(width in (1, 2, 4) for width in trials["width"])
    assert all(4_900 < size <= 5_000 for size in trials["embedding_bytes"])
    with Command(
        "export", "hot", "--runs", tmp_path / "runs", "--trial", 0, "--out", tmp_path / "model"
    ) as made:
        assert made.end()[0] == 0
    lines = (data / "raw" / "day_0.tsv").read_bytes().splitlines(keepends=True)
    (tmp_path / "test.tsv").write_bytes(b"".join(lines[-400:]))
    with Command("evaluate", tmp_path / "model", tmp_path / "test.tsv", "--json") as judged:
        code, out, err = judged.end()
    assert code == 0, err
    assert json.loads(out)["auc"] == pytest.approx(trials["test_auc"][0], abs=1e-4)


@pytest.mark.slow
def test_a_study_that_says_nothing_of_its_embedding_trains_its_ladder(data: Path, tmp_path: Path) -> None:
    lines = [line for line in STUDY.format(data=data / "shards").splitlines() if "embedding:" not in line]
    text = "\n".join(lines).replace("memory_budget: 5kB", "memory_budget: {low: 1000x, high: 100x}")
    (tmp_path / "study.yaml").write_text(text.replace("name: hot", "name: default"))
    with Command("run", tmp_path / "study.yaml", "--runs", tmp_path / "runs", "--json") as run:
        code, _, err = run.end()
    assert code == 0, err
    trials = results.load(tmp_path / "runs", "default").trials
    assert set(trials["state"]) == {"finished"}
    assert list(zip(trials["method"], trials["storage"], trials["width"], strict=True)) == [
        ("hot", "int4", 2),
        ("hot", "int8", 8),
    ]
