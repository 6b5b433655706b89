import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise_core.units import (
    format_auc,
    format_bytes,
    format_count,
    format_ratio,
    format_seconds,
    parse_bytes,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10MB", 10_000_000),
        ("10 MB", 10_000_000),
        ("2kB", 2_000),
        ("2KB", 2_000),
        ("1MiB", 1_048_576),
        ("1.5GB", 1_500_000_000),
        ("2KiB", 2_048),
        ("123", 123),
        (123, 123),
        (2e6, 2_000_000),
        ("0B", 0),
        ("2000.0", 2_000),
    ],
)
def test_sizes_are_read_in_thousands_and_in_1024s(text: str | float, size: int) -> None:
    assert parse_bytes(text) == size


def test_a_fraction_of_a_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_bytes("1.0001 kB")
    assert parse_bytes("1.1 kB") == 1_100


@pytest.mark.parametrize(
    "text",
    ["", "MB", "ten MB", "10 XB", "-1", "-1kB", -1, True, "1e6", "nan", "1,000 kB", "2 kB/s", "9 Mbit"],
)
def test_what_is_no_size_is_refused_with_the_accepted_forms(text: str | float) -> None:
    with pytest.raises(ValueError, match=r"not a size.*2kB.*10MiB") as caught:
        parse_bytes(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (2_048, "2.05 kB"),
        (22_016, "22 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),  # not "1,000 kB"
        (10_000_000, "10 MB"),
        (104_542_508_000, "105 GB"),
        (5 * 10**15, "5 PB"),
    ],
)
def test_bytes_have_three_significant_digits(size: int, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(min_value=0, max_value=10**17))
def test_formatted_bytes_read_back_within_their_precision(size: int) -> None:
    assert parse_bytes(format_bytes(size).replace(",", "")) == pytest.approx(size, rel=0.006, abs=1)


@given(st.integers(min_value=0, max_value=10**17), st.integers(min_value=0, max_value=10**17))
def test_a_larger_size_never_reads_as_a_smaller_one(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert parse_bytes(format_bytes(low).replace(",", "")) <= parse_bytes(format_bytes(high).replace(",", ""))


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1000, "1,000x"), (2.1, "2.1x"), (0.5, "0.5x"), (1, "1x"), (10_417, "10,417x"), (0.00512, "0.00512x")],
)
def test_ratios(ratio: float, text: str) -> None:
    assert format_ratio(ratio) == text


def test_counts_aucs_and_durations() -> None:
    assert [format_count(n) for n in (0, 2_048, 999_999, 2_048_000)] == ["0", "2,048", "999,999", "2.05 M"]
    assert format_auc(0.75) == "0.7500"
    durations = {
        0: "0 s",
        45.4: "45 s",
        60: "1 min",
        200: "3 min 20 s",
        3_600: "1 h",
        7_500: "2 h 5 min",
        100_000: "1 d 3 h",
    }
    assert {seconds: format_seconds(seconds) for seconds in durations} == durations
    assert format_seconds(3_605) == "1 h"  # never "1 h 5 s", which looks more exact than it is
    assert format_seconds(float("nan")) == "nan"  # as a damaged record may have it
