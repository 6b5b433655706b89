"""Reading raw files: formats, damage, order."""

import bz2
import gzip
import hashlib
import lzma
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3_server import S3Server
from sizewise_core.errors import InputError
from sizewise_prep.raw.files import reader
from sizewise_prep.raw.files.compression import codec_of
from sizewise_prep.raw.files.formats import foreign
from sizewise_prep.raw.files.reader import Reader
from sizewise_prep.raw.files.sources import resolve

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


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_streams_behind_the_first_one_count(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """An empty one among them; and none that is damaged is taken for the end."""
    first, second = TEXT[:1000], TEXT[1000:]
    content = compress(first) + compress(b"") + compress(second)
    (tmp_path / "log").write_bytes(content)
    assert b"".join(Reader(*resolve(tmp_path / "log"), block_bytes=700)) == TEXT
    for damaged in (
        compress(first) + b"x" + compress(second),
        content[:-1],
        compress(first) + compress(second)[:3],
    ):
        (tmp_path / "log").write_bytes(damaged)
        with pytest.raises(InputError, match=r"log: cannot be read as (bz2|xz) to its end"):
            list(Reader(*resolve(tmp_path / "log")))


def test_an_endless_line_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 5000)
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
    assert [raw.bytes for raw in resolve(f"file://{path}")] == [len(TEXT)]


def test_unusable_sources_are_named(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty.tsv", tmp_path / "full.tsv"
    empty.touch()
    full.write_bytes(TEXT)
    for named, message in [
        ([], "no raw files given"),
        ([tmp_path / "absent.tsv"], r"absent\.tsv: not found"),
        ([full / "below.tsv"], r"below\.tsv: cannot be read"),
        ([tmp_path / "*.gz"], r"\*\.gz: no file matches"),
        ([tmp_path], "is a folder; name the files in it"),
        ([full, empty], r"empty\.tsv: is empty"),
        ([full, tmp_path / "." / "f*.tsv"], r"full\.tsv: given twice"),
    ]:
        with pytest.raises(InputError, match=message):
            resolve(named)


@given(
    lines=st.lists(
        st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"")), min_size=1, max_size=20
    ),
    ends=st.booleans(),
    piece=st.integers(1, 60),
    block=st.integers(1, 40),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranges_share_out_the_lines(
    tmp_path: Path, lines: list[bytes], ends: bool, piece: int, block: int
) -> None:
    text = b"\n".join(lines) + (b"\n" if ends else b"")
    if not text or text.startswith(b"\xef\xbb\xbf") or codec_of(text) or foreign(text, "log"):
        return
    path = tmp_path / "log"
    path.write_bytes(text)
    (raw,) = resolve(path)
    found: list[bytes] = []
    for start in range(0, raw.bytes, piece):
        reader = Reader(raw, start, min(start + piece, raw.bytes), block)
        mine = b"".join(reader)
        assert reader.lines_before() == len(found)
        assert reader.sha256 == hashlib.sha256(text[start : start + piece]).hexdigest()
        found += mine.split(b"\n")[:-1]
    assert found == text.removesuffix(b"\n").split(b"\n")


def test_a_file_that_vanishes_or_changes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(TEXT)
    (raw,) = resolve(path)
    path.write_bytes(TEXT[:-1])
    with pytest.raises(InputError, match=r"log: was changed while it was prepared"):
        list(Reader(raw))
    path.unlink()
    with pytest.raises(InputError, match=r"log: has vanished"):
        list(Reader(raw))


def test_addresses_are_opened_by_fsspec(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name, content in (("day_2", TEXT), ("day_10.gz", gzip.compress(TEXT)), ("day_1", b"x\n")):
        memory.pipe(f"/logs/{name}", content)
    found = resolve("memory://logs/day_*")
    assert [raw.name for raw in found] == ["day_1", "day_2", "day_10.gz"]
    assert [b"".join(Reader(raw)) for raw in found] == [b"x\n", TEXT, TEXT]
    (tmp_path / "log").write_bytes(TEXT)
    (local,) = resolve(f"file://{tmp_path}/log")
    assert b"".join(Reader(local)) == TEXT
    for address, message in [
        ("memory://logs/none", r"memory://logs/none: not found"),
        ("memory://none/*", "no file matches"),
        ("memory://logs", "is a folder"),
        ("nonsense://a/b", "nonsense"),
    ]:
        with pytest.raises(InputError, match=message):
            resolve(address)
    with pytest.raises(InputError, match="given twice"):
        resolve([tmp_path / "log", f"file://{tmp_path}/log"])


@pytest.mark.slow
def test_logs_in_s3_give_the_same_shards(tmp_path: Path, s3: S3Server) -> None:
    import boto3

    from sizewise_prep import planted
    from sizewise_prep.pipeline.prep import prepare

    planted.generate(tmp_path / "raw", 600, files=2)
    local = prepare(tmp_path / "raw" / "*.tsv", tmp_path / "local")
    s3.bucket("logs")
    client = boto3.client("s3", endpoint_url=s3.url)
    for path in (tmp_path / "raw").glob("*.tsv"):
        client.upload_file(str(path), "logs", path.name)
    remote = prepare("s3://logs/day_*.tsv", tmp_path / "remote")
    with pytest.raises(InputError, match=r"s3://logs/none: not found"):
        resolve("s3://logs/none")
    assert [source.path for source in remote.sources] == ["s3://logs/day_0.tsv", "s3://logs/day_1.tsv"]
    assert [shard.sha256 for shard in remote.files] == [shard.sha256 for shard in local.files]


def test_a_folder_of_parquet_files_in_an_object_store() -> None:
    """With partitions and markers, as a folder on a disk."""
    files = fsspec.filesystem("memory")
    content = b"PAR1" + bytes(range(64))
    for name in ("day=2/a.parquet", "day=10/b.parquet", "_SUCCESS", "day=2/.a.parquet.crc"):
        files.pipe(f"/stored/table/{name}", content)
    names = ["day=2/a.parquet", "day=10/b.parquet"]
    assert [raw.path.partition("table/")[2] for raw in resolve("memory://stored/table")] == names
    files.pipe("/stored/table/other/c.parquet", content)
    with pytest.raises(InputError, match="is a folder; name the files in it"):
        resolve("memory://stored/table")
