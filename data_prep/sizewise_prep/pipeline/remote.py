"""A folder of shards in an object store: made on this machine, and then sent, the manifest last.

The folder is prepared in the cache of this machine, where a run that was killed goes on. While it is sent, an object
`.partial.json` beside the shards says what they are for; a file on this machine says which of them have arrived. So the
same command goes on wherever it ended, and the store never holds a manifest without all of its files.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from upath import UPath

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import BusyError, resumable_folder, write_atomic
from sizewise_core.stores.storage import entries, entry, exists, read, remove, send, write
from sizewise_prep.pipeline.steps.progress import Progress
from sizewise_prep.pipeline.steps.work_folder import FIX, refuse_others
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.shards.cache import cache_folder
from sizewise_prep.shards.manifest import NAME, Manifest, Settings

_MARK = ".partial.json"


class _Begun(BaseModel):
    """What the files of an unfinished folder are for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Settings
    sources: list[str]


def finished(target: UPath, settings: Settings) -> Manifest | None:
    """The manifest of a finished folder that was made with these settings; None where it is free or unfinished.

    Args:
        target: the folder in the object store.
        settings: of the preparation.

    Raises:
        InputError: it holds anything else.
        StorageError: the storage cannot be reached.
    """
    if exists(target / NAME):
        manifest = Manifest.load(target)
        refuse_others(target, manifest.settings, settings)
        remove(target / _MARK)  # where the run that wrote the manifest ended at once
        return manifest
    if entries(target) and not exists(target / _MARK):
        raise InputError(f"{target}: is not empty and holds no finished shards; {FIX}")
    return None


def prepared(
    target: UPath,
    settings: Settings,
    found: Sequence[RawFile],
    make: Callable[[Path], Generator[Progress, None, Manifest]],
) -> Generator[Progress, None, Manifest]:
    """Prepare a folder, and send it.

    Args:
        target: the folder in the object store, not finished yet.
        settings: of the preparation.
        found: the raw files.
        make: prepares a folder of this machine, or goes on with it.

    Yields:
        What `make` yields.

    Returns:
        The manifest, as the generator's value.

    Raises:
        InputError: the folder was begun with other settings or raw files, or as `make`.
        StorageError: the storage cannot be reached.
    """
    begun = _Begun(
        settings=settings.model_copy(update={"max_bad_fraction": 0.0}), sources=[raw.path for raw in found]
    )
    _check(target, begun)
    with _held(target) as held:
        working = held / _digest(
            "\n".join([begun.model_dump_json(), *(f"{raw.bytes} {raw.mark}" for raw in found)])
        )
        working.mkdir(exist_ok=True)
        folder = working / "folder"
        manifest = yield from make(folder)
        write(target / _MARK, begun.model_dump_json().encode())
        _send(folder, target, manifest, working / "sent.json")
        write(target / NAME, (folder / NAME).read_bytes())
        remove(target / _MARK)
        shutil.rmtree(held)
    return manifest


@contextmanager
def _held(target: UPath) -> Iterator[Path]:
    """The folder of this machine where shards for a place are prepared, in a folder for each log; for one at a time."""
    named = re.sub(r"[^A-Za-z0-9_-]", "_", target.name)
    folder = cache_folder() / "prep" / f"{named}-{_digest(str(target))}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}): set SIZEWISE_CACHE to a folder on a local disk"
        ) from None
    try:
        with resumable_folder(folder) as held:
            yield held
    except BusyError:
        raise BusyError(f"{target}: another process is preparing it; wait for it or choose another") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check(target: UPath, begun: _Begun) -> None:
    """Refuse a folder that was begun for something else."""
    if not exists(target / _MARK):
        return
    try:
        held = _Begun.model_validate_json(read(target / _MARK))
    except ValidationError:
        raise InputError(f"{target / _MARK}: says nothing that this version reads; {FIX}") from None
    refuse_others(target, held.settings, begun.settings)
    if held.sources != begun.sources:
        raise InputError(f"{target}: was begun with other raw files; give the same ones, or {FIX}")


def _send(folder: Path, target: UPath, manifest: Manifest, record: Path) -> None:
    """Send all files but the manifest that have not arrived, and delete what other raw files have left there.

    Args:
        folder: on this machine.
        target: where they go.
        manifest: of the folder.
        record: the file that says which have arrived, by digest.
    """
    sent: dict[str, str] = json.loads(record.read_bytes()) if record.exists() else {}
    wanted = {file.file: file for file in manifest.files}
    there = {
        f"{found.path.name}/{inner.path.name}" if found.is_folder else found.path.name: inner
        for found in entries(target)
        for inner in (entries(found.path) if found.is_folder else [found])
    }
    for name in there:
        if name not in (*wanted, _MARK):
            remove(target / name)
    for name, file in wanted.items():
        if sent.get(name) == file.sha256 and name in there and there[name].size == file.bytes:
            continue
        send(folder / name, target / name)
        if entry(target / name).size != file.bytes:
            raise InputError(f"{target / name}: did not arrive completely; run the same command again")
        sent[name] = file.sha256
        write_atomic(record, json.dumps(sent).encode())
