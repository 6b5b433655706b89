"""Evaluations read from disk: many small JSON-lines files, one of which may be growing.

Every line carries a checksum (see `sealed`), by which a damaged one is left out and named. The rest takes one
Polars parse; only where that fails are the lines of a file taken one by one.
"""

from collections.abc import Iterator, Mapping
from io import BytesIO

import polars as pl

from sizewise.sealed import DamagedError, unsealed, whole
from sizewise_prep.storage import Place

SCHEMA: dict[str, pl.DataType] = {
    "trial_id": pl.Int64(),
    "replicate": pl.Int64(),
    "iteration": pl.Int64(),
    "epoch": pl.Float64(),
    "samples": pl.Int64(),
    "auc": pl.Float64(),
    "logloss": pl.Float64(),
    "normalized_entropy": pl.Float64(),
    "embedding_bytes": pl.Int64(),
    "model_bytes": pl.Int64(),
    "compression_ratio": pl.Float64(),
    "optimizer_bytes": pl.Int64(),
    "train_seconds": pl.Float64(),
    "cpu_seconds": pl.Float64(),
    "gpu_seconds": pl.Float64(),
    "samples_per_second": pl.Float64(),
    "peak_memory_bytes": pl.Int64(),
    "wire_bytes": pl.Int64(),
}
IDENTITY = ["trial_id", "replicate", "iteration"]


def read_evaluations(
    files: Mapping[Place, bytes | OSError], growing: bool, problems: list[str]
) -> pl.DataFrame:
    """All evaluations in `files` (contents by path), sorted by trial and iteration, the last of each iteration kept.

    `growing` says that a writer is at work, so that a half-written last line is no problem.
    Damaged lines are left out, each with a line in `problems`.
    """
    whole = {file: _whole_lines(file, text, growing, problems) for file, text in files.items()}
    rows = pl.concat([pl.DataFrame(schema=SCHEMA), *_parsed(list(whole.items()), problems)])
    return (
        rows.with_columns(pl.col("replicate").fill_null(0), pl.col("auc", "logloss").fill_nan(None))
        .drop_nulls(["trial_id", "iteration"])
        .unique(IDENTITY, keep="last", maintain_order=True)
        .sort(IDENTITY)
    )


def _whole_lines(file: Place, text: bytes | OSError, growing: bool, problems: list[str]) -> bytes:
    """The file's undamaged lines; what follows the last line end counts if it is a whole record."""
    if isinstance(text, OSError):
        problems.append(f"evaluations/{file.name} was skipped ({text.strerror or text})")
        return b""
    end = text.rfind(b"\n") + 1
    last = text[end:]
    if last.strip() and _record(last) is None:
        if not growing:
            problems.append(f"evaluations/{file.name}: its last line is half-written and was left out")
        text = text[:end]
    lines = text.split(b"\n")
    sound = [whole(line) for line in lines]
    if all(sound):
        return text
    for number, ok in enumerate(sound, 1):
        if not ok:
            problems.append(f"evaluations/{file.name}: line {number} is damaged and was left out")
    return b"\n".join(line if ok else b"" for line, ok in zip(lines, sound, strict=True))


def _parsed(whole: list[tuple[Place, bytes]], problems: list[str]) -> Iterator[pl.DataFrame]:
    """All files in one parse; where it fails, each half in one, so that a bad line slows down its own file only."""
    if not whole:
        return
    try:
        yield pl.read_ndjson(BytesIO(b"\n".join(lines for _, lines in whole)), schema=SCHEMA)
    except pl.exceptions.PolarsError:
        if len(whole) > 1:
            middle = len(whole) // 2
            yield from _parsed(whole[:middle], problems)
            yield from _parsed(whole[middle:], problems)
        else:
            records = list(_one_by_one(*whole[0], problems))
            yield pl.DataFrame(records, schema=SCHEMA, strict=False, orient="row")


def _one_by_one(file: Place, lines: bytes, problems: list[str]) -> Iterator[dict[str, object]]:
    """The records of `lines`, naming each line that is not one."""
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        record = _record(line)
        if record is None:
            problems.append(f"evaluations/{file.name}: line {number} is damaged and was left out")
        else:
            yield {
                name: value if isinstance(value := record.get(name), int | float) else None for name in SCHEMA
            }


def _record(line: bytes) -> dict[str, object] | None:
    try:
        return unsealed(line)
    except DamagedError:
        return None
