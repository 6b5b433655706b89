"""What the commands show on a terminal: progress and tables, on standard error and output respectively."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sizewise.ledger import Event, Record
from sizewise.units import format_auc, format_bytes, format_count, format_ratio, format_seconds

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)  # a pipe has no width to fold to

# How a column of the results is headed and written; columns not named here are written as they are.
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "trial_id": ("trial", str),
    "state": ("state", str),
    "auc": ("AUC", format_auc),
    "test_auc": ("test AUC", format_auc),
    "best_auc": ("best AUC", format_auc),
    "logloss": ("log-loss", format_auc),
    "embedding_bytes": ("embeddings", format_bytes),
    "model_bytes": ("model", format_bytes),
    "compression_ratio": ("compression", format_ratio),
    "iteration": ("iterations", format_count),
    "epoch": ("epoch", "{:.2f}".format),
    "learning_rate": ("learning rate", "{:.3g}".format),
    "cpu_seconds": ("CPU", format_seconds),
    "gpu_seconds": ("GPU", format_seconds),
    "money": ("money", "{:,.2f}".format),
    "samples_per_second": ("rows/s", format_count),
}


def print_table(frame: pl.DataFrame, columns: list[str], title: str) -> None:
    """Those `columns` of `frame` that it has, as people read them."""
    table = Table(title=title, title_justify="left", header_style="bold")
    shown = [c for c in columns if c in frame.columns]
    for column in shown:
        table.add_column(COLUMNS.get(column, (column.replace("_", " "), str))[0], justify="right")
    for row in frame.select(shown).iter_rows():
        write = [COLUMNS.get(c, (c, str))[1] for c in shown]
        table.add_row(*("-" if v is None else f(v) for v, f in zip(row, write, strict=True)))
    out.print(table)


@contextmanager
def rows_written(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar over `total` rows; the yielded function is told how many are done."""
    with Progress(
        TextColumn("generate"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TimeRemainingColumn(),
        console=err,
        disable=quiet,
    ) as progress:
        task = progress.add_task("generate", total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def bytes_read(quiet: bool) -> Iterator[Callable[[Any], None]]:
    """A bar over the bytes of all raw files; the yielded function takes `sizewise_prep.prep.Progress`."""
    with Progress(
        TextColumn("prep {task.fields[file]}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
        console=err,
        disable=quiet,
    ) as progress:
        task = progress.add_task("prep", total=None, file="", rows=0)

        def show(done: Any) -> None:
            progress.update(
                task, completed=done.bytes, total=done.bytes_total, file=done.path.name, rows=done.rows
            )

        yield show


@contextmanager
def trial_events(asked: int, done: int, quiet: bool) -> Iterator[Event]:
    """A bar over trials, from the first event on, and a line an event."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=quiet,
    )
    task = progress.add_task("trials", total=asked, completed=done)

    def show(event: str, record: Record, values: dict[str, Any] | None) -> None:
        progress.start()
        if event in ("finished", "failed"):
            progress.advance(task)
        line = _event_line(event, record, values)
        if line and not quiet:
            err.print(f"trial {record.trial_id}: {line}", markup=False, soft_wrap=True)

    try:
        yield show
    finally:
        progress.stop()


def _event_line(event: str, record: Record, values: dict[str, Any] | None) -> str:
    """One readable line an event; evaluations pass without one."""
    if event == "started":
        config, again = record.config, f", attempt {record.attempts}" if record.attempts > 1 else ""
        epochs = f"{config['epochs']} epoch{'s' if config['epochs'] != 1 else ''}"
        return (
            f"{config['method']} {format_bytes(config['memory_budget'])}, learning rate "
            f"{config['learning_rate']:.3g}, {epochs}{again}"
        )
    if event == "finished" and values:
        return (
            f"AUC {format_auc(values['auc'])} at {format_bytes(values['embedding_bytes'])} "
            f"({format_ratio(values['compression_ratio'])}), iteration {format_count(values['iteration'])}"
        )
    return f"failed: {record.error}" if event == "failed" else ""
