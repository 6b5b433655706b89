"""Contiguous ids: the tokens that training rows hold often enough, numbered by column.

    vocabulary = Vocabulary.load(Path("data/criteo"))
    ids = vocabulary.ids(tokens)            # (rows, 26) raw tokens -> ids

Id 0 stands for missing and for every token that is not in the vocabulary; the others count from 1 in
ascending order of the token. Only training rows are counted: what a model meets later for the first time is
as unknown here as it will be in use.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from sizewise_prep.atomic import hashed_file
from sizewise_prep.distinct import Run, Words, ranges, union
from sizewise_prep.errors import InputError
from sizewise_prep.manifest import Manifest, Shard

_SCHEMA = pa.schema([pa.field("token", pa.uint32(), nullable=False)])


@dataclass(frozen=True)
class Vocabulary:
    """Known tokens.

    Attributes:
        tokens: per column, ascending; the id of a token is its position + 1.
    """

    tokens: list[Words]

    @property
    def cardinalities(self) -> list[int]:
        """Per column, how many ids there are, 0 included."""
        return [len(known) + 1 for known in self.tokens]

    def ids(self, tokens: Words) -> Words:
        """The ids of raw tokens, (rows, columns) uint32 to the same shape and type."""
        ids = np.zeros_like(tokens)
        for column, known in enumerate(self.tokens):
            if len(known):
                wanted = tokens[:, column]
                place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
                ids[:, column] = np.where(known[place] == wanted, place + 1, 0)
        return ids

    @staticmethod
    def load(folder: Path) -> Vocabulary:
        """Read the vocabulary of a folder of shards.

        Raises InputError when a file is damaged, or absent as it is where ids are raw tokens.
        """
        tokens = []
        for column in range(len(Manifest.load(folder).cardinalities)):
            path = folder / file_of(column)
            try:
                with pa.memory_map(str(path)) as source:
                    tokens.append(pa.ipc.open_file(source).read_all()["token"].to_numpy())
            except FileNotFoundError:
                mend = "only shards with contiguous ids have a vocabulary; prepare the raw files so"
                raise InputError(f"{path}: not found; {mend}") from None
            except (pa.ArrowInvalid, KeyError) as error:
                raise InputError(f"{path}: cannot be read ({error}); prepare the raw files again") from None
        return Vocabulary(tokens)


def file_of(column: int) -> str:
    """The file of a token column's vocabulary in a folder of shards."""
    return f"vocabulary/C{column + 1}.arrow"


def number(
    folder: Path, column: int, runs: Sequence[Run], training: Sequence[bool], min_count: int, limit: int
) -> Shard:
    """Number a column's tokens: write its vocabulary to `folder`, and beside each run the ids of its words.

    Args:
        folder: of the shards.
        column: which token column.
        runs: counted runs of all shards.
        training: which of them are of training rows.
        min_count: a token that occurs fewer times in training rows has id 0.
        limit: words in memory at a time.
    """
    words = [run.column(column) for run in runs]
    counts = [run.counts(column) for run in runs]
    path = folder / file_of(column)
    path.parent.mkdir(exist_ok=True)
    known_so_far, spilled = 0, path.with_suffix(".u32")
    with spilled.open("wb") as stream:
        for parts in ranges(words, limit):
            union_ = union(words, parts)
            places = [np.searchsorted(union_, w[part]) for w, part in zip(words, parts, strict=True)]
            occurrences = np.zeros(len(union_), np.int64)
            for place, count, part, counted in zip(places, counts, parts, training, strict=True):
                if counted:
                    occurrences[place] += count[part]
            known = (occurrences >= min_count) & (union_ != 0)
            ids = np.where(known, known_so_far + np.cumsum(known), 0).astype(np.uint32)
            for run, place, part in zip(runs, places, parts, strict=True):
                _write_at(ids_path(run), 4 * (run.starts[column] + part.start), ids[place])
            stream.write(union_[known].data.cast("B"))
            known_so_far += int(known.sum())
    tokens = np.memmap(spilled, np.uint32, "r") if known_so_far else np.empty(0, np.uint32)
    with hashed_file(path) as writer, pa.ipc.new_file(pa.PythonFile(writer, "w"), _SCHEMA) as file:
        file.write_batch(pa.record_batch([pa.array(np.asarray(tokens))], schema=_SCHEMA))
    spilled.unlink()
    return Shard(file=file_of(column), rows=known_so_far, bytes=writer.bytes, sha256=writer.sha256)


def ids_path(run: Run) -> Path:
    """Where the ids of a run's words lie, in the order of the words."""
    return run.path.with_suffix(".ids")


def numbered(run: Run, ids: Words) -> Words:
    """The contiguous ids of a shard's tokens, (rows, columns), from its run and the ids beside it."""
    of_words = np.memmap(ids_path(run), np.uint32, "r")
    new = np.empty_like(ids)
    for column in range(ids.shape[1]):
        start, stop = run.starts[column : column + 2]
        new[:, column] = of_words[start:stop][np.searchsorted(run.column(column), ids[:, column])]
    return new


def _write_at(path: Path, offset: int, ids: Words) -> None:
    """Write ids at an offset; the columns of one file may be written by several workers at once."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        data = ids.data.cast("B")
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(descriptor)
