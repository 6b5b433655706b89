"""Raw click logs to a folder of shards, in bounded memory, by any number of workers.

    manifest = prepare(["logs/day_*.gz"], Path("data/criteo"))

The work has steps, each a list of independent jobs whose results are files: raw text is parsed to parts (`log`,
`parts`), parts are cut to shards (`assembly`), and the runs of distinct tokens that shards leave behind are merged
column by column (`distinct`, `vocabulary`); `shard_steps` has their order. All of it lies in a hidden folder beside
the one that is asked for (`work_folder`), which gets its name when everything is there. A file counts as done when the
record of its size and digest is written, so a run that was killed goes on with what is done, and ends with the same
bytes.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import publish, resumable_folder, write_atomic
from sizewise_core.machine import limits
from sizewise_core.stores.storage import Place, place
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.pipeline.options import Options
from sizewise_prep.pipeline.steps.log import Log, digests
from sizewise_prep.pipeline.steps.progress import FileProgress, Progress
from sizewise_prep.pipeline.steps.shard_steps import make
from sizewise_prep.pipeline.steps.work_folder import (
    claim,
    clear_all_but,
    finished_manifest,
    is_begun,
    refuse_others,
)
from sizewise_prep.pipeline.workers import Local, Workers
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import CRITEO
from sizewise_prep.raw.row_readers import check
from sizewise_prep.shards.manifest import NAME, Manifest, Settings
from sizewise_prep.shards.splits import Rule

# Processes and threads: this one's, with those of Polars on a few CPUs, and each worker's.
PROCESSES = 24
PROCESSES_A_WORKER = 8

__all__ = ["FileProgress", "Options", "Progress", "default_workers", "prepare", "steps", "steps_to"]


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

    The folder appears when it is complete. The same sources and settings give the same bytes, with any number of
    workers. A run that was killed or that failed is continued by the next one with the same arguments.

    Args:
        raw: files, URIs or glob patterns in time order; any format of `raw.row_readers`, text also compressed.
        out: a folder that is absent or empty, or the URI of one in an object store (see `remote`). One made in this
            way from these sources is left as it is.
        options: what to do; its fields may be given by name instead.
        workers: how many local processes. With more than one, the main module must be importable.
        memory: bytes that all workers together may take; half of the machine's if None.
        progress: called about every second.

    Raises:
        InputError: the sources, a row (with file, line and field), an option or `out`.
        TooFewProcessesError: a limit leaves too few processes and threads.
    """
    options = replace(options or Options(), **named).for_files(raw)
    options.settings()
    if workers < 1:
        raise InputError(f"workers = {workers}: give at least 1")
    limit, each = memory or limits.memory() // 2, max(parts.MEMORY, options.shard_memory)
    if limit < each:
        what = "raise it, or lower shard_rows"
        raise InputError(f"memory = {limit:,} bytes: one worker needs {each:,}; {what}")
    count = min(workers, limit // each)
    limits.check_processes(PROCESSES + (count > 1) * count * PROCESSES_A_WORKER, "preparing")

    with Local(count) as local:
        return _completed(steps_to(raw, out, options, local, limit), progress)


def steps_to(
    raw: str | Path | Sequence[str | Path], out: str | Path, options: Options, workers: Workers, memory: int
) -> Generator[Progress, None, Manifest]:
    """As `steps`, into a folder of this machine or of an object store.

    Args:
        raw, options, workers, memory: as for `steps`.
        out: a folder, or the URI of one in an object store.
    """
    target = place(str(out))
    if isinstance(target, Path):
        return (yield from steps(raw, target, options, workers, memory))
    from sizewise_prep.pipeline import remote

    options = options.for_files(raw)
    settings, found = options.settings(), options.found(raw)
    if (manifest := remote.finished(target, settings)) is not None:
        _check_sources(target, manifest, found, settings, workers)
        return manifest

    def make(folder: Path) -> Generator[Progress, None, Manifest]:
        return steps(raw, folder, options, workers, memory)

    return (yield from remote.prepared(target, settings, found, make))


def _completed(
    work: Generator[Progress, None, Manifest], progress: Callable[[Progress], None] | None
) -> Manifest:
    """Take all steps, and report each."""
    while True:
        try:
            step = next(work)
        except StopIteration as end:
            manifest: Manifest = end.value
            return manifest
        if progress:
            progress(step)


def default_workers() -> int:
    """One worker for each CPU that this process may use, or fewer where a limit allows too few processes."""
    allowed = limits.processes()
    few = (allowed.left - PROCESSES) // PROCESSES_A_WORKER if allowed else limits.cpus()
    return max(1, min(limits.cpus(), few))


def steps(
    raw: str | Path | Sequence[str | Path], out: str | Path, options: Options, workers: Workers, memory: int
) -> Generator[Progress, None, Manifest]:
    """What `prepare` does, one step at a time.

    Args:
        raw, out, options: as for `prepare`.
        workers: who does the jobs.
        memory: bytes that all workers together may take.

    Yields:
        The progress, about every second.

    Returns:
        The manifest, as the generator's value.

    Raises:
        InputError: as `prepare`.
    """
    options = options.for_files(raw)
    out, settings = Path(out), options.settings()
    found = options.found(raw)
    rule = Rule.parse(settings.split)
    check(found, settings.layout or CRITEO, split=rule.by_row(settings.layout or CRITEO))
    rule.check_files(len(found))
    if (manifest := finished_manifest(out, settings)) is not None:
        _check_sources(out, manifest, found, settings, workers)
        return manifest
    time = parts.time_column(found[0], settings.layout or CRITEO)
    with resumable_folder(out) as folder, _plain_errors(folder):
        try:
            if not (folder / NAME).exists():
                claim(folder, settings, found, time)
                log = Log(folder, settings, found, workers, time)
                yield from log.read()
                manifest = yield from make(folder, settings, log, rule, workers, memory)
                write_atomic(folder / NAME, manifest.model_dump_json(indent=2).encode() + b"\n")
            manifest = Manifest.load(folder)
            refuse_others(folder, manifest.settings, settings)
            clear_all_but(folder, {NAME, *(file.file for file in manifest.files)})
            publish(folder, out)
        except BaseException:
            if not is_begun(folder):
                shutil.rmtree(folder, ignore_errors=True)  # there is nothing to continue
            raise
    return manifest


def _check_sources(
    out: Place, manifest: Manifest, found: list[RawFile], settings: Settings, workers: Workers
) -> None:
    """Raise InputError where a finished folder was made from other raw files."""
    sizes = [source.bytes for source in manifest.sources]
    recorded = [source.sha256 for source in manifest.sources]
    same = sizes == [one.bytes for one in found]
    if not same or recorded != digests(found, settings.layout or CRITEO, workers):
        raise InputError(f"{out}: was made from other raw files; name a new folder or remove this one first")


@contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    """A full disk is an input error: its owner can make room."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        what = f"{error.filename or folder}: cannot be written completely ({error.strerror})"
        raise InputError(
            f"{what}; make room, and run the same command again: it continues from here"
        ) from None
