"""Whether rows are in time order, by which they are split into training, validation and test rows.

    column = find_time(CRITEO, first_lines)    # "I1", where its values look like times; else None
    stretch = Stretch.of(times)                # of some rows in the order of the log
    out_of_order(stretches)                    # rows that are earlier than some row before them

Rows are read in pieces, by any number of workers, each of which sees only its own piece. So each piece is summarized:
its latest time, and evenly spaced times of its rows that are in order, from which follows how many of them are earlier
than rows of the pieces before.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sizewise_prep.raw.layout import Layout

if TYPE_CHECKING:
    import polars as pl

_MARKS = 64
_MOST_DIGITS = 19  # of 64 bits
_EXACT = 8_800_000_000_000_000  # microseconds from 1970 to 2248
_FARTHEST = 4 * 10**17  # microseconds to the year 14,645
_ISO = re.compile(
    rb"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,](?P<fraction>\d{1,9}))?)?( ?(Z|UTC|[+-]\d\d(:?\d\d)?))?)?",
    re.ASCII,
)
# Digits that are a date: YYYYMMDD, then hours, minutes and seconds; or YYMMDDHH, as in Avazu's logs.
_DATE = re.compile(
    rb"((19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])([0-5]\d){0,2})?"
    rb"|\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3]))"
)
_NAMED = re.compile(r"(^|[_\W])(time|timestamp|ts|date|datetime|day|hour)($|[_\W])|time$|date$|Time|Date")
_SINCE, _UNTIL = 946_684_800, 2_208_988_800  # 2000 and 2040 in unix seconds
_SAMPLE_ROWS = 1000


class Stretch(BaseModel):
    """The times of rows that follow one another in a log.

    Attributes:
        rows: those with a time.
        late: those earlier than a row before them in the stretch.
        latest: the latest time.
        marks: times of the rows that are not late, which ascend: all of them or evenly spaced ones, the first and
            the last among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    late: int
    latest: int
    marks: list[int]

    @staticmethod
    def of(times: npt.NDArray[np.int64]) -> Stretch | None:
        """The summary of times in the order of the log; None without any."""
        if not len(times):
            return None
        latest = np.maximum.accumulate(times)
        kept = times[times == latest]
        spaced = kept if len(kept) <= _MARKS else kept[np.linspace(0, len(kept) - 1, _MARKS).astype(np.int64)]
        return Stretch(
            rows=len(times), late=len(times) - len(kept), latest=int(latest[-1]), marks=spaced.tolist()
        )

    def earlier_than(self, time: int) -> int:
        """How many rows are late if `time` comes before the stretch; exact up to the rows between two marks."""
        kept = self.rows - self.late
        if time > self.latest:
            return self.rows
        at = bisect_left(self.marks, time)
        if kept <= _MARKS or not at:
            return self.late + at
        return self.late + min(kept, round(at * (kept - 1) / (_MARKS - 1)))


def out_of_order(stretches: Iterable[Stretch]) -> int:
    """How many rows of a log are earlier than some row before them."""
    found, latest = 0, None
    for stretch in stretches:
        found += stretch.late if latest is None else stretch.earlier_than(latest)
        latest = stretch.latest if latest is None else max(latest, stretch.latest)
    return found


def find_time(layout: Layout, lines: Sequence[bytes]) -> str | None:
    """The column by which the order of rows can be checked: the declared one, else one that looks like times.

    A column looks like times when all values in the first lines are dates, or unix times (in seconds, milliseconds,
    microseconds or nanoseconds) from 2000 to 2040. Of several, the one with the fewest late rows is chosen.

    Args:
        layout: of the lines.
        lines: the first lines of a log, without their endings and without a header.
    """
    if layout.time:
        return layout.time
    rows = [line.split(layout.separator.encode()) for line in lines[:_SAMPLE_ROWS]]
    rows = [row for row in rows if len(row) == len(layout.columns)]
    found: dict[str, float] = {}
    for index, (name, kind) in enumerate(layout.kinds.items()):
        if kind in ("label", "hex"):
            continue
        values = [value for row in rows if (value := row[index].strip(b"\r"))]
        if len(values) < max(2, 0.9 * len(rows)) or not _look_like_times(name, kind, values):
            continue
        times = [time for value in values if (time := instant(value.decode())) is not None]
        if len(times) == len(values) and (stretch := Stretch.of(np.array(times, np.int64))):
            found[name] = stretch.late / stretch.rows
    return min(found, key=lambda name: found[name], default=None)


