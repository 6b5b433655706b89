"""What the commands show on a terminal: progress and problems on standard error, results on standard output.

Standard output is for results. A bar does not replace `sys.stdout`: rich would replace it by an object of its own, and
at the end restore what it found at the start, which may be what another library had redirected for a while.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from sizewise_core.printable import printable, printable_lines
from sizewise_core.units import format_bytes, format_count, format_seconds
from sizewise_prep.pipeline.prep import Progress as Preparation


class _Console(Console):
    """Standard error, for a command that continues when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        """Print no more. Rich would end the process, or close what has replaced standard output."""
        self.quiet = True

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor visible: a command that is killed while a bar is shown could not restore it."""
        return False


err = _Console(stderr=True, highlight=False)

MOST_PROBLEMS = 10  # lines printed of one study
MOST_LETTERS = 300  # of each line


def print_problems(problems: Sequence[str], command: str) -> None:
    """Print on standard error what could not be read.

    Args:
        problems: a line each; a damaged study may have a hundred thousand.
        command: the command that prints all of them, named where there are more than are printed here.
    """
    for problem in problems[:MOST_PROBLEMS]:
        text = printable(problem if len(problem) <= MOST_LETTERS else f"{problem[:MOST_LETTERS]}...")
        err.print(text, style="yellow", markup=False, soft_wrap=True)
    if (more := len(problems) - MOST_PROBLEMS) > 0:
        text = f"{more:,} more problem{'' if more == 1 else 's'}; all of them: `{command}`"
        err.print(text, style="yellow", markup=False, soft_wrap=True)


def say(text: str) -> None:
    """Print sentences on standard output; on a terminal, lines are folded between words."""
    out = Console(highlight=False)
    out.print(printable_lines(text), markup=False, soft_wrap=not sys.stdout.isatty())


class Bars(Progress):
    """Bars on standard error that leave standard output alone; nothing in a file, a pipe or a dumb terminal."""

    def __init__(self, *columns: ProgressColumn, quiet: bool, transient: bool = False) -> None:
        quiet = quiet or not err.is_terminal or err.is_dumb_terminal
        super().__init__(*columns, console=err, disable=quiet, transient=transient, redirect_stdout=False)

    def stop(self) -> None:
        """End the bars; where none is shown, Rich would print an empty line."""
        if self.live.is_started:
            super().stop()


@contextmanager
def waiting(what: str, quiet: bool) -> Iterator[None]:
    """Show on a terminal what the command waits for, until the block ends."""
    with Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        quiet=quiet,
        transient=True,
    ) as bars:
        bars.add_task(what, total=None)
        yield


@contextmanager
def rows_written(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar over `total` rows; call the yielded function with how many are written."""
    with Bars(
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
    """A bar over the bytes of files; call the yielded function with those read so far and in all."""
    with Bars(
        TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn(), quiet=quiet
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


_STEPS = {
    "read": "read",
    "check": "check what is there",
    "fit": "fit columns",
    "count": "count tokens",
    "number": "number tokens",
    "shards": "write shards",
    "distinct": "count distinct values",
}
_FILES_SHOWN = 8  # bars of files that are being read
_NAME_SHOWN = 18  # characters of their names, from the end


@contextmanager
def preparing(quiet: bool) -> Iterator[Callable[[Preparation], None]]:
    """A bar over all raw files and one for each that is being read, with rows a second and the time left."""
    # On a narrow terminal the bar shrinks before the numbers do.
    progress = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=max(min(err.width - 80, 40), 8)),
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
                short = name if len(name) <= _NAME_SHOWN else f"...{name[3 - _NAME_SHOWN :]}"
                files[name] = progress.add_task(f"  {short}", total=file.bytes_total, amount="", rate="")
            amount = f"{format_bytes(file.bytes)} of {format_bytes(file.bytes_total)}"
            progress.update(files[name], completed=file.bytes, amount=amount)

    try:
        yield show
    finally:
        progress.stop()


def _rate(now: Preparation) -> str:
    """Rows a second of this run, and the time that reading still takes at this speed."""
    rows = now.rows - now.rows_before
    if now.step != "read" or not rows or not now.seconds:
        return f"{format_count(now.rows)} rows"
    pace = (now.done - now.bytes_before) / now.seconds
    left = f", {format_seconds((now.total - now.done) / pace)} left" if pace else ""
    return f"{format_count(now.rows)} rows, {format_count(round(rows / now.seconds))}/s{left}"
