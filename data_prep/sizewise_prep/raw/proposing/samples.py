"""Some first rows of a log of any format, and what a schema file must say of how it is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from sizewise_core.errors import InputError
from sizewise_prep.raw.columns.usual_types import checked, empty_batch, frame, is_readable, usual_batch
from sizewise_prep.raw.explain import NO_NEWLINES
from sizewise_prep.raw.files.formats import text_format
from sizewise_prep.raw.files.reader import Reader
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.proposing.text_form import TextForm, text_form
from sizewise_prep.raw.tables.arrow_ipc import first_batches
from sizewise_prep.raw.tables.arrow_types import reason_of
from sizewise_prep.raw.tables.json_lines import first_fields, no_objects
from sizewise_prep.raw.tables.parquet import batches_of, opened

ROWS = 50_000
_TEXT_BYTES = 4 << 20
_FEW_BAD = 0.01  # of lines that are not UTF-8, and are set aside as bad rows
_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class Sample:
    """First rows of a file.

    Attributes:
        rows: a column each; those of text and JSON as text, or as lists of texts.
        form: of text.
        unread: columns that hold records, or lists of lists, which no kind reads.
    """

    rows: pl.DataFrame
    form: TextForm | None = None
    unread: list[str] = field(default_factory=list)


def sample(raw: RawFile) -> Sample:
    """Up to `ROWS` first rows. Raises InputError where they cannot be read."""
    if raw.format == "text":
        return _of_text(raw)
    if raw.format == "jsonl":
        rows = first_fields(raw)
        if not rows.width:
            raise InputError(f"{raw.path}: {no_objects(raw)}")
        unread = _unread(rows)
        kinds = {
            name: pl.List(pl.String) if dtype.is_nested() else pl.String
            for name, dtype in rows.schema.items()
        }
        kept = rows.drop(unread)
        return Sample(kept.cast({name: kinds[name] for name in kept.columns}), unread=unread)
    if raw.format == "parquet":
        with opened(raw) as file:
            schema, batches = file.schema_arrow, []
            for batch in batches_of(file, _BATCH_ROWS):
                batches.append(checked(batch))
                if sum(batch.num_rows for batch in batches) >= ROWS:
                    break
    else:
        schema, batches = first_batches(raw, ROWS)
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise InputError(f"{raw.path:.150}: has two columns {twice[0][:40]!r}: rename one")
    unread = [field.name for field in schema if not is_readable(field.type)]
    fields = pa.schema([field for field in schema if field.name not in unread])
    some = [usual_batch(batch.select(fields.names)) for batch in batches if batch.num_rows]
    joined = pa.Table.from_batches(some).combine_chunks().to_batches()[0] if some else empty_batch(fields)
    return Sample(frame(joined), unread=unread)


def _unread(rows: pl.DataFrame) -> list[str]:
    """The columns of records, or of lists of anything but single values."""
    return [
        name
        for name, dtype in rows.schema.items()
        if dtype.is_nested() and (not isinstance(dtype, pl.List | pl.Array) or dtype.inner.is_nested())
    ]


def _of_text(raw: RawFile) -> Sample:
    block = next(iter(Reader(raw, block_bytes=_TEXT_BYTES)), b"")
    if what := text_format(block[:512]):
        raise InputError(f"{raw.path}: {what}")
    first, _, _ = block.partition(b"\n")
    if first.rstrip(b"\r").count(b"\r") > 1:
        raise InputError(f"{raw.path}, line 1: {NO_NEWLINES}")
    if (bad := _not_utf8(block)) is not None:
        raise InputError(
            f"{raw.path}, line {bad}: is not text in UTF-8: convert the file, such as with `iconv -f LATIN1 -t UTF-8`"
        )
    form = text_form(block)
    if form is None:
        raise InputError(
            f"{raw.path}: no separator (tab , ; | ^ ~ : or a space) gives its lines as many fields each; "
            "is it a log with one row a line?"
        )
    _check_names(raw, form, first)
    text = block.decode("utf-8", "replace").encode()
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(text),
            pa_csv.ReadOptions(
                use_threads=False,
                block_size=len(text) + 1,
                column_names=form.names,
                skip_rows=int(form.header),
            ),
            pa_csv.ParseOptions(
                delimiter=form.separator,
                quote_char='"' if form.quotes else False,
                newlines_in_values=form.quotes,
                invalid_row_handler=lambda _: "skip",
            ),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(form.names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{raw.path}: its first rows cannot be read ({reason_of(error)}); fix them"
        ) from None
    rows = pl.from_arrow(table.slice(0, ROWS))
    assert isinstance(rows, pl.DataFrame)
    rows.columns = form.names  # Polars has other names for empty ones
    return Sample(rows, form)


def _not_utf8(block: bytes) -> int | None:
    """The first line that is not UTF-8, where it is that of the names, or many are: a few are bad rows."""
    try:
        block.decode()
        return None
    except UnicodeDecodeError:
        lines = block.split(b"\n")[:-1]
    bad = []
    for number, line in enumerate(lines, 1):
        try:
            line.decode()
        except UnicodeDecodeError:
            bad.append(number)
    return bad[0] if bad and (bad[0] == 1 or len(bad) > _FEW_BAD * len(lines)) else None


def _check_names(raw: RawFile, form: TextForm, first: bytes) -> None:
    """Refuse a first line that can be neither the names of the columns nor a row."""
    separator, line = form.separator, first.decode("utf-8", "replace").rstrip("\r")
    if form.doubled:
        both = separator * 2
        raise InputError(
            f"{raw.path}: fields are separated by {both!r}, and a separator is one character: convert the file, such "
            f"as with `sed 's/{both}/\\t/g'`"
        )
    if form.width_of_first != len(form.names):
        raise InputError(
            f"{raw.path}, line 1: has {form.width_of_first} fields ({line[:40]!r}), and the others have "
            f"{len(form.names)}: remove it"
        )
    if form.twice is not None:
        raise InputError(f"{raw.path}, line 1: names two columns {form.twice[:40]!r}: rename one")