def looks_like_time(name: str, values: list[bytes]) -> bool:
    """Whether the values of a column are times; of digits alone its name must say so, unless they are unix times."""
    return bool(values) and _look_like_times(name, "integer", values)


def _look_like_times(name: str, kind: str, values: list[bytes]) -> bool:
    if all(_ISO.fullmatch(value) for value in values):
        return True
    named = _NAMED.search(name) is not None
    if named and all(_DATE.fullmatch(value) for value in values):
        return True
    # Digits in a column of tokens are more often ids than times.
    if not (named or kind in ("integer", "skip")):
        return False
    if not all(value.isdigit() and len(value) <= 19 for value in values):
        return False
    numbers = [int(value) for value in values]
    return any(
        all(_SINCE * unit <= number < _UNTIL * unit for number in numbers)
        for unit in (1, 10**3, 10**6, 10**9)
    )


def instant(text: str) -> int | None:
    """A number of 64 bits that grows with the time that a text gives; None where it is not a time.

    Digits are that number; an ISO date, with a time of day or without, is what `of_dates` makes of it.
    """
    digits = text.removeprefix("-")
    if text.isascii() and digits.isdigit():
        number = int(text) if len(digits) <= _MOST_DIGITS else None
        return number if number is not None and -(1 << 63) <= number < 1 << 63 else None
    written = _ISO.fullmatch(text.encode("utf-8", "replace"))
    if not written:
        return None
    try:
        found = datetime.fromisoformat(text.replace("UTC", "Z").replace(" Z", "Z").replace(" +", "+"))
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    since = found - datetime(1970, 1, 1, tzinfo=UTC)
    micro = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
    below = int((written["fraction"] or b"").ljust(9, b"0")[6:])  # what Python leaves out
    return int(_counted(np.array([micro]), np.array([below]))[0])


def _counted(micro: npt.NDArray[np.int64], below: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Times as they are counted: see `of_dates`.

    Args:
        micro: microseconds since 1970, at most `_FARTHEST` before or after.
        below: nanoseconds within them.
    """
    beyond = micro + np.sign(micro) * (_EXACT * 1000 - _EXACT)
    return np.where(np.abs(micro) < _EXACT, micro * 1000 + below, beyond)


def of_dates(values: pl.Series) -> pl.Series:
    """Dates and timestamps as 64-bit integers in the same order; null where one is missing, or too far from now.

    From 1691 to 2248 they count nanoseconds since 1970; beyond, where 64 bits would end, microseconds.
    """
    import polars as pl

    unit = values.dtype.time_unit if isinstance(values.dtype, pl.Datetime) else None
    number = values.to_physical().cast(pl.Int64)
    if unit == "ns":
        micro, below = number // 1000, number % 1000
    else:
        each = {"us": 1, "ms": 1000, None: 86_400_000_000}[unit]
        near = (number >= -(_FARTHEST // each)) & (number <= _FARTHEST // each)
        micro, below = number.set(~near, None) * each, number * 0
    counted = _counted(micro.fill_null(0).to_numpy(), below.fill_null(0).to_numpy())
    return pl.Series(values.name, counted).set(micro.is_null(), None)


def instants(texts: pl.Series) -> pl.Series:
    """`instant` of each text, as 64-bit integers; null where it is not a time, or missing."""
    # Imported here, because a process that only coordinates others imports this module too.
    import polars as pl

    if texts.dtype == pl.Int64:
        return texts
    if texts.str.contains(rf"\A-?[0-9]{{1,{_MOST_DIGITS}}}\z").all():
        return texts.str.to_integer(base=10, dtype=pl.Int64, strict=False)
    for between in " T":  # the most frequent forms, a hundred times as fast as one by one
        rule = rf"\A[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{between}[0-9]{{2}}:[0-9]{{2}}:[0-5][0-9]\z"
        if texts.str.contains(rule).all():
            found = texts.str.to_datetime(f"%Y-%m-%d{between}%H:%M:%S", time_unit="us", strict=False)
            if found.null_count() == texts.null_count():
                return of_dates(found)
    known = {text: instant(text) for text in texts.unique() if text is not None}
    return pl.Series([None if text is None else known[text] for text in texts], dtype=pl.Int64)
