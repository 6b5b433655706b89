"""The options of a preparation, checked before any file is touched.

Options(tokens="contiguous", min_count=2).settings()     # what the manifest records of it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.jobs import assembly
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.row_readers import found_as, layout_as
from sizewise_prep.shards.manifest import Settings, Tokens
from sizewise_prep.shards.splits import Rule

_MAX_SHARD_ROWS = 50_000_000


@dataclass(frozen=True)
class Options:
    """The options of a preparation.

    Attributes:
        split: fractions of good rows, in time order, for training, validation and test; or "rows:A,B",
            "files:A,B", "mlperf", "time:A,B", "column:NAME" or "key:NAME" (see `splits`).
        shard_rows: rows a shard (the last of a split has fewer); by default eight of the blocks that training shuffles.
        max_bad_fraction: up to this share of bad rows are set aside in `quarantine/`; with 0 the first one is
            an error.
        tokens: "raw" keeps 32-bit tokens. "contiguous" numbers each column's tokens from 1 and writes the
            vocabulary beside the shards. "mlperf" takes tokens modulo 40,000,000, and of dense values
            log(x + 1) of max(x, 0).
        min_count: with contiguous ids, tokens that training rows hold fewer times become 0, as if missing.
        shuffle: a seed by which rows are shuffled within each shard; None keeps the order of the log.
        layout: the raw files' columns, if they are not Criteo's.
        sort: whether to put rows in the order of the time column; equal times keep the order of the log.
        format: of files of NumPy arrays or sparse text (see `raw.files.arrays` and `raw.tables.sparse_text`); other
            formats are recognized.
        max_list: of longer lists the last so many values are kept; None: all.
    """

    split: tuple[float, ...] | str = (0.8, 0.1, 0.1)
    shard_rows: int = 524_288
    max_bad_fraction: float = 0.0
    tokens: Tokens = "raw"
    min_count: int = 1
    shuffle: int | None = None
    layout: Layout | None = None
    sort: bool = False
    max_list: int | None = None
    format: str | None = None

    def found(self, raw: str | Path | Sequence[str | Path]) -> list[RawFile]:
        """The raw files. Raises InputError where they are not to be had."""
        return found_as(self.format, raw)

    def for_files(self, raw: str | Path | Sequence[str | Path]) -> Options:
        """The options with the columns of files whose format says what they are."""
        if self.format is None or self.layout is not None:
            return self
        return replace(self, layout=layout_as(self.found(raw)[0]))

    @property
    def shard_memory(self) -> int:
        """Bytes that a worker needs to make a shard."""
        layout = self.layout or CRITEO
        numbers, features = len(layout.numbers), len(layout.features)
        return assembly.memory(self.shard_rows, 1 + 4 * numbers + 4 * features + 8 * self.sort)

    def settings(self) -> Settings:
        """The options as the manifest records them. Raises InputError for one that is out of range."""
        if not 1 <= self.shard_rows <= _MAX_SHARD_ROWS:
            raise InputError(f"shard_rows = {self.shard_rows}: give a number from 1 to {_MAX_SHARD_ROWS:,}")
        if self.tokens not in ("raw", "contiguous", "mlperf"):
            raise InputError(f"tokens = {self.tokens!r}: give 'raw', 'contiguous' or 'mlperf'")
        if self.min_count < 1 or (self.min_count > 1 and self.tokens != "contiguous"):
            what = "give at least 1, and more only with tokens 'contiguous'"
            raise InputError(f"min_count = {self.min_count}: {what}")
        if not 0 <= self.max_bad_fraction <= 1:
            raise InputError(f"max_bad_fraction = {self.max_bad_fraction}: give a fraction from 0 to 1")
        if self.shuffle is not None and self.shuffle < 0:
            raise InputError(f"shuffle = {self.shuffle}: give a seed from 0 on")
        rule = Rule.parse(self.split)
        if self.sort:
            rule.check_sorted()
            (self.layout or CRITEO).sorted_by_time()
        if self.max_list is not None and self.max_list < 1:
            raise InputError(f"max_list = {self.max_list}: give at least 1")
        if self.max_list is not None and not (self.layout or CRITEO).token_lists:
            raise InputError("max_list: the schema has no columns of lists (`tokens`): leave it out")
        return Settings(
            split=rule.written,
            shard_rows=self.shard_rows,
            max_bad_fraction=self.max_bad_fraction,
            tokens=self.tokens,
            min_count=self.min_count,
            shuffle=self.shuffle,
            layout=None if self.layout == CRITEO else self.layout,
            sort=self.sort,
            max_list=self.max_list,
        )
