"""A teacher's scores in a file: which files are taken, and what is said of the others."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sizewise.training.teachers.teacher_files import check_labels, file_teacher, read_scores
from sizewise_core.errors import InputError

ROWS = 300
LOG_ODDS = np.random.default_rng(1).normal(-1, 2, ROWS)
SHARES = 1 / (1 + np.exp(-LOG_ODDS))
CERTAIN = np.where(np.arange(ROWS) < 2, np.arange(ROWS) % 2, SHARES)


def changed(values: np.ndarray, value: object) -> list[object]:
    return [value, *values[1:].tolist()]


def write(path: Path, content: object) -> None:
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, pl.DataFrame):
        writers = {".csv": content.write_csv, ".parquet": content.write_parquet, ".arrow": content.write_ipc}
        writers[path.suffix](path)
    elif content is not None:
        path.write_text(str(content))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.npy", LOG_ODDS.astype(np.float16), LOG_ODDS.astype(np.float16)),
        ("a.npy", LOG_ODDS[:, None], LOG_ODDS),
        ("a.npy", np.arange(ROWS), np.arange(ROWS)),
        ("a.csv", pl.DataFrame({"any": LOG_ODDS}), LOG_ODDS),
        ("a.csv", "\n".join(map(str, LOG_ODDS)), LOG_ODDS),
        ("a.csv", "\ufefflog_odds\r\n" + "\r\n".join(map(str, LOG_ODDS)), LOG_ODDS),
        ("a.csv", "log_odds\n" + "1\n" * 200 + "0.5\n" * 100, np.repeat([1, 0.5], [200, 100])),
        ("a.parquet", pl.DataFrame({"id": range(ROWS), "probability": SHARES}), LOG_ODDS),
        ("a.arrow", pl.DataFrame({"log_odds": LOG_ODDS, "probability": SHARES}), LOG_ODDS),
        ("a.csv", pl.DataFrame({"probability": CERTAIN}), [-16.118096, 16.118096, *LOG_ODDS[2:]]),
    ],
)
def test_scores_are_read(name: str, content: object, expected: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / name, content)
    np.testing.assert_allclose(read_scores(tmp_path / name, ROWS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", None, "there is no such file of scores"),
        ("a.txt", "1", "is no file of scores: use one that ends with .npy, "),
        ("a.npy", "hello", "is no NumPy file of numbers"),
        ("a.npy", np.array(3.0), "has the shape of a single number"),
        ("a.npy", np.zeros((2, ROWS)), f"has the shape 2x{ROWS}"),
        ("a.npy", LOG_ODDS > 0, "holds no numbers"),
        ("a.npy", LOG_ODDS[1:], "has 299 scores, and the training split has 300 rows"),
        ("a.npy", SHARES, r"all scores lie between 0 and 1, .* log\(p / \(1 - p\)\)"),
        ("a.npy", np.array(changed(LOG_ODDS, np.inf)), "score 1 is inf, and must be a finite number"),
        ("a.npy", LOG_ODDS * 1e300, "score 1 is .*e.299, and must be a finite number of float32"),
        ("a.csv", "", r"is no table that can be read \(empty CSV\)"),
        ("a.csv", "log_odds\n", "has 0 scores"),
        ("a.csv", "log_odds\n" + "1\n" * 299 + "oops", "score 300 of column 'log_odds' is 'oops'"),
        (
            "a.csv",
            pl.DataFrame({"log_odds": changed(LOG_ODDS, None)}),
            "score 1 of column 'log_odds' is missing",
        ),
        (
            "a.csv",
            pl.DataFrame({"a": LOG_ODDS, "b": LOG_ODDS}),
            r"has 2 columns \('a, b'\): .* or probability",
        ),
        ("a.arrow", "hello", "give one log-odds or probability a training row"),
        ("a.parquet", pl.DataFrame({"log_odds": LOG_ODDS > 0}), "holds Boolean instead of numbers"),
        (
            "a.parquet",
            pl.DataFrame({"ctr": SHARES}),
            "all scores lie between 0 and 1, .*: name the column probability",
        ),
        (
            "a.parquet",
            pl.DataFrame({"probability": changed(SHARES, 1.2)}),
            "score 1 is 1.2, and must be a probability from 0 to 1",
        ),
        (
            "a.arrow",
            pl.DataFrame({"probability": changed(SHARES, np.nan)}),
            "score 1 is nan, and must be a prob",
        ),
        ("a.arrow", pl.DataFrame({"probability": changed(SHARES, None)}), "'probability' is missing"),
        (
            "a.arrow",
            pl.DataFrame({"log_odds": LOG_ODDS, "probability": changed(SHARES, 0.99)}),
            r"columns log_odds and probability differ at score 1 \(-0.3\d+ and 0.99\)",
        ),
    ],
)
def test_a_file_that_cannot_be_a_teacher_is_refused(
    name: str, content: object, message: str, tmp_path: Path
) -> None:
    write(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        file_teacher(tmp_path / name, ROWS)
    said = str(error.value).replace(str(tmp_path), "")
    assert re.search(message, said), said
    assert len(said) < 200
    assert "\n" not in said


def test_a_file_that_was_replaced_scores_nothing(tmp_path: Path) -> None:
    """Some rows would have been scored by one file, and the others by another one."""
    path = tmp_path / "a.npy"
    np.save(path, LOG_ODDS)
    teacher = file_teacher(path, ROWS, file_teacher(path, ROWS).digest)
    assert teacher.load()
    np.save(path, LOG_ODDS + 1)
    with pytest.raises(InputError, match=r"distill.teacher: .*a.npy: was replaced since the study began"):
        teacher.load()


def test_labels_beside_scores_must_be_those_of_the_training_rows(tmp_path: Path) -> None:
    """As `sizewise score` writes them: of another split or in another order, a file may have as many rows."""
    labels = (np.arange(ROWS) % 3 == 0).astype(np.uint8)
    for name, given in (
        ("same", labels),
        ("turned", labels[::-1]),
        ("none", [None] * ROWS),
        ("stars", labels + 1),
    ):
        for ending in ("csv", "parquet"):
            path = tmp_path / f"{name}.{ending}"
            write(path, pl.DataFrame({"label": given, "log_odds": LOG_ODDS}))
            if name != "turned":
                check_labels(path, lambda: labels)
                continue
            with pytest.raises(InputError, match=r"row 1 has label 0, and training row 1 has 1: its scores"):
                check_labels(path, lambda: labels)
    write(tmp_path / "plain.npy", LOG_ODDS)
    check_labels(tmp_path / "plain.npy", lambda: labels)
