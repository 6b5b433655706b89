"""Rows of text as Criteo's logs have it: a line each, separated fields without quotes, columns in the file's order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block
from sizewise_prep.raw.explain import bad_header, explained
from sizewise_prep.raw.parsing.parser import BadRow, Parsed, Parser
from sizewise_prep.raw.reading import Reading, TextRows


@dataclass(frozen=True)
class _Lines:
    text: bytes
    parser: Parser

    @property
    def lines(self) -> int:
        return self.text.count(b"\n")

    def parsed(self, first: int) -> Iterator[Parsed]:
        return self.parser.parts(self.text, first)


class PlainText(TextRows):
    """The rows of a stretch of a text file (see `RowReader`)."""

    def __init__(self, reading: Reading, time: str | None = None) -> None:
        super().__init__(reading)
        self._parser = Parser(reading.layout, time)
        self.header_lines = int(reading.stretch.start == 0 and reading.layout.header)

    def __iter__(self) -> Iterator[Block]:
        for number, text in enumerate(self._reader):
            yield _Lines(
                self._without_header(text) if self.header_lines and not number else text, self._parser
            )

    def explained(self, row: BadRow) -> str:
        """What is wrong with a row, and what to do."""
        return explained(self._layout, row, self._by_schema)

    def _without_header(self, text: bytes) -> bytes:
        first, _, rest = text.partition(b"\n")
        first = first.removesuffix(b"\r")
        if wrong := self._layout.header_fault(first):
            raise InputError(bad_header(self._raw.path, self._layout, first, wrong, self._by_schema))
        return rest
