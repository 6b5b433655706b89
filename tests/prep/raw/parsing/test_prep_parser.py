"""The rule for a good row, and that parsing whole blocks keeps to it."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sizewise_prep.raw.parsing.parser import Parser

FIELDS = 40
fault, parse = Parser().fault, Parser().parse
Line = Callable[..., bytes]


@pytest.mark.parametrize(
    ("fields", "reason", "named"),
    [
        ({"label": 2}, "label", "field 1 (label): '2'"),
        ({"label": ""}, "label", "field 1 (label): ''"),
        ({"label": "-0"}, "label", "field 1"),
        ({"I3": "1.5"}, "not_an_integer", "field 4 (I3): '1.5'"),
        ({"I3": "+5"}, "not_an_integer", "field 4"),
        ({"I3": "-"}, "not_an_integer", "field 4"),
        ({"I3": " 5"}, "not_an_integer", "field 4"),
        ({"I3": "ab"}, "not_an_integer", "field 4"),
        ({"I13": str(2**63)}, "integer_range", "field 14 (I13): '9223372036854775808'"),
        ({"I13": str(-(2**63) - 1)}, "integer_range", "field 14"),
        ({"I1": "9" * 5000}, "integer_range", "field 2"),
        ({"C1": "xyz"}, "not_hex", "field 15 (C1): 'xyz'"),
        ({"C1": "-1"}, "not_hex", "field 15"),
        ({"C26": "123456789"}, "token_length", "field 40 (C26): '123456789'"),
        ({"C26": "000000001"}, "token_length", "field 40"),
        ({"C2": "a\0b"}, "nul_bytes", "NUL"),
        ({"C2": "a\tb"}, "field_count", "41 tab-separated fields; 40 are expected"),
        ({"C2": '"ab"'}, "not_hex", "field 16"),
        ({"C2": "é"}, "not_hex", "field 16"),
    ],
)
def test_a_fault_names_its_field(line: Line, fields: dict[str, str], reason: str, named: str) -> None:
    bad = line(**fields)
    found = fault(bad)
    assert found is not None
    assert found.reason == reason
    assert named in found.detail

    rows, set_aside = parse(line() + b"\n" + bad + b"\n" + line(1) + b"\n", first_line=7)
    assert rows.labels.tolist() == [0, 1]
    assert [(row.line, row.raw, row.fault) for row in set_aside] == [(8, bad, found)]


@pytest.mark.parametrize("bad", [b"", b"\t" * 38, b"0", b"\xff\xfe\x00"])
def test_short_lines_are_faults(line: Line, bad: bytes) -> None:
    assert fault(bad) is not None
    rows, set_aside = parse(line() + b"\n" + bad + b"\n")
    assert (len(rows), [row.line for row in set_aside]) == (1, [2])


def test_a_short_and_a_long_row_do_not_cancel_out(line: Line) -> None:
    long, short = line() + b"\tab", line().rpartition(b"\t")[0]
    for block in (long + b"\n" + short + b"\n", short + b"\n" + long + b"\n"):
        rows, set_aside = parse(block)
        assert (len(rows), [row.fault.reason for row in set_aside]) == (0, ["field_count"] * 2)


def test_values_and_missing_values(line: Line) -> None:
    extremes = {"I1": "", "I2": str(2**63 - 1), "I3": str(-(2**63)), "I4": "-0", "I5": "0" * 30 + "7"}
    tokens = {"C1": "", "C2": "FFFFFFFF", "C3": "0", "C4": "a"}
    rows, set_aside = parse(line("01", **extremes, **tokens) + b"\n")
    assert set_aside == []
    assert rows.labels.tolist() == [1]
    assert math.isnan(rows.dense[0, 0])
    assert rows.dense[0, 1:6].tolist() == [2.0**63, -(2.0**63), 0.0, 7.0, 6.0]
    assert rows.ids[0, :5].tolist() == [0, 0xFFFFFFFF, 0, 10, 18]
    assert (rows.labels.dtype, rows.dense.dtype, rows.ids.dtype) == (np.uint8, np.float32, np.uint32)


def test_carriage_returns_before_the_newline_are_endings(line: Line) -> None:
    rows, set_aside = parse(line() + b"\r\n" + line(1) + b"\r\n" + line() + b"\r\r\n")
    assert rows.labels.tolist() == [0, 1]
    assert [(row.line, row.fault.reason) for row in set_aside] == [(3, "not_hex")]


field = st.one_of(
    st.just(b""),
    st.integers(-(2**64), 2**64).map(lambda value: str(value).encode()),
    st.from_regex(rb"[0-9a-fA-F]{1,9}", fullmatch=True),
    st.from_regex(rb"-?0{0,22}[0-9]{1,20}", fullmatch=True),
    st.from_regex(rb"[-+ ]{0,2}[0-9]{0,3}[-.e_]?[0-9]{0,2}", fullmatch=True),
    st.binary(max_size=6).map(lambda value: value.replace(b"\n", b"")),
)
label = st.sampled_from(
    [b"0", b"1", b"0", b"1", b"", b"2", b"01", b"-1", b"-0", b"256", b"a", b"\xef\xbb\xbf0"]
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Lines near the rule's border: mostly good fields, a few from anywhere, sometimes one more or fewer."""
    fields = [b"0"] + [b"5"] * 13 + [b"ab12cd34"] * 26
    fields[0] = draw(label)
    for place in draw(st.lists(st.integers(1, FIELDS - 1), max_size=4)):
        fields[place] = draw(field)
    if draw(st.integers(0, 4)) == 0:
        fields = draw(st.sampled_from([fields[:-1], [*fields, b""], fields[:1], []]))
    return b"\t".join(fields)


@pytest.mark.slow
@given(block=st.lists(st.tuples(lines(), st.sampled_from([b"\n", b"\n", b"\r\n"])), max_size=8))
@example(block=[(b"0" + b"\t" * 39, b"\n")])
@settings(max_examples=400, deadline=None)
def test_every_good_row_comes_out_intact_and_every_bad_one_is_told(block: list[tuple[bytes, bytes]]) -> None:
    rows, set_aside = parse(b"".join(raw + ending for raw, ending in block), first_line=1)

    texts = [raw.removesuffix(b"\r") if ending == b"\n" else raw for raw, ending in block]
    good = [text for text in texts if _is_good(text)]
    assert [(row.line, row.raw) for row in set_aside] == [
        (number, text) for number, text in enumerate(texts, 1) if not _is_good(text)
    ]
    assert len(rows) == len(good)
    for index, text in enumerate(good):
        fields = text.split(b"\t")
        assert rows.labels[index] == int(fields[0])
        expected = [np.float32(int(value)) if value else np.float32("nan") for value in fields[1:14]]
        assert np.array_equal(rows.dense[index], expected, equal_nan=True)
        assert rows.ids[index].tolist() == [int(value, 16) if value else 0 for value in fields[14:]]


def _is_good(text: bytes) -> bool:
    """The rule, spelled out a second time without the code under test."""
    fields = text.split(b"\t")
    if len(fields) != 40 or fields[0].lstrip(b"0") not in (b"", b"1") or not fields[0]:
        return False
    integers = all(
        not value or (re.fullmatch(rb"-?[0-9]+", value) and -(2**63) <= int(value) < 2**63)
        for value in fields[1:14]
    )
    return integers and all(re.fullmatch(rb"[0-9a-fA-F]{0,8}", value) for value in fields[14:])
