"""What reaches a person: streams that bars and redirections leave alone, tables that fit, problems in bounds."""

import contextlib
import io
import sys

import pytest

from sizewise import terminal


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


def test_problems_are_said_in_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_problems(
        [f"problem {number}" for number in range(100_000)], "sizewise results x --problems"
    )
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "problem 0"
    assert lines[-1] == "99,990 more problems; all of them: `sizewise results x --problems`"
    assert len(lines) == 11
