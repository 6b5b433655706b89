"""`score` and `evaluate` of files whose format is named: NumPy arrays and sparse text, with labels and without."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from sizewise.export import Deployed, evaluate, score
from sizewise.export.deployed import Description
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout

DRAW = np.random.default_rng(3)
ROWS = 150
WORDS = DRAW.integers(1, 2**32, (ROWS, 26), dtype=np.uint32)
DENSE = DRAW.normal(size=(ROWS, 13)).astype(np.float32)
LABELS = DRAW.integers(0, 2, ROWS).astype(np.int32)


class Sums(torch.nn.Module):
    """Log-odds that follow from every value of a row."""

    def forward(
        self,
        dense: torch.Tensor,
        tokens: torch.Tensor,
        values: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        found = dense.nan_to_num().sum(1) + tokens.to(torch.int64).remainder(997).sum(1) / 997
        return found if lengths is None else found + lengths.sum(1)


def deployed(layout: Layout) -> Deployed:
    return Deployed(Description.model_construct(layout=layout, tokens="raw", max_list=None), Sums())


def _torchrec(folder: Path, labelled: bool) -> Path:
    np.save(folder / "day_0_dense.npy", DENSE)
    np.save(folder / "day_0_sparse.npy", WORDS.view(np.int32))
    if labelled:
        np.save(folder / "day_0_labels.npy", LABELS[:, None])
    return folder


def _multi_hot(folder: Path, labelled: bool) -> Path:
    _torchrec(folder, labelled)
    (folder / "day_0_sparse.npy").unlink()
    hot = {str(column): WORDS[:, : column % 3 + 1].view(np.int32) & 0xFFFF for column in range(26)}
    np.savez_compressed(folder / "day_0_sparse_multi_hot.npz", **hot)
    return folder / "day_0_dense.npy"


def _dlrm(folder: Path, labelled: bool) -> Path:
    arrays = {"X_int": DENSE, "X_cat": np.asfortranarray(WORDS.astype(np.int64))}
    np.savez_compressed(folder / "kaggle_processed.npz", **arrays, **({"y": LABELS} if labelled else {}))
    return folder / "kaggle_processed.npz"


def _sparse(folder: Path, labelled: bool, field: bool) -> Path:
    lines = [
        " ".join(
            [str(LABELS[row])] * labelled
            + [f"{'0:' * field}7:{DENSE[row, 0]:.4f}"]
            + [f"{f'{place}:' * field}{WORDS[row, place] % 50}:1" for place in range(1, 5)]
        )
        for row in range(ROWS)
    ]
    (folder / "log.txt").write_text("\n".join(lines) + "\n")
    return folder / "log.txt"


FORMATS = {
    "torchrec": ("torchrec", _torchrec, "has no column 'label'"),
    "multi-hot": ("torchrec", _multi_hot, "has no column 'label'"),
    "dlrm": ("dlrm", _dlrm, "has no column 'label'"),
    "libsvm": ("libsvm", lambda *how: _sparse(*how, field=False), "has rows that begin with no label"),
    "libffm": ("libffm", lambda *how: _sparse(*how, field=True), "has rows that begin with no label"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_with_labels_and_without(name: str, tmp_path: Path) -> None:
    form, write, lacks = FORMATS[name]
    for folder in ("labelled", "bare"):
        (tmp_path / folder).mkdir()
    labelled, bare = write(tmp_path / "labelled", True), write(tmp_path / "bare", False)
    model = deployed(prepare(labelled, tmp_path / "out", format=form).layout)
    score(model, [str(labelled)], tmp_path / "scores.parquet", form=form)
    wanted = pl.read_parquet(tmp_path / "scores.parquet")
    assert wanted["label"].to_list() == LABELS.tolist()
    assert wanted["line"].to_list() == list(range(1, ROWS + 1))
    assert wanted["log_odds"].n_unique() == ROWS
    assert evaluate(model, [str(labelled)], form=form).rows == ROWS
    score(model, [str(bare)], tmp_path / "bare.parquet", form=form)
    found = pl.read_parquet(tmp_path / "bare.parquet")
    assert found["label"].null_count() == ROWS
    assert found["log_odds"].equals(wanted["log_odds"])
    with pytest.raises(InputError, match=lacks):
        evaluate(model, [str(bare)], form=form)
    with pytest.raises(InputError, match="day_0_labels.npy: not found" if form == "torchrec" else "label"):
        prepare(bare, tmp_path / "no", format=form)  # as only rows to be scored may lack it


def test_a_file_whose_format_is_not_named_says_which(tmp_path: Path) -> None:
    model = deployed(Layout(columns={"label": "label", "P1": "token", "P2": "token"}))
    for write, said in ((_dlrm, "--format dlrm"), (_multi_hot, "--format torchrec")):
        with pytest.raises(InputError, match=said):
            score(model, [str(write(tmp_path, True))], tmp_path / "scores.csv")
    for field, said in ((False, "add --format libsvm"), (True, "add --format libffm")):
        with pytest.raises(InputError, match=said):
            prepare(_sparse(tmp_path, True, field), tmp_path / "out")
