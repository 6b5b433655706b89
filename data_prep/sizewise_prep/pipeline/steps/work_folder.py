"""The folder that a preparation works in: whether it may be used, and which files of an earlier run are valid.

It is a hidden folder beside the one asked for. `work/state.json` records what it is for, so that other settings or
other raw files are never mixed into it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import is_free, write_atomic
from sizewise_core.stores.storage import Place
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.raw.files import reader
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.shards.manifest import NAME, Manifest, Settings

_STATE = "work/state.json"
_RECORDS = 5
"""Version of the records of parts: those of an older version are not used."""
_FROM_PARTS = ("fitted", "made", "counted", "runs", "numbered", "ids", "merged")
"""Folders of what is invalid once rows have changed."""
FIX = "name a new folder or remove this one first"
"""What to do about a folder that is for something else."""


class _State(BaseModel):
    """What the files in a working folder were made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Settings
    sources: list[tuple[str, int]]
    marks: list[str]
    piece_bytes: int
    block_bytes: int
    records: int = 1
    time: str | None = None


def finished_manifest(out: Path, settings: Settings) -> Manifest | None:
    """The manifest of a finished folder that was made with these settings; None when `out` is free.

    Raises InputError when `out` holds anything else.
    """
    if is_free(out):
        return None
    if not (out / NAME).exists():
        raise InputError(f"{out}: is not empty and holds no finished shards; {FIX}")
    manifest = Manifest.load(out)
    refuse_others(out, manifest.settings, settings)
    return manifest


def refuse_others(folder: Place, held: Settings, asked: Settings) -> None:
    """Refuse a folder that was made with other settings.

    Args:
        folder: the folder, for the message.
        held: the settings that it was made with.
        asked: those of this preparation.

    Raises:
        InputError: they differ; the message names each.
    """
    differing = [
        _difference(name, getattr(held, name), getattr(asked, name))
        for name in Settings.model_fields
        if getattr(held, name) != getattr(asked, name)
    ]
    if differing:
        raise InputError(f"{folder}: was made with other settings ({'; '.join(differing)}); {FIX}")


def _difference(name: str, held: object, asked: object) -> str:
    """What a folder was made with, and what it should be."""
    if not isinstance(held, Layout) or not isinstance(asked, Layout):
        return f"{name} {_shown(held)} instead of {_shown(asked)}"
    for column in [*held.columns, *asked.columns]:
        before, now = (columns.get(column, "absent") for columns in (held.columns, asked.columns))
        if before != now:
            return f"in the schema file column {column:.40} was `{before:.30}` instead of `{now:.30}`"
    return "another schema file"


def _shown(value: object) -> str:
    return "another" if isinstance(value, Layout) else str(value)


def claim(folder: Path, settings: Settings, found: list[RawFile], time: str | None) -> None:
    """Make sure that a working folder's files belong to this preparation, and delete those that are no longer valid.

    The share of bad rows that is allowed is checked at the end, so a preparation may continue with another one.

    Args:
        folder: the working folder, locked.
        settings: of the preparation.
        found: the raw files.
        time: the column that holds the time, if any.

    Raises:
        InputError: the folder was begun with other settings or other raw files.
    """
    state = _State(
        settings=settings.model_copy(update={"max_bad_fraction": 0.0}),
        sources=[(raw.path, raw.bytes) for raw in found],
        marks=[raw.mark for raw in found],
        piece_bytes=parts.PIECE_BYTES,
        block_bytes=reader.BLOCK_BYTES,
        records=_RECORDS,
        time=time,
    )
    path = folder / _STATE
    if path.exists() and is_begun(folder):
        held = _State.model_validate_json(path.read_bytes())
        refuse_others(folder, held.settings, state.settings)
        if [source for source, _ in held.sources] != [raw.path for raw in found]:
            fix = "give the same ones, name a new folder, or remove this one first"
            raise InputError(f"{folder}: was begun with other raw files; {fix}")
        if held != state:
            _forget(folder, held, state)
    else:
        for entry in folder.iterdir():  # nothing here can be resumed
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in ("parts", *_FROM_PARTS):
        (folder / "work" / name).mkdir(parents=True, exist_ok=True)
    for temporary in folder.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)
    write_atomic(path, state.model_dump_json().encode())


def is_begun(folder: Path) -> bool:
    """Whether there is work that can be resumed."""
    return (folder / NAME).exists() or any(part.rows for part in parts.recorded(folder).values())


def _forget(folder: Path, held: _State, state: _State) -> None:
    """Delete what was read of files that have changed since, and all that was made of the rows."""
    same_files = held.model_copy(update={"sources": state.sources, "marks": state.marks})
    changed = {i for i, (old, new) in enumerate(zip(held.marks, state.marks, strict=True)) if old != new}
    for key in parts.recorded(folder):
        if same_files != state or key[0] in changed:
            parts.record_path(folder, *key).unlink()
    for name in _FROM_PARTS:
        shutil.rmtree(folder / "work" / name, ignore_errors=True)


def clear_all_but(folder: Path, kept: set[str]) -> None:
    """Delete the working files, and what interrupted runs have left."""
    shutil.rmtree(folder / "work", ignore_errors=True)
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folder that holds them
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif str(path.relative_to(folder)) not in kept:
            path.unlink()
