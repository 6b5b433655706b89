"""Files of scores: CSV, Parquet or Arrow, by the ending of the file's name.

check(Path("scores.csv"))               # before any work: InputError for an unknown ending
with atomic_file(out) as stream, writer(out, stream, schema) as scores:
    scores.write_table(table)
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sizewise_core.errors import InputError

# Version 2 of Feather is Arrow's file format.
_WRITERS: dict[str, Any] = {
    ".csv": pyarrow.csv.CSVWriter,
    ".parquet": pq.ParquetWriter,
    ".arrow": pa.ipc.new_file,
    ".feather": pa.ipc.new_file,
    ".ipc": pa.ipc.new_file,
}


def check(out: Path) -> None:
    """Raise InputError for a file name whose ending is not that of a format."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name a file with --out")
    if out.suffix.lower() not in _WRITERS:
        raise InputError(
            f"{out}: scores are written as the name ends, in {', '.join(_WRITERS)}: give --out such a name"
        )


def writer(out: Path, stream: BinaryIO, schema: pa.Schema) -> AbstractContextManager[Any]:
    """A writer of tables, to be closed or used in `with`.

    Args:
        out: the file's name, whose ending gives the format.
        stream: where the bytes go.
        schema: of the tables.
    """
    found: AbstractContextManager[Any] = _WRITERS[out.suffix.lower()](stream, schema)
    return found
