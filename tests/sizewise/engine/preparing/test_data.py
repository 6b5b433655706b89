"""A study's data is what it was when the study began, or the study says what is wrong and waits."""

import os
import shutil
from pathlib import Path

import pytest

from arrow_shards import read_shard
from sizewise.config import load
from sizewise.engine.preparing.creating import scorable
from sizewise.store import data_identity as study_data
from sizewise.store.data_identity import fingerprint, problem
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.shards.files import write_shard
from sizewise_prep.shards.manifest import Manifest


def test_other_rows_missing_shards_and_no_folder_are_told_apart(shards: Path, tmp_path: Path) -> None:
    known, data = fingerprint(Manifest.load(shards)), tmp_path / "data"
    shutil.copytree(shards, data)
    assert problem(str(data), known) == problem(str(data), None) == ""
    shard = next(data.rglob("*.arrow"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert problem(str(data), known).startswith(f"{shard}: is missing or not whole")
    shard.write_bytes(bytes([content[0] ^ 1]) + content[1:])  # of the same size, as another study's may be
    assert problem(str(data), known).startswith(f"{shard}: was changed, and holds other rows")
    shard.write_bytes(content)
    assert problem(str(data), known) == ""
    shard.unlink()
    assert problem(str(data), known).startswith(f"{shard}: is missing or not whole")
    shutil.rmtree(data)
    assert "is not there any more: bring it back, or write where it is now" in problem(str(data), known)
    prepare(
        [shards.parent / "raw" / "day_0.tsv"], data, shard_rows=700
    )  # the same again, in other order or not
    assert problem(str(data), known) == ""
    shutil.rmtree(data)
    prepare([shards.parent / "raw" / "day_0.tsv"], data, shard_rows=700, split=(0.7, 0.1, 0.2))
    assert "holds other rows than when the study began" in problem(str(data), known)


def test_a_copied_folder_is_not_read(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = tmp_path / "data", []
    shutil.copytree(shards, data)
    monkeypatch.setattr(study_data, "_digest", lambda path, written: read.append(path))
    os.utime(data / "manifest.json", (0, 0))  # the first to be copied, without its time
    assert problem(str(data), None) == ""
    assert read == []


def test_a_shard_that_no_kernel_may_read_is_named_before_a_study_starts(shards: Path, tmp_path: Path) -> None:
    """Of the right size, in a folder whose files are all of one time, as a copy has them."""
    data = tmp_path / "data"
    shutil.copytree(shards, data)
    shard = data / "train-00001.arrow"
    rows = read_shard(shard)
    labels = rows.labels.copy()
    labels[5] = 255
    write_shard(shard, Rows(labels, rows.dense.copy(), rows.ids.copy()))
    for file in data.iterdir():
        os.utime(file, (0, 0))
    assert problem(str(data), None).startswith(f"{shard}: row 6 has label 255, which must be 0 or 1")


def test_training_rows_of_one_label_are_named(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the validation rows have both, so that trials can be scored."""
    path, manifest = tmp_path / "study.yaml", Manifest.load(shards)
    path.write_text(f"name: mine\ndata: {shards}\n")
    scorable(load(path), manifest)
    assert not caplog.messages
    train = manifest.splits["train"].model_copy(update={"click_rate": 0.0})
    scorable(load(path), manifest.model_copy(update={"splits": {**manifest.splits, "train": train}}))
    assert "all 3,200 rows of the training split have the same label" in caplog.text
