"""A study of `hot` that cannot be: what is said before anything is trained. Those that can: `test_small_studies.py`."""

import json
import re
from pathlib import Path

import pytest

from sizewise import cli
from sizewise.config import load, resolve
from sizewise.embedding import smallest_budget
from sizewise.training.building import check_counts
from sizewise_prep import planted
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import NAME, Manifest
from sizewise_prep.shards.values.counts import FILE

STUDY = """\
name: hot
data: {data}
model: {{dim: 8, bottom_mlp: [16], top_mlp: [16]}}
embedding: {{method: hot, width: {{choices: [1, 2, 4]}}, storage: int8}}
search: {{memory_budget: 5kB, epochs: 1}}
train: {{batch_size: 128, evaluate_every: 0.5}}
trials: 2
"""


def prepare_old_data(folder: Path) -> Path:
    """4,000 rows, and shards of them without counts."""
    planted.generate(folder / "raw", 4_000, seed=3)
    prepare([folder / "raw" / "day_0.tsv"], folder / "shards", shard_rows=700)
    manifest = json.loads((folder / "shards" / NAME).read_text())
    del manifest["counts"]
    (folder / "shards" / NAME).write_text(json.dumps(manifest))
    (folder / "shards" / FILE).unlink()
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_old_data(tmp_path_factory.mktemp("hot"))


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
