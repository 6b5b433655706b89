"""What unpacks a raw file, told by its first bytes and not by its name.

codec = codec_of(b"\\x1f\\x8b\\x08...")      # "gzip"
unpacked(stream, codec).read(1 << 20)      # OSError where it is damaged or ends too early
"""

from __future__ import annotations

import lzma
import re
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
    if codec == "xz":
        return _Xz(stream)
    return cast(Readable, pa.CompressedInputStream(pa.PythonFile(stream, "r"), codec))


class _Xz:
    """Arrow does not know xz; Python does."""

    def __init__(self, stream: Any) -> None:
        self._file = lzma.LZMAFile(stream)  # noqa: SIM115

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except (lzma.LZMAError, EOFError) as error:
            raise OSError(str(error)) from None
