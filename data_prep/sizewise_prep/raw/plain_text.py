"""Rows of text as Criteo's logs have it: a line each, separated fields without quotes, columns in the file's order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import Block
from sizewise_prep.raw.explain import bad_header, explained
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.parser import BadRow, Parsed, Parser
from sizewise_prep.raw.reading import Reading, TextRows
from sizewise_prep.raw.values.row_splits import RowSplit


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


class ByKey:
    """Reads text as Criteo's logs have it, hexadecimal tokens and integers alone, whose rows are split by a token.

    Args:
        layout: of the text.
        split: by a column of tokens.
    """

    def __init__(self, layout: Layout, split: RowSplit) -> None:
        self._parser, self._split = Parser(layout), split
        self._column = layout.read_tokens.index(split.column)

    @staticmethod
    def of(layout: Layout, split: RowSplit | None) -> ByKey | None:
        """The reader for a layout; None where there is none."""
        plain = layout.is_plain and set(layout.kinds.values()) <= {"label", "integer", "hex"}
        return ByKey(layout, split) if plain and split and split.column in layout.read_tokens else None

    def rows(self, text: bytes) -> Parsed | None:
        """The rows of some lines; None where one may be bad, or has no key."""
        found = self._parser.clean(text)
        if found is None:
            return None
        keys = found.rows.ids[:, self._column]
        if not keys.all():  # missing, or 0
            return None
        return replace(found, splits=self._split.places(pl.Series(keys)).to_numpy())
