"""How a log in time order is split into training, validation and test rows.

    Rule.parse("0.8,0.1,0.1").sizes([600, 400])     # {"train": 800, "validation": 100, "test": 100}
    Rule.parse("rows:800,100")                      # that many rows; the rest for testing
    Rule.parse("files:22,1")                        # that many files; the rest for testing
    Rule.parse("mlperf")                            # the last file halved, the others for training
    Rule.parse("time:2024-05-01,2024-05-08")        # what comes before the first date, before the second, and the rest
    Rule.parse("column:set")                        # a column says train, validation or test
    Rule.parse("key:user")                          # all rows of a user in one split, by a hash; or key:user,0.9,0.1,0

The generator of planted logs and the preparation share this rule, so that the truth of a split is the truth
of the same rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sizewise_core.errors import InputError
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.values.row_splits import RowSplit
from sizewise_prep.raw.values.time_order import instant

SPLITS = ("train", "validation", "test")
"""The splits' names, in time order."""

DEFAULT_SHARES = (0.8, 0.1, 0.1)

_FORMS = (
    "give three fractions (0.8,0.1,0.1), rows:TRAIN,VALIDATION, files:TRAIN,VALIDATION, time:FIRST,SECOND, "
    "column:NAME, key:NAME, or mlperf"
)


@dataclass(frozen=True)
class Rule:
    """A rule for splitting.

    Attributes:
        by: "fractions" of the good rows, "rows", "files" or "mlperf"; "time", "column" or "key".
        amounts: three fractions, of rows or of keys, or the number of rows or files for training and validation.
        words: where validation and test begin, or the column's name.
    """

    by: str
    amounts: tuple[float, ...] = ()
    words: tuple[str, ...] = ()

    @staticmethod
    def parse(text: str | tuple[float, ...]) -> Rule:
        """The rule that a text (or three fractions) states. Raises InputError for any other text."""
        if not isinstance(text, str):
            return Rule("fractions", check_fractions(text))
        by, colon, numbers = text.partition(":")
        if by == "column" and numbers:
            return Rule("column", words=(numbers,))
        if by == "key" and numbers:
            return _by_key(text, numbers)
        if by == "time" and colon:
            return Rule("time", words=_bounds(text, numbers))
        try:
            if text == "mlperf":
                return Rule("mlperf")
            if not colon:
                return Rule("fractions", check_fractions(tuple(float(part) for part in text.split(","))))
            train, validation = (int(part) for part in numbers.split(","))
        except InputError:
            raise
        except ValueError:
            raise InputError(f"split {text}: {_FORMS}") from None
        if by not in ("rows", "files") or train < 1 or validation < 0:
            raise InputError(f"split {text}: {_FORMS}, with at least one to train on")
        return Rule(by, (train, validation))

    @property
    def written(self) -> str | tuple[float, float, float]:
        """The rule as `parse` reads it and the manifest keeps it."""
        if self.by == "fractions":
            return check_fractions(self.amounts)
        if self.by == "mlperf":
            return self.by
        if self.by == "key":
            shares = [] if self.amounts == DEFAULT_SHARES else [f"{share:g}" for share in self.amounts]
            return f"key:{','.join([*self.words, *shares])}"
        if self.words:
            return f"{self.by}:{','.join(self.words)}"
        return f"{self.by}:{self.amounts[0]:.0f},{self.amounts[1]:.0f}"

    def by_row(self, layout: Layout) -> RowSplit | None:
        """The column by which each row has its split; None where its place in the log decides.

        Raises InputError where the layout has no such column.
        """
        if self.by in ("column", "key"):
            shares = check_fractions(self.amounts) if self.by == "key" else None
            split = RowSplit(self.words[0], shares=shares)
            split.layout(layout)
            return split
        if self.by != "time":
            return None
        if layout.time is None:
            raise InputError(
                f"split {self.written}: needs a column that holds the time: make one `time` in a schema file (--schema)"
            )
        return RowSplit.by_time(layout.time, *self.words)

    def check_files(self, files: int) -> None:
        """Raise InputError when a rule about files needs more of them."""
        needed = {"mlperf": 2, "files": sum(self.amounts)}.get(self.by, 0)
        if files < needed:
            raise InputError(
                f"split {self.written}: needs {needed:.0f} files, in time order; {files} are given"
            )

    def check_sorted(self) -> None:
        """Raise InputError when rows that are sorted cannot be split by it."""
        if self.by in ("files", "mlperf"):
            raise InputError(
                f"--sort: mixes the rows of all files, so `--split {self.written}` cannot tell them apart: split by "
                "fractions, rows:, time:, column: or key:"
            )

    def sizes(self, file_rows: list[int]) -> dict[str, int]:
        """Rows of each split, from the good rows of each file in time order.

        Raises:
            InputError: there are fewer rows or files than the rule needs.
        """
        total = sum(file_rows)
        if self.by == "fractions":
            return split_sizes(total, check_fractions(self.amounts))
        self.check_files(len(file_rows))
        if self.by == "mlperf":
            first, last = total - file_rows[-1], file_rows[-1]
            train, validation = first, (last + 1) // 2
        elif self.by == "files":
            end = int(self.amounts[0])
            train = sum(file_rows[:end])
            validation = sum(file_rows[end : end + int(self.amounts[1])])
        else:
            train, validation = map(int, self.amounts)
        if train + validation > total:
            raise InputError(f"split {self.written}: needs {train + validation:,} rows; {total:,} are good")
        if not train:
            raise InputError(f"split {self.written}: leaves no good row to train on")
        return dict(zip(SPLITS, (train, validation, total - train - validation), strict=True))

    def sizes_of(self, rows: list[int]) -> dict[str, int]:
        """Rows of each split where a column says in which a row is. Raises InputError when none trains."""
        if not rows[0]:
            raise InputError(f"split {self.written}: leaves no good row to train on")
        return dict(zip(SPLITS, rows, strict=True))


