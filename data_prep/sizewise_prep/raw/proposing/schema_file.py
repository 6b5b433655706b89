"""The schema file that a sample leads to, as YAML with comments."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from sizewise_core.errors import InputError
from sizewise_prep.raw.files.sources import RawFile, resolve
from sizewise_prep.raw.layout import CRITEO, TOKEN_KINDS
from sizewise_prep.raw.proposing.kinds import Column, judged
from sizewise_prep.raw.proposing.samples import Sample, sample
from sizewise_prep.raw.tables.parquet import partitions

_PLAIN = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"}
_FILES = 3  # that are looked at: the first ones


@dataclass(frozen=True)
class Proposal:
    """A proposed schema file.

    Attributes:
        text: of the file; empty where none is needed, because the log is in Criteo's layout.
        columns: what each seems to be.
        rows: how many were looked at.
        unsure: sentences about what its reader should decide.
    """

    text: str
    columns: list[Column]
    rows: int
    unsure: list[str]


def propose(sources: Sequence[str | Path]) -> Proposal:
    """Look at the first rows of the first of these files.

    Raises InputError when they cannot be read, or the files have different columns.
    """
    found = resolve(sources)
    samples = [sample(raw) for raw in found[:_FILES]]
    with_rows = next((one for one in samples if one.rows.height), None)
    if with_rows is None:
        raise InputError(f"{found[0].path}: has no rows to look at; give a file that has some")
    first = with_rows
    if all(raw.format == "jsonl" for raw in found[:_FILES]):
        first = _with_columns(first, samples)
    else:
        for raw, other in zip(found[1:], samples[1:], strict=False):
            _same_columns(found[0], samples[0], raw, other)
    of_folders = _of_folders(found, first)
    again = [row % first.rows.height for row in range(of_folders.height)] if of_folders.width else None
    columns = [
        _as_folder(column) if column.name in of_folders.columns else column
        for column in judged(
            pl.concat([first.rows if again is None else first.rows[again], of_folders], how="horizontal")
        )
    ]
    if _is_criteo(first, columns):
        return Proposal("", columns, first.rows.height, [])
    unsure = [f"{column.name}: {column.unsure}" for column in columns if column.unsure]
    if first.form:
        unsure += first.form.unsure
    if not any(column.kind.startswith("label") for column in columns):
        unsure.insert(0, "which column is the label: none holds two values such as 0 and 1, or ratings")
    if not any(column.kind in TOKEN_KINDS or "tokens" in column.kind for column in columns):
        unsure.insert(0, "which columns are tokens: none seems to be one, and a model needs one")
    return Proposal(_written(found[0], first, columns, unsure), columns, first.rows.height, unsure)


def _of_folders(found: Sequence[RawFile], first: Sample) -> pl.DataFrame:
    """The columns that the names of folders give, such as `day=2024-05-01`: the values of all files in turn."""
    named = [partitions(raw.path) for raw in found if raw.format == "parquet"]
    names = [name for name in (named[0] if named else {}) if name not in [*first.rows.columns, *first.unread]]
    rows = range(max(first.rows.height, len(named)))
    return pl.DataFrame(
        {name: [named[row % len(named)].get(name) for row in rows] for name in names},
        schema=dict.fromkeys(names, pl.String),
    )


def _as_folder(column: Column) -> Column:
    """A column of folders' names: the label, the time, or skipped unless its owner wants it."""
    why = "the names of folders"
    if column.kind.startswith("label") or column.kind == "time":
        return replace(column, why=why)
    unsure = "token, to use it as a feature" if column.values > 1 else ""
    return replace(column, kind="skip", why=why, unsure=unsure)


def _with_columns(first: Sample, samples: Sequence[Sample]) -> Sample:
    """Rows of JSON, with the fields that are only in other files: programs leave out those without a value."""
    rows, unread = first.rows, list(first.unread)
    for other in samples:
        unread += [name for name in other.unread if name not in unread]
        for values in other.rows.get_columns():
            empty = values.name in rows.columns and not rows[values.name].count()
            if values.name not in rows.columns or (empty and values.count()):
                places = [place if place < len(values) else None for place in range(rows.height)]
                rows = rows.with_columns(values.gather(pl.Series(places, dtype=pl.UInt32)))
    return replace(first, rows=rows.drop([name for name in unread if name in rows.columns]), unread=unread)


