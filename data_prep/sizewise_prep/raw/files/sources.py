"""The raw logs that paths, URIs and patterns name, and whether they have changed since.

    for raw in resolve(["logs/day_*.gz", "s3://bucket/day_23"]):
        raw.bytes, raw.compressed
        with raw.open() as stream: ...         # the file's own bytes

Files are local or what fsspec opens (s3://, gs://, file://, memory://, ...), by `sizewise_core.stores.storage`.
"""

from __future__ import annotations

import glob
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from sizewise_core.errors import InputError
from sizewise_core.stores import storage
from sizewise_core.stores.storage import Place, StorageError, place
from sizewise_prep.raw.files.compression import codec_of, unpacked
from sizewise_prep.raw.files.formats import START_BYTES, foreign, table_format

Format = Literal["text", "jsonl", "parquet", "arrow", "arrow stream", "torchrec", "dlrm", "libsvm", "libffm"]


@dataclass(frozen=True)
class RawFile:
    """A raw file as it was found.

    Attributes:
        path: as it was given, or as a pattern matched it.
        bytes: its size.
        mark: a string that differs once the file is written again.
        compressed: whether it can only be read from its start.
        format: what it holds; text may turn out to be something else when its first row is read.
        parts: the files that it consists of, where it is more than one.
    """

    path: str
    bytes: int
    mark: str
    compressed: bool
    format: Format = "text"
    parts: tuple[RawFile, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def counted_by(self) -> str:
        """What messages count in it: lines of text, or rows."""
        return "line" if self.format in ("text", "jsonl", "libsvm", "libffm") else "row"

    def open(self) -> BinaryIO:
        """The file's own bytes; those of its parts, one behind the other.

        Raises:
            InputError: it has vanished, cannot be read, or is not the file that was found.
        """
        if self.parts:
            return cast(BinaryIO, io.BufferedReader(_Joined(self.parts)))
        where = place(self.path)
        try:
            if _mark(storage.entry(where)) != self.mark:
                raise InputError(
                    f"{self.path}: was changed while it was prepared; run the same command again"
                )
            return storage.open_to_read(where)
        except FileNotFoundError:
            raise InputError(
                f"{self.path}: has vanished; restore it and run the same command again"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read ({error.strerror}); check its permissions"
            ) from None


class _Joined(io.RawIOBase):
    """The bytes of several files, one behind the other."""

    def __init__(self, files: Sequence[RawFile]) -> None:
        self._streams = [file.open() for file in files]
        self._sizes = [file.bytes for file in files]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, sum(self._sizes))[whence]
        return self._at

    def readinto(self, into: Any) -> int:
        begin = 0
        for stream, size in zip(self._streams, self._sizes, strict=True):
            if self._at < begin + size:
                stream.seek(self._at - begin)
                read = stream.read(min(len(into), begin + size - self._at))
                into[: len(read)] = read
                self._at += len(read)
                return len(read)
            begin += size
        return 0

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        super().close()


def resolve(sources: str | Path | Sequence[str | Path]) -> list[RawFile]:
    """The files that `sources` (paths, URIs or glob patterns, or a single one) name, in the order given.

    A pattern's matches are sorted with numbers as numbers: day_2 before day_10.

    Raises:
        InputError: nothing given, nothing matched, a folder, a file that is absent, empty or unreadable, one
            given twice.
    """
    return [_recognized(path) for path in resolve_paths(sources)]


