"""Rows in arrays: a planted log, or a real one in Criteo's layout."""

from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.scale.arrays import Data, Split, number_values, scored
from benchmarks.scale.rows import bayes

from sizewise.training.batches import transform_dense
from sizewise_prep.planted import World

REAL = Path("../shared/data/criteo_kaggle_sample.tsv.gz")
DENSE, TOKENS = 13, 26
CHUNK = 1 << 16


def sizes(rows: int) -> tuple[int, int, int]:
    """Rows of the splits: first 80 % for training, last 10 % for the test."""
    test = -(-rows // 10)
    train = -(-8 * rows // 10)
    return train, rows - train - test, test


@lru_cache(maxsize=1)
def load(source: str, rows: int, seed: int, device: torch.device) -> tuple[Data, str]:
    """Splits on a device with their values numbered, and what is known of the best possible test AUC.

    Args:
        source: `planted`, or a path of raw rows.
        rows: of a planted log.
        seed: of its world.
        device: where the arrays lie.
    """
    best = ""
    if source == "planted":
        label, dense, tokens, probability = planted(rows, seed)
        held = slice(-sizes(rows)[2], None)
        true = torch.from_numpy(probability[held])
        drawn = scored(torch.from_numpy(label[held]), torch.logit(true))
        best = (
            f"Bayes AUC on the test rows {bayes(true)[0]:.4f} expected, {drawn.auc:.4f} on the labels drawn"
        )
    else:
        label, dense, tokens = real(Path(source))
    ids = np.empty(tokens.shape, np.int32)
    universe = []
    for column in range(tokens.shape[1]):
        distinct, ids[:, column] = np.unique(tokens[:, column], return_inverse=True)
        universe.append(len(distinct))
    train, validation, _ = sizes(len(label))
    edges = (0, train, train + validation, len(label))
    splits = [
        Split(*(torch.from_numpy(array[low:high]).to(device) for array in (dense, ids, label)))
        for low, high in pairwise(edges)
    ]
    values = number_values(splits[0], splits[1:], universe, with_clicks=True)
    return Data(*splits, values), best


def planted(
    rows: int, seed: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.uint32], npt.NDArray[np.float64]]:
    """Labels, dense values as models take them, tokens and true probabilities of a planted log."""
    world = World(seed, rows)
    parts = []
    for start in range(0, rows, CHUNK):
        chunk = world.chunk(start, min(start + CHUNK, rows))
        dense = np.where(chunk.observed, chunk.integers, 0).T.astype(np.float32)
        parts.append((chunk.labels, transform_dense(dense), chunk.tokens.T, chunk.probability))
    label, dense, tokens, probability = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return label, dense, tokens, probability


def real(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.uint32]]:
    """Labels, dense values as models take them, and tokens of raw rows in Criteo's layout, gzipped or not."""
    import pyarrow as pa
    from pyarrow import csv

    integers = [f"i{n}" for n in range(DENSE)]
    names = ["label", *integers, *(f"c{n}" for n in range(TOKENS))]
    kinds = {name: pa.float32() if name[0] == "i" else pa.string() for name in names[1:]}
    table = csv.read_csv(
        path,
        csv.ReadOptions(column_names=names),
        csv.ParseOptions(delimiter="\t", quote_char=False),
        csv.ConvertOptions(column_types={**kinds, "label": pa.uint8()}),
    )
    dense = np.stack([table[name].to_numpy(zero_copy_only=False) for name in integers], axis=1)
    words = [
        table[name]
        .combine_chunks()
        .dictionary_encode()
        .indices.to_numpy(zero_copy_only=False)
        .astype(np.uint32)
        for name in names[1 + DENSE :]
    ]
    return (
        table["label"].to_numpy(),
        transform_dense(np.ascontiguousarray(dense, np.float32)),
        np.stack(words, 1),
    )
