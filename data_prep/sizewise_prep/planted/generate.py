"""Write a planted world as raw log files, with the truth beside them in `truth.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import atomic_folder, is_free, write_atomic
from sizewise_prep.planted.bayes import BayesMeter
from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.output import Format
from sizewise_prep.planted.output.schema_file import NAME as SCHEMA
from sizewise_prep.planted.output.schema_file import schema_text
from sizewise_prep.planted.output.truth import AddedMeter, AddedTruth, LogFile, SplitTruth, Truth
from sizewise_prep.planted.world import World
from sizewise_prep.shards.splits import SPLITS, check_fractions, split_sizes

_CHUNK = 1 << 14  # rows at a time: the working arrays stay in the processor's cache
_MAX_ROWS = 1 << 40


@dataclass(frozen=True)
class LogOptions:
    """What logs to write.

    Attributes:
        seed: another seed is another world: other tokens, other effects, other rows.
        files: the rows are spread evenly over so many, in time order.
        compress: write `.tsv.gz`.
        dials: properties of the world; the defaults behave like a real log.
        split: the fractions of rows that `Truth.splits` is about.
        format: `parquet` in place of text.
    """

    seed: int = 1
    files: int = 1
    compress: bool = False
    dials: Dials = field(default_factory=Dials)
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    format: Format = "text"


def generate(
    out: Path,
    rows: int,
    options: LogOptions | None = None,
    *,
    progress: Callable[[int], None] | None = None,
    **named: Any,
) -> Truth:
    """Write planted rows to `out/day_0.tsv`, `day_1.tsv`, ... in time order, and `out/truth.json` last.

    Where the rows are not plainly in Criteo's layout, `out/schema.yaml` says what their columns are. The same
    arguments give the same bytes (of Parquet, by the same PyArrow). Memory does not grow with the rows.

    Args:
        out: a folder that is absent or empty; one that holds these very logs is left as it is.
        rows: at least two, without which there is no AUC.
        options: what to write; its fields may be given by name instead.
        progress: called with the number of rows written so far.

    Raises:
        InputError: an impossible argument, or `out` holds something else.
    """
    asked = replace(options or LogOptions(), **named)
    asked = replace(asked, dials=asked.dials or Dials(), split=check_fractions(asked.split))
    out = Path(out)
    if not 2 <= rows <= _MAX_ROWS:
        raise InputError(f"rows = {rows}: give a number from 2 to {_MAX_ROWS:,}")
    if wrong := _impossible(rows, asked):
        raise InputError(wrong)
    if (finished := _finished(out, rows, asked)) is not None:
        return finished
    # Polars and PyArrow, which write files: rows can be made without them.
    from sizewise_prep.planted.output.files import log_file

    world = World(asked.seed, rows, asked.dials)
    meters = {name: BayesMeter() for name in SPLITS}
    added = AddedMeter(world)
    with atomic_folder(out) as folder:
        logs = []
        for index in range(asked.files):
            name = f"day_{index}{_ending(asked)}"
            start, stop = rows * index // asked.files, rows * (index + 1) // asked.files
            with log_file(folder / name, asked.format, asked.compress) as (log, writer):
                for first, last, part in _pieces(start, stop, split_sizes(rows, asked.split)):
                    chunk = world.chunk(first, last)
                    meters[part].add(chunk.probability, chunk.labels)
                    added.add(chunk)
                    log.write(chunk)
                    if progress:
                        progress(last)
            logs.append(LogFile(name=name, rows=stop - start, bytes=writer.bytes, sha256=writer.sha256))
        truth = _truth(world, meters, added.truth(), logs, asked)
        if (schema := schema_text(world, asked.format)) is not None:
            write_atomic(folder / SCHEMA, schema.encode())
        write_atomic(folder / "truth.json", truth.model_dump_json(indent=2).encode() + b"\n")
    return truth


def _impossible(rows: int, asked: LogOptions) -> str:
    """What of the options is impossible for so many rows; empty where nothing is."""
    if not 1 <= asked.files <= rows:
        return f"files = {asked.files}: give at least 1 and at most one file per row ({rows:,})"
    if asked.format not in get_args(Format):
        return f"format = {asked.format!s:.20}: give {' or '.join(get_args(Format))}"
    if asked.format == "parquet" and asked.compress:
        return "gzip is for text: Parquet files are compressed as they are"
    if asked.dials.users > rows:
        return f"users = {asked.dials.users:,}: give at most one for each of the {rows:,} rows"
    return ""


def _ending(asked: LogOptions) -> str:
    return ".parquet" if asked.format == "parquet" else ".tsv.gz" if asked.compress else ".tsv"


def _pieces(start: int, stop: int, sizes: dict[str, int]) -> Iterator[tuple[int, int, str]]:
    """Cut rows `start` to `stop` into pieces that are in one split and have at most as many rows as a chunk."""
    boundary = 0
    for name, size in sizes.items():
        first, boundary = max(start, boundary), boundary + size
        while first < min(stop, boundary):
            last = min(first + _CHUNK, stop, boundary)
            yield first, last, name
            first = last


def _truth(
    world: World,
    meters: dict[str, BayesMeter],
    added: AddedTruth | None,
    logs: list[LogFile],
    asked: LogOptions,
) -> Truth:
    overall = BayesMeter()
    for meter in meters.values():
        overall.merge(meter)
    return Truth(
        seed=world.seed,
        dials=world.dials,
        compress=asked.compress,
        split=asked.split,
        intercept=world.intercept,
        splits={name: SplitTruth.measured(meter) for name, meter in meters.items()},
        files=logs,
        format=asked.format,
        added=added,
        **SplitTruth.measured(overall).model_dump(),
    )


def _finished(out: Path, rows: int, asked: LogOptions) -> Truth | None:
    """The truth of `out` when it already holds these logs, None when it is free to be written."""
    if is_free(out):
        return None
    if (out / "truth.json").exists():
        truth = Truth.load(out)
        held = LogOptions(
            truth.seed, len(truth.files), truth.compress, truth.dials, truth.split, truth.format
        )
        paths = [out / log.name for log in truth.files]
        sizes = [path.stat().st_size if path.is_file() else None for path in paths]
        if (rows, asked) == (truth.rows, held) and sizes == [log.bytes for log in truth.files]:
            return truth
    raise InputError(f"{out}: holds something else; name a new folder or remove this one first")
