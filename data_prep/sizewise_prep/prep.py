"""Raw click logs to a folder of shards, in bounded memory, by any number of workers.

    manifest = prepare(["logs/day_*.gz"], Path("data/criteo"))

The work has steps, each a list of independent jobs whose results are files: raw text is parsed to parts
(`parts`), parts are cut to shards (`assembly`), and the runs of distinct tokens that shards leave behind are
merged column by column (`distinct`, `vocabulary`). It lies in a hidden folder beside the one that is asked for,
which gets its name when everything is there. A file counts as done when the record of its size and digest is
written, so a run that was killed goes on with what is done, and ends with the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from sizewise_prep import assembly, parts, sources
from sizewise_prep.assembly import Cut, Made, ShardJob
from sizewise_prep.atomic import publish, resumable_folder, write_atomic
from sizewise_prep.distinct import BYTES_PER_WORD, Run, distinct
from sizewise_prep.errors import InputError
from sizewise_prep.layout import CRITEO, Layout
from sizewise_prep.manifest import (
    NAME,
    Manifest,
    Quarantine,
    Settings,
    Shard,
    Source,
    Split,
    Tokens,
    problem_of,
)
from sizewise_prep.parts import ParseJob, Part
from sizewise_prep.sources import RawFile, resolve
from sizewise_prep.splits import Rule
from sizewise_prep.vocabulary import number
from sizewise_prep.workers import Local, Workers, cores, physical_memory

PIECE_BYTES = 64 << 20
_MAX_SHARD_ROWS = 50_000_000
_STATE = "work/state.json"
_QUARANTINE = "quarantine/rows.tsv"
_MERGE_MEMORY = 300 * 10**6  # of a worker that merges, its words aside


@dataclass(frozen=True)
class Options:
    """What a preparation is to do.

    Attributes:
        split: fractions of good rows, in time order, for training, validation and test; or "rows:A,B",
            "files:A,B" or "mlperf" (see `splits`).
        shard_rows: rows a shard (the last of a split has fewer).
        max_bad_fraction: up to this share of bad rows are set aside in `quarantine/`; with 0 the first one is
            an error.
        tokens: "raw" keeps 32-bit tokens. "contiguous" numbers each column's tokens from 1 and writes the
            vocabulary beside the shards. "mlperf" takes tokens modulo 40,000,000, and of dense values
            log(x + 1) of max(x, 0).
        min_count: with contiguous ids, tokens that training rows hold fewer times become 0, as if missing.
        shuffle: a seed by which rows are shuffled within each shard; None keeps the order of the log.
        layout: of the raw files, if it is not Criteo's.
    """

    split: tuple[float, ...] | str = (0.8, 0.1, 0.1)
    shard_rows: int = 1_000_000
    max_bad_fraction: float = 0.0
    tokens: Tokens = "raw"
    min_count: int = 1
    shuffle: int | None = None
    layout: Layout | None = None

    @property
    def shard_memory(self) -> int:
        """Bytes that a worker needs to make a shard."""
        layout = self.layout or CRITEO
        return assembly.memory(self.shard_rows, 1 + 4 * len(layout.dense) + 4 * len(layout.tokens))

    def settings(self) -> Settings:
        """The same, checked. Raises InputError for what cannot be."""
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
        return Settings(
            split=Rule.parse(self.split).written,
            shard_rows=self.shard_rows,
            max_bad_fraction=self.max_bad_fraction,
            tokens=self.tokens,
            min_count=self.min_count,
            shuffle=self.shuffle,
            layout=None if self.layout == CRITEO else self.layout,
        )


@dataclass(frozen=True)
class FileProgress:
    """How far one raw file is read, in bytes as they lie in it."""

    name: str
    bytes: int
    bytes_total: int


@dataclass(frozen=True)
class Progress:
    """How far a preparation has come.

    Attributes:
        step: "read" raw files; "check" what is there; "count" tokens; "number" them; write "shards"; "distinct".
        done, total: bytes of the raw files in the first step, jobs in the others.
        rows: rows read so far, good and bad.
        seconds: since this run began.
        bytes_before, rows_before: what runs before this one had read.
        files: of the first step.
    """

    step: Literal["read", "check", "count", "number", "shards", "distinct"]
    done: int
    total: int
    rows: int
    seconds: float
    bytes_before: int
    rows_before: int
    files: tuple[FileProgress, ...]


class _State(BaseModel):
    """What the work in a folder is for: other settings or files must not be mixed into it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Settings
    sources: list[tuple[str, int]]
    marks: list[str]
    piece_bytes: int
    block_bytes: int


