"""What a run of the program leaves: evaluations and results as JSON lines, the table as Markdown and CSV."""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

EVALUATIONS, RESULTS, TABLE, TABLE_CSV = "evaluations.jsonl", "results.jsonl", "table.md", "table.csv"


@dataclass(frozen=True)
class Result:
    """A model at the end of an epoch.

    Attributes:
        run: the key of the training.
        name, ratio, seed: of the method.
        teachers: whose scores it was trained on beside the labels.
        rate: learning rate; `falling` to zero or not.
        shipped_bytes: of the embeddings: numbers, scales, lists of ids.
        epoch, iterations, seconds: of training so far.
        validation_auc, test_auc, test_logloss: of the model as it ships.
        float_test_auc: of its numbers in float32.
        parts: of the test AUC, for the error of differences.
        note: what else was found.
        state: `end` of the training, of an `epoch` before it, or `cut short` by the clock.
    """

    run: str
    name: str
    ratio: int
    seed: int
    teachers: int
    rate: float
    falling: bool
    batch: int
    shipped_bytes: int
    epoch: float
    iterations: int
    seconds: float
    validation_auc: float
    test_auc: float
    test_logloss: float
    float_test_auc: float
    parts: tuple[float, ...] = ()
    note: str = ""
    state: str = "end"


@dataclass(frozen=True)
class Evaluation:
    """A point of a curve: validation, numbers in float32."""

    run: str
    iterations: int
    epoch: float
    seconds: float
    auc: float
    logloss: float


@dataclass
class Record:
    """All that is kept: in a folder, which a later run goes on with, or, without one, in memory."""

    folder: Path | None
    results: list[Result] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> "Record":
        """What there is; of trainings that did not end, nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        results = [Result(**row) for row in _lines(folder / RESULTS)]
        ended = {result.run for result in results if result.state == "end"}
        record = cls(folder, [result for result in results if result.run in ended])
        record.evaluations = [
            evaluation
            for evaluation in (Evaluation(**row) for row in _lines(folder / EVALUATIONS))
            if evaluation.run in ended
        ]
        for name, rows in ((RESULTS, record.results), (EVALUATIONS, record.evaluations)):
            (folder / name).write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
        return record

    def add(self, row: Result | Evaluation) -> None:
        """Keep, at once."""
        name = RESULTS if isinstance(row, Result) else EVALUATIONS
        if self.folder:
            with (self.folder / name).open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        if isinstance(row, Result):
            self.results.append(row)
        else:
            self.evaluations.append(row)

    def has(self, run: str) -> bool:
        """Whether this training has ended."""
        return any(result.run == run and result.state == "end" for result in self.results)

    def curve(self, run: str) -> list[Evaluation]:
        """The evaluations of a training, in their order."""
        return [evaluation for evaluation in self.evaluations if evaluation.run == run]


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # cut short by a kill
            continue
        if "parts" in row:
            row["parts"] = tuple(row["parts"])
        yield row


def reached(curve: list[Evaluation], auc: float) -> float | None:
    """Iterations at which a curve first has this AUC, interpolated; None if it never has."""
    before: Evaluation | None = None
    for point in curve:
        if point.auc >= auc:
            if before is None or point.auc == before.auc:
                return float(point.iterations)
            share = (auc - before.auc) / (point.auc - before.auc)
            return before.iterations + share * (point.iterations - before.iterations)
        before = point
    return None


def error_of_difference(one: Result, other: Result) -> float | None:
    """Standard error of the difference of two test AUCs of the same rows."""
    if not one.parts or len(one.parts) != len(other.parts):
        return None
    return float(sum((a - b) ** 2 for a, b in zip(one.parts, other.parts, strict=True)) ** 0.5)


def written(record: Record, heading: list[str]) -> str:
    """The table, written to the folder and returned.

    Args:
        record: of all trainings so far.
        heading: sentences above the table.
    """
    full = {  # by whether the rate falls: a method is compared with full tables of its own schedule
        result.falling: result
        for result in reversed(record.results)
        if result.name == "full" and result.epoch == 1 and not result.teachers and result.state == "end"
    }
    lines = [*heading, ""]
    columns = [
        "method", "compression", "bytes shipped", "trained on", "seed", "epochs", "iterations", "seconds",
        "test AUC", "against full tables", "test log-loss", "AUC in float32", "iterations to full's AUC",
        "to full's at a half, a quarter",
    ]  # fmt: skip
    lines += ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for result in record.results:
        if not (
            result.falling and result.state == "epoch"
        ):  # whose rate has not fallen yet: no model to ship
            lines.append("| " + " | ".join(_cells(record, result, full.get(result.falling))) + " |")
    text = "\n".join(lines) + "\n"
    assert record.folder is not None
    (record.folder / TABLE).write_text(text)
    with (record.folder / TABLE_CSV).open("w", newline="") as file:
        names = [f.name for f in fields(Result) if f.name != "parts"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(asdict(result) for result in record.results)
    return text


def _cells(record: Record, result: Result, full: Result | None) -> list[str]:
    curve = [e for e in record.curve(result.run) if e.iterations <= result.iterations]
    against, multiple, earlier = "-", "-", "-"
    if full is not None:
        whole = record.curve(full.run)
        difference = result.test_auc - full.test_auc
        error = error_of_difference(result, full)
        against = f"{difference:+.4f}" + (f" ± {1.96 * error:.4f}" if error else "")
        if whole and result.run != full.run:
            multiple = _multiple(curve, whole[-1])
            halves = [
                _multiple(curve, min(whole, key=lambda e: abs(e.epoch - share * whole[-1].epoch)))
                for share in (0.5, 0.25)
            ]
            earlier = ", ".join(halves)
    schedule = " (rate falls to 0)" if result.falling else ""
    return [
        result.name,
        f"{result.ratio:,}x" if result.ratio > 1 else "-",
        f"{result.shipped_bytes:,}",
        _trained_on(result) + schedule + (", cut short" if result.state == "cut short" else ""),
        str(result.seed),
        f"{result.epoch:.2f}",
        f"{result.iterations:,}",
        f"{result.seconds:.1f}",
        f"{result.test_auc:.4f}",
        against,
        f"{result.test_logloss:.4f}",
        f"{result.float_test_auc:.4f}",
        multiple,
        earlier,
    ]


def _trained_on(result: Result) -> str:
    if not result.teachers:
        return "labels"
    return f"labels and {result.teachers} teacher{'s' if result.teachers > 1 else ''}"


def _multiple(curve: list[Evaluation], goal: Evaluation) -> str:
    at = reached(curve, goal.auc)
    if at is None:
        return f"> {curve[-1].iterations / goal.iterations:.2f}x" if curve else "-"
    return f"{at / goal.iterations:.2f}x"
