"""Rows in arrays: a planted log, or a real one in Criteo's layout."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from benchmarks.scale.arrays import Data, Split, number_values, scored
from benchmarks.scale.rows import DeviceWorld, Rows, bayes

from sizewise_prep.planted import World
from sizewise_prep.raw.parsing.rows import log_dense

REAL = Path("../shared/data/criteo_kaggle_sample.tsv.gz")
DENSE, TOKENS = 13, 26


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
        device: where the arrays lie, and where planted rows are made.
    """
    if source == "planted":
        world = DeviceWorld(World(seed, rows), device)
        made = world.rows(0, rows, out=Rows.empty(rows, device, dense=torch.float32))
        whole, universe = Split(*made), world.cardinalities
    else:
        whole, universe = real(Path(source), device)
    train, validation, test = sizes(len(whole))
    splits = [
        whole.part(0, train),
        whole.part(train, train + validation),
        whole.part(len(whole) - test, len(whole)),
    ]
    values = number_values(splits[0], splits[1:], universe, with_clicks=True)
    best = ""
    if whole.probability is not None:
        true = whole.probability[-test:].double()
        drawn = scored(whole.label[-test:], torch.logit(true))
        best = (
            f"Bayes AUC on the test rows {bayes(true)[0]:.4f} expected, {drawn.auc:.4f} on the labels drawn"
        )
    return Data(*splits, values), best


def real(path: Path, device: torch.device) -> tuple[Split, list[int]]:
    """Raw rows in Criteo's layout, gzipped or not, and what the ids of each column are below."""
    import pyarrow as pa
    from pyarrow import csv

    integers, tokens = [f"i{n}" for n in range(DENSE)], [f"c{n}" for n in range(TOKENS)]
    kinds = {"label": pa.uint8()} | dict.fromkeys(integers, pa.float32()) | dict.fromkeys(tokens, pa.string())
    table = csv.read_csv(
        path,
        csv.ReadOptions(column_names=list(kinds)),
        csv.ParseOptions(delimiter="\t", quote_char=False),
        csv.ConvertOptions(column_types=kinds),
    )
    columns = [table[name].to_numpy(zero_copy_only=False) for name in integers]
    dense = log_dense(np.stack(columns, axis=1).astype(np.float32), fill=True)
    coded = [table[name].combine_chunks().dictionary_encode() for name in tokens]
    ids = np.stack([column.indices.to_numpy(zero_copy_only=False) for column in coded], axis=1)
    arrays = dense, ids.astype(np.int32), table["label"].to_numpy().copy()
    split = Split(*(torch.from_numpy(array).to(device) for array in arrays))
    return split, [len(column.dictionary) for column in coded]
