"""A command in a pseudo-terminal, and what a person then sees of it.

shown = in_terminal("results", "mine", "--runs", runs, columns=80)
shown.code, shown.lines      # exit code; the lines on the screen and above it, without colours
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import NamedTuple

_CONTROL = re.compile(r"\x1b\[(?P<numbers>[0-9;?]*)(?P<what>[A-Za-z])|\x1b\][^\x07]*\x07|\x1b[=>()].?")


class Shown(NamedTuple):
    """What a command left on the terminal."""

    code: int
    lines: list[str]
    raw: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def in_terminal(
    *arguments: object,
    columns: int = 80,
    rows: int = 24,
    seconds: float = 400,
    environment: dict[str, str] | None = None,
    program: tuple[str, ...] = ("-m", "sizewise.cli"),
) -> Shown:
    """Run `sizewise`, or another Python `program`, with all three streams on a terminal of that size."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**inherited, "TERM": "xterm-256color", "RAY_ADDRESS": "local", **(environment or {})},
    )
    os.close(theirs)
    read, end = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux says that the last writer has gone
                break
            if not part:
                break
            read += part
        code = process.wait(max(end - time.monotonic(), 1))
    finally:
        with contextlib.suppress(
            ProcessLookupError
        ):  # where it ended by itself, with all that it had started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)
    raw = read.decode(errors="replace")
    return Shown(code, screen(raw), raw)


def screen(raw: str) -> list[str]:
    """The lines that remain once a terminal has acted on the control sequences that move up and erase."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(raw):
        if control := _CONTROL.match(raw, at):
            at = control.end()
            count = int(re.sub(r"\D.*", "", control["numbers"] or "") or 1)
            if control["what"] == "A":
                row = max(row - count, 0)
            elif control["what"] == "K":
                lines[row] = "" if control["numbers"] == "2" else lines[row][:column]
            continue
        letter = raw[at]
        at += 1
        if letter == "\r":
            column = 0
        elif letter == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif letter >= " ":
            line = lines[row].ljust(column)
            lines[row] = line[:column] + letter + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
