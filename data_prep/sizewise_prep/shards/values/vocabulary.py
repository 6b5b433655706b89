"""Contiguous ids: the tokens that training rows hold often enough, numbered by column.

    vocabulary = Vocabulary.load(Path("data/criteo"))
    ids = vocabulary.ids(tokens)            # (rows, 26) raw tokens -> ids

Id 0 stands for missing and for every token that is not in the vocabulary; the others count from 1 in
ascending order of the token. Only training rows are counted: what a model meets later for the first time is
as unknown here as it will be in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import atomic_file, hashed_file, write_atomic
from sizewise_prep.shards.arrow_files import Column, MalformedError, mapped
from sizewise_prep.shards.files import column_of, digest
from sizewise_prep.shards.manifest import Manifest, Shard, problem_of
from sizewise_prep.shards.values import counts
from sizewise_prep.shards.values.distinct import Run, Words, is_first, merged

_FEW = 4096  # distinct words of a shard that are found fastest by searching
_SCHEMA = pa.schema([pa.field("token", pa.uint32(), nullable=False)])


@dataclass(frozen=True)
class Vocabulary:
    """Known tokens.

    Attributes:
        tokens: per feature (token columns, then columns of lists), ascending; the id of a token is its position + 1.
    """

    tokens: list[Words]

    @property
    def cardinalities(self) -> list[int]:
        """Per column, how many ids there are, 0 included."""
        return [len(known) + 1 for known in self.tokens]

    def ids(self, tokens: Words) -> Words:
        """The ids of raw tokens, (rows, columns) uint32 to the same shape and type."""
        ids = np.zeros_like(tokens)
        for column in range(tokens.shape[1]):
            ids[:, column] = self.ids_of(column, tokens[:, column])
        return ids

    def ids_of(self, feature: int, tokens: Words) -> Words:
        """The ids of one feature's raw tokens, uint32 of any shape; those of lists come after all token columns."""
        known = self.tokens[feature]
        if not len(known):
            return np.zeros_like(tokens)
        place = np.minimum(np.searchsorted(known, tokens), len(known) - 1)
        return np.where(known[place] == tokens, place + 1, 0).astype(np.uint32)

    def raw_tokens(self, ids: Words) -> Words:
        """The raw tokens of ids that `ids` gave, (rows, columns) uint32; 0 where a token was missing or unknown."""
        tokens = np.zeros_like(ids)
        for column, known in enumerate(self.tokens[: ids.shape[1]]):
            found = ids[:, column]
            if len(known):
                tokens[:, column] = np.where(found > 0, known[np.maximum(found, 1) - 1], 0)
        return tokens

    @staticmethod
    def load(folder: Path) -> Vocabulary:
        """Read the vocabulary of a folder of shards.

        Raises InputError when a file is damaged, or absent as it is where ids are raw tokens.
        """
        manifest, tokens = Manifest.load(folder), []
        for column, cardinality in enumerate(manifest.cardinalities):
            path = folder / file_of(column)
            try:
                (known,) = mapped(path, [Column("token", np.uint32)])
            except FileNotFoundError:
                fix = "only shards with contiguous ids have a vocabulary; prepare the raw files so"
                raise InputError(f"{path}: not found; {fix}") from None
            except MalformedError as error:
                raise InputError(f"{path}: {error}; prepare the raw files again") from None
            if len(known) + 1 != cardinality or not (known[1:] > known[:-1]).all():
                raise InputError(
                    f"{path}: does not hold {cardinality - 1:,} tokens, ascending, as the manifest says; prepare the "
                    "raw files again"
                )
            tokens.append(known)
        return Vocabulary(tokens)


def file_of(column: int) -> str:
    """The file of a token column's vocabulary in a folder of shards."""
    return f"vocabulary/C{column + 1}.arrow"


