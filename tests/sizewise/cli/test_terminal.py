"""What reaches a person: streams that bars and redirections leave alone, tables that fit, problems in bounds."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

from pseudo_terminal import in_terminal
from sizewise.cli.output import terminal
from sizewise.cli.output.running import running
from sizewise.store.trials.ledger import Record
from sizewise_prep.pipeline.steps.progress import FileProgress, Progress


class _OnTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("bar", [terminal.rows_written(5, False), terminal.bytes_read("score", False)])
def test_a_bar_leaves_standard_output_alone_in_whatever_order_they_end(
    bar: contextlib.AbstractContextManager[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err, kept = _OnTerminal(), _OnTerminal(), _OnTerminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    redirected = contextlib.redirect_stdout(kept)
    redirected.__enter__()
    bar.__enter__()
    print("while both last")
    redirected.__exit__(None, None, None)
    bar.__exit__(None, None, None)
    print("after both")
    assert (out.getvalue(), kept.getvalue()) == ("after both\n", "while both last\n")
    assert sys.stderr is err


@pytest.mark.parametrize("columns", [80, 120])
def test_bars_of_large_logs_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    err = _OnTerminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    # The console was made when the module was imported, with the width of that time.
    monkeypatch.setattr(terminal.err, "_width", columns)
    files = tuple(
        FileProgress(f"s3://bucket/of/many/logs/day_{number}.tsv.gz", 10**11, 3 * 10**11)
        for number in range(24)
    )
    rows = 4_195_197_692
    for now in (
        Progress("read", 10**12, 4 * 10**12, rows, 15_000.0, 0, 0, files),
        Progress("distinct", 999, 1_000, rows, 90_000.0, 0, 0, ()),
    ):
        with terminal.preparing(False) as show:
            show(now)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.getvalue())
    assert "1 TB of 4 TB 4.2 G rows, 279,680/s, 12 h 30 min left" in re.sub(" +", " ", drawn)
    assert "999 of 1,000" in drawn
    assert "…" not in drawn
    assert max(map(len, re.split(r"[\r\n]+", drawn))) <= columns


def test_the_bar_of_a_large_study_fits_eighty_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    err = _OnTerminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal.err, "_width", 80)
    monkeypatch.setattr(terminal.err, "is_interactive", True)
    config = {
        "method": "robe",
        "memory_budget": 2_000,
        "learning_rate": 0.01,
        "epochs": 12,
        "evaluate_every": 0.25,
    }
    with running("none", tmp_path, 12_000, False, done=1_230) as shown:
        shown.looked(0.74641, 100_000.0)
        for number in range(10_000, 10_012):
            record = Record(
                trial_id=number,
                configuration=0,
                state="running",
                key="k",
                params={},
                config=config,
                started=0.0,
            )
            shown.event("started", record, None)
            shown.event("began", record, None)
            if number % 2:
                shown.event("evaluated", record, {"epoch": 11.75, "auc": 0.7123})
        shown.event("failed", record, None)
        shown.bars.refresh()
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.getvalue())
    assert re.search(r"trials .*1,231 of 12,000, best AUC 0\.7464, 1 d 3 h left", drawn)
    assert re.search(r"trial 10000 .*training, evaluates every 0\.25 epochs", drawn)
    assert re.search(r"trial 10001 .*epoch 11\.75 of 12, AUC 0\.7123", drawn)
    assert "…" not in drawn
    assert max(map(len, re.split(r"[\r\n]+", drawn))) <= 80


LEAVE = """
import sys, threading, types
from pathlib import Path
from sizewise.cli.output.running import running
from sizewise.engine.driving import leaving

driver = types.SimpleNamespace(close=lambda: None, stops=lambda why: None)
with running("mine", Path("nowhere"), 12, False) as shown:
    shown.waits("starting Ray")
    shown.bars.refresh()
    threading.Thread(target=leaving.give_up, args=(driver, Path("runs/mine"), "its cluster is gone")).start()
    threading.Event().wait()
"""


def test_what_ends_a_study_at_once_is_the_last_that_is_seen() -> None:
    """No bar is left below it."""
    shown = in_terminal(program=("-c", LEAVE), columns=120, seconds=60)
    assert shown.code == 1
    assert "starting Ray" in shown.raw
    lines = [line for line in shown.lines if line]
    assert lines[0].startswith("sizewise: mine is paused: its cluster is gone: nothing is lost")
    assert lines[-1].endswith("`sizewise resume mine --runs runs`")


def test_problems_are_said_in_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_problems(
        [f"problem {number}" for number in range(100_000)], "sizewise results x --problems"
    )
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "problem 0"
    assert lines[-1] == "99,990 more problems; all of them: `sizewise results x --problems`"
    assert len(lines) == 11
