"""What unpacks a raw file, told by its first bytes and not by its name.

codec = codec_of(b"\\x1f\\x8b\\x08...")      # "gzip"
unpacked(stream, codec).read(1 << 20)      # OSError where it is damaged or ends too early
"""

from __future__ import annotations

import bz2
import lzma
import re
from collections.abc import Mapping
from typing import Any, Protocol, cast

import pyarrow as pa

_CODECS = {
    "gzip": re.compile(rb"\x1f\x8b", re.DOTALL),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd", re.DOTALL),
    # A log may well begin with the letters BZh, so what follows them counts too: a block, or the end of no block.
    "bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", re.DOTALL),
    "xz": re.compile(rb"\xfd7zXZ\0", re.DOTALL),
}


class Readable(Protocol):
    """Something that bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end."""
        ...


def codec_of(start: bytes) -> str | None:
    """What a file that begins so is compressed with; None where it is not."""
    return next((codec for codec, magic in _CODECS.items() if magic.match(start)), None)


def unpacked(stream: Any, codec: str) -> Readable:
    """What a compressed stream holds; several compressed streams one after another count as one."""
    if codec in _DECOMPRESSORS:
        return _Streams(stream, codec)
    return cast(Readable, pa.CompressedInputStream(pa.PythonFile(stream, "r"), codec))


_DECOMPRESSORS: Mapping[str, Any] = {"xz": lzma.LZMADecompressor, "bz2": bz2.BZ2Decompressor}
"""Arrow does not know xz, and takes no empty stream of bzip2 among others."""
_READ_BYTES = 256 << 10


class _Streams:
    """Compressed streams one after another; Python's own readers ignore what is damaged behind the first one."""

    def __init__(self, stream: Any, codec: str) -> None:
        self._stream, self._codec = stream, codec
        self._unpacking = _DECOMPRESSORS[codec]()
        self._left, self._ended = b"", False

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end. Raises OSError where the streams are damaged."""
        while not self._ended:
            if self._unpacking.eof and not self._next():
                break
            fresh = self._left
            if self._unpacking.needs_input and not fresh:
                fresh = self._stream.read(_READ_BYTES)
                if not fresh:
                    raise OSError("ends too early")
            try:
                found: bytes = self._unpacking.decompress(fresh, size)
            except (lzma.LZMAError, ValueError, EOFError) as error:
                raise OSError(str(error)) from None
            self._left = self._unpacking.unused_data
            if found:
                return found
        return b""

    def _next(self) -> bool:
        """Begin with the next stream, if there is one; xz may have zeros between streams."""
        while True:
            left = self._left.lstrip(b"\0") if self._codec == "xz" else self._left
            if left:
                break
            self._left = self._stream.read(_READ_BYTES)
            if not self._left:
                self._ended = True
                return False
        self._left, self._unpacking = left, _DECOMPRESSORS[self._codec]()
        return True
