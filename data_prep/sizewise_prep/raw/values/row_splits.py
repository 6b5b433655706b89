"""Which split a row belongs to, where one of its columns says so: by name, by its time, or by a hash of its value.

RowSplit("set")                            # the column `set` holds train, validation or test
RowSplit.by_time("ts", "2024-05-01", "2024-05-08")    # before the first, before the second, the rest
RowSplit("user", shares=(0.8, 0.1, 0.1))   # each user is in one split, by a hash

A hash is the upper half of mix(t + 0x9E3779B97F4A7C15) for a value's token t (see `hashing`): a number below 2^32, of
which the first share trains, the next validates, and the last tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sizewise_core.errors import InputError
from sizewise_prep.raw.layout import TOKEN_KINDS, Layout
from sizewise_prep.raw.values.hashing import STEP, mix
from sizewise_prep.raw.values.time_order import instant

if TYPE_CHECKING:
    import polars as pl

NAMES = (
    ("train", "training", "tr"),
    ("validation", "valid", "val", "dev", "va"),
    ("test", "testing", "te"),
)
"""What a column may call the splits, in their order."""

_SINCE, _UNTIL = 946_684_800, 2_208_988_800  # 2000 and 2040 in unix seconds
_UNITS = (1, 10**3, 10**6, 10**9)  # of unix times, a second


@dataclass(frozen=True)
class RowSplit:
    """A column that says in which split a row is.

    Attributes:
        column: its name.
        bounds: of the time, where validation and test begin; None where the column names the split.
        shares: of keys, for training, validation and test, where a hash of the column decides.
        dates: whether the bounds are dates, in nanoseconds since 1970, to which unix times of any unit are converted.
    """

    column: str
    bounds: tuple[int, int] | None = None
    dates: bool = False
    shares: tuple[float, float, float] | None = None

    @staticmethod
    def by_time(column: str, first: str, second: str) -> RowSplit:
        """The split by a time column.

        Args:
            column: its name.
            first, second: where validation and test begin, in the column's own form or as ISO dates.
        """
        found = instant(first), instant(second)
        dates = not any(text.removeprefix("-").isdigit() for text in (first, second))
        assert found[0] is not None
        assert found[1] is not None
        return RowSplit(column, (found[0], found[1]), dates)

    def layout(self, layout: Layout) -> Layout:
        """The layout with the column among those that are read.

        Raises InputError where the column has another purpose.
        """
        if self.bounds is not None:
            return layout
        kind = layout.columns.get(self.column, "skip")
        if self.shares is not None and kind in TOKEN_KINDS:
            return layout
        if self.shares is not None and kind not in ("skip", "split"):
            raise InputError(
                f"split key:{self.column:.40}: the schema file makes it a `{kind:.20}`; name a token column, or one "
                "to skip"
            )
        if kind not in ("skip", "split"):
            raise InputError(
                f"split column:{self.column:.40}: the schema file makes it a `{kind:.20}`; make it `skip`"
            )
        return layout.model_copy(update={"columns": {**layout.columns, self.column: "split"}})

    @property
    def wrong(self) -> tuple[str, str]:
        """Reason and detail of a row whose split cannot be said."""
        if self.shares is not None:
            return "split", "is no key to split by: give it a value"
        if self.bounds is None:
            return "split", "is none of train, validation and test"
        if self.dates:
            return "split", "is no date, nor a unix time from 2000 to 2040, to split by"
        return "split", "cannot be compared with the numbers that --split gives"

    def places(self, values: pl.Series, are_dates: pl.Series | None = None) -> pl.Series:
        """Of each value the split's place (0, 1, 2), null where it has none.

        Args:
            values: texts that name splits; of a time, what `time_order` makes of it; of keys their tokens, uint32.
            are_dates: which of the times were dates, and not digits; None: none.
        """
        import polars as pl

        if self.shares is not None:
            return self._by_key(values)
        if self.bounds is None:
            names = {name: place for place, known in enumerate(NAMES) for name in known}
            texts = values.cast(pl.String).str.strip_chars().str.to_lowercase()
            return texts.replace_strict(names, default=None, return_dtype=pl.UInt8)
        times = self._dated(values) if self.dates else values
        if are_dates is not None and are_dates.any():
            times = times.set(are_dates, None) if not self.dates else values.zip_with(are_dates, times)
        return (times >= self.bounds[0]).cast(pl.UInt8) + (times >= self.bounds[1]).cast(pl.UInt8)

    def _by_key(self, tokens: pl.Series) -> pl.Series:
        """The splits of keys."""
        import polars as pl

        assert self.shares is not None
        hashed = mix(tokens.fill_null(0).to_numpy().astype(np.uint64) + STEP) >> np.uint64(32)
        train, validation, _ = self.shares
        bounds = [round(share * (1 << 32)) for share in (train, train + validation)]
        found = pl.Series(np.searchsorted(np.array(bounds, np.uint64), hashed, "right").astype(np.uint8))
        return found.set(tokens.is_null(), None) if tokens.null_count() else found

    def _dated(self, times: pl.Series) -> pl.Series:
        """Unix times of any unit in nanoseconds; null where one is none."""
        import polars as pl

        of = pl.col("t")
        made = pl.lit(None, pl.Int64)
        for unit in _UNITS:
            here = (of >= _SINCE * unit) & (of < _UNTIL * unit)
            made = pl.when(here).then(of * (10**9 // unit)).otherwise(made)
        return pl.DataFrame({"t": times}).select(made.alias("t")).to_series()
