"""A teacher that is a file of scores: one log-odds for each training row, in the shards' order.

    teacher = file_teacher(Path("scores.parquet"), rows=109_712)

The file is `.npy`, `.parquet`, `.arrow` or `.csv`, with one column of numbers; or with several, of which one is named
`log_odds` or `probability`, as `sizewise score` writes them. A column named `probability` is turned into log-odds.
"""

from pathlib import Path
from typing import Any

import numpy as np

from sizewise.training.teachers.teacher import Numbers, Scorer, Teacher
from sizewise_core.errors import InputError, shown
from sizewise_prep.shards.files import digest

FORMATS = (".npy", ".parquet", ".arrow", ".csv")
_FIX = "give one log-odds a training row, in the shards' order"
_NAMED = ("log_odds", "probability")


def file_teacher(path: Path, rows: int, known: str | None = None) -> Teacher:
    """The teacher whose scores are in a file.

    Args:
        path: the file, by whose ending its format is known.
        rows: of the training split.
        known: the digest of the file; where it is left out, all scores are read and checked now.

    Raises:
        InputError: no such file, another format, another number of scores, or some that are not finite.
    """
    if known is None:
        read_scores(path, rows)
        known = digest(path)

    def load() -> Scorer:
        read = read_scores(path, rows)
        return lambda shard, first: read[first : first + shard.rows]

    return Teacher(path.name, known, load)


def read_scores(path: Path, rows: int) -> Numbers:
    """Log-odds (rows,) out of a file of scores. Raises InputError as `file_teacher`."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: is no file of scores: use one that ends with {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of scores: {_FIX}")
    try:
        name, values = _npy(path) if path.suffix == ".npy" else _column(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}): {_FIX}") from None
    if len(values) != rows:
        raise InputError(
            f"{path}: has {len(values):,} scores, and the training split has {rows:,} rows: {_FIX}"
        )
    shares = rows > 0 and values.min() >= 0 and values.max() <= 1
    if name == "probability":
        if not shares:
            raise InputError(f"{path}: column probability has values that are not between 0 and 1: {_FIX}")
        clipped = np.clip(values.astype(np.float64), 1e-7, 1 - 1e-7)
        values = np.log(clipped / (1 - clipped))
    elif shares and name != "log_odds" and values.min() < values.max():
        raise InputError(
            f"{path}: all scores lie between 0 and 1, as probabilities do: name the column probability or log_odds"
        )
    with np.errstate(over="ignore"):
        scores = np.asarray(values, np.float32)
    finite = np.isfinite(scores)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(
            f"{path}: score {row + 1:,} is {values[row]}, which must be a finite number of float32: {_FIX}"
        )
    return scores


def _npy(path: Path) -> tuple[str, np.ndarray[Any, Any]]:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise InputError(f"{path}: is no NumPy file of numbers: {_FIX}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds no numbers: {_FIX}")
    if values.ndim != 1 and values.size != len(values):
        raise InputError(f"{path}: has the shape {'x'.join(map(str, values.shape))}: {_FIX}")
    return "", values.reshape(-1)


def _column(path: Path) -> tuple[str, np.ndarray[Any, Any]]:
    """The name and values of the column of scores in a table."""
    import polars as pl  # here alone: training takes no Polars, and where GPUs are there may be none

    try:
        if path.suffix == ".csv":
            table = pl.read_csv(path, has_header=not _begins_with_a_number(path))
        else:
            table = (pl.read_parquet if path.suffix == ".parquet" else pl.read_ipc)(path)
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: is no table that can be read ({reason}): {_FIX}") from None
    named = [name for name in _NAMED if name in table.columns]
    if not named and table.width != 1:
        columns = shown(", ".join(table.columns))
        raise InputError(
            f"{path}: has {table.width} columns ({columns}): keep one, or name the one with the scores log_odds"
        )
    column = table[named[0] if named else table.columns[0]]
    if not column.dtype.is_numeric():
        raise InputError(
            f"{path}: column {shown(column.name)} holds {column.dtype} instead of numbers: {_FIX}"
        )
    return column.name, column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _begins_with_a_number(path: Path) -> bool:
    """Whether a table of one column has no header."""
    with path.open("rb") as stream:
        first = stream.readline(1 << 16)
    try:
        float(first)
    except ValueError:
        return False
    return True