def _by_key(text: str, words: str) -> Rule:
    """A column's name, with three shares behind it or none."""
    parts = words.rsplit(",", len(SPLITS))
    try:
        shares = tuple(float(part) for part in parts[1:])
    except ValueError:
        parts, shares = [words], ()
    if shares and len(shares) != len(SPLITS):
        raise InputError(f"split {text:.80}: give no shares or three, such as key:{parts[0]:.40},0.8,0.1,0.1")
    return Rule("key", check_fractions(shares or DEFAULT_SHARES), (parts[0],))


def _bounds(text: str, words: str) -> tuple[str, str]:
    """Two times in their order."""
    found = [word.strip() for word in words.split(",")]
    times = [instant(word) for word in found]
    digits = {word.removeprefix("-").isdigit() for word in found}
    if len(found) != 2 or len(digits) != 1 or None in times:
        fix = "give two ISO dates, such as time:2024-05-01,2024-05-08, or two numbers as the column has them"
        raise InputError(f"split {text:.80}: {fix}")
    if times[0] > times[1]:  # type: ignore[operator]
        raise InputError(f"split {text:.80}: the second time is before the first; exchange them")
    return found[0], found[1]


def check_fractions(fractions: tuple[float, ...]) -> tuple[float, float, float]:
    """Return the fractions, or raise InputError when they do not add up or leave no training rows."""
    if len(fractions) != len(SPLITS) or not all(math.isfinite(f) and 0 <= f <= 1 for f in fractions):
        raise InputError(f"split {fractions}: give three fractions between 0 and 1, such as (0.8, 0.1, 0.1)")
    if abs(sum(fractions) - 1) > 1e-9 or fractions[0] == 0:
        raise InputError(
            f"split {fractions}: the fractions must add up to 1, and the first (train) be more than 0"
        )
    train, validation, test = fractions
    return train, validation, test


def split_sizes(rows: int, fractions: tuple[float, float, float]) -> dict[str, int]:
    """Rows of each split: the log's first part trains, the next validates, the last tests.

    Boundaries are rounded to the nearest row (halves down), so that 0.8 of 10 rows is 8 although 0.8 is not
    exact in binary.
    """
    boundaries = [0, *(math.ceil(rows * sum(fractions[:k]) - 0.5) for k in (1, 2)), rows]
    return {name: boundaries[k + 1] - boundaries[k] for k, name in enumerate(SPLITS)}
