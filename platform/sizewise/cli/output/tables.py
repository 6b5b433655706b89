"""Tables on the terminal: as many columns as it has room for, and no number ever cut.

print_table(study.trials, ["trial_id", "auc"], "trials of mine", every_row="sizewise results ... --format csv")

A column with one value in every row is printed once, below the table. Columns without room are named there too, and
`wide` shows them: on a terminal in several tables below one another. A pipe has no width, and gets every column.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sizewise.cli.shared import front_columns
from sizewise.metrics.registry import of_column
from sizewise.results import Study
from sizewise_core.printable import printable
from sizewise_core.units import format_auc, format_bytes, format_count, format_seconds

MOST_ROWS = 50  # printed of a table
GAP = 2  # spaces between two columns
ANY_WIDTH = 100_000  # of what goes into a pipe
LEAST_TEXT = 16  # a column of words may be folded to this width; numbers never are

# Heading and text of columns that are not metrics, or have a shorter heading here.
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "state": ("state", str),
    "best_auc": ("best AUC", format_auc),
    "auc_low": ("from", format_auc),
    "auc_high": ("to (95%)", format_auc),
    "replicates": ("seeds", str),
    "model_bytes": ("model", format_bytes),
    "memory_budget": ("budget", format_bytes),
    "learning_rate": ("learning rate", "{:.3g}".format),
    "money": ("money", "{:,.2f}".format),
    "teacher_iterations": ("teacher's iterations", format_count),
    "teacher_seconds": ("teacher's seconds", format_seconds),
}

# Columns that are left out without a note where every row has this value.
USUAL: Mapping[str, object] = {
    "replicate": 0,
    "replicates": 1,
    "auc_low": None,
    "auc_high": None,
    "breaks": None,
}

# The order in which columns are left out; after these, from the right.
LEAST = ["gpu_seconds", "money", "cpu_seconds", "epochs", "compression_ratio", "epoch", "model_bytes"]


@dataclass(frozen=True)
class _Column:
    """A column of text cells; with `words`, its lines may be broken."""

    name: str
    head: str
    cells: list[str]
    words: bool

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in [*self.head.split("\n"), *self.cells])

    @property
    def least(self) -> int:
        """The smallest width in which it can be read."""
        longest = max(cell_len(word) for word in self.head.split("\n"))
        return min(self.width, max(LEAST_TEXT, longest)) if self.words else self.width


MOST_FRONT = 15  # rows of the front that a study's end shows


def print_front(study: Study, every_row: str) -> None:
    """Print the front in short, as at the end of a study: the best point of each trial, the best ones first.

    Args:
        study: whose front it is.
        every_row: the command that prints all of the front.
    """
    if study.front.is_empty():
        return  # the answer explains it
    front = study.front.sort("auc", study.size, descending=[True, False])
    best = front.unique("trial_id", keep="first", maintain_order=True)
    title = f"Pareto front of {study.name}" + (", a row a trial" if best.height < front.height else "")
    print_table(best.head(MOST_FRONT), front_columns(), title, every_column=f"`{every_row} --wide`")
    if best.height > MOST_FRONT or best.height < front.height:
        points = f"{front.height:,} points of {best.height:,} trials"
        note = f"The best {min(best.height, MOST_FRONT)} of {points}; all: `{every_row}`"
        Console(highlight=False).print(note, style="dim", markup=False, soft_wrap=True)


def print_table(
    frame: pl.DataFrame,
    columns: list[str],
    title: str,
    *,
    wide: bool = False,
    rows: int = MOST_ROWS,
    every_row: str = "",
    every_column: str = "--wide",
) -> None:
    """Print columns of a table, and below it those that have one value in every row.

    Args:
        frame: the table.
        columns: names in their order; those that the table lacks are skipped.
        title: above the table.
        wide: print every column at any width of the terminal, also those with one value in every row.
        rows: at most this many, from the top.
        every_row: the command that prints all rows, named where there are more.
        every_column: the option or command that prints all columns, named where some have no room.
    """
    room = Console().width if sys.stdout.isatty() else None
    out = Console(highlight=False, width=room or ANY_WIDTH)
    all_columns = [
        _column(frame[c].head(rows)) for c in columns if c in frame.columns and not _usual(frame[c])
    ]
    same = [] if wide or room is None else [c for c in all_columns[1:] if _same(frame[c.name])]
    shown = [c for c in all_columns if c not in same]
    left_out: list[_Column] = []
    if room is None or not wide:
        shown, left_out = _fitting(shown, room)
    blocks = _blocks(shown, room)

    out.print(title, style="bold", markup=False, soft_wrap=True)
    for number, block in enumerate(blocks):
        if number:
            out.print()
        table = _table(block, room)
        Console(highlight=False, width=max(room or ANY_WIDTH, _needs(block))).print(table, crop=False)
    notes = []
    if known := [f"{c.head} {c.cells[0]}".replace("\n", " ") for c in same if c.cells[0] != "-"]:
        notes.append(f"The same in every row: {', '.join(known)}.")
    if left_out:
        names = ", ".join(c.head.replace("\n", " ") for c in left_out)
        notes.append(f"No room for {names}: {every_column} shows all.")
    if frame.height > rows:
        notes.append(f"The first {rows} of {frame.height:,} rows{every_row and f'; all: `{every_row}`'}.")
    for note in notes:
        # A line with a command is folded by the terminal, so that the command can be copied from it.
        out.print(note, style="dim", markup=False, soft_wrap=room is None or "`" in note)


def _column(values: pl.Series) -> _Column:
    head, write = _heading(values.name)
    cells = ["-" if value is None else printable(write(value)) for value in values]
    words = values.dtype == pl.String
    return _Column(values.name, head.replace(" ", "\n"), cells, words)


def _heading(name: str) -> tuple[str, Callable[[Any], str]]:
    """The heading of a column, and the function that writes its values."""
    if name in COLUMNS:
        return COLUMNS[name]
    metric = of_column(name)
    return (metric.label, metric.text) if metric else (name.replace("_", " "), str)


def _same(column: pl.Series) -> bool:
    return len(column) > 1 and column.n_unique() == 1


def _usual(column: pl.Series) -> bool:
    """Whether a column is only for studies with replicates or constraints, and this study has none."""
    if column.name not in USUAL:
        return False
    usual = USUAL[column.name]
    return bool(column.is_null().all() if usual is None else (column == usual).all())


def _needs(columns: list[_Column]) -> int:
    return sum(c.least for c in columns) + GAP * (len(columns) - 1)


def _fitting(columns: list[_Column], room: int | None) -> tuple[list[_Column], list[_Column]]:
    """The columns that fit, always including the first, and those that do not."""
    shown = list(columns)
    order = [c for name in LEAST for c in columns[1:] if c.name == name]
    order += [c for c in reversed(columns[1:]) if c.name not in LEAST]
    while room is not None and _needs(shown) > room and order:
        shown.remove(order.pop(0))
    return shown, [c for c in columns if c not in shown]


def _blocks(columns: list[_Column], room: int | None) -> list[list[_Column]]:
    """The columns as several tables of that width; each begins with the first column."""
    if room is None or not columns:
        return [columns]
    first, *rest = columns
    blocks = [[first]]
    for column in rest:
        if len(blocks[-1]) > 1 and _needs([*blocks[-1], column]) > room:
            blocks.append([first])
        blocks[-1].append(column)
    return blocks


def _table(columns: list[_Column], room: int | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column in columns:
        table.add_column(
            Text(column.head, style="bold", justify="left" if column.words else "right"),
            justify="left" if column.words else "right",
            no_wrap=not column.words or room is None,
            min_width=column.least if room is not None else column.width,
            overflow="fold",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in cells))
    return table
