"""What is to be read of a raw file, and what the readers of all formats of text do alike.

reading = Reading(raw, layout, stretch, block_bytes)
for block in CsvRows(reading): ...         # see `row_readers`, which knows the reader of each format
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sizewise_prep.raw.blocks import Stretch
from sizewise_prep.raw.files.reader import Reader
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.values.row_splits import RowSplit


@dataclass(frozen=True)
class Reading:
    """A stretch of a file to be read.

    Attributes:
        raw: the file.
        layout: its columns.
        stretch: of the file.
        block_bytes: text to read at a time; of other formats, about as much.
        by_schema: whether messages may advise to write a schema file.
        split: the column that says in which split a row is, if one does.
    """

    raw: RawFile
    layout: Layout
    stretch: Stretch
    block_bytes: int
    by_schema: bool = True
    split: RowSplit | None = None


class TextRows:
    """A stretch of a text file (see `RowReader`): how far it is read, its digest, its lines.

    Args:
        reading: what is to be read.
        reader: gives its text, cut between rows.
    """

    header_lines = 0

    def __init__(self, reading: Reading, reader: Callable[..., Reader] = Reader) -> None:
        self._raw, self._layout, self._by_schema = reading.raw, reading.layout, reading.by_schema
        self._reader = reader(reading.raw, reading.stretch.start, reading.stretch.stop, reading.block_bytes)

    @property
    def bytes_read(self) -> int:
        """Bytes that are read so far."""
        return self._reader.bytes_read

    @property
    def sha256(self) -> str:
        """Of the stretch's bytes."""
        return self._reader.sha256

    def lines_before(self) -> int:
        """Lines before the stretch."""
        return self._reader.lines_before()

    def position(self, line: int) -> str:
        """The line in which the row begins."""
        return f"line {line}"