class Numbered(BaseModel):
    """A numbered column: its vocabulary, counts, and the ids of every run's words, one run after another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: int
    vocabulary: Shard
    counts: Shard
    ids: Shard


@dataclass(frozen=True)
class NumberJob:
    """A token column to be numbered.

    Attributes:
        folder: the working folder.
        column: which token column.
        runs: of all shards; those of training rows are counted.
        min_count: a token that occurs fewer times in training rows has id 0.
        limit: words in memory at a time.
    """

    folder: Path
    column: int
    runs: tuple[Run, ...]
    min_count: int
    limit: int

    @property
    def record_path(self) -> Path:
        """The path of the record that says it is done."""
        return self.folder / "work" / "numbered" / f"C{self.column + 1}.json"


def check(job: NumberJob) -> Iterator[Numbered | None]:
    """The result of an earlier run, if it is intact."""
    found = Numbered.model_validate_json(job.record_path.read_bytes())
    files = (found.vocabulary, found.counts, found.ids)
    yield None if any(problem_of(job.folder, file) for file in files) else found


def number(job: NumberJob) -> Iterator[Numbered]:
    """Number a column's tokens: write its vocabulary, counts, the ids of all runs' words, and the record of them."""
    lengths = [run.starts[job.column + 1] - run.starts[job.column] for run in job.runs]
    begins = np.cumsum([0, *lengths], dtype=np.int64)
    ids_file, path = _ids_file(job.column), job.folder / file_of(job.column)
    path.parent.mkdir(exist_ok=True)
    spilled, known_so_far = (job.folder / ids_file).with_suffix(".known"), 0
    unknown = np.zeros(2, np.int64)  # rows without a known token, and those with a click
    with (
        atomic_file(job.folder / ids_file, durable=False) as stream,
        spilled.open("wb") as kept,
        counts.Writer((job.folder / ids_file).with_suffix(".counts"), numbered=True) as writer,
    ):
        for part in merged(job.runs, job.column, job.limit):
            known = (part.counts >= job.min_count) & (part.words != 0)
            ids = np.where(known, known_so_far + np.cumsum(known), 0).astype(np.uint32)
            for begin, position, start in zip(begins, part.positions, part.starts, strict=False):
                stream.seek(4 * (int(begin) + start))
                stream.write(ids[position].data)
            kept.write(part.words[known].data)
            known_so_far += int(known.sum())
            writer.add(ids[known], part.counts[known], part.clicks[known])
            unknown += part.counts[~known].sum(), part.clicks[~known].sum()
        values, size, sha256 = writer.written(zero=(int(unknown[0]), int(unknown[1])))
    counted = Shard(file=str(Path(ids_file).with_suffix(".counts")), rows=values, bytes=size, sha256=sha256)
    tokens = np.memmap(spilled, np.uint32, "r") if known_so_far else np.empty(0, np.uint32)
    with hashed_file(path) as hashed, pa.ipc.new_file(pa.PythonFile(hashed, "w"), _SCHEMA) as file:
        file.write_batch(pa.record_batch([column_of(pa.uint32(), tokens)], schema=_SCHEMA))
    spilled.unlink()
    size, sha256 = 4 * int(begins[-1]), digest(job.folder / ids_file)
    numbered = Numbered(
        column=job.column,
        vocabulary=Shard(
            file=file_of(job.column), rows=known_so_far, bytes=hashed.bytes, sha256=hashed.sha256
        ),
        counts=counted,
        ids=Shard(file=ids_file, rows=int(begins[-1]), bytes=size, sha256=sha256),
    )
    write_atomic(job.record_path, numbered.model_dump_json().encode())
    yield numbered


def renumber(folder: Path, run: Run, begins: Sequence[int], features: Sequence[Words]) -> None:
    """Replace a shard's tokens by their contiguous ids.

    Args:
        folder: the working folder.
        run: of this shard.
        begins: per column, where the ids of this run's words begin among those of all runs.
        features: of each column its tokens, as they were counted; they are replaced.
    """
    for column, (begin, tokens) in enumerate(zip(begins, features, strict=True)):
        count = run.starts[column + 1] - run.starts[column]
        if not count:
            continue
        of_words = np.memmap(folder / _ids_file(column), np.uint32, "r", offset=4 * begin, shape=(count,))
        if count > _FEW:  # then sorting is faster than searching
            packed = tokens.astype(np.uint64) << np.uint64(32)
            packed |= np.arange(len(packed), dtype=np.uint64)
            packed.sort()
            ascending, rows = (packed >> np.uint64(32)).astype(np.uint32), packed & np.uint64(0xFFFFFFFF)
            tokens[rows] = of_words[np.cumsum(is_first(ascending)) - 1]
        else:
            tokens[:] = of_words[np.searchsorted(run.column(column)[:], tokens)]


def _ids_file(column: int) -> str:
    return f"work/ids/C{column + 1}.u32"
