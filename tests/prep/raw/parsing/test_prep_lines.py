"""Hexadecimal fields to numbers, all other text as it was, and no line that has another number of fields."""

import re
from itertools import compress

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sizewise_prep.raw.parsing.lines import split

token = st.from_regex(rb"[0-9a-fA-F]{0,8}", fullmatch=True)
anything = st.binary(max_size=14).filter(lambda text: b"," not in text and b"\n" not in text)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[bool], list[list[bytes]]]:
    """Which fields are hexadecimal, and lines of which some have a fault."""
    hexadecimal = draw(st.lists(st.booleans(), min_size=1, max_size=5).filter(lambda kinds: not all(kinds)))
    good = st.tuples(*(token if kind else anything for kind in hexadecimal)).map(list)
    lines = draw(st.lists(good, max_size=20))
    if lines and draw(st.booleans()):
        fault = st.lists(st.one_of(token, anything, st.just(b"123456789")), min_size=1, max_size=6)
        lines[draw(st.integers(0, len(lines) - 1))] = draw(fault)
    return hexadecimal, lines


@given(blocks())
@example(([False, True], [[b"x", b"0"], [b"", b""], [b"y", b"ffffffff"], [b"z", b"FfF"]]))
@example(([True, False, True], [[b"00000000", b"1", b"9A"], [b"123456789", b"", b"a"]]))
@example(([False, True], [[b"x", b"0", b""], [b"x"]]))  # as many separators as two rows have
@settings(deadline=None)  # the first one compiles
def test_tokens_are_what_they_say_and_anything_else_is_told(
    block: tuple[list[bool], list[list[bytes]]],
) -> None:
    hexadecimal, lines = block
    places = [sum(hexadecimal[i:]) - 1 if kind else -1 for i, kind in enumerate(hexadecimal)]  # backwards
    found = split(b"".join(b",".join(line) + b"\n" for line in lines), places, sum(hexadecimal) + 1, b",")
    good = all(
        len(line) == len(hexadecimal)
        and all(re.fullmatch(rb"[0-9a-fA-F]{0,8}", text) for text in compress(line, hexadecimal))
        for line in lines
    )
    assert (found is not None) == good
    if found is not None:
        rest = [list(compress(line, [not kind for kind in hexadecimal])) for line in lines]
        assert found.rest == b"".join(b",".join(line) + b"\n" for line in rest)
        for row, line in zip(found.ids, lines, strict=True):
            reported = [int(text or b"0", 16) for text in compress(line, hexadecimal)]
            assert row[: len(reported)].tolist() == reported[::-1]


@pytest.mark.parametrize(
    "wrong",
    [*(b"%c" % byte for byte in b"gG@`/:\0\xe9"), b"+1", b"0x1", b"a b", b"a\0b", b"123456789", b"1\xb1"],
)
@pytest.mark.parametrize("after", [0, 20])
def test_what_is_no_token_is_told_among_many(wrong: bytes, after: int) -> None:
    good = b"1\tab12cd34\n"
    assert split(good * 1500 + b"1\t" + wrong + b"\n" + good * after, [-1, 0], 1, b"\t") is None


def test_a_block_that_ends_within_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match="ends with a newline"):
        split(b"1\tab\n1\tcd", [-1, 0], 1, b"\t")


def test_no_lines_are_no_rows() -> None:
    found = split(b"", [-1, 0], 1, b"\t")
    assert found is not None
    assert (found.ids.shape, found.ids.dtype, found.rest) == ((0, 1), np.uint32, b"")
