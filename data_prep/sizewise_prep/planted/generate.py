"""Write a planted world as raw log files, with the truth beside them in `truth.json`."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sizewise_core.atomic import HashingWriter, atomic_folder, hashed_file, is_free, write_atomic
from sizewise_core.errors import InputError, first_problem
from sizewise_core.names import PlainName
from sizewise_prep.planted.bayes import BayesMeter
from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.world import World
from sizewise_prep.shards.splits import SPLITS, check_fractions, split_sizes

_CHUNK = 1 << 14  # rows at a time: the working arrays stay in the processor's cache
_MAX_ROWS = 1 << 40


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LogFile(_Frozen):
    """One raw file, by its name in the folder."""

    name: PlainName
    rows: int
    bytes: int
    sha256: str


class SplitTruth(_Frozen):
    """The figures of some consecutive rows.

    `bayes_*` are expectations under the true probabilities, `realised_*` their values on the labels as drawn.
    AUC is None where it is undefined (no rows, or only one kind of label); log-losses are in nats.
    """

    rows: int
    click_rate: float | None
    bayes_auc: float | None
    bayes_logloss: float | None
    realised_auc: float | None
    realised_logloss: float | None

    @staticmethod
    def measured(meter: BayesMeter) -> SplitTruth:
        """The figures of a meter."""
        return SplitTruth(
            rows=meter.rows,
            click_rate=meter.clicks / meter.rows if meter.rows else None,
            bayes_auc=meter.bayes_auc,
            bayes_logloss=meter.bayes_logloss,
            realised_auc=meter.realised_auc,
            realised_logloss=meter.realised_logloss,
        )


class Truth(_Frozen):
    """`truth.json`: how a folder of planted logs was made, and the best that any model can do on it.

    Attributes:
        intercept: the logit's constant, found from the click rate asked for.
        split: fractions of rows, in time order, that `splits` speaks of.
        bayes_auc, bayes_logloss: Bayes-optimal over all rows.
        splits: the same for each split, by name.
    """

    schema_version: Literal[1] = 1
    seed: int
    rows: int
    dials: Dials
    compress: bool
    split: tuple[float, float, float]
    intercept: float
    click_rate: float
    bayes_auc: float
    bayes_logloss: float
    realised_auc: float | None
    realised_logloss: float
    splits: dict[str, SplitTruth]
    files: list[LogFile]

    @staticmethod
    def load(folder: Path) -> Truth:
        """Read `folder/truth.json`. Raises InputError when it is absent or not what `generate` writes."""
        path = folder / "truth.json"
        try:
            return Truth.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{path}: not found; it is beside logs made by `sizewise generate`") from None
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}; generate the logs anew") from None


@dataclass(frozen=True)
class LogOptions:
    """What logs to write.

    Attributes:
        seed: another seed is another world: other tokens, other effects, other rows.
        files: the rows are spread evenly over so many, in time order.
        compress: write `.tsv.gz`.
        dials: properties of the world; the defaults behave like a real log.
        split: the fractions of rows that `Truth.splits` is about.
    """

    seed: int = 1
    files: int = 1
    compress: bool = False
    dials: Dials = field(default_factory=Dials)
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)


def generate(
    out: Path,
    rows: int,
    options: LogOptions | None = None,
    *,
    progress: Callable[[int], None] | None = None,
    **named: Any,
) -> Truth:
    """Write planted rows to `out/day_0.tsv`, `day_1.tsv`, ... in time order, and `out/truth.json` last.

    The same arguments give the same bytes. Memory does not grow with the rows.

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
    out, files = Path(out), asked.files
    if not 2 <= rows <= _MAX_ROWS:
        raise InputError(f"rows = {rows}: give a number from 2 to {_MAX_ROWS:,}")
    if not 1 <= files <= rows:
        raise InputError(f"files = {files}: give at least 1 and at most one file per row ({rows:,})")
    if (finished := _finished(out, rows, asked)) is not None:
        return finished
    world = World(asked.seed, rows, asked.dials)
    meters = {name: BayesMeter() for name in SPLITS}
    with atomic_folder(out) as folder:
        logs = []
        for index in range(files):
            name = f"day_{index}.tsv" + (".gz" if asked.compress else "")
            start, stop = rows * index // files, rows * (index + 1) // files
            with (
                hashed_file(folder / name) as writer,
                closing(_compressed(writer) if asked.compress else writer) as stream,
            ):
                for first, last, part in _pieces(start, stop, split_sizes(rows, asked.split)):
                    chunk = world.chunk(first, last)
                    meters[part].add(chunk.probability, chunk.labels)
                    stream.write(chunk.text())
                    if progress:
                        progress(last)
            logs.append(LogFile(name=name, rows=stop - start, bytes=writer.bytes, sha256=writer.sha256))
        truth = _truth(world, meters, logs, asked)
        write_atomic(folder / "truth.json", truth.model_dump_json(indent=2).encode() + b"\n")
    return truth


def _pieces(start: int, stop: int, sizes: dict[str, int]) -> Iterator[tuple[int, int, str]]:
    """Cut rows `start` to `stop` into pieces that are in one split and have at most as many rows as a chunk."""
    boundary = 0
    for name, size in sizes.items():
        first, boundary = max(start, boundary), boundary + size
        while first < min(stop, boundary):
            last = min(first + _CHUNK, stop, boundary)
            yield first, last, name
            first = last


def _compressed(stream: HashingWriter) -> gzip.GzipFile:
    # No name and no time in the header: the same rows give the same bytes. Level 1 halves the size at a
    # quarter of the time of level 6.
    return gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=stream, mtime=0)


def _truth(
    world: World,
    meters: dict[str, BayesMeter],
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
        **SplitTruth.measured(overall).model_dump(),
    )


def _finished(out: Path, rows: int, asked: LogOptions) -> Truth | None:
    """The truth of `out` when it already holds these logs, None when it is free to be written."""
    if is_free(out):
        return None
    if (out / "truth.json").exists():
        truth = Truth.load(out)
        held = LogOptions(truth.seed, len(truth.files), truth.compress, truth.dials, truth.split)
        paths = [out / log.name for log in truth.files]
        sizes = [path.stat().st_size if path.is_file() else None for path in paths]
        if (rows, asked) == (truth.rows, held) and sizes == [log.bytes for log in truth.files]:
            return truth
    raise InputError(f"{out}: holds something else; name a new folder or remove this one first")
