"""How often values occur in the training rows: written by a preparation, or counted when somebody asks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arrow_shards import read_shard
from s3_server import S3Server
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import place, write
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import generate
from sizewise_prep.shards.manifest import COUNTS, NAME, Manifest
from sizewise_prep.shards.values import counts as counting
from sizewise_prep.shards.values.counts import FILE, RECORD, training_counts
from sizewise_prep.shards.verifying import verify

TREATMENTS = {
    "raw": {"tokens": "raw"},
    "contiguous": {"tokens": "contiguous", "min_count": 3},
    "all known": {"tokens": "contiguous"},
    "mlperf": {"tokens": "mlperf"},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards for each treatment of tokens, by its name."""
    folder = tmp_path_factory.mktemp("counts")
    generate(folder / "log", 3_000)
    for name, options in TREATMENTS.items():
        prepare([folder / "log" / "day_0.tsv"], folder / name, shard_rows=700, **options)
    return folder


def without_counts(folder: Path, to: Path) -> Path:
    """The folder as a version that wrote no counts has left it."""
    shutil.copytree(folder, to)
    manifest = json.loads((to / NAME).read_text())
    del manifest["counts"]
    (to / NAME).write_text(json.dumps(manifest))
    (to / FILE).unlink()
    return to


def expected(folder: Path, column: int) -> list[tuple[int, int, int]]:
    """Value, count and clicks, out of the shards row by row."""
    shards = [read_shard(folder / shard.file) for shard in Manifest.load(folder).splits["train"].shards]
    ids = np.concatenate([rows.ids[:, column] for rows in shards])
    labels = np.concatenate([rows.labels for rows in shards])
    return [(int(v), int((ids == v).sum()), int(labels[ids == v].sum())) for v in np.unique(ids)]


@pytest.mark.parametrize("name", TREATMENTS)
def test_counts_are_those_of_the_training_rows_whoever_counted(
    prepared: Path, tmp_path: Path, name: str
) -> None:
    folder = prepared / name
    counts = training_counts(folder)
    assert len(counts) == 26
    for column in (0, 2, 25):
        assert list(zip(*(part.tolist() for part in counts[column]), strict=True)) == expected(folder, column)
    assert verify(folder) == []
    file = Manifest.load(folder).counts
    assert file is not None
    assert file.rows == sum(len(feature.ids) for feature in counts)

    older = without_counts(folder, tmp_path / "older")
    assert Manifest.load(older).counts is None
    for mine, theirs in zip(training_counts(older), counts, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert (older / COUNTS / FILE).read_bytes() == (folder / FILE).read_bytes()
    assert verify(older) == []


def test_a_folder_that_cannot_be_written_is_counted_in_the_cache(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = without_counts(prepared / "raw", tmp_path / "older")
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(counting.os, "access", lambda path, mode: False)  # as root, who may write everywhere
    assert [c.counts.sum() for c in training_counts(older)] == [2_400] * 26
    assert not (older / COUNTS).exists()
    assert len(list((tmp_path / "cache" / "counts").glob(f"*/{COUNTS}/{RECORD}"))) == 1


def test_damaged_counts_are_named_with_what_to_do(prepared: Path, tmp_path: Path) -> None:
    named = shutil.copytree(prepared / "raw", tmp_path / "named")
    file = named / FILE
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(
        InputError, match=r"values\.counts: its content has changed.*remove that file, and the rows"
    ):
        training_counts(named)
    assert [problem.split(":")[0] for problem in verify(named)] == ["values.counts"]
    file.unlink()
    for mine, theirs in zip(training_counts(named), training_counts(prepared / "raw"), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert verify(named) == []

    older = without_counts(prepared / "raw", tmp_path / "older")
    training_counts(older)
    counting._local.cache_clear()
    (older / COUNTS / FILE).unlink()
    with pytest.raises(
        InputError, match=r"values\.counts: is missing: remove .*counts, and the rows are counted"
    ):
        training_counts(older)
    other = without_counts(prepared / "contiguous", tmp_path / "other")
    shutil.copytree(older / COUNTS, other / COUNTS)
    with pytest.raises(InputError, match=r"counts\.json: counts other rows .* remove"):
        training_counts(other)
    (other / COUNTS / RECORD).write_text("{")
    with pytest.raises(InputError, match=r"counts\.json: cannot be read: remove"):
        training_counts(other)


def test_several_processes_count_once_and_a_killed_one_leaves_nothing_in_the_way(
    prepared: Path, tmp_path: Path
) -> None:
    older = without_counts(prepared / "raw", tmp_path / "older")
    killed = (
        "import os, sys; from sizewise_prep.shards.values import counts\n"
        "counts.merge = lambda *a: os._exit(9)\n"
        f"counts.training_counts({str(older)!r})"
    )
    assert subprocess.run([sys.executable, "-c", killed]).returncode == 9
    assert not (older / COUNTS).exists()
    code = (
        "from sizewise_prep.shards.values.counts import training_counts\n"
        f"print(sum(int(c.counts.sum()) for c in training_counts({str(older)!r})))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == [f"{2_400 * 26}\n"] * 3
    assert verify(older) == []
    assert not [path.name for path in older.iterdir() if path.name.startswith(".")]


def test_counts_of_a_bucket_are_fetched_alone(
    prepared: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / "cache"))
    uri = place(f"s3://studies/counts-{tmp_path.name}/shards")
    for path in (prepared / "raw").iterdir():
        write(uri / path.name, path.read_bytes())
    for mine, theirs in zip(training_counts(uri), training_counts(prepared / "raw"), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not list((tmp_path / "cache").rglob("*.arrow"))
