r"""Lists that are written as text in brackets, as programs leave them in the cells of a table.

bracketed(pl.Series(["[1, 2]", "['a', 'b|c']", "[1 2]", "(x, y)", "[]", "a, b"]))
# [["1", "2"], ["a", "b|c"], ["1", "2"], ["x", "y"], [], null]

That is what pandas writes to CSV of lists, tuples and arrays, what JSON has, and what Hive and Spark make of arrays.
"""

from __future__ import annotations

import ast
import json

import numpy as np
import polars as pl
import pyarrow as pa

_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_BARE = r"""[^,\[\]()"'\s](?:[^,\[\]()"']*[^,\[\]()"'\s])?"""
_ITEM = rf"(?:{_QUOTED}|{_BARE})"
_LIST = rf"(?s)\A\s*[\[(]\s*(?:{_ITEM}\s*(?:,\s*{_ITEM}\s*|(?:{_QUOTED})\s*)*,?)?\s*[\])]\s*\z"
_NUMBERS = r"\A\s*\[\s*-?[0-9][0-9.eE+-]*(\s+-?[0-9][0-9.eE+-]*)+\s*\]\s*\z"
"""Numbers with nothing but blanks between them: how NumPy writes arrays."""
_MISSING = ["None", "null", "nan", "NaN", "<NA>"]
_TRUTH = {"True": "true", "False": "false"}


def bracketed(texts: pl.Series) -> pl.Series:
    """Texts in brackets as lists of texts, null where a text is none; missing values in a list are null.

    Args:
        texts: strings, or null.
    """
    inner = texts.str.replace_all(r"\s+", " ")
    arrays = inner.str.contains(_NUMBERS).fill_null(False)
    if arrays.any():
        apart = inner.str.strip_chars(" ").str.replace(r"\[ ", "[").str.replace(r" \]", "]")
        texts = apart.str.replace_all(" ", ",", literal=True).zip_with(arrays, texts)
    good = texts.str.contains(_LIST).fill_null(False)
    texts = texts.set(~good, None)
    items = texts.str.strip_chars(" \t\r\n").str.slice(1).str.extract_all(_ITEM)
    lengths = items.list.len().fill_null(0)
    flat = _values(items.filter(lengths > 0).explode())
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy(), dtype=np.int64)])
    lists = pa.LargeListArray.from_arrays(offsets, flat.to_arrow(), mask=(~good).to_arrow())
    return pl.Series(texts.name, lists, pl.List(pl.String))


def _values(items: pl.Series) -> pl.Series:
    """What items stand for: without their quotes, null where one is missing."""
    quoted = items.str.contains(r"""\A["']""").fill_null(False)
    bare = items.replace(_TRUTH).set(items.is_in(_MISSING), None)
    taken = items.str.slice(1, items.str.len_chars() - 2)
    escaped = quoted & items.str.contains("\\", literal=True).fill_null(False)
    if escaped.any():
        known = {text: _unescaped(text) for text in items.filter(escaped).unique()}
        taken = items.replace(known).zip_with(escaped, taken)
    return taken.zip_with(quoted, bare)


def _unescaped(text: str) -> str:
    """A quoted text as the language that wrote it has it, JSON or Python; as it stands where neither has."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
            if isinstance(value, str) and value.encode():  # half a surrogate pair is no text
                return value
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text[1:-1]
