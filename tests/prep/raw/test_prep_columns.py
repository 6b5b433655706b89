"""Columns as they lie in memory become the same rows as by the general converter, which looks at every value."""

import csv
import hashlib
import io
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sizewise_prep.raw.columns.fields import split
from sizewise_prep.raw.columns.usual_types import frame, usual
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.options import ListForm
from sizewise_prep.raw.parsing.converter import Converted, Converter
from sizewise_prep.raw.parsing.records import records
from sizewise_prep.raw.plain_text import ByKey
from sizewise_prep.raw.tables.csv import _Text
from sizewise_prep.raw.values import hashing
from sizewise_prep.raw.values.row_splits import RowSplit

NULLS = ("NULL", "-7")
KINDS = {
    "label": "label",
    "integer": "integer",
    "number": "number",
    "hex": "hex",
    "decimal": "decimal",
    "string": "string",
    "token": "token",
    "time": "time",
    "list": "tokens",
}
PLAIN = {
    "label": ["0", "1", "01"],
    "integer": ["", "0", "-12", "16777217", "123456789012345678", "007", "-7", "-0"],
    "number": ["", "0", "-1.5", "3.25", "123456.789", "0.1", ".5", "5.", "-0", "000000000000001"],
    "hex": ["", "0", "deadBEEF", "7", "00ff", "NULL"],
    "decimal": ["", "0", "4294967295", "0000000017", "123456789"],
    "string": [
        "",
        "a",
        "x" * 7,
        "x" * 8,
        "x" * 15,
        "x" * 16,
        "Ü" * 90,
        'a "b", c',
        "NULL",
        "line\nbreak",
        " a",
    ],
    "token": ["", "12", "-9223372036854775808", "true", "\u00e9", "x" * 128, "x" * 129],
    "time": ["", "0", "1714521600", "-5", "2024-05-01 12:00:00"],
    "list": ["", "a", "a|b", "1||2|", "|", "NULL|a", "NULL", "[1, 2]"],
}
ODD = {
    "label": ["", "2", "1.0", ".0", "-1", "true", " 1"],
    "integer": ["1.0", "+5", "-", " 5", "9223372036854775808", "1_0", "1e3"],
    "number": ["+5", "1e5", "1e50", "nan", "inf", ".", "-", "0.12345678901234567", "1.2.3"],
    "hex": ["g", "123456789", "+1", "0x1"],
    "decimal": ["4294967296", "-1", "+1", "1.0", "00000000000000000001"],
    "string": ["\u2028"],
    "token": ["1.0"],
    "time": ["x", "1234567890123456789", "2024-13-01"],
    "list": ["(1, 2)"],
}
LISTS = {"list": ListForm(separator="|")}


def same(quick: Converted, slow: Converted) -> None:
    assert not slow.faults
    assert np.array_equal(quick.rows.labels, slow.rows.labels)
    assert quick.rows.dense.tobytes() == slow.rows.dense.tobytes()
    assert np.array_equal(quick.rows.ids, slow.rows.ids)
    assert np.array_equal(quick.times, slow.times)
    assert np.array_equal(quick.inexact, slow.inexact)
    for one, other in zip(quick.rows.lists, slow.rows.lists, strict=True):
        assert np.array_equal(one.offsets, other.offsets)
        assert np.array_equal(one.used, other.used)
    assert (quick.splits is None) == (slow.splits is None)
    assert quick.splits is None or np.array_equal(quick.splits, slow.splits)  # type: ignore[arg-type]


