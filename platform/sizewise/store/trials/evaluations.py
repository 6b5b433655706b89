"""A trial's evaluations on disk: lines of sealed JSON, appended as they happen.

Every line carries a checksum (see `sealed`). All who read them take a file apart by `lines_of` and
`evaluation_of`: the driver's `Ledger`, and `curves`, which reads those of many trials as one table.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sizewise.metrics.evaluation import Evaluation
from sizewise.store.records import TrialRecord
from sizewise.store.study_folder import MOST_LINE_BYTES
from sizewise_core.files.sealed import DamagedError, sealed, unsealed


def json_line(row: Mapping[str, Any]) -> str:
    """One sealed line of strict JSON; NaN and infinities, which JSON lacks, become null."""
    finite = {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
    return sealed(json.dumps(finite, allow_nan=False)) + "\n"


def evaluation_line(trial_id: int, evaluation: Evaluation) -> str:
    """The line of a trial's evaluation."""
    return json_line({"trial_id": trial_id, **evaluation.as_row()})


def lines_of(text: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty, with their numbers from 1."""
    return ((number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip())


def evaluation_of(line: bytes, trial_id: int) -> Evaluation:
    """The evaluation in a line of a trial's file.

    Raises:
        DamagedError: not what was written, or nothing that an evaluation can be, or another trial's.
    """
    if len(line) > MOST_LINE_BYTES:
        raise DamagedError("longer than an evaluation can be")
    row = unsealed(line)
    if type(row.get("trial_id")) is not int or type(row.get("iteration")) is not int:
        raise DamagedError("no evaluation")
    if row["trial_id"] != trial_id:
        raise DamagedError(f"of trial {row['trial_id']}")
    auc = row.get("auc")
    if not all(map(_is_measurable, row.values())) or (
        isinstance(auc, int | float) and not (0 <= auc <= 1 or auc != auc)
    ):
        raise DamagedError("holds what was never measured")
    del row["trial_id"]
    return Evaluation.from_row(row)


def _is_measurable(value: object) -> bool:
    """Whether a table can hold it. NaN is what an older version wrote where a metric was undefined."""
    if isinstance(value, int | float):
        return value != value or abs(value) <= 2**62
    return value is None or isinstance(value, str)


def counted(content: bytes, trial_id: int) -> int | None:
    """How many evaluations a trial had by what is kept of it; None where that cannot be read."""
    try:
        fields = unsealed(content)
    except DamagedError:
        return None
    count = fields.get("evaluations")
    return count if type(count) is int and fields.get("trial_id") == trial_id else None


def missing_evaluations(
    record: TrialRecord, found: Sequence[tuple[int, float | None]], count: int | None = None
) -> str:
    """What the evaluations of a trial lack, by its record; nothing where they are complete as far as is known.

    Args:
        record: the trial's.
        found: iteration and epoch of those that can be read.
        count: how many there are, where the record does not say.
    """
    there = len({iteration for iteration, _ in found})
    count = count if record.evaluations is None else record.evaluations
    if count is not None and there < count:
        return f"holds {there:,} of {count:,} evaluations"
    if record.state == "running" or record.evaluations is not None:
        return ""
    # An older version did not count: but it kept the best evaluation, and where the trial ended.
    best = (record.values or {}).get("iteration")
    if best is not None and all(iteration != best for iteration, _ in found):
        return f"lacks the evaluation at iteration {best:,.0f}, the best of its trial"
    if record.trained_epochs is not None and all(epoch != record.trained_epochs for _, epoch in found):
        return "does not reach the end of its trial"
    return "" if found or record.state in ("failed", "infeasible") else "holds nothing"
