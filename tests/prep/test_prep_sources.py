"""Reading raw files: formats, damage, order."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from sizewise_prep import sources
from sizewise_prep.errors import InputError
from sizewise_prep.sources import Reader, resolve

TEXT = b"".join(b"line %d of a log\n" % number for number in range(1000))


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT[:-1],
        b"\xef\xbb\xbf" + TEXT,
        gzip.compress(TEXT),
        gzip.compress(TEXT[:777]) + gzip.compress(TEXT[777:]),
        zstd(TEXT),
        zstd(TEXT[:777]) + zstd(TEXT[777:]),
    ],
    ids=[
        "plain",
        "no last newline",
        "byte-order mark",
        "gzip",
        "two gzip members",
        "zstd",
        "two zstd frames",
    ],
)
@pytest.mark.parametrize("block_bytes", [16 << 20, 100, 7])
def test_any_format_gives_the_same_lines(tmp_path: Path, content: bytes, block_bytes: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    (raw,) = resolve(path)
    reader = Reader(raw, block_bytes=block_bytes)
    blocks = list(reader)

    assert b"".join(blocks) == TEXT
    assert all(block.endswith(b"\n") for block in blocks)
    assert reader.bytes_read == len(content)
    assert reader.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
@pytest.mark.parametrize("kept", [slice(-1), slice(-4), slice(-30), slice(4)])
def test_a_truncated_file_is_named(tmp_path: Path, compress: Callable[[bytes], bytes], kept: slice) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(compress(TEXT)[kept])
    with pytest.raises(InputError, match=r"log\.gz: cannot be read as (gzip|zstd) to its end"):
        list(Reader(*resolve(path)))


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(TEXT))
    content[-6] ^= 1  # the checksum
    (tmp_path / "log.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"log\.gz: cannot be read as gzip"):
        list(Reader(*resolve(tmp_path / "log.gz")))


def test_an_endless_line_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 5000)
    (tmp_path / "disk.img").write_bytes(b"short\n" + b"x" * 100_000)
    with pytest.raises(InputError, match=r"disk\.img: a line is longer than 5,000 bytes"):
        list(Reader(*resolve(tmp_path / "disk.img"), block_bytes=1000))


def test_patterns_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    for day in (10, 2, 0, 1):
        (tmp_path / f"day_{day}.tsv").write_bytes(TEXT)
    assert [raw.name for raw in resolve([tmp_path / "day_*.tsv"])] == [
        "day_0.tsv",
        "day_1.tsv",
        "day_2.tsv",
        "day_10.tsv",
    ]


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "day[0].tsv"
    path.write_bytes(TEXT)
    assert [raw.path for raw in resolve([str(path)])] == [str(path)]
    assert resolve(str(path)) == resolve(path) == resolve([path])  # a single one need not be in a list


def test_unusable_sources_are_named(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty.tsv", tmp_path / "full.tsv"
    empty.touch()
    full.write_bytes(TEXT)
    for given, message in [
        ([], "no raw files given"),
        ([tmp_path / "absent.tsv"], r"absent\.tsv: not found"),
        ([full / "below.tsv"], r"below\.tsv: cannot be read"),
        ([tmp_path / "*.gz"], r"\*\.gz: no file matches"),
        ([tmp_path], "is a folder; name the files in it"),
        ([full, empty], r"empty\.tsv: is empty"),
        ([full, tmp_path / "." / "f*.tsv"], r"full\.tsv: given twice"),
    ]:
        with pytest.raises(InputError, match=message):
            resolve(given)
