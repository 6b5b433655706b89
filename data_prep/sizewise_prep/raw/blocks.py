"""What every reader of raw files offers: rows in blocks, of a stretch of a file (see `row_readers`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from sizewise_prep.raw.parsing.parser import BadRow, Parsed


class Stretch(NamedTuple):
    """What is read from its beginning to its end: a part of a file, or all of it.

    Attributes:
        start, stop: its bytes in the file.
        piece: number of the first of its pieces in the file.
        pieces: how many it has, each of about `piece_bytes`; None where only reading shows.
    """

    start: int
    stop: int
    piece: int = 0
    pieces: int | None = None


class Block(Protocol):
    """Rows that follow one another, not parsed yet."""

    @property
    def lines(self) -> int:
        """How many lines of text they take; of tables, how many rows there are."""
        ...

    def parsed(self, first: int) -> Iterator[Parsed]:
        """The rows, in order, where `first` is the number of the first line."""
        ...


class RowReader(Protocol):
    """Reads a stretch of a raw file."""

    @property
    def bytes_read(self) -> int:
        """How many of its bytes are read so far."""
        ...

    @property
    def header_lines(self) -> int:
        """Lines in front of the first row."""
        ...

    def __iter__(self) -> Iterator[Block]:
        """Its rows. Raises InputError where they cannot be read."""
        ...

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the stretch's bytes, once all blocks are read."""
        ...

    def lines_before(self) -> int:
        """How many lines, or rows, the file has before the stretch."""
        ...

    def position(self, line: int) -> str:
        """How a message names a line of the file, such as `line 7`."""
        ...

    def explained(self, row: BadRow) -> str:
        """What is wrong with a row, whose number is that in the file, and what to do."""
        ...
