"""Columns of another model's scores, in every format, sorted, and on the way to an object store."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import polars as pl
import pytest

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.row_readers import for_scoring, found_as

ROWS = 100
SCORES = [round(math.sin(row) * 4, 3) for row in range(ROWS)]
CHANCES = [round(1 / (1 + math.exp(-score)), 6) for score in SCORES]
TIMES = np.random.default_rng(3).permutation(ROWS)


def _json(folder: Path, scores: list[float]) -> None:
    rows = [
        {"click": row % 2, "user": row % 7, "teacher": scores[row], "at": int(TIMES[row])}
        for row in range(ROWS)
    ]
    (folder / "log").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _npy(folder: Path, scores: list[float]) -> None:
    users = np.arange(ROWS) % 7
    np.save(folder / "day_0_labels.npy", (np.arange(ROWS) % 2).astype("i4")[:, None])
    np.save(folder / "day_0_dense.npy", np.stack([scores, TIMES], 1).astype("f4"))
    np.save(folder / "day_0_sparse.npy", users.astype("i4")[:, None])


def _npz(folder: Path, scores: list[float]) -> None:
    users, numbers = np.arange(ROWS) % 7, np.stack([scores, TIMES], 1)
    np.savez(folder / "log.npz", X_int=numbers, X_cat=users[:, None].astype("i4"), y=np.arange(ROWS) % 2)


def _libffm(folder: Path, scores: list[float]) -> None:
    lines = (f"{row % 2} 0:{row % 7}:1 1:5:{scores[row]} 2:6:{TIMES[row]} 3:8:1" for row in range(ROWS))
    (folder / "log").write_text("\n".join(lines) + "\n")


def _libsvm(folder: Path, scores: list[float]) -> None:
    lines = (f"{row % 2} {row % 7}:1 5:{scores[row]} 6:{TIMES[row]}" for row in range(ROWS))
    (folder / "log").write_text("\n".join(lines) + "\n")


Write = Callable[[Path, list[float]], None]
FORMATS: dict[str, tuple[Write, str, str | None, list[str], dict[str, Any]]] = {
    "JSON lines": (_json, "log", None, ["click", "user", "teacher", "at"], {}),
    "npy": (_npy, "", "torchrec", ["label", "C1", "I1", "I2"], {}),
    "npz": (_npz, "log.npz", "dlrm", ["label", "C1", "I1", "I2"], {}),
    "libffm": (_libffm, "log", "libffm", ["label", "F0", "F1", "F2"], {"others": "skip"}),
    "libsvm": (_libsvm, "log", "libsvm", ["label", "P1", "P2", "P3"], {}),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["score", "probability"])
def test_scores_are_kept_as_log_odds(name: str, kind: str, tmp_path: Path) -> None:
    write, file, form, columns, more = FORMATS[name]
    write(tmp_path, SCORES if kind == "score" else CHANCES)
    token = "decimal" if form in ("torchrec", "dlrm") else "token"
    layout = Layout(columns=dict(zip(columns, ["label", token, kind, "time"], strict=True)), **more)
    options: dict[str, Any] = {"layout": layout, "format": form, "sort": True}
    prepare(tmp_path / file, tmp_path / "out", **options)
    rows = pl.concat([pl.read_ipc(tmp_path / "out" / f"{split}-00000.arrow")
                      for split in ("train", "validation", "test")])  # fmt: skip
    order = np.argsort(TIMES)
    wanted = np.array(SCORES)[order]
    assert rows["teacher score"].to_numpy() == pytest.approx(
        wanted, rel=1e-6 if kind == "score" else 2e-4, abs=1e-4
    )
    assert rows["label"].to_list() == (order % 2).tolist()
    store = fsspec.filesystem("memory")
    try:
        prepare(tmp_path / file, "memory://scores/data", **options)
        sent = store.cat_file("/scores/data/train-00000.arrow")
    finally:
        if store.exists("/scores"):
            store.rm("/scores", recursive=True)
    assert sent == (tmp_path / "out" / "train-00000.arrow").read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_probability_is_refused_at_its_row(name: str, tmp_path: Path) -> None:
    write, file, form, columns, more = FORMATS[name]
    write(tmp_path, [*CHANCES[:41], 1.5, *CHANCES[42:]])
    token = "decimal" if form in ("torchrec", "dlrm") else "token"
    layout = Layout(columns=dict(zip(columns, ["label", token, "probability", "time"], strict=True)), **more)
    with pytest.raises(InputError, match=rf"(line|row) 42\b.*: column {columns[2]}: '1.5' is no probability"):
        prepare(tmp_path / file, tmp_path / "out", layout=layout, format=form)


def test_sparse_rows_to_be_scored_may_lack_the_label_and_the_score(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"0:{row % 7}:1\n" for row in range(ROWS)))
    layout = Layout(columns={"label": "label", "F0": "token", "F1": "score"})
    (raw,) = found_as("libffm", tmp_path / "log", labels=False)
    assert for_scoring(raw, layout).columns == {"F0": "token"}
