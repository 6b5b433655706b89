"""Evaluations read from disk: many small JSON-lines files, one of which may be growing.

Every line carries a checksum (see `sealed`), by which a damaged one is left out and named. The rest takes one
Polars parse; only where that fails, or gives what no evaluation can be, are the lines of a file taken one by one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import polars as pl

from sizewise.metrics.errors import PARTS
from sizewise.metrics.evaluation import STORAGES
from sizewise.metrics.registry import METRICS
from sizewise.store.files import batches
from sizewise.store.study_folder import MOST_CURVE_BYTES, MOST_LINE_BYTES
from sizewise.store.trials.evaluations import evaluation_of, lines_of
from sizewise_core.files.sealed import DamagedError, is_intact
from sizewise_core.stores.storage import Entry, Place
from sizewise_core.stores.storage_contents import read_entries

IDENTITY = ["trial_id", "replicate", "iteration"]
_MOST = 2**62  # beyond it a number is none that was measured


@dataclass(frozen=True)
class _Lines:
    """The undamaged lines of a file, none of them empty, with their numbers from 1."""

    name: str
    trial_id: int
    lines: list[bytes]
    numbers: list[int]


def read_curves(listed: list[Entry], growing: bool, problems: list[str]) -> pl.DataFrame:
    """All evaluations in files that were listed, as `read_evaluations`, however many files there are.

    Args:
        listed: the files.
        growing: a writer is at work, so that a half-written last line is no problem.
        problems: gets a line for each thing that is missing or cannot be read.

    Returns:
        A row an evaluation, with the columns of `schema`.
    """
    frames = [
        read_evaluations(read_entries(batch, MOST_CURVE_BYTES), growing, problems)
        for batch in batches(listed)
    ]
    return (
        frames[0] if len(frames) == 1 else pl.concat([pl.DataFrame(schema=schema()), *frames]).sort(IDENTITY)
    )


def read_evaluations(
    files: Mapping[Place, bytes | OSError], growing: bool, problems: list[str]
) -> pl.DataFrame:
    """All evaluations in some files, sorted by trial, replicate and iteration, the last of each iteration kept.

    Args:
        files: contents by path, or why a file cannot be read.
        growing: a writer is at work, so that a half-written last line is no problem.
        problems: gets a line for each line that is damaged or of another trial than its file, and so left out.

    Returns:
        A row an evaluation, with the columns of `schema`.
    """
    found = [_undamaged(file, text, growing, problems) for file, text in files.items()]
    rows = pl.concat([pl.DataFrame(schema=schema()), *_parsed([f for f in found if f and f.lines], problems)])
    return (
        rows.with_columns(pl.col("replicate").fill_null(0), pl.col(pl.Float64).fill_nan(None))
        .unique(IDENTITY, keep="last", maintain_order=True)
        .sort(IDENTITY)
    )


def _undamaged(file: Place, text: bytes | OSError, growing: bool, problems: list[str]) -> _Lines | None:
    """The file's lines whose checksums hold; what follows the last line end counts if it is a whole record."""
    if isinstance(text, OSError):
        problems.append(f"evaluations/{file.name} was skipped ({text.strerror or text})")
        return None
    if not file.stem.isdecimal() or len(file.stem) > 10:
        problems.append(f"evaluations/{file.name} was skipped (its name is no trial's)")
        return None
    trial_id = int(file.stem)
    end = text.rfind(b"\n") + 1
    last = text[end:]
    if last.strip() and (len(last) > MOST_LINE_BYTES or _damage(last, trial_id)):
        if not growing:
            problems.append(f"evaluations/{file.name}: its last line is half-written and was left out")
        text = text[:end]
    lines, numbers = [], []
    for number, line in lines_of(text):
        if len(line) > MOST_LINE_BYTES or not is_intact(line):
            problems.append(_left_out(file.name, number, "damaged"))
        else:
            lines.append(line)
            numbers.append(number)
    return _Lines(file.name, trial_id, lines, numbers)


def _parsed(files: list[_Lines], problems: list[str]) -> Iterator[pl.DataFrame]:
    """All files in one parse; where it fails, each half in one, so that a bad line slows down its own file only."""
    if not files:
        return
    try:
        frame = pl.read_ndjson(BytesIO(b"\n".join(line for f in files for line in f.lines)), schema=schema())
        counts = [len(f.lines) for f in files]
        if frame.height == sum(counts):
            expected = pl.Series(np.repeat([f.trial_id for f in files], counts))
            fine = frame.select((pl.col("trial_id") == expected) & _measured()).to_series()
            if fine.fill_null(False).all():
                yield frame
                return
    except pl.exceptions.PolarsError:
        pass
    if len(files) > 1:
        middle = len(files) // 2
        yield from _parsed(files[:middle], problems)
        yield from _parsed(files[middle:], problems)
    else:
        yield pl.DataFrame(list(_one_by_one(files[0], problems)), schema=schema(), strict=False, orient="row")


def schema() -> dict[str, pl.DataType]:
    """The columns of a table of evaluations: one a metric, and as text the parts of errors and the rounded models."""
    numbers = {name: pl.Int64() if metric.dtype is int else pl.Float64() for name, metric in METRICS.items()}
    return {**numbers, **dict.fromkeys((*PARTS.values(), STORAGES), pl.String())}


def _measured() -> pl.Expr:
    """What every evaluation is within; an undefined metric is null."""
    others = [name for name in METRICS if name not in ("trial_id", "iteration", "auc")]
    return pl.all_horizontal(
        pl.col("iteration").is_between(0, _MOST),
        pl.col("auc").fill_nan(None).fill_null(0.5).is_between(0, 1),
        *(pl.col(name).fill_nan(None).fill_null(0).is_between(-_MOST, _MOST) for name in others),
    )


def _one_by_one(file: _Lines, problems: list[str]) -> Iterator[Mapping[str, float | str | None]]:
    """The evaluations of a file, naming each line that is none."""
    for number, line in zip(file.numbers, file.lines, strict=True):
        try:
            evaluation = evaluation_of(line, file.trial_id)
        except DamagedError as error:
            other = str(error).startswith("of trial")
            problems.append(_left_out(file.name, number, str(error) if other else "damaged"))
        else:
            row = {"trial_id": file.trial_id, **evaluation}
            texts = evaluation.as_row()
            yield {
                **{name: value if (value := row.get(name)) == value else None for name in METRICS},
                **{name: texts.get(name) for name in (*PARTS.values(), STORAGES)},
            }


def _left_out(name: str, number: int, why: str) -> str:
    return f"evaluations/{name}: line {number} is {why} and was left out"


def _damage(line: bytes, trial_id: int) -> bool:
    try:
        evaluation_of(line, trial_id)
    except DamagedError:
        return True
    return False
