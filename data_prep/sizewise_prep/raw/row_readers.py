"""Raw files as rows: the reader for each format.

    for at in stretches(raw, layout, piece_bytes, block_bytes):    # what can be read independently
        reader = open_rows(raw, layout, at, block_bytes)
        for block in reader:
            for found in block.parsed(first=1): ...                # `Parsed`: good rows, and bad ones

A reader gives a file's rows in blocks of limited size, always cut in the same way, so that reading can be continued
after any block. `plain_text` has Criteo's logs and others like them; `tables` one file for each other format.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sizewise_core.errors import InputError
from sizewise_prep.raw.blocks import RowReader, Stretch
from sizewise_prep.raw.files.sources import RawFile, resolve
from sizewise_prep.raw.layout import SCORES, Layout
from sizewise_prep.raw.reading import Reading
from sizewise_prep.raw.values.row_splits import RowSplit

if TYPE_CHECKING:
    import pyarrow as pa

_IN_ONE = ("arrow", "arrow stream", "torchrec", "dlrm")
"""Formats that one worker reads from start to end."""
_ARRAYS = ("torchrec", "dlrm")
_SPARSE = ("libsvm", "libffm")


def found_as(
    form: str | None, sources: str | Path | Sequence[str | Path], labels: bool = True
) -> list[RawFile]:
    """The raw files that `sources` name.

    Args:
        form: of files whose first bytes do not tell it: NumPy arrays or sparse text; None: it is recognized.
        sources: paths, URIs or patterns, or a single one.
        labels: whether each row needs a label.

    Raises:
        InputError: there are none, or they are not in that format.
    """
    if form is None:
        return resolve(sources)
    if form in _SPARSE:
        from sizewise_prep.raw.tables import sparse_text

        return sparse_text.found(sources, form)
    from sizewise_prep.raw.files import arrays

    return arrays.resolve(sources, form, labels)


def layout_as(raw: RawFile) -> Layout:
    """The columns of a file whose format says what they are. Raises InputError where it holds something else."""
    if raw.format in _SPARSE:
        from sizewise_prep.raw.tables import sparse_text

        return sparse_text.layout_of(raw)
    from sizewise_prep.raw.files import arrays

    return arrays.layout_of(raw)


def stretches(raw: RawFile, layout: Layout, piece_bytes: int, block_bytes: int) -> list[Stretch]:
    """The parts of a file that can be read independently.

    Args:
        raw: the file.
        layout: its columns.
        piece_bytes: about the size of a part.
        block_bytes: text to read at a time; of other formats, about as much.

    Raises:
        InputError: the file's structure cannot be read.
    """
    if raw.format == "parquet":
        from sizewise_prep.raw.tables.parquet import stretches as of_parquet

        return of_parquet(raw, layout, piece_bytes, block_bytes)
    if raw.compressed or raw.format in _IN_ONE or (raw.format == "text" and layout.quotes):
        return [Stretch(0, raw.bytes)]
    starts = range(0, raw.bytes, piece_bytes)
    return [
        Stretch(start, min(start + piece_bytes, raw.bytes), piece, 1) for piece, start in enumerate(starts)
    ]


def open_rows(
    raw: RawFile,
    layout: Layout,
    stretch: Stretch,
    block_bytes: int,
    time: str | None = None,
    by_schema: bool = True,
    split: RowSplit | None = None,
) -> RowReader:
    """The reader of a stretch of a file.

    Args:
        raw: the file.
        layout: its columns.
        stretch: one of its `stretches`.
        block_bytes: text to read at a time; of other formats, about as much.
        time: the column whose times are wanted, of plain text; of others it is the declared one.
        by_schema: whether messages may advise to write a schema file.
        split: the column that says in which split a row is, if one does.

    Raises:
        InputError: the file is not of this layout.
    """
    # Here, because they import Polars, which a process that only has others parse need not.
    layout = split.layout(layout) if split else layout
    reading = Reading(raw, layout, stretch, block_bytes, by_schema, split)
    if (
        raw.format == "text"
        and layout.is_plain
        and not split
        and not (layout.header and _reordered(raw, layout))
    ):
        from sizewise_prep.raw.plain_text import PlainText

        return PlainText(reading, time)
    if raw.format == "text":
        from sizewise_prep.raw.tables.csv import CsvRows

        return CsvRows(reading)
    if raw.format == "jsonl":
        from sizewise_prep.raw.tables.json_lines import JsonRows

        return JsonRows(reading)
    if raw.format == "parquet":
        from sizewise_prep.raw.tables.parquet import ParquetRows

        return ParquetRows(reading)
    if raw.format in _SPARSE:
        from sizewise_prep.raw.tables.sparse_text import SparseRows

        return SparseRows(reading)
    if raw.format in _ARRAYS:
        from sizewise_prep.raw.tables.array_rows import ArrayRows

        return ArrayRows(reading)
    from sizewise_prep.raw.tables.arrow_ipc import ArrowRows

    return ArrowRows(reading)


def for_scoring(raw: RawFile, layout: Layout) -> Layout:
    """The layout of a file that is to be scored: without the label, time, weight, score or skipped columns it lacks.

    Args:
        raw: the file.
        layout: of the rows that the model was trained on.

    Raises:
        InputError: the file's columns cannot be read.
    """
    unused = ("label", "time", "weight", *SCORES, "skip")
    spared = [name for name, kind in layout.kinds.items() if kind in unused]
    if raw.format == "text":
        from sizewise_prep.raw.tables.csv import header_of

        first, names = header_of(raw, layout)
        if not layout.header:
            lacks = first.strip() and len(names) == len(layout.columns) - len(layout.labels)
            return layout.without(layout.labels if lacks else [])
        if len(set(names) & set(layout.columns)) < len(layout.columns) - len(spared):
            return layout  # reading it says what is wrong
    elif raw.format == "jsonl":
        from sizewise_prep.raw.tables.json_lines import first_fields

        names = first_fields(raw).columns
    elif raw.format in _SPARSE:
        from sizewise_prep.raw.tables.sparse_text import names_of

        names = list(names_of(raw))
    else:
        names = _table_schema(raw, layout).names
    absent = [name for name in spared if names and name not in names]
    some = any(name in layout.labels for name in absent)  # of several columns of the label all are needed
    return layout.without([*absent, *(layout.labels if some else [])])


def _reordered(raw: RawFile, layout: Layout) -> bool:
    """Whether a file's first line has the layout's names, but in another order."""
    from sizewise_prep.raw.tables.csv import header_of

    _, names = header_of(raw, layout)
    return names != list(layout.columns) and sorted(names) == sorted(layout.columns)


def check(
    found: list[RawFile], layout: Layout, by_schema: bool = True, split: RowSplit | None = None
) -> None:
    """Check the columns of raw files before any row is read.

    Args:
        found: the raw files.
        layout: the columns that they should have.
        by_schema: whether messages may advise to write a schema file.
        split: the column that rows are split by, if any.

    Raises:
        InputError: a file lacks a column, or has one of another kind.
    """
    if split:
        named = split.column in layout.columns
        layout = split.layout(layout)
        plain = next((raw.path for raw in found if raw.format == "text"), None)
        if plain and not layout.header and not named:
            raise InputError(
                f"split by column {split.column:.40}: name it in a schema file (--schema), as `skip` where it is no "
                "feature"
            )
    lines = [raw for raw in found if raw.format == "jsonl"]
    if lines:
        from sizewise_prep.raw.tables import json_lines

        json_lines.check(lines, layout, by_schema)
    tables = [raw for raw in found if raw.format not in ("text", "jsonl", *_SPARSE)]
    schemas = [_table_schema(raw, layout) for raw in tables]
    names = {name for schema in schemas for name in schema.names}
    for raw, schema in zip(tables, schemas, strict=True):
        from sizewise_prep.raw.tables import arrow_types

        arrow_types.check(raw, schema, layout, by_schema, names)


def _table_schema(raw: RawFile, layout: Layout) -> pa.Schema:
    """The columns of a file that is a table; of those that folders' names give, the ones that the layout names."""
    from sizewise_prep.raw.tables import array_rows, arrow_ipc, parquet

    if raw.format in _ARRAYS:
        return array_rows.schema_of(raw)
    return parquet.schema_of(raw, layout) if raw.format == "parquet" else arrow_ipc.schema_of(raw)