def resolve_paths(sources: str | Path | Sequence[str | Path]) -> list[str]:
    """The paths that `sources` name, as `resolve`, before any is looked at; raises as that."""
    paths: list[str] = []
    for source in [sources] if isinstance(sources, str | Path) else sources:
        matches = _in_folder(str(source)) or _matches(str(source))
        if glob.has_magic(str(source)) and len(matches) > 1:  # markers that systems leave beside part files
            matches = [match for match in matches if match.rsplit("/", 1)[-1][0] not in "_."] or matches
        if not matches:
            raise InputError(f"{source}: no file matches this pattern; check the folder and the name")
        paths += sorted(matches, key=natural)
    if not paths:
        raise InputError("no raw files given; name at least one file or pattern")
    seen = set()
    for path in paths:
        where = place(path)
        same = os.path.realpath(where) if isinstance(where, Path) else str(where)
        if same in seen:
            raise InputError(f"{path}: given twice; name each file once, in time order")
        seen.add(same)
    return paths


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in names as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _in_folder(source: str) -> list[str]:
    """The files of a folder that holds a table: Parquet files, as many programs write one, and markers.

    They lie in it or in partitions (`day=1/hour=2`); other folders within may be other tables, such as train and test.
    """
    if glob.has_magic(source):
        return []
    where = place(source)
    if isinstance(where, Path):
        files = [str(path) for path in where.rglob("*") if path.is_file()] if where.is_dir() else []
    else:
        try:
            found = storage.matches(f"{source.rstrip('/')}/**") if storage.is_folder(where) else []
        except OSError:  # which looking at it as a file will say
            return []
        folders = {path.rsplit("/", 1)[0] for path in found}
        files = [path for path in found if path.rstrip("/") not in folders]
    named = [path for path in files if path.rsplit("/", 1)[-1][:1] not in ("_", ".")]
    depth = str(where).rstrip("/").count("/") + 1
    within = [folder for path in named for folder in str(place(path)).split("/")[depth:-1]]
    is_table = all(path.endswith(".parquet") for path in named) and all("=" in folder for folder in within)
    return named if is_table else []


def _matches(source: str) -> list[str]:
    if not glob.has_magic(source):
        return [source]
    if "://" not in source:
        return [source] if os.path.lexists(source) else glob.glob(source, recursive=True)
    try:
        return storage.matches(source) or [source] * _is_there(source)  # a name may have a pattern's letters
    except OSError as error:
        raise InputError(f"{source}: cannot be listed ({error}); check the address and the access") from None


def _is_there(source: str) -> bool:
    """Whether a URI is one of a file."""
    try:
        return not storage.entry(place(source)).is_folder
    except (OSError, InputError):
        return False


def _recognized(path: str) -> RawFile:
    """A file, and what it holds."""
    raw, start = _looked_at(path)
    inner = _unpacked(raw) if raw.compressed else start
    found = table_format(inner, raw.name)
    if found and not (raw.compressed and found != "jsonl"):
        return replace(raw, format=found)
    if what := foreign(inner, raw.name):
        inside = " (within its compression)" if raw.compressed else ""
        raise InputError(f"{path}{inside}: {what}")
    return raw


def found_file(path: str) -> RawFile:
    """A file whose format is known otherwise. Raises InputError where it is absent, empty or unreadable."""
    return _looked_at(path)[0]


def _looked_at(path: str) -> tuple[RawFile, bytes]:
    """A file and its first bytes."""
    where = place(path)
    try:
        entry = storage.entry(where)
        if entry.is_folder:
            raise InputError(
                f"{path}: is a folder; name the files in it, for example {_example(where, path)}"
            )
        if not entry.is_file:
            raise InputError(
                f"{path}: is a device or a pipe, which cannot be read twice; write it to a file first"
            )
        with storage.open_to_read(where) as stream:
            start = stream.read(START_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; check the path") from None
    except StorageError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    if not start:
        what = foreign(start, path.rsplit("/", 1)[-1])
        raise InputError(f"{path}: {what or 'is empty; leave it out or add its rows'}")
    return RawFile(path, entry.size, _mark(entry), codec_of(start) is not None), start


def _unpacked(raw: RawFile) -> bytes:
    """The first bytes of a compressed file's content; none where it is damaged, which reading it will show."""
    with raw.open() as stream:
        codec = codec_of(stream.read(START_BYTES))
        stream.seek(0)
        try:
            content, found = unpacked(stream, codec or "gzip"), b""
            while len(found) < START_BYTES and (part := content.read(START_BYTES - len(found))):
                found += part
            return found
        except OSError:
            return b""


def _example(where: Place, path: str) -> str:
    """A pattern for the logs in a folder, without the markers that systems leave beside them."""
    names = [entry.name for entry in where.iterdir()] if isinstance(where, Path) else []
    names = [name for name in names if name[0] not in "_." and name != "truth.json"]
    pattern = "*"
    if names and all(name.startswith("part-") for name in names):
        pattern = "part-*"
    elif len(endings := {Path(name).suffix for name in names}) == 1:
        pattern = f"*{endings.pop()}"
    return f"{path.rstrip('/')}/{pattern}"


def _mark(entry: storage.Entry) -> str:
    """A string that differs once a file is written again: size and time, or the object store's version."""
    return f"{entry.size}-{entry.modified!r}" if isinstance(entry.path, Path) else entry.version
