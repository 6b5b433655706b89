"""A teacher that is a file of scores: one log-odds for each training row, in the shards' order.

    teacher = file_teacher(Path("scores.parquet"), rows=109_712)

The file is `.npy`, `.parquet`, `.arrow` or `.csv`, with one column of numbers; or with several, of which one is named
`log_odds` or `probability`, as `sizewise score` writes them. A column named `probability` is turned into log-odds. A
column of labels must hold those of the training rows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sizewise.training.teachers.teacher import Numbers, Scorer, Teacher, replaced
from sizewise_core.errors import InputError, shown
from sizewise_prep.shards.files import digest

if TYPE_CHECKING:
    import polars as pl

Values = npt.NDArray[Any]

FORMATS = (".npy", ".parquet", ".arrow", ".csv")
_FIX = "give one log-odds or probability a training row, in the shards' order"
_NAMED = ("log_odds", "probability")
_SURE = 1e-7  # what a probability of 0 counts as, and how far below 1 one of 1
_DIGEST_LETTERS = 64  # of a SHA-256
_AGREE = 0.01  # how far a probability may be from that of the log-odds beside it, which were rounded


def file_teacher(path: Path, rows: int, known: str | None = None) -> Teacher:
    """The teacher whose scores are in a file.

    Args:
        path: the file, by whose ending its format is known.
        rows: of the training split.
        known: the digest of the file, or another name for its content; where it is left out, all scores are read and
            checked now.

    Raises:
        InputError: no such file, another format, another number of scores, or some that are not finite.
    """
    if known is None:
        read_scores(path, rows)
        known = digest(path)

    def load() -> Scorer:
        read = read_scores(path, rows)
        # Or this file would score some rows, and the one before the others.
        if len(known) == _DIGEST_LETTERS and digest(path) != known:
            raise replaced(path)
        return lambda shard, first: read[first : first + shard.rows]

    return Teacher(path.name, known, load)


def read_scores(path: Path, rows: int) -> Numbers:
    """Log-odds (rows,) out of a file of scores. Raises InputError as `file_teacher`."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: is no file of scores: use one that ends with {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of scores: {_FIX}")
    try:
        name, values = ("", _npy(path)) if path.suffix == ".npy" else _column(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}): {_FIX}") from None
    if len(values) != rows:
        raise InputError(
            f"{path}: has {len(values):,} scores, and the training split has {rows:,} rows: {_FIX}"
        )
    if name == "probability":
        _check(path, values, (values >= 0) & (values <= 1), "a probability from 0 to 1")
        values = _log_odds(values)
    elif (
        name != "log_odds"
        and rows
        and values.min() >= 0
        and values.max() <= 1
        and values.min() < values.max()
    ):
        named = (
            "turn them into log-odds, log(p / (1 - p))"
            if path.suffix == ".npy"
            else "name the column probability"
        )
        raise InputError(f"{path}: all scores lie between 0 and 1, as probabilities do: {named}")
    with np.errstate(over="ignore"):
        scores = np.asarray(values, np.float32)
    _check(path, values, np.isfinite(scores), "a finite number of float32")
    return scores


def check_labels(path: Path, labels: Callable[[], Values]) -> None:
    """Refuse a table that has a column of labels, as `sizewise score` writes them, and not those of the training rows.

    Args:
        path: a file that `file_teacher` takes.
        labels: called for those of the training rows (rows,), where the file has some.

    Raises:
        InputError: the file's scores are of other rows, or in another order.
    """
    import polars as pl

    table = None if path.suffix == ".npy" else _table(path)
    if table is None or table.width == 1 or "label" not in table.columns:
        return
    given = table["label"].cast(pl.Float64, strict=False)
    if given.null_count() or not given.is_in([0.0, 1.0]).all():
        return  # of files without labels, or something else of that name
    expected = labels()
    differ = given.to_numpy() != expected
    if differ.any():
        row = int(np.argmax(differ))
        raise InputError(
            f"{path}: row {row + 1:,} has label {given[row]:g}, and training row {row + 1:,} has {expected[row]:g}: "
            f"its scores are of other rows, or in another order: {_FIX}"
        )


