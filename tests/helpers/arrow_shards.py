"""A shard as PyArrow reads it, for tests that ask what was written."""

from pathlib import Path

import pyarrow as pa

from sizewise_prep.raw.parsing.rows import Rows


def read_shard(path: Path) -> Rows:
    """The rows of a shard, whatever they are."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    label, dense, ids = (batch.column(name) for name in ("label", "dense", "ids"))
    return Rows(
        label.to_numpy(),
        dense.flatten().to_numpy().reshape(-1, dense.type.list_size),
        ids.flatten().to_numpy().reshape(-1, ids.type.list_size),
    )
