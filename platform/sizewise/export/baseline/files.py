"""Files of scores: a row for every validation row, in their order, in a column log_odds, probability or score."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise_core.errors import InputError

_READERS: dict[str, Callable[[Path], pl.LazyFrame]] = {
    ".csv": pl.scan_csv,
    ".parquet": pl.scan_parquet,
    ".arrow": pl.scan_ipc,
    ".feather": pl.scan_ipc,
    ".ipc": pl.scan_ipc,
}
ENDINGS = tuple(_READERS)
COLUMNS = ("log_odds", "probability", "score")


def read(path: Path, rows: int) -> tuple[npt.NDArray[np.float64], str]:
    """The scores in a file, and the name of their column; no other column is read.

    Args:
        path: the file.
        rows: of the validation split.

    Raises:
        InputError: it cannot be read, has no such column, or not one finite number for each row.
    """
    try:
        table = _READERS[path.suffix.lower()](path)
        kinds = table.collect_schema()
        column = next((name for name in COLUMNS if name in kinds), None)
        if column is None or not kinds[column].is_numeric():
            raise InputError(
                f"{path}: has no column of numbers log_odds, probability or score: name the one with the scores so"
            )
        found = table.select(pl.col(column).cast(pl.Float64)).collect()[column]
    except (OSError, pl.exceptions.PolarsError) as error:
        why = getattr(error, "strerror", None) or "it is damaged, or of another format"
        raise InputError(f"{path}: cannot be read ({why}): name a file of scores") from None
    if len(found) != rows:
        raise InputError(
            f"{path}: has {len(found):,} rows, and the validation split {rows:,}: score exactly those rows, in their "
            "order"
        )
    scores = found.fill_null(float("nan")).to_numpy()
    if not np.isfinite(scores).all():
        row = int(np.argmin(np.isfinite(scores)))
        raise InputError(
            f"{path}: column {column} has no finite number in row {row + 1:,}: score every validation row"
        )
    return np.asarray(scores), column
