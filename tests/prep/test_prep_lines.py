"""Plain numbers to numbers, all other text as it was, and no line in which anything is amiss."""

import math
import re
from itertools import compress

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sizewise_prep.by_polars import ByPolars
from sizewise_prep.layout import CRITEO
from sizewise_prep.lines import INTEGER, LABEL, REST, TOKEN, split
from sizewise_prep.parser import Parser

anything = st.binary(max_size=14).filter(lambda text: b"," not in text and b"\n" not in text)
RULES = {
    REST: rb"(?s:.*)",
    LABEL: rb"(?=.{1,18}\Z)0*[01]",
    INTEGER: rb"(?:-?[0-9]{1,18})?",
    TOKEN: rb"[0-9a-fA-F]{0,8}",
}
good_text = {kind: st.from_regex(rule, fullmatch=True) for kind, rule in RULES.items()} | {REST: anything}
odd = st.one_of(
    anything,
    st.sampled_from([b"123456789", b"-", b"--1", b"1-", b"+1", b" 1", b"1.5", b"2", b"", b"-0"]),
    st.from_regex(rb"-?[0-9]{17,20}", fullmatch=True),
)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[int], list[list[bytes]]]:
    """Kinds of fields, and lines of which some have a fault."""
    kinds = draw(st.lists(st.sampled_from([REST, INTEGER, TOKEN]), min_size=1, max_size=5))
    if draw(st.booleans()):
        kinds.insert(draw(st.integers(0, len(kinds))), LABEL)
    good = st.tuples(*(good_text[kind] for kind in kinds)).map(list)
    lines = draw(st.lists(good, max_size=20))
    if lines and draw(st.booleans()):
        at = draw(st.integers(0, len(lines) - 1))
        if draw(st.booleans()):
            lines[at][draw(st.integers(0, len(kinds) - 1))] = draw(odd)
        else:
            lines[at] = draw(st.lists(odd, min_size=1, max_size=6))
    return kinds, lines


@given(blocks())
@example(([REST, TOKEN], [[b"x", b"0"], [b"", b""], [b"y", b"ffffffff"], [b"z", b"FfF"]]))
@example(([TOKEN, REST, TOKEN], [[b"00000000", b"1", b"9A"], [b"123456789", b"", b"a"]]))
@example(([REST, TOKEN], [[b"x", b"0", b""], [b"x"]]))  # as many separators as two rows have
@example(([LABEL, INTEGER], [[b"0", b"9" * 18], [b"01", b"-" + b"9" * 18], [b"1", b"-0"], [b"1", b""]]))
@example(([INTEGER, LABEL], [[b"0" * 17 + b"7", b"0" * 17 + b"1"]]))
@example(([INTEGER, LABEL], [[b"-", b"1"]]))
@example(([INTEGER, LABEL], [[b"", b"2"]]))
@example(([INTEGER, LABEL], [[b"1", b""]]))
@example(([INTEGER, LABEL], [[b"1", b"-0"]]))
@example(([INTEGER, LABEL], [[b"0" * 18 + b"7", b"1"]]))
@example(([INTEGER, TOKEN], [[b"1a", b"1"]]))
@settings(deadline=None)  # the first one compiles
def test_fields_are_what_they_say_and_anything_else_is_told(
    block: tuple[list[int], list[list[bytes]]],
) -> None:
    kinds, lines = block
    places = [sum(kind == later for later in kinds[i + 1 :]) for i, kind in enumerate(kinds)]  # backwards
    dense, tokens = kinds.count(INTEGER), kinds.count(TOKEN)
    text = b"".join(b",".join(line) + b"\n" for line in lines)
    found = split(text, list(zip(kinds, places, strict=True)), dense, tokens, b",")
    good = all(
        len(line) == len(kinds)
        and all(re.fullmatch(RULES[kind], field) for kind, field in zip(kinds, line, strict=True))
        for line in lines
    )
    assert (found is not None) == good
    if found is None:
        return

    def told(kind: int, line: list[bytes]) -> list[bytes]:
        return list(compress(line, [kind == one for one in kinds]))

    rest = [told(REST, line) for line in lines] if REST in kinds else []
    assert found.rest == b"".join(b",".join(line) + b"\n" for line in rest)
    for i, line in enumerate(lines):
        assert found.ids[i].tolist() == [int(field or b"0", 16) for field in told(TOKEN, line)][::-1]
        assert [found.labels[i]] * kinds.count(LABEL) == [int(field) for field in told(LABEL, line)]
        for number, field in zip(found.dense[i], told(INTEGER, line)[::-1], strict=True):
            if not field:
                assert math.isnan(number)
                continue
            assert number == np.array([int(field)]).astype(np.float32)[0]  # rounded once
            assert not math.copysign(1, number) < 0 <= int(field)  # -0 is 0


@pytest.mark.parametrize(
    "wrong",
    [*(b"%c" % byte for byte in b"gG@`/:\0\xe9"), b"+1", b"0x1", b"a b", b"a\0b", b"123456789", b"1\xb1"],
)
@pytest.mark.parametrize("after", [0, 20])
def test_what_is_no_token_is_told_among_many(wrong: bytes, after: int) -> None:
    good, fields = b"1\tab12cd34\n", [(LABEL, 0), (TOKEN, 0)]
    assert split(good * 1500 + good * after, fields, 0, 1, b"\t") is not None
    assert split(good * 1500 + b"1\t" + wrong + b"\n" + good * after, fields, 0, 1, b"\t") is None


def test_a_block_that_ends_within_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match="ends with a newline"):
        split(b"1\tab\n1\tcd", [(REST, 0), (TOKEN, 0)], 0, 1, b"\t")


def test_no_lines_are_no_rows() -> None:
    found = split(b"", [(REST, 0), (INTEGER, 0), (TOKEN, 0)], 1, 1, b"\t")
    assert found is not None
    assert (found.labels.shape, found.dense.shape, found.dense.dtype) == ((0,), (0, 1), np.float32)
    assert (found.ids.shape, found.ids.dtype, found.rest) == ((0, 1), np.uint32, b"")


number = st.one_of(st.just(b""), st.integers(1 - 10**18, 10**18 - 1).map(lambda value: b"%d" % value))


@given(st.lists(st.tuples(st.sampled_from([b"0", b"1"]), number, number), min_size=1, max_size=5))
@example(
    [(b"1", b"%d" % (2**54 + 2**30 + 1), b"-%d" % (2**54 + 2**30 + 1))]
)  # 64 bits first would round twice
@settings(deadline=None)
def test_polars_reads_the_same_numbers(lines: list[tuple[bytes, bytes, bytes]]) -> None:
    block = b"".join(b"\t".join([*line, *[b"7"] * 11, *[b"fe"] * 26]) + b"\n" for line in lines)
    told, (rows, _) = ByPolars(CRITEO).parse(block), Parser().parse(block)
    assert told is not None
    for part in ("labels", "dense", "ids"):
        ours, theirs = getattr(rows, part), getattr(told, part)
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
