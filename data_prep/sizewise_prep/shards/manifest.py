"""`manifest.json`: what a folder of shards holds, what it was made from, and checksums.

    manifest = Manifest.load(Path("data/criteo"))
    manifest.splits["train"].rows, manifest.cardinalities, manifest.click_rate
    verify(Path("data/criteo"))             # [] when every file is intact

It is written last and atomically, so a folder that has one is complete. It may come from another person, so its fields
are checked when it is read, each by itself and against the others: no name in it leads out of its folder, and no number
of rows exceeds what the files can hold.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sizewise_core.errors import InputError, first_problem
from sizewise_core.names import PlainPath, plain_name
from sizewise_core.stores.storage import Place, StorageError, entry, is_folder, place, read
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.options import Fitted
from sizewise_prep.shards.files import Shape, digest, list_names, read_shard
from sizewise_prep.shards.splits import SPLITS

NAME = "manifest.json"
TEACHERS = "teachers"
"""The folder in which the platform keeps models' scores of the training rows: no part of the data."""
COUNTS = "counts"
"""The folder with what was counted of shards that were prepared without counts: no part of the data either."""
Tokens = Literal["raw", "contiguous", "mlperf"]
Count = Annotated[int, Field(ge=0, le=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Cardinality = Annotated[int, Field(ge=1, le=2**32)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MOST_BYTES = 64 << 20
"""The largest manifest, of more than a hundred thousand shards."""


class _Frozen(BaseModel):
    # Strict: JSON's true is not a number, and 3.0 is not a count.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Frozen):
    """A raw file: its path as the user gave it, its size and SHA-256, and its rows, good and bad.

    Plain files are read in pieces of 64 MiB by any number of workers. With more than one piece `sha256` is the
    SHA-256 of the pieces' digests (32 bytes each), one after another.
    """

    path: str
    bytes: Count
    sha256: Sha256
    rows: Count
    pieces: Annotated[int, Field(ge=1, le=2**32)] = 1


class Shard(_Frozen):
    """One file of the folder."""

    file: PlainPath
    rows: Count
    bytes: Count
    sha256: Sha256


class Split(_Frozen):
    """A stretch of the log in time order; `click_rate` is None without rows."""

    rows: Count
    click_rate: Share | None
    shards: list[Shard]

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        for shard in self.shards:
            plain_name(shard.file)
            if not shard.rows:
                raise ValueError(f"{shard.file} has no rows")
        if self.rows != sum(shard.rows for shard in self.shards):
            raise ValueError(f"{self.rows:,} rows are not those of its shards together")
        if (self.click_rate is None) != (self.rows == 0):
            raise ValueError("a split has a click rate where it has rows")
        return self


class Settings(_Frozen):
    """How the folder was made: the same settings and sources give the same bytes.

    Attributes:
        split: fractions of good rows, or another rule of `splits`.
        tokens: what ids are: "raw" 32-bit tokens; "contiguous" ids of the tokens that occur at least
            `min_count` times in the training rows (see `vocabulary`); "mlperf": tokens modulo 40,000,000, and
            dense values are log(x + 1) of max(x, 0).
        shuffle: the seed by which rows are shuffled within each shard; None: in time order.
        max_list: of longer lists the last so many values are kept; None: all.
        layout: the raw files' columns; None: those of Criteo's logs.
        sort: whether rows are in the order of the time column rather than in that of the files.
    """

    split: tuple[float, float, float] | str
    shard_rows: Annotated[int, Field(ge=1)]
    max_bad_fraction: Share
    tokens: Tokens = "raw"
    min_count: Annotated[int, Field(ge=1)] = 1
    shuffle: Annotated[int, Field(ge=0)] | None = None
    layout: Layout | None = None
    sort: Annotated[bool, Field(exclude_if=lambda used: not used)] = False
    max_list: Annotated[Annotated[int, Field(ge=1)] | None, Field(exclude_if=lambda used: used is None)] = (
        None
    )

    @property
    def dense_is_log(self) -> bool:
        """Whether dense values are stored as models take them rather than as the numbers x: as log(x + 1) of max(x, 0),
        or as the layout's `transforms` say.
        """
        return self.tokens == "mlperf" or bool(self.layout and self.layout.transforms)


class Quarantine(_Frozen):
    """Bad rows by reason, and the file that holds them (None without any)."""

    reasons: dict[str, Count]
    file: Shard | None


class TimeOrder(_Frozen):
    """Whether rows are in time order: by which column, how many have a time, and how many of those are earlier than a
    row before them, in the order of all files.
    """

    column: str
    rows: Count
    out_of_order: Count


class ListFigures(_Frozen):
    """A column of lists.

    Attributes:
        name: in the schema.
        column: of the shards, whose name differs where another of their columns has that one.
        values: of all rows together.
        longest: values of the longest list.
        mean_length: values a row.
        cut: values that longer lists had (see `Settings.max_list`).
    """

    name: str
    column: str
    values: Count
    longest: Count
    mean_length: Annotated[float, Field(ge=0)]
    cut: Count = 0


class Manifest(_Frozen):
    """A folder of shards.

    Attributes:
        cardinalities: per feature (token columns, then columns of lists), how many distinct ids occur, "missing" being
            one where it occurs; with contiguous ids, how many there are, the 0 of missing and unknown tokens always
            among them.
        dense_missing, token_missing: per column or feature, the share of rows without a value; of lists, with none.
        rows_in: rows_out + rows_quarantined.
        click_rate: over all rows out.
        vocabulary: with contiguous ids, the files that hold each column's tokens.
        counts: the file that says how often each value occurs in training rows (see `counts`); None where an older
            version has not counted them.
        dense_inexact: per integer column, the values that float32 does not hold exactly, so that different ones
            became one; empty where an older version has not counted them.
        time_order: of the rows; None where no column holds the time.
        weights: of each split, the mean weight of its rows (0 without any), where rows have weights.
        fitted: what the training rows say of columns, where the layout asks for that.
        lists: of each column of lists.
    """

    schema_version: Literal[1] = 1
    settings: Settings
    sources: list[Source]
    rows_in: Count
    rows_out: Count
    rows_quarantined: Count
    click_rate: Share
    splits: dict[str, Split]
    cardinalities: list[Cardinality]
    dense_missing: list[Share]
    token_missing: list[Share]
    quarantine: Quarantine
    vocabulary: list[Shard] = []
    counts: Shard | None = None
    dense_inexact: list[Count] = []
    time_order: TimeOrder | None = None
    weights: Annotated[dict[str, Weight] | None, Field(exclude_if=lambda used: used is None)] = None
    fitted: Annotated[Fitted | None, Field(exclude_if=lambda used: used is None)] = None
    lists: Annotated[list[ListFigures], Field(exclude_if=lambda used: not used)] = []

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        layout = self.settings.layout or CRITEO
        dense, tokens = len(layout.dense), len(layout.features)
        contiguous = self.settings.tokens == "contiguous"
        files = [shard.file for shard in self.files]
        row_bytes = (
            1 + 4 * dense + 4 * tokens + 4 * ((layout.weight is not None) + (layout.score is not None))
        )
        kept = [shard for split in self.splits.values() for shard in split.shards]
        short = [shard.file for shard in kept if shard.bytes < shard.rows * row_bytes]
        problems = {
            f"splits are not {', '.join(SPLITS)}": set(self.splits) != set(SPLITS),
            f"dense_missing has not one share for each of {dense} columns": len(self.dense_missing) != dense,
            "lists are not those of the layout": [(one.name, one.column) for one in self.lists]
            != list(zip(layout.token_lists, list_names(layout.token_lists), strict=True)),
            "lists have no longer one, or more values than rows of the longest": any(
                not one.longest <= one.values <= one.longest * self.rows_out for one in self.lists
            ),
            f"token_missing has not one share for each of {tokens} columns": len(self.token_missing)
            != tokens,
            f"cardinalities has not one for each of {tokens} columns": len(self.cardinalities) != tokens,
            "a file is named twice": len(set(files)) < len(files),
            f"{short[0] if short else ''} has fewer bytes than its rows take": bool(short),
            "rows_out are not the rows of all splits": self.rows_out
            != sum(s.rows for s in self.splits.values()),
            "rows_in are not rows_out and rows_quarantined": self.rows_in
            != self.rows_out + self.rows_quarantined,
            f"dense_inexact has not one count for each of {dense} columns": len(self.dense_inexact)
            not in (0, dense),
            "click_rate is not that of all splits": not math.isclose(
                self.click_rate * self.rows_out,
                sum((split.click_rate or 0.0) * split.rows for split in self.splits.values()),
                rel_tol=1e-6,
                abs_tol=1e-6,
            ),
            "weights are not those of each split": (set(self.weights or ()) != set(SPLITS))
            if layout.weight is not None
            else self.weights is not None,
            "no training row has a weight above 0": self.weights is not None
            and not self.weights.get("train"),
            "fitted is not what the layout asks for": not layout.is_fitted_by(self.fitted),
            "vocabulary does not give the cardinalities": contiguous
            and [file.rows + 1 for file in self.vocabulary] != self.cardinalities,
        }
        for problem, is_so in problems.items():
            if is_so:
                raise ValueError(problem)
        return self

    @property
    def layout(self) -> Layout:
        """The columns of the raw files, with what the training rows say of them."""
        return (self.settings.layout or CRITEO).with_fitted(self.fitted)

    @property
    def full_rows(self) -> int:
        """Rows of the full embedding tables together."""
        return sum(self.cardinalities)

    @property
    def files(self) -> list[Shard]:
        """Every file that the folder holds besides the manifest."""
        shards = [shard for split in self.splits.values() for shard in split.shards]
        kept = [file for file in (self.counts, self.quarantine.file) if file]
        return [*shards, *self.vocabulary, *kept]

    @staticmethod
    def load(folder: str | Place) -> Manifest:
        """Read a folder's manifest.

        Raises:
            InputError: no such folder, no manifest in it, or not one that this version reads.
        """
        path = place(folder) / NAME
        try:
            found = entry(path)
            if not found.is_file or found.is_folder or found.size > MOST_BYTES:
                what = (
                    "is no regular file"
                    if found.size <= MOST_BYTES
                    else f"is larger than {MOST_BYTES >> 20} MiB"
                )
                raise InputError(f"{path}: {what}, so it is no manifest; prepare the raw files again")
            return Manifest.model_validate_json(read(path, links=True))
        except StorageError as error:
            if error.fixable:
                raise InputError(str(error)) from None
            raise
        except (FileNotFoundError, NotADirectoryError):
            what = "has no manifest.json" if is_folder(path.parent) else "is not a folder"
            fix = "make a folder of shards with `sizewise prep RAW... --out DIR`"
            raise InputError(f"{folder}: {what}; {fix}") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}; prepare the raw files again") from None

    def shape(self, shard: Shard) -> Shape:
        """The shape that one of the splits' shards must have."""
        lists = tuple(column.column for column in self.lists)
        tokens = len(self.cardinalities) - len(lists)
        scored = self.layout.score is not None
        return Shape(shard.rows, len(self.dense_missing), tokens, self.weights is not None, scored, lists)


def rows_problem(folder: Path, manifest: Manifest, shard: Shard) -> str | None:
    """What is wrong with a shard's rows by what the manifest says of them, whatever the file's digest.

    Args:
        folder: of the shards.
        manifest: of the folder.
        shard: one of the splits' shards.

    Returns:
        A sentence; None where nothing is wrong.
    """
    try:
        rows = read_shard(folder / shard.file, manifest.shape(shard))
    except InputError as error:
        return str(error).removeprefix(f"{folder}/")
    except OSError as error:
        return f"{shard.file}: cannot be read ({error.strerror})"
    if manifest.settings.tokens == "contiguous":
        greatest = [*np.max(rows.ids, axis=0), *(column.values.max(initial=0) for column in rows.lists)]
        for column, (found, count) in enumerate(zip(greatest, manifest.cardinalities, strict=True)):
            if found >= count:
                return f"{shard.file}: token column {column + 1} has id {found}, but its cardinality is {count:,}"
    return None


def problem_of(folder: Path, shard: Shard) -> str | None:
    """What is wrong with one file of a folder, in a sentence that begins with its name; None where nothing is."""
    path = folder / shard.file
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            return f"{shard.file}: has {size:,} bytes instead of {shard.bytes:,}"
        if digest(path) != shard.sha256:
            return f"{shard.file}: its content has changed (its SHA-256 differs)"
    except FileNotFoundError:
        return f"{shard.file}: is missing"
    except OSError as error:
        return f"{shard.file}: cannot be read ({error.strerror})"
    return None