def _same_columns(first_file: RawFile, first: Sample, file: RawFile, other: Sample) -> None:
    if sorted(other.rows.columns) != sorted(first.rows.columns):
        differ = set(other.rows.columns) ^ set(first.rows.columns)
        raise InputError(
            f"{file.path}: has other columns than {first_file.path} ({min(differ)!r:.60} is in one only); "
            "give files of one table"
        )


def _is_criteo(found: Sample, columns: list[Column]) -> bool:
    """Whether a file is in the layout that needs no schema."""
    form = found.form
    if form is None or form.header or form.separator != "\t" or len(columns) != len(CRITEO.columns):
        return False
    kinds = [column.kind for column in columns]
    tokens = sum(kind in ("hex", "skip", "token") for kind in kinds[14:])
    return kinds[0] == "label" and kinds.count("hex") >= 10 and tokens == len(CRITEO.tokens)


def _written(raw: RawFile, found: Sample, columns: list[Column], unsure: list[str]) -> str:
    lines = [
        f"# Proposed for {raw.name} from its first {found.rows.height:,} rows. Look it over, above all what is marked",
        "# UNSURE, and use it with `sizewise prep ... --schema THIS_FILE`. Kinds: label; integer and number (dense",
        "# values; {kind: number, transform: standardize} keeps negative ones); bucket (a number as a category);",
        "# token, string, hex and decimal (categories); tokens (lists of them); weight (how much the row counts);",
        "# score and probability (another model's log-odds or probability, to learn from); time (of which only the",
        "# order counts); skip.",
    ]
    if unsure and not any(column.kind.startswith("label") for column in columns):
        lines.append(f"# UNSURE: {unsure[0]}.")
    if found.form:
        lines += [f"separator: {_quoted(found.form.separator)}", f"header: {str(found.form.header).lower()}"]
        lines += [f"# UNSURE: {one}." for one in found.form.unsure]
        if found.form.quotes:
            lines.append("quotes: true  # fields may stand in double quotes")
    if nulls := sorted({null for column in columns for null in column.nulls}):
        lines.append(
            f"nulls: [{', '.join(map(_quoted, ['', *nulls]))}]  # texts that stand for a missing value"
        )
    lines.append("columns:")
    keys = [f"  {_key(column.name)}: {column.kind or 'skip'}" for column in columns]
    keys += [f"  {_key(name)}: skip" for name in found.unread]
    width = min(40, max(map(len, keys), default=0))
    comments = [_comment(column) for column in columns] + [
        "records, or lists of lists, which are not read"
    ] * len(found.unread)
    lines += [f"{key:<{width}}  # {comment}" for key, comment in zip(keys, comments, strict=True)]
    tokens = sorted((one for one in columns if one.kind in TOKEN_KINDS), key=lambda one: -one.values)[:2]
    if len(tokens) == 2:
        first, second = (column.name for column in tokens)
        lines += [
            "# Features of combinations of categories, if you want any:",
            f"# crosses: {{{_key(f'{first}_x_{second}')}: [{_key(first)}, {_key(second)}]}}",
        ]
    return "\n".join(lines) + "\n"


def _comment(column: Column) -> str:
    values = f"{column.values:,} {'value' if column.values == 1 else 'values'}"
    missing = f", {column.missing:.1%} missing" if column.missing else ""
    unsure = f"; UNSURE: {column.unsure}" if column.unsure else ""
    return "".join(c if c.isprintable() else "?" for c in f"{column.why}; {values}{missing}{unsure}")


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name.lower() not in _YAML_WORDS else _quoted(name)


def _quoted(text: str) -> str:
    """In double quotes, as YAML reads them; JSON's are the same."""
    return json.dumps(text)
