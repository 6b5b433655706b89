"""Sparse text, as libsvm and libffm have it."""

import random
from pathlib import Path

import numpy as np
import pytest

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.converter import Converter
from sizewise_prep.raw.parsing.parser import Parsed
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.raw.tables import sparse_text
from sizewise_prep.raw.tables.sparse_text import _Block
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


@pytest.mark.parametrize("form", ["libffm", "libsvm"])
@pytest.mark.parametrize("labelled", [True, False])
def test_lines_at_once_are_as_lines_one_by_one(
    form: str, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of lines that are written in all manners, most of them plainly."""
    draw = random.Random(4)
    kinds = {"0": "number", "1": "token", "2": "tokens" if form == "libffm" else "token", "3": "token"}
    if form == "libsvm":
        kinds = {"1": "number", "2": "token", "3": "token", "4": "token"}
    first = "F" if form == "libffm" else "P"
    named = {first + name: kind for name, kind in kinds.items()}
    layout = Layout(columns={"label": "label", **named}).without([] if labelled else ["label"])
    odd_labels = ["+1", "-1", "01", "1.0", "2", "yes", "+0", "-0", "1x"]
    odd_values = ["1.0", "1.", "01", "2", "1e0", "nan", "-1", "", ".", "1.0000000000000001", "0x1", "1:1"]
    numbers = [
        "0.25",
        "-3.5",
        "12345678901234.5",
        "123456789012345678",
        "1e5",
        "-0",
        "inf",
        "much",
        ".5",
        "00.5",
        "-",
    ]
    lines = []
    for _ in range(400):
        odd = draw.random() < 0.25
        words = (
            [draw.choice(odd_labels) if odd and draw.random() < 0.3 else draw.choice("01")]
            if labelled
            else []
        )
        for name, kind in kinds.items():
            for _ in range(draw.choice((1, 2, 3)) if kind == "tokens" else draw.random() < 0.9):
                value = draw.choice(numbers[: 11 if odd else 2]) if kind == "number" else "1"
                value = draw.choice(odd_values) if odd and draw.random() < 0.2 else value
                index = (
                    draw.choice(["007", "0", "9" * 19, "x"])
                    if odd and draw.random() < 0.2
                    else draw.randrange(99)
                )
                words.append(f"{name}:" * (form == "libffm") + f"{index}:{value}")
        if odd:
            draw.shuffle(words) if draw.random() < 0.2 else None
            more = [[], ["# a: comment"], ["#1:1"], ["9:1:1"], words[-1:], ["caf\xe9"], ["# caf\xe9"]]
            words += draw.choice(more)
        lines.append(
            (draw.choice([" ", "  ", "\t"]) if odd else " ").join(words) + draw.choice(["", "\r", " "])
        )
    text = ("\n".join(lines) + "\n").encode("latin-1")
    found: dict[bool, list[Parsed]] = {}
    for at_once in (True, False):
        monkeypatch.setattr(sparse_text, "_MOST_CHANGES", 10_000 if at_once else -1)
        found[at_once] = list(_Block(text, form, Converter(layout), dict(layout.kinds)).parsed(5))
    fast, slow = Rows.concatenated([one.rows for one in found[True]]), found[False][0].rows
    assert len(found[True]) > 20
    assert 200 < len(slow) < 400
    for part in ("labels", "dense", "ids"):
        assert np.array_equal(getattr(fast, part), getattr(slow, part), equal_nan=part == "dense")
    for one, other in zip(fast.lists, slow.lists, strict=True):
        assert np.array_equal(one.lengths, other.lengths)
        assert np.array_equal(one.used, other.used)
    assert [row for one in found[True] for row in one.bad] == found[False][0].bad
