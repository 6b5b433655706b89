"""Blocks of text to arrays by Polars: of layouts with other columns than plain numbers, and of unusual numbers.

`lines` takes the hexadecimal tokens out of the block as a whole, and Polars parses the rest of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from sizewise_prep import hashing, lines
from sizewise_prep.layout import Layout
from sizewise_prep.rows import Rows

_BOM = b"\xef\xbb\xbf"
_LIKE_COMPRESSED = (b"x", b"\x1f", b"(")  # zlib, gzip, Zstandard


class ByPolars:
    """Parses blocks of a layout that have no fault."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        (self._label,) = (name for name, kind in layout.columns.items() if kind == "label")
        self._fields = lines.fields_of(layout, ["hex"])
        # Free text may hold any byte: then numbers are read as text first, and looked at column by column.
        self._free = not layout.is_numbers
        # What Polars would quietly skip or take for a part of a number.
        self._suspicious = (b"\0", b"\r") if self._free else (b"\r", b"+", b" ")
        numbers = {"label": pl.UInt8(), "integer": pl.Int64()}
        self._schema = {
            name: pl.String() if self._free else numbers[kind]
            for name, kind in layout.columns.items()
            if kind != "hex"
        }

    def parse(self, block: bytes) -> Rows | None:
        """All rows of a block, or None when one of them may break the rule or an ending is not a bare LF.

        Polars alone would let some faults pass (short rows, "+5", " 5", a carriage return), hence the checks
        around it: fields are counted and tokens checked where the block is taken apart; some bytes not at all; labels.
        """
        found = lines.split(block, self._fields, 0, len(self.layout.tokens), self.layout.separator.encode())
        if found is None:
            return None
        rest, ids = found.rest, found.ids
        if not rest:
            return Rows(np.empty(0, np.uint8), np.empty((0, len(self.layout.dense)), np.float32), ids)
        if any(byte in rest for byte in self._suspicious) or rest.startswith(_BOM):
            return None
        # Polars would take what begins like a compressed file ("x^" does) for one, so something comes before it.
        disguised = rest.startswith(_LIKE_COMPRESSED)
        try:
            frame = pl.read_csv(
                b"\n" + rest if disguised else rest,
                separator=self.layout.separator,
                has_header=False,
                skip_lines=int(disguised),
                schema=self._schema,
                quote_char=None,
            )
        except (pl.exceptions.ComputeError, pl.exceptions.SchemaError):
            return None
        if self._free:
            numbers = self._numbers(frame)
            if numbers is None:
                return None
            frame = numbers
        labels = frame[self._label]
        if frame.height != len(ids) or labels.null_count() or int(labels.max() or 0) > 1:  # type: ignore[arg-type]
            return None
        if not self._tokens(frame, ids):
            return None
        dense = frame.select(pl.col(self.layout.dense).cast(pl.Float32).fill_null(float("nan")))
        return Rows(labels.to_numpy(), dense.to_numpy(order="c"), ids)

    def _numbers(self, frame: pl.DataFrame) -> pl.DataFrame | None:
        """Labels and integers that were read as text, as numbers; None when one of them is none."""
        rules = {self._label: r"\A0*[01]\z"} | dict.fromkeys(self.layout.dense, r"\A-?[0-9]+\z")
        good = pl.all_horizontal(pl.col(name).str.contains(rule).all() for name, rule in rules.items())
        if not frame.select(good).item():
            return None
        numbers = frame.with_columns(
            pl.col(self._label).cast(pl.UInt8), pl.col(self.layout.dense).cast(pl.Int64, strict=False)
        )
        return numbers if numbers.null_count().equals(frame.null_count()) else None

    def _tokens(self, frame: pl.DataFrame, ids: npt.NDArray[np.uint32]) -> bool:
        """Write the tokens that are not hexadecimal as 32-bit numbers; False when one of them is no token."""
        for place, name in enumerate(self.layout.tokens):
            kind = self.layout.columns[name]
            if kind == "hex":
                continue
            texts = frame[name]
            if kind == "string":
                words = hashing.tokens(texts)
            else:
                words = texts.str.to_integer(base=10, dtype=pl.UInt32, strict=False)
                if words.null_count() != texts.null_count() or texts.str.contains(r"[^0-9]").any():
                    return False
            ids[:, place] = words.fill_null(0).to_numpy()
        return True
