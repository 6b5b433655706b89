"""Raw log files as blocks of whole lines, in bounded memory.

    for raw in resolve(["logs/day_*.gz", "s3://bucket/day_23"]):
        reader = Reader(raw)
        for block in reader: ...
        reader.sha256                          # of the bytes as they lie there, known at the end

Files are local or anything that fsspec opens (s3://, gs://, file://, memory://, ...). Plain, gzip and
Zstandard files are told apart by their first bytes, not by their names. A plain file can be read in ranges,
each of which has the lines that begin in it. Reading and decompressing run one block ahead in a thread of
their own.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import fsspec
import pyarrow as pa

from sizewise_prep.errors import InputError

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class RawFile:
    """A raw file as it was found.

    Attributes:
        path: as it was given, or as a pattern matched it.
        bytes: its size.
        mark: of this content; another one where the file was written again.
        compressed: whether it can only be read from its start.
    """

    path: str
    bytes: int
    mark: str
    compressed: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def open(self) -> BinaryIO:
        """The file's own bytes.

        Raises:
            InputError: it has vanished, cannot be read, or is not the file that was found.
        """
        filesystem, path = _located(self.path)
        try:
            if _mark(filesystem, path) != self.mark:
                raise InputError(
                    f"{self.path}: was changed while it was prepared; run the same command again"
                )
            stream = open(path, "rb") if _is_local(self.path) else filesystem.open(path, "rb")  # noqa: SIM115
            return cast(BinaryIO, stream)
        except FileNotFoundError:
            raise InputError(
                f"{self.path}: has vanished; bring it back and run the same command again"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be read ({_reason(error)}); check its permissions"
            ) from None


def resolve(sources: str | Path | Sequence[str | Path]) -> list[RawFile]:
    """The files that `sources` (paths, URIs or glob patterns, or a single one) name, in the order given.

    A pattern's matches are sorted with numbers as numbers: day_2 before day_10.

    Raises:
        InputError: nothing given, nothing matched, a folder, a file that is absent, empty or unreadable, one
            given twice.
    """
    paths: list[str] = []
    for source in [sources] if isinstance(sources, str | Path) else sources:
        matches = _matches(str(source))
        if not matches:
            raise InputError(f"{source}: no file matches this pattern; check the folder and the name")
        paths += sorted(matches, key=natural)
    if not paths:
        raise InputError("no raw files given; name at least one file or pattern")
    found, seen = [], set()
    for path in paths:
        found.append(_found(path))
        filesystem, inner = _located(path)
        place = os.path.realpath(inner) if _is_local(path) else filesystem.unstrip_protocol(inner)
        if place in seen:
            raise InputError(f"{path}: given twice; name each file once, in time order")
        seen.add(place)
    return found


def _is_local(path: str) -> bool:
    return "://" not in path or path.startswith("file://")


def _located(path: str) -> tuple[Any, str]:
    """The file system of a path or URI, and the path in it."""
    if "://" not in path:
        return fsspec.filesystem("file"), path
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise InputError(f"{path}: {error}") from None
    return filesystem, inner


def _matches(source: str) -> list[str]:
    if not glob.has_magic(source):
        return [source]
    if "://" not in source:
        return [source] if os.path.lexists(source) else glob.glob(source, recursive=True)
    filesystem, inner = _located(source)
    try:
        return [filesystem.unstrip_protocol(match) for match in filesystem.glob(inner)]
    except Exception as error:  # each file system has errors of its own
        raise InputError(
            f"{source}: cannot be listed ({_reason(error)}); check the address and the access"
        ) from None


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in names as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _found(path: str) -> RawFile:
    filesystem, inner = _located(path)
    try:
        if filesystem.isdir(inner):
            raise InputError(f"{path}: is a folder; name the files in it, for example {path}/*")
        with filesystem.open(inner, "rb") as stream:
            start = stream.read(4)
        mark, size = _mark(filesystem, inner), filesystem.size(inner)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: not found; check the path") from None
    except Exception as error:  # each file system has errors of its own
        raise InputError(
            f"{path}: cannot be read ({_reason(error)}); check the path and its permissions"
        ) from None
    if not start:
        raise InputError(f"{path}: is empty; leave it out or bring its rows")
    return RawFile(path, size, mark, any(start.startswith(magic) for magic in _CODECS))


def _mark(filesystem: Any, path: str) -> str:
    """Something that differs when a file has been written again: size and time, or what a store calls it."""
    info = filesystem.info(path)
    told = [
        info.get(key) for key in ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "updated")
    ]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Reader:
    """A raw file as blocks of whole lines, each ended by a newline (the last one supplied if it lacks).

    Args:
        raw: the file.
        start, stop: of a plain file, read only the lines that begin at these bytes (stop exclusive).
        block_bytes: how much text to read at a time.
    """

    def __init__(
        self, raw: RawFile, start: int = 0, stop: int | None = None, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self.raw = raw
        self._block_bytes = block_bytes
        self.bytes_read = 0
        self._start, self._stop = start, raw.bytes if stop is None else stop
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the range's own bytes (compressed as they are), once all blocks are read."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        blocks = self._blocks()
        with ThreadPoolExecutor(1) as ahead:
            upcoming = ahead.submit(next, blocks, None)
            while (block := upcoming.result()) is not None:
                upcoming = ahead.submit(next, blocks, None)
                yield block

    def lines_before(self) -> int:
        """How many lines begin before the range."""
        with self.raw.open() as stream:
            left, lines = self._start, 0
            while left and (piece := stream.read(min(self._block_bytes, left))):
                left -= len(piece)
                lines += piece.count(b"\n")
                last = piece[-1:]
        return lines if not self._start or last == b"\n" else lines + 1

    def _blocks(self) -> Iterator[bytes]:
        with self.raw.open() as raw:
            counted = _CountingStream(raw, self)
            if not self.raw.compressed:
                yield from self._lines(self._range(counted, raw))
                return
            start = raw.read(4)
            codec = next((codec for magic, codec in _CODECS.items() if start.startswith(magic)), "gzip")
            raw.seek(0)
            stream = pa.CompressedInputStream(pa.PythonFile(counted, "r"), codec)
            yield from self._lines(iter(lambda: self._read(stream, self._block_bytes, codec), b""))
            while self._read(
                counted, self._block_bytes
            ):  # what a decompressor left unread belongs to the digest
                pass

    def _range(self, counted: _CountingStream, raw: BinaryIO) -> Iterator[bytes]:
        """The range's bytes from its first line's beginning to its last line's end."""
        in_line = False
        if self._start:
            raw.seek(self._start - 1)
            in_line = raw.read(1) != b"\n"  # the line that begins before belongs to the range before
        left, last = self._stop - self._start, b"\n"
        while left:
            piece = self._read(counted, min(self._block_bytes, left))
            if not piece:
                raise InputError(
                    f"{self.raw.path}: became shorter while it was read; run the same command again"
                )
            left -= len(piece)
            if in_line:
                end = piece.find(b"\n") + 1
                in_line, piece = not end, piece[end:] if end else b""
            if piece:
                last = piece[-1:]
                yield piece
        while not in_line and last != b"\n":  # the last line may end behind the range
            piece = self._read(raw, 1 << 16)
            if not piece:
                return
            end = piece.find(b"\n") + 1
            last = b"\n" if end else b""
            yield piece[:end] if end else piece

    def _lines(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pieces of text cut anew into whole lines."""
        carry, first = b"", self._start == 0
        for piece in pieces:
            if first:
                piece, first = piece.removeprefix(_BOM), False
            end = piece.rfind(b"\n") + 1
            if len(piece) - end + (0 if end else len(carry)) > MAX_LINE_BYTES:
                what = f"a line is longer than {MAX_LINE_BYTES:,} bytes"
                raise InputError(f"{self.raw.path}: {what}; is this a text file?")
            if end:
                yield carry + piece[:end]
                carry = piece[end:]
            else:
                carry += piece
        if carry:
            yield carry + b"\n"

    def _read(self, stream: _Readable, wanted: int, codec: str | None = None) -> bytes:
        parts = []
        try:
            while wanted and (part := stream.read(wanted)):
                parts.append(part)
                wanted -= len(part)
        except OSError as error:
            how = f"as {codec} " if codec else ""
            what = f"cannot be read {how}to its end ({error})"
            raise InputError(f"{self.raw.path}: {what}; fetch the file again") from None
        return b"".join(parts)


class _CountingStream:
    """A file that tells its reader how much was read and what its digest is."""

    closed = False

    def __init__(self, stream: BinaryIO, reader: Reader) -> None:
        self._stream, self._reader = stream, reader

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._reader.bytes_read += len(data)
        self._reader._digest.update(data)
        return data

    def close(self) -> None:
        self.closed = True
