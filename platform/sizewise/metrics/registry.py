"""Every metric of an evaluation, described once.

    METRICS["auc"].direction                       # "maximize"
    METRICS["embedding_bytes"].text(2_050_000)     # "2.05 MB"
    METRICS["brier"] = Metric("Brier score", "score", "minimize", compute=brier)

What a study may ask for (objectives, constraints), what evaluations hold (the columns of their tables and files), what
the trainer computes, how tables, figures and downloads name and write it: all of it follows from this table. It is
read whenever it is needed, so a metric that is added is used everywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from sizewise.metrics.asked import TENTHS
from sizewise_core.units import format_auc, format_bytes, format_count, format_ratio, format_seconds

Direction = Literal["maximize", "minimize"]
Kind = Literal["identity", "score", "size", "effort", "other"]
Compute = Callable[[npt.NDArray[np.floating], npt.NDArray[np.floating]], float]


@dataclass(frozen=True)
class Metric:
    """The description of a metric.

    Args:
        label: its name in tables and on axes.
        kind: what it measures: how good a model is (`score`), how large it is (`size`), how much training led to it
            (`effort`), something else, or which evaluation a row is (`identity`). The figures of the trade-off offer
            every score, size and effort as an axis.
        direction: in which direction it is better; None where it cannot be an objective.
        unit: such as "bytes", "seconds" or "nats"; "" for a plain number.
        log: whether it is drawn on a logarithmic scale.
        text: writes a value with its unit.
        spreadsheet: a printf format for tables in a browser; "" for bytes, whose unit varies.
        dtype: of its column, 64 bits wide.
        objective: its name in a study file, if it differs from that of the column.
        worst: the reference point of the hypervolume; None for the worst value measured, and for the full tables'
            bytes where it is a size.
        listed: whether short tables of evaluations or trials show it too.
        asked: the setting of a study file that asks for it; "" where every evaluation has it. Tables leave it out where
            nothing asked for it, and figures do not offer it as an axis.
        compute: (labels, log-odds) -> the metric; both arrays are (validation rows,) and float32, labels are 0 or 1.
            None where the trainer fills it in.
    """

    label: str
    kind: Kind
    direction: Direction | None = None
    unit: str = ""
    log: bool = False
    text: Callable[[float], str] = "{:g}".format
    spreadsheet: str = ""
    dtype: type[int] | type[float] = float
    objective: str = ""
    worst: float | None = None
    listed: bool = True
    asked: str = ""
    compute: Compute | None = None

    @property
    def heading(self) -> str:
        """Its name at the beginning of a line."""
        return self.label[:1].upper() + self.label[1:]

    @property
    def title(self) -> str:
        """Its name on an axis, with what it is measured on and in; durations are written with their units."""
        facts = ["validation split"] if self.kind == "score" else []
        facts += [self.unit] if self.unit not in ("", "seconds") else []
        facts += ["log scale"] if self.log else []
        name = f"Size of the {self.label}" if self.kind == "size" else self.heading
        return f"{name} ({', '.join(facts)})" if facts else name

    @property
    def in_decades(self) -> bool:
        """Whether the hypervolume counts its decades: of amounts and losses, where ratios matter."""
        return not (self.kind == "score" and self.direction == "maximize")


def _bytes(
    label: str, kind: Kind = "other", direction: Direction | None = None, listed: bool = False
) -> Metric:
    return Metric(label, kind, direction, "bytes", log=True, text=format_bytes, dtype=int, listed=listed)


def _seconds(label: str, kind: Kind = "other", text: Callable[[float], str] = format_seconds) -> Metric:
    return Metric(label, kind, "minimize", "seconds", log=True, text=text, spreadsheet="%,.1f", listed=False)


def _score(
    label: str, direction: Direction, unit: str = "", worst: float | None = None, listed: bool = False
) -> Metric:
    return Metric(
        label, "score", direction, unit, text=format_auc, spreadsheet="%.4f", worst=worst, listed=listed
    )


def _asked(label: str, direction: Direction, by: str, unit: str = "", worst: float | None = None) -> Metric:
    return replace(_score(label, direction, unit, worst), asked=by)


def _count(
    label: str, direction: Direction | None, unit: str, objective: str = "", listed: bool = False
) -> Metric:
    return Metric(
        label,
        "effort",
        direction,
        unit,
        log=True,
        text=format_count,
        spreadsheet="%,d",
        dtype=int,
        objective=objective,
        listed=listed,
    )


def _share(label: str) -> Metric:
    return Metric(label, "other", text="{:.2%}".format, spreadsheet="%.4f", listed=False)


def _duration(seconds: float) -> str:
    return format_seconds(seconds) if seconds >= 1 else f"{seconds:g} s"


# In the order of the columns of a table of evaluations.
METRICS: dict[str, Metric] = {
    "trial_id": Metric("trial", "identity", text=str, dtype=int),
    "replicate": Metric("replicate", "identity", text=str, dtype=int, listed=False),
    "iteration": _count("iterations", "minimize", "optimizer steps", "iterations", listed=True),
    "epoch": Metric("epoch", "other", text="{:.2f}".format, spreadsheet="%.2f"),
    "samples": _count("samples", None, "rows trained on"),
    # Random scores have an AUC of 0.5.
    "auc": _score("AUC", "maximize", worst=0.5, listed=True),
    "logloss": _score("log-loss", "minimize", "nats"),
    "normalized_entropy": _score("normalized entropy", "minimize"),
    "embedding_bytes": _bytes("embeddings", "size", "minimize", listed=True),
    "model_bytes": _bytes("whole model", "size", "minimize", listed=True),
    "compression_ratio": Metric(
        "compression", "other", log=True, text=format_ratio, spreadsheet="%,.1fx", listed=False
    ),
    "optimizer_bytes": _bytes("optimizer state"),
    "train_seconds": _seconds("training time", "effort", _duration),
    "cpu_seconds": _seconds("CPU"),
    "gpu_seconds": _seconds("GPU"),
    "samples_per_second": Metric("rows/s", "other", text=format_count, spreadsheet="%,.0f", listed=False),
    "peak_memory_bytes": _bytes("peak memory"),
    "wire_bytes": _bytes("sent a step"),
    # Of `hot`, in the training rows; other methods have none.
    "hot_values": Metric("hot values", "other", log=True, text=format_count, dtype=int, listed=False),
    "hot_lookups": _share("look-ups of hot values"),
    "mistaken_values": Metric("values taken for hot", "other", text=format_count, dtype=int, listed=False),
    "mistaken_lookups": _share("look-ups taken for hot"),
}


METRICS |= {
    "gauc": _asked("AUC within groups", "maximize", "train.gauc_by", worst=0.5),
    "calibration_error": _asked("calibration error", "minimize", "train.calibration_bins"),
    **{
        name: _asked(f"log-loss of tenth {number}", "minimize", "train.frequency_of", "nats")
        for number, name in enumerate(TENTHS, 1)
    },
}


class OfKind(Mapping[str, Metric]):
    """The metrics of one kind, by name, as METRICS is when they are read.

    Those that only some studies ask for are found by their names, and not listed.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __getitem__(self, name: str) -> Metric:
        metric = METRICS[name]
        if metric.kind != self.kind:
            raise KeyError(name)
        return metric

    def __iter__(self) -> Iterator[str]:
        return iter([n for n, metric in METRICS.items() if metric.kind == self.kind and not metric.asked])

    def __len__(self) -> int:
        return len(list(iter(self)))