def _check(path: Path, values: Values, fine: npt.NDArray[np.bool_], what: str) -> None:
    """InputError that names the first value which is not what it must be."""
    if fine.all():
        return
    row = int(np.argmin(fine))
    raise InputError(f"{path}: score {row + 1:,} is {values[row]}, and must be {what}: {_FIX}")


def _log_odds(probabilities: Values) -> Values:
    clipped = np.clip(probabilities.astype(np.float64), _SURE, 1 - _SURE)
    log_odds: Values = np.log(clipped / (1 - clipped))
    return log_odds


def _npy(path: Path) -> Values:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise InputError(f"{path}: is no NumPy file of numbers: {_FIX}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds no numbers: {_FIX}")
    if values.ndim != 1 and (values.ndim == 0 or values.size != len(values)):
        shape = "x".join(map(str, values.shape)) or "of a single number"
        raise InputError(f"{path}: has the shape {shape}: {_FIX}")
    return values.reshape(-1)


def _column(path: Path) -> tuple[str, Values]:
    """The name and values of the column of scores in a table."""
    table = _table(path)
    named = [name for name in _NAMED if name in table.columns]
    if not named and table.width != 1:
        columns = shown(", ".join(table.columns))
        raise InputError(
            f"{path}: has {table.width} columns ({columns}): keep one, or name the one with the scores log_odds or "
            "probability"
        )
    name = named[0] if named else table.columns[0]
    values = _numbers(path, table, name)
    if len(named) == len(_NAMED):
        _check_same(path, values, _numbers(path, table, "probability"))
    return name, values


def _table(path: Path) -> "pl.DataFrame":
    import polars as pl  # here alone: training takes no Polars, and where GPUs are there may be none

    try:
        if path.suffix == ".csv":  # as text, for the first rows need not look like the others
            return pl.read_csv(path, has_header=not _begins_with_a_number(path), infer_schema=False)
        with path.open("rb") as stream:  # a name with brackets would be a pattern
            return (pl.read_parquet if path.suffix == ".parquet" else pl.read_ipc)(stream)
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: is no table that can be read ({reason}): {_FIX}") from None


def _numbers(path: Path, table: "pl.DataFrame", name: str) -> Values:
    """A column of a table as float64; InputError names the first value that is missing or no number."""
    import polars as pl

    column = table[name]
    if path.suffix == ".csv":
        column = column.str.strip_chars()
    elif not column.dtype.is_numeric():
        raise InputError(f"{path}: column {shown(name)} holds {column.dtype} instead of numbers: {_FIX}")
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count():
        row = numbers.is_null().arg_true()[0]
        value = "missing" if column[row] is None else shown(str(column[row]), 30)
        raise InputError(f"{path}: score {row + 1:,} of column {shown(name)} is {value}: {_FIX}")
    return numbers.to_numpy()


def _check_same(path: Path, log_odds: Values, probabilities: Values) -> None:
    """InputError where a table holds two columns of scores that are not the same ones."""
    with np.errstate(over="ignore"):
        apart = np.abs(1 / (1 + np.exp(-log_odds)) - probabilities) > _AGREE
    if apart.any():
        row = int(np.argmax(apart))
        raise InputError(
            f"{path}: columns log_odds and probability differ at score {row + 1:,} ({log_odds[row]:g} and "
            f"{probabilities[row]:g}): keep the one with the scores"
        )


def _begins_with_a_number(path: Path) -> bool:
    """Whether a table of one column has no header."""
    with path.open("rb") as stream:
        first = stream.readline(1 << 16)
    try:
        float(first)
    except ValueError:
        return False
    return True
