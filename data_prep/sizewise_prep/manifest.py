"""`manifest.json`: what a folder of shards holds, where it came from and how to tell that it is whole.

    manifest = Manifest.load(Path("data/criteo"))
    manifest.splits["train"].rows, manifest.cardinalities, manifest.click_rate
    verify(Path("data/criteo"))             # [] when every shard is as it was written

It is written last and at once, so a folder that has one is complete.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sizewise_prep.errors import InputError
from sizewise_prep.layout import Layout
from sizewise_prep.shards import digest
from sizewise_prep.storage import Place, StorageError, is_folder, place, read
from sizewise_prep.workers import cores

NAME = "manifest.json"
Tokens = Literal["raw", "contiguous", "mlperf"]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """A raw file: its path as it was given, its own size and SHA-256, and its rows, good and bad.

    Plain files are read in pieces of 64 MiB by any number of workers. With more than one piece `sha256` is the
    SHA-256 of the pieces' digests (32 bytes each), one after another.
    """

    path: str
    bytes: Count
    sha256: str
    rows: Count
    pieces: Annotated[int, Field(ge=1)] = 1


class Shard(_Frozen):
    """One file of the folder."""

    file: str
    rows: Count
    bytes: Count
    sha256: str


class Split(_Frozen):
    """A stretch of the log in time order; `click_rate` is None without rows."""

    rows: Count
    click_rate: Share | None
    shards: list[Shard]


class Settings(_Frozen):
    """How the folder was made: with these and the same sources, the same bytes come out.

    Attributes:
        split: fractions of good rows, or another rule of `splits`.
        tokens: what ids are: "raw" 32-bit tokens; "contiguous" ids of the tokens that occur at least
            `min_count` times in the training rows (see `vocabulary`); "mlperf": tokens modulo 40,000,000, and
            dense values are log(x + 1) of max(x, 0).
        shuffle: the seed by which rows lie shuffled within each shard; None: in time order.
        layout: what the raw files' columns are; None: as in Criteo's logs.
    """

    split: tuple[float, float, float] | str
    shard_rows: Annotated[int, Field(ge=1)]
    max_bad_fraction: Share
    tokens: Tokens = "raw"
    min_count: Annotated[int, Field(ge=1)] = 1
    shuffle: Annotated[int, Field(ge=0)] | None = None
    layout: Layout | None = None

    @property
    def dense_is_log(self) -> bool:
        """Whether dense values are stored as log(x + 1) of max(x, 0) rather than as the integers x."""
        return self.tokens == "mlperf"


class Quarantine(_Frozen):
    """Rows that were set aside, by reason, and the file that keeps them (None without any)."""

    reasons: dict[str, Count]
    file: Shard | None


class Manifest(_Frozen):
    """A folder of shards.

    Attributes:
        cardinalities: per token column, how many distinct ids occur, "missing" being one where it occurs;
            with contiguous ids, how many there are, the 0 of missing and unknown tokens always among them.
        dense_missing, token_missing: per column, the share of rows without a value.
        rows_in: rows_out + rows_quarantined.
        click_rate: over all rows out.
        vocabulary: with contiguous ids, the files that hold each column's tokens.
    """

    schema_version: Literal[1] = 1
    settings: Settings
    sources: list[Source]
    rows_in: Count
    rows_out: Count
    rows_quarantined: Count
    click_rate: Share
    splits: dict[str, Split]
    cardinalities: list[Count]
    dense_missing: list[Share]
    token_missing: list[Share]
    quarantine: Quarantine
    vocabulary: list[Shard] = []

    @property
    def full_rows(self) -> int:
        """Rows of the full embedding tables together."""
        return sum(self.cardinalities)

    @property
    def files(self) -> list[Shard]:
        """Every file that the folder holds besides the manifest."""
        shards = [shard for split in self.splits.values() for shard in split.shards]
        kept = [self.quarantine.file] if self.quarantine.file else []
        return [*shards, *self.vocabulary, *kept]

    @staticmethod
    def load(folder: str | Place) -> Manifest:
        """Read a folder's manifest.

        Raises:
            InputError: no such folder, no manifest in it, or not one that this version reads.
        """
        path = place(folder) / NAME
        try:
            return Manifest.model_validate_json(read(path))
        except StorageError as error:
            if error.mendable:
                raise InputError(str(error)) from None
            raise
        except (FileNotFoundError, NotADirectoryError):
            what = "has no manifest.json" if is_folder(path.parent) else "is not a folder"
            mend = "make a folder of shards with `sizewise prep RAW... --out DIR`"
            raise InputError(f"{folder}: {what}; {mend}") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "file"
            raise InputError(f"{path}: {field}: {first['msg']}; prepare the raw files again") from None


def verify(folder: str | Path) -> list[str]:
    """One sentence for each file that is missing, differs from the manifest or is not in it; none when all is well.

    Raises InputError as `Manifest.load` does.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    with ThreadPoolExecutor(cores()) as pool:
        problems = list(pool.map(partial(problem_of, folder), manifest.files))
    known = {NAME, *(shard.file for shard in manifest.files)}
    there = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    extra = [f"{name}: is not in the manifest; remove it" for name in there if name not in known]
    return [problem for problem in problems if problem] + extra


def problem_of(folder: Path, shard: Shard) -> str | None:
    """What is wrong with one file of a folder, in a sentence that begins with its name; None when all is well."""
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
