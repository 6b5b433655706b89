"""How far a preparation is, for the caller to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = Literal["read", "check", "fit", "count", "number", "shards", "distinct"]


@dataclass(frozen=True)
class FileProgress:
    """How far one raw file is read, in bytes of the file itself."""

    name: str
    bytes: int
    bytes_total: int


@dataclass(frozen=True)
class Progress:
    """How far a preparation is.

    Attributes:
        step: "read" raw files; "check" what is there; "fit" columns to the training rows;
            "count" tokens; "number" them; write "shards"; "distinct".
        done, total: bytes of the raw files in the first step, jobs in the others.
        rows: rows read so far, good and bad.
        seconds: since this run began.
        bytes_before, rows_before: what earlier runs had read.
        files: each raw file, in the first step.
    """

    step: Step
    done: int
    total: int
    rows: int
    seconds: float
    bytes_before: int
    rows_before: int
    files: tuple[FileProgress, ...]
