"""Scores raw logs by an exported model: a prediction for each row, or how good the predictions are.

score(Deployed.open(Path("model")), ["day_23.gz"], Path("scores.parquet"))
evaluate(Deployed.open(Path("model")), ["day_23.gz"]).scores.auc
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sizewise.export import score_files
from sizewise.export.deployed import Deployed
from sizewise.metrics.scores import Scores, evaluate_scores
from sizewise_core.errors import InputError
from sizewise_core.files.atomic import atomic_file
from sizewise_core.stores.storage import StorageError
from sizewise_prep.raw.blocks import Stretch
from sizewise_prep.raw.files.reader import BLOCK_BYTES
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.features import with_features
from sizewise_prep.raw.parsing.parser import Parsed
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.raw.row_readers import check, for_scoring, found_as, open_rows

_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("label", pa.uint8()),
        ("log_odds", pa.float32()),
        ("probability", pa.float32()),
    ]
)
_ROWS = 16_384  # scored at a time
Progress = Callable[[int, int], None]  # called with the bytes read so far and in all


@dataclass(frozen=True)
class Scored:
    """How many rows were scored and left out as bad, and for `evaluate` the scores."""

    rows: int
    bad_rows: int
    scores: Scores | None = None


@dataclass(frozen=True)
class _Block:
    file: str
    lines: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint8] | None
    logits: npt.NDArray[np.float32]
    bad_rows: int
    weights: npt.NDArray[np.float32] | None = None


def score(
    model: Deployed,
    raw: Sequence[str],
    out: Path,
    max_bad_fraction: float = 0.0,
    progress: Progress | None = None,
    form: str | None = None,
) -> Scored:
    """Write a file with a row for each good row of raw logs: file, line (from 1), label, log_odds, probability.

    Files need not have the label; theirs is then null.

    Args:
        model: the exported model.
        raw: paths, URIs or patterns of raw logs in the model's layout.
        out: the file, in CSV, Parquet or Arrow by the ending of its name (see `score_files`).
        max_bad_fraction: bad rows are left out up to this share; with 0 the first is an error.
        progress: called with the bytes read so far and in all.
        form: of NumPy arrays or sparse text, as `--format` of `prep`; other formats are recognized.

    Raises:
        InputError: as preparing the same files would: absent, empty, damaged, more bad rows than allowed; or `out`
            cannot be written, or its ending is not that of a format. No file is left then.
    """
    score_files.check(out)
    rows = bad = 0
    try:
        with atomic_file(out) as stream, score_files.writer(out, stream, _SCHEMA) as writer:
            for block in _scored(model, found_as(form, raw, labels=False), max_bad_fraction, progress):
                rows, bad = rows + len(block.lines), bad + block.bad_rows
                columns = [
                    pa.array([block.file] * len(block.lines), pa.string()),
                    pa.array(block.lines),
                    pa.nulls(len(block.lines), pa.uint8())
                    if block.labels is None
                    else pa.array(block.labels),
                    pa.array(block.logits),
                    pa.array(1 / (1 + np.exp(-block.logits.astype(np.float64))), pa.float32()),
                ]
                writer.write_table(pa.table(columns, _SCHEMA))
            _check(rows, bad, max_bad_fraction)
    except StorageError:
        raise  # of a raw log, which the message names
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    return Scored(rows, bad)


def evaluate(
    model: Deployed,
    raw: Sequence[str],
    max_bad_fraction: float = 0.0,
    progress: Progress | None = None,
    form: str | None = None,
) -> Scored:
    """Exact scores over all good rows of raw logs, which take eight bytes of memory each.

    Args:
        model: the exported model.
        raw: paths, URIs or patterns of raw logs in the model's layout.
        max_bad_fraction: bad rows are left out up to this share; with 0 the first is an error.
        progress: called with the bytes read so far and in all.
        form: as for `score`.

    Raises:
        InputError: as `score`.
    """
    labels, logits, weights, bad = [], [], [], 0
    files = found_as(form, raw, labels=False)
    for file in files:
        found = for_scoring(file, model.description.layout)
        if found.label is None:
            raise InputError(_no_label(file, model.description.layout))
        if found.weight != model.description.layout.weight:
            raise InputError(
                f"{file.path:.120}: has no column {model.description.layout.weight!r:.40}, by which the study's rows "
                "are weighted: add it, or use `sizewise score`"
            )
    for block in _scored(model, files, max_bad_fraction, progress):
        assert block.labels is not None
        labels.append(block.labels)
        logits.append(block.logits)
        if block.weights is not None:
            weights.append(block.weights)
        bad += block.bad_rows
    rows = sum(map(len, labels))
    _check(rows, bad, max_bad_fraction)
    return Scored(rows, bad, _figures(labels, logits, weights))


def _figures(
    labels: list[npt.NDArray[np.uint8]],
    logits: list[npt.NDArray[np.float32]],
    weights: list[npt.NDArray[np.float32]],
) -> Scores:
    weight = np.concatenate(weights) if weights else None
    if weight is not None and not weight.any():
        raise InputError("the weights of all rows in these files are 0: nothing counts; correct them")
    return evaluate_scores(np.concatenate(labels), np.concatenate(logits), weight)


def _scored(
    model: Deployed, files: list[RawFile], max_bad_fraction: float, progress: Progress | None
) -> Iterator[_Block]:
    layouts = [for_scoring(file, model.description.layout) for file in files]
    for file, layout in zip(files, layouts, strict=True):
        check([file], layout, by_schema=False)
    total, before = sum(file.bytes for file in files), 0
    for file, layout in zip(files, layouts, strict=True):
        reader = open_rows(file, layout, Stretch(0, file.bytes), BLOCK_BYTES, by_schema=False)
        line = 1 + reader.header_lines
        for block in reader:
            good: list[Rows] = []
            lines: list[npt.NDArray[np.int64]] = []
            first, bad_rows = line, 0
            for found in block.parsed(line):
                bad = found.bad
                if bad and not max_bad_fraction:
                    what = f"{reader.position(bad[0].line)}: {reader.explained(bad[0])}"
                    raise InputError(f"{file.path}, {what}")
                lines.append(_lines(found, line))
                good.append(found.rows)
                line, bad_rows = line + len(found.rows) + len(bad), bad_rows + len(bad)
            line = first + block.lines  # of which rows may take several
            if good:
                rows = with_features(Rows.concatenated(good), layout)
                logits = np.concatenate(
                    [np.empty(0, np.float32)]
                    + [
                        model(
                            rows.dense[low : low + _ROWS],
                            rows.ids[low : low + _ROWS],
                            [column.part(low, min(low + _ROWS, len(rows))) for column in rows.lists],
                        )
                        for low in range(0, len(rows), _ROWS)
                    ]
                )
                labels = None if layout.label is None else rows.labels
                yield _Block(file.path, np.concatenate(lines), labels, logits, bad_rows, rows.weights)
            if progress:
                progress(before + reader.bytes_read, total)
        before += file.bytes


def _no_label(file: RawFile, layout: Layout) -> str:
    """Why a file cannot be evaluated."""
    lacks = f"has no column {layout.label!r:.40}"
    if file.format == "text" and not layout.header:
        lacks = f"has {len(layout.columns) - 1} fields a line, one less than the model's logs"
    elif file.format in ("libsvm", "libffm"):
        lacks = "has rows that begin with no label"
    return (
        f"{file.path:.120}: {lacks}, so without the label there is nothing to compare predictions with: add it, or use "
        "`sizewise score`"
    )


def _lines(found: Parsed, first: int) -> npt.NDArray[np.int64]:
    """The numbers of the good rows' lines."""
    if found.lines is not None:
        return found.lines
    numbers = np.arange(first, first + len(found.rows) + len(found.bad))
    return np.setdiff1d(numbers, [row.line for row in found.bad], assume_unique=True)


def _check(rows: int, bad: int, max_bad_fraction: float) -> None:
    if not rows:
        raise InputError("no good rows in these files; are they logs in the layout of the model's study?")
    if bad > max_bad_fraction * (rows + bad):
        raise InputError(
            f"{bad:,} of {rows + bad:,} rows are bad, more than --max-bad-fraction {max_bad_fraction:g} allows; "
            "fix them or allow more"
        )
