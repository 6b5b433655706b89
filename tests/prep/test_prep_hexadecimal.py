"""Tokens as Polars has them to numbers, and none that is no token."""

import re

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sizewise_prep.hexadecimal import decode

text = st.one_of(st.none(), st.from_regex(r"[0-9a-fA-F]{0,9}", fullmatch=True), st.text(max_size=14))


@given(
    columns=st.lists(st.lists(text, min_size=9, max_size=9), min_size=1, max_size=3), first=st.integers(0, 3)
)
@example(columns=[["0", "", None, "ffffffff", "FFFFFFFF", "00000000", "a", "12345", "9A"]], first=0)
@example(columns=[[None] * 9], first=2)
@settings(deadline=None)  # the first one compiles
def test_tokens_are_what_they_say_and_anything_else_is_told(
    columns: list[list[str | None]], first: int
) -> None:
    frame = pl.DataFrame({f"C{i}": pl.Series(values, dtype=pl.String) for i, values in enumerate(columns)})
    frame = frame[first:]  # a column that begins within its buffer
    kept = [values[first:] for values in columns]
    ids = np.full((len(frame), len(columns) + 1), 7, np.uint32)
    places = range(len(columns), 0, -1)
    good = all(re.fullmatch(r"[0-9a-fA-F]{0,8}", value or "") for values in kept for value in values)
    assert decode(frame, ids, places) == good
    assert (ids[:, 0] == 7).all()
    if good:
        for place, values in zip(places, kept, strict=True):
            assert ids[:, place].tolist() == [int(value or "0", 16) for value in values]


@pytest.mark.parametrize(
    "wrong", ["g", "G", "@", "`", "/", ":", "+1", "0x1", "a b", "a\0b", "\0", "123456789", "é"]
)
def test_what_is_no_token_is_told_among_many(wrong: str) -> None:
    frame = pl.DataFrame({"C1": ["ab12cd34"] * 1500 + [wrong] + [None] * 20})
    assert not decode(frame, np.empty((1521, 1), np.uint32), [0])


def test_what_lies_in_the_place_of_missing_strings_does_not_matter() -> None:
    texts = pl.Series(["ab", "zz", "much longer than twelve bytes", "1"])
    missing = pl.select(pl.when(pl.Series([True, False, False, True])).then(texts).alias("C1"))
    ids = np.empty((4, 1), np.uint32)
    assert decode(missing, ids, [0])
    assert ids[:, 0].tolist() == [0xAB, 0, 0, 1]