SCORES = OfKind("score")
SIZES = OfKind("size")
EFFORTS = OfKind("effort")


def columns_of_test(listed: bool = False) -> dict[str, str]:
    """The columns of scores on the test split, by metric.

    Args:
        listed: of the metrics that every table has, however short.
    """
    scores = {name: metric for name, metric in METRICS.items() if metric.kind == "score"}
    return {name: f"test_{name}" for name, metric in scores.items() if metric.listed or not listed}


def asked_columns() -> dict[str, str]:
    """The columns of metrics that only some studies ask for, on either split, with the settings that do."""
    asked = {name: metric.asked for name, metric in METRICS.items() if metric.asked}
    return asked | {f"test_{name}": setting for name, setting in asked.items()}


def of_column(column: str) -> Metric | None:
    """The metric in a column of a table, on the validation or on the test split; None where it holds something else."""
    if column in METRICS:
        return METRICS[column]
    name = next((name for name, tested in columns_of_test().items() if tested == column), None)
    return replace(METRICS[name], label=f"test {METRICS[name].label}") if name else None


def column_of(objective: str) -> str:
    """The evaluations' column that holds an objective or a constrained metric, such as `iteration` for `iterations`."""
    return next((name for name, metric in METRICS.items() if metric.objective == objective), objective)


def unit_of(objective: str) -> str:
    """What an objective or a constrained metric is measured in; "" for a plain number."""
    return METRICS[column_of(objective)].unit


def objectives(*, asked: bool = False) -> dict[str, Direction]:
    """What a study may optimize, with its direction: scores first, then sizes and efforts.

    Args:
        asked: also what is measured only where a study asks for it; these come last.
    """
    order = ("score", "size", "effort", "other")
    possible = [
        (bool(metric.asked), order.index(metric.kind), metric.objective or name, metric.direction)
        for name, metric in METRICS.items()
        if metric.direction is not None and metric.kind != "identity" and (asked or not metric.asked)
    ]
    return {name: direction for *_, name, direction in sorted(possible, key=lambda found: found[:2])}


def constrainable(*, asked: bool = False) -> list[str]:
    """What a study may constrain: the objectives, and all else that an evaluation measures.

    Args:
        asked: as for `objectives`.
    """
    measured = [
        metric.objective or name
        for name, metric in METRICS.items()
        if metric.kind != "identity" and not metric.asked
    ]
    return list(dict.fromkeys([*objectives(), *measured, *objectives(asked=asked)]))


def with_listed(columns: list[str], after: str) -> list[str]:
    """The columns of a short table, with the listed metrics that it lacks.

    Args:
        columns: of the table, in their order.
        after: one of `columns`; the added ones follow it.
    """
    others = [name for name, metric in METRICS.items() if metric.listed and name not in columns]
    position = columns.index(after) + 1
    return [*columns[:position], *others, *columns[position:]]


def computed(labels: npt.NDArray[np.floating], logits: npt.NDArray[np.floating]) -> dict[str, float]:
    """The metrics that have `compute`, for one evaluation.

    Args:
        labels: (rows,) of 0 and 1.
        logits: (rows,) log-odds.
    """
    return {
        name: float(metric.compute(labels, logits))
        for name, metric in METRICS.items()
        if metric.compute is not None
    }
