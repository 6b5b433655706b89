"""Tables on terminals of any width: no number is cut, and what is not shown is named."""

import io
import itertools
import re
import sys
from pathlib import Path

import polars as pl
import pytest

from sizewise import results
from sizewise.cli.commands.answers import trial_columns
from sizewise.cli.output.tables import print_front, print_table
from study_folder import StudyWriter

NUMBERS = pl.DataFrame(
    {
        "trial_id": [0, 1, 12_345],
        "state": ["finished", "finished", "finished"],
        "auc": [0.7123, 0.69876, 0.65],
        "embedding_bytes": [2_048, 19_900_000, 130_000_000_000],
        "compression_ratio": [10_000.0, 52.13, 1.0],
        "model_bytes": [60_300, 98_300, 131_000_000_000],
        "iteration": [156, 999_999, 31_300_000],
        "epoch": [0.5, 1.25, 3.0],
        "method": ["robe", "robe", "quotient remainder with a long name of many words"],
        "learning_rate": [0.0327, 0.0614, 1.23e-05],
        "cpu_seconds": [3_725.0, 61.0, 7.0],
        "money": [None, None, None],
    }
)
WRITTEN = {
    "trial_id": ["0", "1", "12345"],
    "auc": ["0.7123", "0.6988", "0.6500"],
    "embedding_bytes": ["2.05 kB", "19.9 MB", "130 GB"],
    "compression_ratio": ["10,000x", "52.1x", "1x"],
    "iteration": ["156", "999,999", "31.3 M"],
    "epoch": ["0.50", "1.25", "3.00"],
    "learning_rate": ["0.0327", "0.0614", "1.23e-05"],
    "cpu_seconds": ["1 h 2 min", "1 min 1 s", "7 s"],
}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch):
    def call(width: int | None, *arguments, show=print_table, **keywords) -> list[str]:
        stream = io.StringIO() if width is None else _Terminal()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            patched.setenv("COLUMNS", str(width or 80))
            patched.setenv("TERM", "xterm")
            show(*arguments, **keywords)
        return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()

    return call


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_numbers_are_whole_and_what_there_is_no_room_for_is_named(printed, width: int) -> None:
    lines = printed(width, NUMBERS, NUMBERS.columns, "trials of x")
    text = " ".join("\n".join(lines).split())
    table = [line for line in lines if re.match(r" *\d+  ", line)]
    assert len(table) >= 3
    assert all(len(line) <= width for line in lines)
    assert "…" not in text
    for column, cells in WRITTEN.items():
        shown = [
            any(re.search(rf"(^|  ){re.escape(cell)} *(  |$)", line) for line in table) for cell in cells
        ]
        assert all(shown) or not any(shown), column
    assert ("No room for" in text) == (width < 120)
    assert width == 20 or "The same in every row: state finished" in text


@pytest.mark.parametrize("width", [40, 80, None])
def test_wide_shows_every_column_and_row_in_tables_that_fit(printed, width: int | None) -> None:
    lines = printed(width, NUMBERS, NUMBERS.columns, "trials of x", wide=True)
    assert width is None or all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for cell in (*itertools.chain(*WRITTEN.values()), "finished"):
        assert re.search(rf"(^|  ){re.escape(cell)} *(  |$)", text, re.MULTILINE), cell
    assert "shows all" not in text
    assert width is not None or sum(line.startswith(" ") for line in lines) < 6, "a pipe gets one table"


def test_rows_are_bounded_and_the_rest_is_said(printed) -> None:
    frame = pl.DataFrame({"trial_id": range(99_998), "auc": [0.5] * 99_998})
    lines = printed(None, frame, frame.columns, "many", every_row="sizewise results x --format csv")
    assert len(lines) < 60
    assert lines[-1] == "The first 50 of 99,998 rows; all: `sizewise results x --format csv`."


def test_the_front_in_short_is_a_row_a_trial_the_best_first(printed, tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "many", trials=20)
    for trial in range(20):
        writer.trial(trial, memory_budget=1_000 * 2**trial, evaluations=3)
    study = results.load(tmp_path, "many")
    lines = printed(80, study, "sizewise results many --table front", show=print_front)
    rows = [line.split()[:2] for line in lines if re.match(r" *\d+  ", line)]
    assert len(rows) == 15
    assert len({trial for trial, _ in rows}) == 15
    assert [auc for _, auc in rows] == sorted((auc for _, auc in rows), reverse=True)
    assert rows[0][1] == f"{study.front['auc'].max():.4f}"
    points = f"{study.front.height} points of {study.front['trial_id'].n_unique()} trials"
    assert lines[-1].startswith(f"The best 15 of {points}; all: `sizewise results many --table front`")


def test_what_steers_a_terminal_is_shown_as_text(printed, tmp_path: Path) -> None:
    writer = StudyWriter(tmp_path, "evil", trials=1)
    writer.trial(0)
    writer.ledger(0, config={"method": "\x1b[2J\x1b]0;owned\x07robe", "memory_budget": 1})
    raw = printed(200, results.load(tmp_path, "evil").trials, trial_columns(), "evil")
    assert "\\x1b[2J\\x1b]0;owned\\x07robe" in "\n".join(raw)
