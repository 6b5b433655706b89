"""Sparse text, as libsvm and libffm have it."""

from pathlib import Path

import numpy as np
import pytest

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.values import hashing
from sizewise_prep.shards.files import read_shard as stored_shard


def test_libffm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sizewise_prep.raw.files.reader.BLOCK_BYTES", 900)
    monkeypatch.setattr("sizewise_prep.pipeline.jobs.parts.PIECE_BYTES", 2_000)
    lines = [
        f"{j % 2} 0:7:{j / 4} 1:{j % 5}:1 " + (f"2:{j % 9 + 50}:1.0 2:{j % 4 + 60}:1" if j % 3 else "")
        for j in range(200)
    ]
    (tmp_path / "log.ffm").write_text("\n".join(lines) + "\n")
    manifest = prepare(tmp_path / "log.ffm", tmp_path / "out", format="libffm")
    assert manifest.layout.columns == {"label": "label", "F0": "number", "F1": "token", "F2": "tokens"}
    shard = manifest.splits["train"].shards[0]
    rows = stored_shard(tmp_path / "out" / shard.file, manifest.shape(shard))
    assert rows.labels.tolist() == [j % 2 for j in range(160)]
    assert rows.dense[:, 0].tolist() == [j / 4 for j in range(160)]
    assert rows.ids[:, 0].tolist() == [hashing.token(f"{j % 5}") for j in range(160)]
    assert rows.lists[0].lengths.tolist() == [2 if j % 3 else 0 for j in range(160)]
    assert rows.lists[0].values[1] == hashing.token("61")


def test_libsvm_and_its_bad_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sizewise_prep.raw.tables.sparse_text._FIRST_BYTES", 2_000)
    lines = [
        f"{'+1' if j % 2 else '-1'} {j % 3}:1 {j % 7 + 10}:1 99:{j * 0.5}  # row {j}" for j in range(100)
    ]
    (tmp_path / "log.svm").write_text("\n".join(lines) + "\n")
    manifest = prepare(tmp_path / "log.svm", tmp_path / "out", format="libsvm")
    train = read_shard(tmp_path / "out" / "train-00000.arrow")
    assert train.labels.tolist() == [j % 2 for j in range(80)]
    assert np.array_equal(train.dense[:, 0], np.arange(80) * np.float32(0.5))
    assert manifest.cardinalities == [3, 7]
    for place, (bad, message) in enumerate(
        [
            ("1 3:1 x", r"has 'x', which is not of the form INDEX:VALUE"),
            ("1 3:0.5 11:1 99:1", r"column P1: has the value '0\.5'; categories have 1"),
            ("1 3:1 11:1 99:1 100:1", r"has a column P4, which the log's first rows have not"),
            ("7 3:1 11:1 99:1", r"column label: '7' is not 0 or 1"),
            ("1 3:1 11:1 99:much", r"column P3: 'much' is not a number"),
            ("", r"is blank; LABEL INDEX:VALUE \.\.\. is expected"),
        ]
    ):
        raw = tmp_path / f"{place}.svm"
        raw.write_text("\n".join([*lines, bad]) + "\n")
        with pytest.raises(InputError, match=rf"{place}\.svm, line 101: {message}"):
            prepare(raw, tmp_path / "bad", format="libsvm")
    assert prepare(raw, tmp_path / "bad", format="libsvm", max_bad_fraction=0.1).quarantine.reasons == {
        "field_count": 1
    }
    (tmp_path / "text.svm").write_text("a\tb\n" * 9)
    with pytest.raises(InputError, match=r"text\.svm, line 1: is no row of libsvm"):
        prepare(tmp_path / "text.svm", tmp_path / "no", format="libsvm")
    (tmp_path / "dense.svm").write_text("".join(f"1 1:{j}.5 2:{j}.25\n" for j in range(9)))
    with pytest.raises(InputError, match="all columns are numbers"):
        prepare(tmp_path / "dense.svm", tmp_path / "no", format="libsvm")