rows_of_text = st.lists(
    st.fixed_dictionaries(
        {name: st.sampled_from([*PLAIN[name] * 4, *ODD[name]]) for name in KINDS},
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(rows_of_text, st.sampled_from([None, "token", "skipped"]), st.booleans())
def test_texts_become_the_same_rows(rows: list[dict[str, str]], key: str | None, as_table: bool) -> None:
    kinds = {**KINDS, "skipped": "skip"}
    layout = Layout(separator=",", quotes=True, columns=kinds, nulls=NULLS, lists=LISTS)
    rule = RowSplit(key, shares=(0.5, 0.25, 0.25)) if key else None
    layout = rule.layout(layout) if rule else layout
    rows = [{**row, "skipped": row["token"] * 2} for row in rows]
    columns = {name: [row[name] for row in rows] for name in kinds}
    if as_table:
        kind = pa.dictionary(pa.int32(), pa.string()) if len(rows) % 2 else pa.large_string()
        given: dict[str, Any] = {
            name: pa.array([None, *values], pa.string()).cast(kind)[1:] for name, values in columns.items()
        }
    else:
        stream = io.StringIO(newline="")
        csv.writer(stream, quoting=csv.QUOTE_ALL if len(rows) % 2 else csv.QUOTE_MINIMAL).writerows(
            zip(*columns.values(), strict=True)
        )
        found = split(stream.getvalue().encode(), b",", len(kinds), quotes=True)
        assert found is not None
        assert found.rows == len(rows)
        given = dict(zip(kinds, found.columns, strict=True))
    quick = Converter(layout, rule).quick(given)
    slow = Converter(layout, rule).convert(pl.DataFrame(columns, schema=dict.fromkeys(kinds, pl.String)))
    if slow.faults:
        assert quick is None
    else:
        assert quick is not None
        same(quick, slow)


NUMBERS: dict[str, list[Any]] = {
    "label": [0, 1],
    "integer": [None, 0, -7, 16777217, (1 << 63) - 1],
    "number": [None, 1, -7, 0.1, 1e-50],
    "hex": [None, 0, 7, (1 << 32) - 1],
    "decimal": [None, 0, 7, (1 << 32) - 1],
    "string": [None, 0, -1, -(1 << 63), (1 << 63) - 1],
    "token": [None, 0, -1, 123456789],
    "time": [None, 0, 5, 10**17],
    "list": [None, [], [1, 2], [-(1 << 63)]],
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries({name: st.sampled_from(values) for name, values in NUMBERS.items()}), min_size=1
    ),
    st.sampled_from(["decimal", "string", None]),
    st.sampled_from([None, (), (-1, 1 << 32), ([None], None), (10**18,)]),
)
@example([{name: values[-1] for name, values in NUMBERS.items()}], None, None)
def test_numbers_become_the_same_rows(rows: list[dict[str, Any]], key: str | None, odd: Any) -> None:
    """`odd` values make a column one that is left to the converter, or a row a bad one."""
    layout = Layout(columns=KINDS, nulls=NULLS)
    rule = RowSplit(key, shares=(0.5, 0.25, 0.25)) if key else None
    if odd and isinstance(odd[0], int):
        rows = [*rows, {**rows[0], "decimal": odd[0], "time": odd[-1]}]
    elif odd:
        rows = [*rows, {**rows[0], "list": odd[0]}]
    kinds = {name: pa.list_(pa.int64()) if name == "list" else pa.int64() for name in KINDS}
    kinds |= {"label": pa.uint8(), "number": pa.float64()}
    batch = pa.RecordBatch.from_arrays(
        [pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()], names=list(kinds)
    )
    quick = Converter(layout, rule).quick({name: usual(batch.column(name)) for name in kinds})
    slow = Converter(layout, rule).convert(frame(batch))
    if slow.faults:
        assert quick is None
    else:
        assert quick is not None
        same(quick, slow)


FIELDS = st.text(st.sampled_from(list('ab",\n\r\0é ')), max_size=20)


@settings(max_examples=150, deadline=None)
@given(st.lists(FIELDS, max_size=8).map("\n".join), st.booleans())
@example('1,"a ""b"""\r\n2,c\n3', True)
@example('"' + "x" * 20 + '""' + "y" * 20 + '","z"\n', True)
@example('a,"b"', True)
def test_fields_lie_where_the_rules_of_records_say(text: str, quotes: bool) -> None:
    """Where a row is refused, `records` refuses one too; else both end rows at the same places."""
    data = text.encode()
    known, found = records(data, b",", quotes), split(data, b",", 2, quotes)
    good = (known.fields == 2).all() and b"\0" not in data[: known.open_at]
    if found is None:
        assert not good or known.open_at < len(data)
        return
    assert good
    assert found.end == known.open_at
    assert found.rows == len(known.ends)
    layout = Layout(separator=",", quotes=quotes, columns={"y": "label", "t": "token"})
    table = _Text(layout, ["y", "t"], Converter(layout)).frame(data[: found.end])
    if found.rows:
        assert table is not None
        for column, wanted in zip(found.columns, table.get_columns(), strict=True):
            texts = [bytes(column.data[start:end]).decode() for start, end in zip(*column[1:3], strict=True)]
            assert texts == wanted.to_list()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=300) | st.text("0123456789abcdef", max_size=17), max_size=200))
def test_texts_are_hashed_by_blake2b(texts: list[str]) -> None:
    wanted = [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") or 1
        for text in texts
    ]
    for _ in range(2):  # the second time from what is remembered
        assert hashing.tokens(pl.Series(texts, dtype=pl.String)).to_list() == wanted


@pytest.mark.parametrize("kind", [pl.Int64, pl.Int8, pl.UInt64])
def test_integers_are_hashed_as_their_digits(kind: Any) -> None:
    values: list[int | None] = [None, 0, 5, 100, 127] if kind is pl.Int8 else [None, 0, 5, 1 << 40, 10**18]
    if kind is pl.Int64:
        values += [-1, -(1 << 63), (1 << 63) - 1]
    if kind is pl.UInt64:
        values += [(1 << 64) - 1]
    wanted = [None if value is None else hashing.token(str(value)) for value in values]
    assert hashing.tokens(pl.Series(values, dtype=kind)).to_list() == wanted


def test_rows_split_by_a_hexadecimal_token_are_read_as_criteos_are() -> None:
    layout = Layout(columns={"y": "label", "n": "integer", "a": "hex", "b": "hex"})
    split_by_b = RowSplit("b", shares=(0.5, 0.25, 0.25))
    reader = ByKey.of(layout, split_by_b)
    assert reader is not None
    lines = [f"{j % 2}\t{j if j % 3 else ''}\t{j:x}\t{j * j + 1:x}\r\n" for j in range(200)]
    quick = reader.rows("".join(lines).encode())
    assert quick is not None
    table = pl.DataFrame(
        [line.strip("\r\n").split("\t") for line in lines], list(layout.columns), orient="row"
    )
    slow = Converter(layout, split_by_b).convert(table)
    assert slow.splits is not None
    assert np.array_equal(quick.rows.ids, slow.rows.ids)
    assert quick.splits is not None
    assert quick.splits.tolist() == slow.splits.tolist()
    assert len(set(quick.splits.tolist())) == 3
    assert reader.rows(b"1\t2\t3\t\n") is None  # no key
    assert reader.rows(b"1\t2\t3\t0\n") is None  # a key, which the converter tells from none
    assert reader.rows(b"1\t2\tx\t1\n") is None
