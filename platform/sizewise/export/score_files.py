"""Files of scores: CSV, Parquet or Arrow, as the file's name ends.

check(Path("scores.csv"))               # before any work: InputError where no format goes by that ending
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

_WRITERS: dict[str, Any] = {
    ".csv": pyarrow.csv.CSVWriter,
    ".parquet": pq.ParquetWriter,
    ".arrow": pa.ipc.new_file,
    ".feather": pa.ipc.new_file,  # of version 2, which is Arrow's file format
    ".ipc": pa.ipc.new_file,
}


def check(out: Path) -> None:
    """Refuse, by InputError, a name from which no format follows."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name a file with --out")
    if out.suffix.lower() not in _WRITERS:
        raise InputError(
            f"{out}: scores are written as the name ends, in {', '.join(_WRITERS)}: give --out such a name"
        )


def writer(out: Path, stream: BinaryIO, schema: pa.Schema) -> AbstractContextManager[Any]:
    """What writes tables of `schema` to `stream`, in the format that the name `out` asks for."""
    found: AbstractContextManager[Any] = _WRITERS[out.suffix.lower()](stream, schema)
    return found
