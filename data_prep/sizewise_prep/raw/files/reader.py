"""A raw log as blocks of complete lines, in bounded memory.

    reader = Reader(raw)                       # raw: one of `sources.resolve`
    for block in reader: ...
    reader.sha256                              # of the file's own bytes, known at the end

Plain and compressed files are distinguished by their first bytes, not by their names. A plain file can be read in
ranges, each of which has the lines that begin in it. Reading and decompressing run one block ahead in a thread of
their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from sizewise_core.errors import InputError
from sizewise_prep.raw.files.compression import Readable, codec_of, unpacked
from sizewise_prep.raw.files.formats import START_BYTES
from sizewise_prep.raw.files.sources import RawFile

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


class Reader:
    """A raw file as blocks of complete lines, each ended by a newline, which is added to the last line if need be.

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
            codec = codec_of(raw.read(START_BYTES)) or "gzip"
            raw.seek(0)
            stream = unpacked(counted, codec)
            yield from self._lines(iter(lambda: self._read(stream, self._block_bytes, codec), b""))
            # The digest includes what the decompressor left unread.
            while self._read(counted, self._block_bytes):
                pass

    def _range(self, counted: _CountingStream, raw: BinaryIO) -> Iterator[bytes]:
        """The range's bytes from its first line's beginning to its last line's end."""
        in_line = False
        if self._start:
            raw.seek(self._start - 1)
            in_line = raw.read(1) != b"\n"  # that line belongs to the range before
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
        """Pieces of text, cut again between lines."""
        carry, first = b"", self._start == 0
        for piece in pieces:
            if first:
                piece, first = piece.removeprefix(_BOM), False
            end = piece.rfind(b"\n") + 1
            if len(piece) - end + (0 if end else len(carry)) > MAX_LINE_BYTES:
                where = f"near byte {self._start + self.bytes_read:,} of {self.raw.bytes:,}"
                what = f"a line is longer than {MAX_LINE_BYTES:,} bytes, {where}"
                fix = "is this a text file?"
                if piece.count(b"\r", end) > len(piece[end:]) // MAX_LINE_BYTES + 1:
                    fix = "lines that end with a carriage return alone need `tr '\\r' '\\n'`"
                raise InputError(f"{self.raw.path}: {what}; {fix}")
            if end:
                yield b"".join((carry, memoryview(piece)[:end]))
                carry = piece[end:]
            else:
                carry += piece
        if carry:
            yield carry + b"\n"

    def _read(self, stream: Readable, wanted: int, codec: str | None = None) -> bytes:
        parts = []
        try:
            while wanted and (part := stream.read(wanted)):
                parts.append(part)
                wanted -= len(part)
        except OSError as error:
            how = f"as {codec} " if codec else ""
            where = f"to its end: {error}, near byte {self._start + self.bytes_read:,} of {self.raw.bytes:,}"
            raise InputError(f"{self.raw.path}: cannot be read {how}{where}; fetch the file again") from None
        return b"".join(parts)


class _CountingStream:
    """A file that counts and digests what is read of it."""

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
