"""What the commands show on a terminal: progress and tables, on standard error and output respectively.

Standard output belongs to results. A bar leaves `sys.stdout` as it is: rich would put an object of its own in its
place, and at its end put back what it found at its start, which may be what somebody else has redirected for a while.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sizewise.ledger import Event, Record
from sizewise.units import format_auc, format_bytes, format_count, format_ratio, format_seconds
from sizewise_prep.prep import Progress as Preparation


class _Console(Console):
    """Standard error of a command that goes on when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        """Say no more; rich would end the process, or whatever it finds in place of standard output."""
        self.quiet = True

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor visible: a command that is killed below its bar could not bring it back."""
        return False


err = _Console(stderr=True, highlight=False)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)  # a pipe has no width to fold to

# How a column of the results is headed and written; columns not named here are written as they are.
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "trial_id": ("trial", str),
    "state": ("state", str),
    "auc": ("AUC", format_auc),
    "test_auc": ("test AUC", format_auc),
    "best_auc": ("best AUC", format_auc),
    "auc_low": ("from", format_auc),
    "auc_high": ("to (95 %)", format_auc),
    "replicates": ("seeds", str),
    "replicate": ("replicate", str),
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
    "wire_bytes": ("sent a step", format_bytes),
}

# Columns that are left out where every row has this.
USUAL: dict[str, Any] = {"replicate": 0, "replicates": 1, "auc_low": None, "auc_high": None, "breaks": None}


MOST_PROBLEMS = 10  # lines that are said of one study


def print_problems(problems: Sequence[str], command: str) -> None:
    """Say on standard error what could not be read.

    Args:
        problems: a line each; a damaged study may have a hundred thousand.
        command: what prints all of them, named where there are more than are said here.
    """
    for problem in problems[:MOST_PROBLEMS]:
        err.print(problem, style="yellow", markup=False, soft_wrap=True)
    if (more := len(problems) - MOST_PROBLEMS) > 0:
        text = f"{more:,} more problem{'' if more == 1 else 's'}; all of them: `{command}`"
        err.print(text, style="yellow", markup=False, soft_wrap=True)


def print_table(frame: pl.DataFrame, columns: list[str], title: str) -> None:
    """Those `columns` of `frame` that it has, as people read them."""
    table = Table(title=title, title_justify="left", header_style="bold")
    shown = [c for c in columns if c in frame.columns and not _says_nothing(frame[c])]
    for column in shown:
        table.add_column(COLUMNS.get(column, (column.replace("_", " "), str))[0], justify="right")
    for row in frame.select(shown).iter_rows():
        write = [COLUMNS.get(c, (c, str))[1] for c in shown]
        table.add_row(*("-" if v is None else f(v) for v, f in zip(row, write, strict=True)))
    out.print(table)


def _says_nothing(column: pl.Series) -> bool:
    """Whether a column is there for studies with replicates or constraints, and this is none."""
    if column.name not in USUAL:
        return False
    usual = USUAL[column.name]
    return bool(column.is_null().all() if usual is None else (column == usual).all())


class _Progress(Progress):
    """Bars on standard error that leave standard output alone."""

    def __init__(self, *columns: ProgressColumn, quiet: bool, transient: bool = False) -> None:
        super().__init__(*columns, console=err, disable=quiet, transient=transient, redirect_stdout=False)


@contextmanager
def rows_written(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar over `total` rows; the yielded function is told how many are done."""
    with _Progress(
        TextColumn("generate"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TimeRemainingColumn(),
        quiet=quiet,
    ) as progress:
        task = progress.add_task("generate", total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def bytes_read(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar over the bytes of files; the yielded function is told how many of how many were read."""
    with _Progress(
        TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn(), quiet=quiet
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


_STEPS = {
    "read": "read",
    "check": "check what is there",
    "count": "count tokens",
    "number": "number tokens",
    "shards": "write shards",
    "distinct": "count distinct values",
}
_FILES_SHOWN = 8  # bars of files that are being read


@contextmanager
def preparing(quiet: bool) -> Iterator[Callable[[Preparation], None]]:
    """A bar over all raw files, one for each that is being read, and rows a second, time left."""
    progress = _Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        quiet=quiet,
    )
    total = progress.add_task("prep", total=None, amount="", rate="")
    files: dict[str, TaskID] = {}

    def show(now: Preparation) -> None:
        progress.start()
        reading = now.step == "read"
        amount = (
            f"{format_bytes(now.done)} of {format_bytes(now.total)}"
            if reading
            else f"{now.done:,} of {now.total:,}"
        )
        progress.update(
            total,
            description=f"prep: {_STEPS[now.step]}",
            completed=now.done,
            total=now.total,
            amount=amount,
            rate=_rate(now),
        )
        open_files = {f.name: f for f in now.files if 0 < f.bytes < f.bytes_total}
        for name in [name for name in files if name not in open_files]:
            progress.remove_task(files.pop(name))
        for name, file in list(open_files.items())[:_FILES_SHOWN]:
            if name not in files:
                files[name] = progress.add_task(f"  {name}", total=file.bytes_total, amount="", rate="")
            amount = f"{format_bytes(file.bytes)} of {format_bytes(file.bytes_total)}"
            progress.update(files[name], completed=file.bytes, amount=amount)

    try:
        yield show
    finally:
        progress.stop()


def _rate(now: Preparation) -> str:
    """Rows a second of this run, and the time that reading still takes at its pace."""
    rows = now.rows - now.rows_before
    if now.step != "read" or not rows or not now.seconds:
        return f"{now.rows:,} rows"
    pace = (now.done - now.bytes_before) / now.seconds
    left = f", {format_seconds((now.total - now.done) / pace)} left" if pace else ""
    return f"{now.rows:,} rows, {format_count(round(rows / now.seconds))} rows/s{left}"


@contextmanager
def trial_events(asked: int, done: int, quiet: bool) -> Iterator[Event]:
    """A bar over trials, from the first event on, and a line an event."""
    progress = _Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        quiet=quiet,
    )
    task = progress.add_task("trials", total=asked, completed=done)

    def show(event: str, record: Record, values: dict[str, Any] | None) -> None:
        progress.start()
        # Replicates, and trials in the place of infeasible ones, come on top of what was asked.
        progress.update(task, total=max(progress.tasks[task].total or 0, record.trial_id + 1))
        if event in ("finished", "pruned", "failed"):
            progress.advance(task)
        line = _event_line(event, record, values)
        if line and not quiet:
            err.print(f"trial {record.trial_id}: {line}", markup=False, soft_wrap=True)

    try:
        yield show
    finally:
        if progress.live.is_started:  # else it would print an empty line
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
    if event == "infeasible":
        return f"not trained: {record.reason}"
    if event == "pruned":
        return f"stopped early: {record.reason}"
    return f"failed: {record.error}" if event == "failed" else ""
