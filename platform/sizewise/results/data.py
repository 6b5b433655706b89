"""The data of a study: its manifest, and how often each value of a column occurs.

found = manifest_of(study, runs)
frequencies(folder, found, column=3)          # occurrences of the column's values, most frequent first
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise.results.reading import Study
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, exists, place
from sizewise_prep.shards.files import read_shard
from sizewise_prep.shards.manifest import Manifest

MOST_ROWS = 2_000_000  # of the training rows, for frequencies


class Data(NamedTuple):
    """A manifest and the folder that it was read from."""

    folder: Place
    manifest: Manifest


class Frequencies(NamedTuple):
    """counts: occurrences of each value, most frequent first; rows: how many training rows were read."""

    counts: npt.NDArray[np.int64]
    rows: int


def data_of(study: Study, runs: Place) -> Data:
    """The data of a study: where study.json says, as it stands or seen from beside the runs folder.

    Raises InputError when it is not there any more, or cannot be read.
    """
    path = study.record.data.path
    if not path:
        raise InputError("study.json does not say where the data is")
    asked = place(path)
    if isinstance(asked, Path) and not asked.is_absolute() and not exists(asked / "manifest.json"):
        beside = runs.parent / path
        asked = beside if exists(beside / "manifest.json") else asked
    return Data(asked, Manifest.load(asked))


def columns(manifest: Manifest) -> pl.DataFrame:
    """A row a column of the log: name, kind ("integer" or "token"), cardinality (null for integers), missing share."""
    dense = [(f"I{n}", "integer", None, share) for n, share in enumerate(manifest.dense_missing, 1)]
    tokens = zip(manifest.cardinalities, manifest.token_missing, strict=True)
    rows = [*dense, *((f"C{n}", "token", values, share) for n, (values, share) in enumerate(tokens, 1))]
    schema = {"column": pl.String, "kind": pl.String, "cardinality": pl.Int64, "missing_share": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def frequencies(data: Data, token: int) -> Frequencies:
    """How often each value of token column `token` (from 0) occurs in the first training rows.

    Raises InputError for a column that there is not, data in an object store, or a shard that cannot be read.
    """
    tokens = len(data.manifest.cardinalities)
    if not 0 <= token < tokens:
        raise InputError(f"there is no token column {token + 1}: use 1 to {tokens}")
    folder = data.folder
    if not isinstance(folder, Path):
        raise InputError("frequencies are counted only where the shards lie on this machine")
    parts, rows = [], 0
    for shard in data.manifest.splits["train"].shards:
        try:
            found = read_shard(folder / shard.file, data.manifest.shape(shard))
        except OSError as error:
            raise InputError(f"{folder / shard.file}: cannot be read ({error.strerror or error})") from None
        taken = min(len(found), MOST_ROWS - rows)
        column = token - found.ids.shape[1]
        ids = found.ids[:taken, token] if column < 0 else found.lists[column].part(0, taken).used
        parts.append(np.array(ids))
        rows += taken
        if rows >= MOST_ROWS:
            break
    values = np.concatenate(parts) if parts else np.array([], dtype=np.uint32)
    counts = pl.Series("ids", values).value_counts()["count"].sort(descending=True)
    return Frequencies(counts.to_numpy().astype(np.int64), rows)