def prepare(
    raw: str | Path | Sequence[str | Path],
    out: str | Path,
    options: Options | None = None,
    *,
    workers: int = 1,
    memory: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    **named: Any,
) -> Manifest:
    """Turn raw logs into the folder `out`: shards, `manifest.json`, and `quarantine/` for rows set aside.

    The folder appears when it is complete. The same sources and settings give the same bytes, whoever works on
    them. A run that was killed or that failed is continued by the next one with the same arguments.

    Args:
        raw: files, URIs or glob patterns in time order; plain, gzip or Zstandard.
        out: a folder that is absent or empty. One made in this way from these sources is left as it is.
        options: what to do; its fields may be given by name instead.
        workers: how many local processes. With more than one, the main module must be importable.
        memory: bytes that all workers together may take; half of the machine's if None.
        progress: called about every second.

    Raises:
        InputError: the sources, a row (with file, line and field), an option or `out`.
    """
    options = replace(options or Options(), **named)
    options.settings()
    if workers < 1:
        raise InputError(f"workers = {workers}: give at least 1")
    limit, each = memory or physical_memory() // 2, max(parts.MEMORY, options.shard_memory)
    if limit < each:
        what = "raise it, or lower shard_rows"
        raise InputError(f"memory = {limit:,} bytes: one worker needs {each:,}; {what}")
    with Local(min(workers, limit // each)) as local:
        work = steps(raw, out, options, local, limit)
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                manifest: Manifest = end.value
                return manifest
            if progress:
                progress(step)


def default_workers() -> int:
    """One for each processor core."""
    return cores()


def steps(
    raw: str | Path | Sequence[str | Path], out: str | Path, options: Options, workers: Workers, memory: int
) -> Generator[Progress, None, Manifest]:
    """What `prepare` does, as its progress step by step; the manifest is the generator's return value."""
    out, settings = Path(out), options.settings()
    found = resolve(raw)
    rule = Rule.parse(settings.split)
    rule.check_files(len(found))
    if (finished := _finished(out, settings, found, workers)) is not None:
        return finished
    with resumable_folder(out) as folder, _plain_errors(folder):
        try:
            if not (folder / NAME).exists():
                _claim(folder, settings, found)
                work = _Work(folder, settings, found, workers, memory)
                manifest = yield from work.steps(rule)
                write_atomic(folder / NAME, manifest.model_dump_json(indent=2).encode() + b"\n")
            manifest = Manifest.load(folder)
            _refuse_others(folder, manifest.settings, settings)
            _clear_all_but(folder, {NAME, *(file.file for file in manifest.files)})
            publish(folder, out)
        except BaseException:
            if (
                not any(part.rows for part in parts.recorded(folder).values())
                and not (folder / NAME).exists()
            ):
                shutil.rmtree(folder, ignore_errors=True)  # nothing to go on with
            raise
    return manifest


@contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    """A full disk is its owner's to mend."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        what = f"{error.filename or folder}: cannot be written to its end ({error.strerror})"
        raise InputError(f"{what}; make room, and run the same command again: it goes on from here") from None


def _finished(out: Path, settings: Settings, found: list[RawFile], workers: Workers) -> Manifest | None:
    """The manifest of `out` when it was made from these files in this way, None when it is free."""
    if not out.exists():
        return None
    mend = "name a new folder or remove this one first"
    if not out.is_dir():
        raise InputError(f"{out}: is a file; name a new or empty folder")
    if not any(out.iterdir()):
        return None
    if not (out / NAME).exists():
        raise InputError(f"{out}: is not empty and holds no finished shards; {mend}")
    manifest = Manifest.load(out)
    _refuse_others(out, manifest.settings, settings)
    same = [source.bytes for source in manifest.sources] == [raw.bytes for raw in found]
    if not same or [source.sha256 for source in manifest.sources] != _digests(found, workers):
        raise InputError(f"{out}: was made from other raw files; {mend}")
    return manifest


def _refuse_others(folder: Path, held: Settings, asked: Settings) -> None:
    differing = [
        f"{name} {_said(getattr(held, name))} instead of {_said(getattr(asked, name))}"
        for name in Settings.model_fields
        if getattr(held, name) != getattr(asked, name)
    ]
    if differing:
        mend = "name a new folder or remove this one first"
        raise InputError(f"{folder}: was made with other settings ({'; '.join(differing)}); {mend}")


def _said(value: object) -> str:
    return "another" if isinstance(value, Layout) else str(value)


def _claim(folder: Path, settings: Settings, found: list[RawFile]) -> None:
    """Make sure that what lies in a working folder is of this work, and forget what has become of no use.

    How many bad rows are allowed is judged at the end, so another figure may go on with the same work.
    """
    state = _State(
        settings=settings.model_copy(update={"max_bad_fraction": 0.0}),
        sources=[(raw.path, raw.bytes) for raw in found],
        marks=[raw.mark for raw in found],
        piece_bytes=PIECE_BYTES,
        block_bytes=sources.BLOCK_BYTES,
    )
    path = folder / _STATE
    if path.exists() and any(part.rows for part in parts.recorded(folder).values()):
        held = _State.model_validate_json(path.read_bytes())
        _refuse_others(folder, held.settings, state.settings)
        if [source for source, _ in held.sources] != [raw.path for raw in found]:
            mend = "give the same ones, name a new folder, or remove this one first"
            raise InputError(f"{folder}: was begun with other raw files; {mend}")
        if held != state:
            fresh = held.model_copy(update={"sources": state.sources, "marks": state.marks})
            changed = {
                i for i, pair in enumerate(zip(held.marks, state.marks, strict=True)) if pair[0] != pair[1]
            }
            for key in parts.recorded(folder):
                if fresh != state or key[0] in changed:
                    parts.record_path(folder, *key).unlink()
            for name in ("made", "counted", "runs"):
                shutil.rmtree(folder / "work" / name, ignore_errors=True)
    else:
        for entry in folder.iterdir():  # nothing that is worth going on with
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in ("parts", "made", "counted", "runs"):
        (folder / "work" / name).mkdir(parents=True, exist_ok=True)
    for temporary in folder.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)
    write_atomic(path, state.model_dump_json().encode())


def _clear_all_but(folder: Path, kept: set[str]) -> None:
    """Delete the work, and what interrupted runs have left."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds before the folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif str(path.relative_to(folder)) not in kept:
            path.unlink()


class _Work:
    """The steps of one preparation in its working folder."""

    def __init__(
        self, folder: Path, settings: Settings, found: list[RawFile], workers: Workers, memory: int
    ) -> None:
        self._folder, self._settings, self._found = folder, settings, found
        self._workers, self._memory = workers, memory
        self._layout = settings.layout or CRITEO
        self._began = time.monotonic()
        self._parts = parts.recorded(folder)
        self._before = self._read()
        self._fresh: set[tuple[int, int]] = set()

    def steps(self, rule: Rule) -> Generator[Progress, None, Manifest]:
        yield from self._parse()
        log = [self._parts[key] for key in sorted(self._parts)]
        rows = [sum(part.rows for part in log if part.file == file) for file in range(len(self._found))]
        quarantine = self._quarantine(log)
        self._check_rows(log, quarantine)
        sizes = rule.sizes(rows)
        jobs = self._shard_jobs(log, sizes)
        figures: list[Made] = []
        vocabulary: list[Shard] = []
        if self._settings.tokens == "contiguous":
            figures = yield from self._make(
                [replace(job, counting=True) for job in jobs], "count", last=False
            )
            training = [job.name.startswith("train-") for job in jobs]
            vocabulary = yield from self._number([made.run_in(self._folder) for made in figures], training)
        made = yield from self._make(jobs, "shards", last=True)
        figures = figures or made
        if vocabulary:
            cardinalities = [file.rows + 1 for file in vocabulary]
        else:
            cardinalities = yield from self._distinct([one.run_in(self._folder) for one in figures])
        return self._manifest(log, quarantine, sizes, made, figures, vocabulary, cardinalities)

    def _parse(self) -> Generator[Progress, None, None]:
        jobs = self._parse_jobs()
        yield self._reading()
        for part in self._workers.run(parts.parse, jobs, parts.MEMORY):
            if part is None:  # a worker tells only when its job is done, so look what is there
                self._parts |= parts.recorded(self._folder)
            else:
                self._parts[part.key] = part
                self._fresh.add(part.key)
            yield self._reading()

    def _parse_jobs(self) -> list[ParseJob]:
        """What is not parsed yet: pieces of plain files, and compressed files as far as they go."""
        jobs = []
        for file, raw in enumerate(self._found):
            done = frozenset(piece for at, piece in self._parts if at == file)
            ended = any(part.last for part in self._parts.values() if part.file == file)
            whole = ParseJob(
                folder=self._folder,
                file=file,
                raw=raw,
                layout=self._layout,
                piece=0,
                start=0,
                stop=raw.bytes,
                done=done,
                piece_bytes=PIECE_BYTES,
                block_bytes=min(sources.BLOCK_BYTES, PIECE_BYTES),
                strict=not self._settings.max_bad_fraction,
            )
            if not raw.compressed:
                jobs += [
                    replace(whole, piece=piece, start=start, stop=stop)
                    for piece, (start, stop) in enumerate(_pieces(raw))
                    if piece not in done
                ]
            elif not ended or done != frozenset(range(len(done))):
                jobs.append(whole)
        return jobs

    def _read(self) -> tuple[int, int]:
        """Bytes and rows read so far."""
        known = self._parts.values()
        return sum(part.raw_bytes for part in known), sum(part.lines for part in known)

    def _reading(self) -> Progress:
        done, rows = self._read()
        by_file = Counter[int]()
        for part in self._parts.values():
            by_file[part.file] += part.raw_bytes
        files = tuple(FileProgress(raw.name, by_file[i], raw.bytes) for i, raw in enumerate(self._found))
        return self._progress("read", done, sum(raw.bytes for raw in self._found), rows, files)

    def _progress(
        self,
        step: Literal["read", "check", "count", "number", "shards", "distinct"],
        done: int,
        total: int,
        rows: int | None = None,
        files: tuple[FileProgress, ...] = (),
    ) -> Progress:
        rows = self._read()[1] if rows is None else rows
        return Progress(step, done, total, rows, time.monotonic() - self._began, *self._before, files)

    def _quarantine(self, log: list[Part]) -> Quarantine:
        reasons = sum((Counter(part.reasons) for part in log), Counter())
        file = parts.write_quarantine(self._folder, _QUARANTINE, self._found, log)
        return Quarantine(reasons=dict(sorted(reasons.items())), file=file)

    def _check_rows(self, log: list[Part], quarantine: Quarantine) -> None:
        for file, raw in enumerate(self._found):
            if not sum(part.lines for part in log if part.file == file):
                raise InputError(f"{raw.path}: holds no rows; leave it out or bring its rows")
        rows, bad = sum(part.lines for part in log), sum(quarantine.reasons.values())
        allowed = self._settings.max_bad_fraction
        if bad > allowed * rows:
            first = next(part for part in log if part.first_bad)
            line, detail = first.first_bad or (0, "")
            line += sum(p.lines + p.header for p in log if p.file == first.file and p.piece < first.piece)
            raise InputError(
                f"{bad:,} of {rows:,} rows are bad, more than --max-bad-fraction {allowed} allows; "
                f"the first: {self._found[first.file].path}, line {line}: {detail}"
            )
        if bad == rows:
            raise InputError(
                f"{self._found[0].path}: none of the {rows:,} rows is good; see the expected layout"
            )

    def _shard_jobs(self, log: list[Part], sizes: dict[str, int]) -> list[ShardJob]:
        """Every split starts a shard; every shard but a split's last has `shard_rows` rows."""
        jobs, settings = [], self._settings
        left = [(part.data.file, 0, part.rows) for part in reversed(log) if part.data]
        for place, (name, size) in enumerate(sizes.items()):
            for number_, first in enumerate(range(0, size, settings.shard_rows)):
                wanted, cuts = min(settings.shard_rows, size - first), []
                while wanted:
                    file, start, stop = left.pop()
                    cut = Cut(file, start, min(stop, start + wanted))
                    wanted -= cut.stop - cut.start
                    cuts.append(cut)
                    if cut.stop < stop:
                        left.append((file, cut.stop, stop))
                shuffle = None if settings.shuffle is None else (settings.shuffle, place, number_)
                shard = f"{name}-{number_:05d}"
                jobs.append(
                    ShardJob(self._folder, shard, tuple(cuts), settings.tokens, shuffle, counting=False)
                )
        return jobs

    def _make(
        self, jobs: list[ShardJob], step: Literal["count", "shards"], last: bool
    ) -> Generator[Progress, None, list[Made]]:
        """Do those of the jobs that are not done, in the order of the jobs; a `last` use of a part frees its disk."""
        made: dict[str, Made] = {}
        started = [job for job in jobs if job.record_path.exists()]
        for found in self._workers.run(assembly.check, started, parts.MEMORY):
            if found is not None:
                made[found.name] = found
            yield self._progress("check", len(made), len(started))
        left = [job for job in jobs if job.name not in made]
        yield from self._restore({cut.file for job in left for cut in job.cuts})
        uses = Counter(cut.file for job in left for cut in job.cuts)
        by_name = {job.name: job for job in left}
        memory = assembly.memory(
            self._settings.shard_rows, 1 + 4 * len(self._layout.dense) + 4 * len(self._layout.tokens)
        )
        for one in self._workers.run(assembly.make, left, memory):
            if one is not None:
                made[one.name] = one
                for cut in by_name[one.name].cuts if last else ():
                    uses[cut.file] -= 1
                    if not uses[cut.file]:
                        (self._folder / cut.file).unlink(missing_ok=True)
            yield self._progress(step, len(made), len(jobs))
        return [made[job.name] for job in jobs]

    def _restore(self, needed: set[str]) -> Generator[Progress, None, None]:
        """Parse again what an earlier run had parsed and is no longer as it was written."""
        old = [
            p for p in self._parts.values() if p.data and p.data.file in needed and p.key not in self._fresh
        ]
        damaged = 0
        for key in self._workers.run(_damaged, [(self._folder, part) for part in old], parts.MEMORY):
            if key is not None:
                damaged += 1
                parts.record_path(self._folder, *key).unlink()
                del self._parts[key]
        if damaged:
            yield from self._parse()

    def _number(self, runs: list[Run], training: list[bool]) -> Generator[Progress, None, list[Shard]]:
        limit, columns = self._words(), range(len(self._layout.tokens))
        jobs = [(self._folder, column, runs, training, self._settings.min_count, limit) for column in columns]
        files: dict[str, Shard] = {}
        for file in self._workers.run(_number, jobs, self._memory):
            if file is not None:
                files[file.file] = file
            yield self._progress("number", len(files), len(jobs))
        return sorted(files.values(), key=lambda file: sources.natural(file.file))

    def _distinct(self, runs: list[Run]) -> Generator[Progress, None, list[int]]:
        columns = range(len(self._layout.tokens))
        counts: dict[int, int] = {}
        for found in self._workers.run(_distinct, [(c, runs, self._words()) for c in columns], self._memory):
            if found is not None:
                counts[found[0]] = found[1]
            yield self._progress("distinct", len(counts), len(columns))
        return [counts[column] for column in columns]

    def _words(self) -> int:
        """How many words a worker may merge at a time."""
        return max(1 << 20, (self._workers.share(self._memory) - _MERGE_MEMORY) // BYTES_PER_WORD)

    def _manifest(
        self,
        log: list[Part],
        quarantine: Quarantine,
        sizes: dict[str, int],
        made: list[Made],
        figures: list[Made],
        vocabulary: list[Shard],
        cardinalities: list[int],
    ) -> Manifest:
        rows, splits = sum(sizes.values()), {}
        clicks = Counter[str]()
        for one in made:
            clicks[one.name.split("-")[0]] += one.clicks
        for name, size in sizes.items():
            shards = [one.shard for one in made if one.shard and one.name.split("-")[0] == name]
            splits[name] = Split(rows=size, click_rate=clicks[name] / size if size else None, shards=shards)
        dense, tokens = (
            [sum(column) / rows for column in zip(*(getattr(one, kind) for one in figures), strict=True)]
            for kind in ("dense_missing", "token_missing")
        )
        return Manifest(
            settings=self._settings,
            sources=[
                self._source(file, [part for part in log if part.file == file])
                for file in range(len(self._found))
            ],
            rows_in=sum(part.lines for part in log),
            rows_out=rows,
            rows_quarantined=sum(quarantine.reasons.values()),
            click_rate=sum(clicks.values()) / rows,
            splits=splits,
            cardinalities=cardinalities,
            dense_missing=dense,
            token_missing=tokens,
            quarantine=quarantine,
            vocabulary=vocabulary,
        )

    def _source(self, file: int, log: list[Part]) -> Source:
        raw, log = self._found[file], [part for part in log if part.file == file]
        digests = [log[-1].sha256] if raw.compressed else [part.sha256 for part in log]
        return Source(
            path=raw.path,
            bytes=raw.bytes,
            sha256=_combined(digests),
            rows=sum(part.lines for part in log),
            pieces=len(digests),
        )


def _pieces(raw: RawFile) -> list[tuple[int, int]]:
    """The pieces that a file's own bytes are read in."""
    if raw.compressed:
        return [(0, raw.bytes)]
    return [(start, min(start + PIECE_BYTES, raw.bytes)) for start in range(0, raw.bytes, PIECE_BYTES)]


def _combined(digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _digests(found: list[RawFile], workers: Workers) -> list[str]:
    """The digests of raw files as `Source` has them."""
    jobs = [(file, raw, *piece) for file, raw in enumerate(found) for piece in _pieces(raw)]
    known: dict[tuple[int, int], str] = {}
    for result in workers.run(_digest, jobs, parts.MEMORY):
        if result is not None:
            file, start, digest = result
            known[file, start] = digest
    return [_combined([known[file, start] for start, _ in _pieces(raw)]) for file, raw in enumerate(found)]


def _digest(job: tuple[int, RawFile, int, int]) -> Iterator[tuple[int, int, str]]:
    file, raw, start, stop = job
    digest, left = hashlib.sha256(), stop - start
    with raw.open() as stream:
        stream.seek(start)
        while left and (piece := stream.read(min(sources.BLOCK_BYTES, left))):
            digest.update(piece)
            left -= len(piece)
    yield file, start, digest.hexdigest()


def _damaged(job: tuple[Path, Part]) -> Iterator[tuple[int, int] | None]:
    folder, part = job
    yield part.key if any(problem_of(folder, file) for file in part.files) else None


def _number(job: tuple[Path, int, list[Run], list[bool], int, int]) -> Iterator[Shard]:
    yield number(*job)


def _distinct(job: tuple[int, list[Run], int]) -> Iterator[tuple[int, int]]:
    column, runs, limit = job
    yield column, distinct([run.column(column) for run in runs], limit)
