"""Sizes, counts and durations as people read and write them.

    parse_bytes("10MB")       # 10_000_000 (kB, MB, GB count in thousands; KiB, MiB, GiB in 1,024s)
    format_bytes(10_000_000)  # "10 MB"
    format_ratio(1000)        # "1,000x"

Every number that a table, a figure or a sentence shows goes through here, so that they all agree.
"""

import math
import re
from decimal import Decimal

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[a-z]*)")
_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", 1)}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", 1)}


def parse_bytes(size: str | int | float) -> int:
    """Bytes in `size`: a whole number, or text such as "2kB", "1.5 GB", "1MiB" (any case).

    Raises ValueError, naming the accepted forms, for anything else and for negative sizes.
    """
    # pydantic.ByteSize would ignore what it does not know and read "1,000 kB" as one byte.
    parts = _SIZE.fullmatch(str(size).strip().lower()) if not isinstance(size, bool) else None
    if parts is None or parts["unit"] not in _UNITS:
        raise ValueError(
            f"{size!r} is not a size: write bytes as a whole number (2000) or with a unit "
            '("2kB", "10 MB", "1.5GB" in thousands; "2KiB", "10MiB" in 1,024s)'
        )
    # Decimal, because 1.1 * 1000 in floating point is not 1100
    count = Decimal(parts["number"]) * _UNITS[parts["unit"]]
    if count != int(count):
        raise ValueError(f"{size!r} is not a whole number of bytes")
    return int(count)


def format_bytes(size: float) -> str:
    """`size` bytes with three significant digits: "512 B", "2.05 kB", "10 MB", "104 GB"."""
    return _scaled(size, ("B", "kB", "MB", "GB", "TB", "PB"))


def format_count(count: float) -> str:
    """A count: exact with thousands separators below a million ("2,048"), then "2.05 M", "4.2 G"."""
    return f"{count:,.0f}" if abs(count) < 1e6 else _scaled(count, ("", "k", "M", "G", "T"))


def format_ratio(ratio: float) -> str:
    """A ratio with three significant digits, never in powers: "1,000x", "2.1x", "0.5x"."""
    return f"{_digits(ratio)}x"


def format_auc(auc: float) -> str:
    """An AUC with four decimals: one standard error of a test split of a million rows is about 0.0005."""
    return f"{auc:.4f}"


def format_seconds(seconds: float) -> str:
    """A duration in its two largest units: "45 s", "3 min 20 s", "2 h 5 min", "1 d 3 h"."""
    if not math.isfinite(seconds):
        return str(seconds)
    left = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def _scaled(value: float, units: tuple[str, ...]) -> str:
    """`value` in the largest of `units` (each a thousand of the one before) that leaves it at least one."""
    power = 0
    # 999.5 would round to 1,000 of a unit, which reads better as one of the next
    while power < len(units) - 1 and abs(value) >= 999.5:
        value, power = value / 1000, power + 1
    return f"{_digits(value)} {units[power]}".strip()


def _digits(value: float) -> str:
    """Three significant digits, thousands separated, without trailing zeros."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    if decimals == 0:
        return f"{round(value):,}"
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".")


def describe_cost(
    cpu_seconds: float, gpu_seconds: float, money: float | None = None, currency: str | None = None
) -> str:
    """What a study has used, and money where there are prices: "2 h 5 min of CPU, 31 min 2 s of GPU, 1.20 USD".

    Args:
        cpu_seconds, gpu_seconds: of all trials; GPU time is left out where there is none.
        money: its price; None without prices.
        currency: of the money.
    """
    parts = [f"{format_seconds(cpu_seconds)} of CPU"]
    if gpu_seconds:
        parts.append(f"{format_seconds(gpu_seconds)} of GPU")
    if money is not None:
        parts.append(f"{money:,.2f} {currency}")
    return ", ".join(parts)
