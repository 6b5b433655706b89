"""What a file is, by its first bytes; and what to do about one that is no raw log.

    foreign(b"FEA1...")            # "is a Feather file: write its rows as Parquet, or as text, one row a line"

Logs may begin with any text, so a format counts as recognized only where its first bytes are no text at all, or say
more than a word of a log would.
"""

from __future__ import annotations

import re
from typing import Literal

START_BYTES = 512
"""How many first bytes are examined."""

_TEXT = "write its rows as Parquet, or as text, one row a line"
_UNPACK = "unpack it and give the files that it holds"
_JSON_LINES = "write an object a line (JSON lines), such as with `jq -c '.[]'`"
_UNPACK_OUTER = "unpack it; its own compression is read"
_LEAVE_OUT = "leave it out, or give the log that was meant"

# Beginnings that only count where bytes that no text holds follow: a log's first field may begin with these letters.
_BINARY = {
    b"PAR1": f"a Parquet file: {_UNPACK_OUTER}",
    b"ARROW1": f"an Arrow file: {_UNPACK_OUTER}",
    b"FEA1": f"a Feather file: {_TEXT}",
    b"ORC": f"an ORC file: {_TEXT}",
    b"Obj\x01": f"an Avro file: {_TEXT}",
    b"PK\x03\x04": f"a zip archive: {_UNPACK}",
    b"PK\x05\x06": "an empty zip archive: give the log that was meant",
    b"BZh": "bzip2 within another compression: unpack the outer one",
    b"7z\xbc\xaf": f"a 7z archive: {_UNPACK}",
    b"Rar!": f"a RAR archive: {_UNPACK}",
    b"%PDF-": f"a PDF document: {_LEAVE_OUT}",
    b"SQLite format 3": f"an SQLite database: {_TEXT}",
}
# Beginnings that are no text.
_CERTAIN = {
    b"\xfd7zXZ\0": "xz within another compression: unpack the outer one",
    b"\x04\x22\x4d\x18": "an LZ4 file: unpack it with `unlz4`, or compress it with gzip or zstd",
    b"]\0\0": "an LZMA file: unpack it with `unlzma`, or compress it with xz or zstd",
    b"\xff\x06\0\0sNaPpY": "a Snappy file: unpack it, or compress it with gzip or zstd",
    b"\x1f\x9d": "a file of `compress`: unpack it with `uncompress`",
    b"\x1f\x8b": "gzip within another compression: unpack the outer one",
    b"\x28\xb5\x2f\xfd": "Zstandard within another compression: unpack the outer one",
    b"\x93NUMPY": "a NumPy array: add --format torchrec where it is one of TorchRec's three a day; else "
    "write its rows as Parquet",
    b"\x89HDF\r\n": f"an HDF5 file: {_TEXT}",
    b"\x89PNG": f"a PNG image: {_LEAVE_OUT}",
    b"\xff\xd8\xff": f"a JPEG image: {_LEAVE_OUT}",
    b"\x7fELF": f"a program: {_LEAVE_OUT}",
    b"\xff\xff\xff\xff": f"an Arrow stream: {_UNPACK_OUTER}",
    b"\xff\xfe\0\0": "UTF-32 text: convert it with `iconv -f UTF-32 -t UTF-8`",
    b"\xff\xfe": "UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`",
}
_PICKLE = re.compile(rb"\x80[\x02-\x05](\x95|[\]}cX(])", re.DOTALL)
_MARKUP = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
_JSON_LINE = re.compile(rb'\s*\{\s*("(?:[^"\\]|\\.){0,200}"\s*:|\})')
_BOM = b"\xef\xbb\xbf"
_JSON = re.compile(rb'\s*(\{\s*("|\}|$)|\[\s*[\[{"])')
_SPARSE = re.compile(rb"[+-]?[01](?:\.0)?(?: +\d+(:\d+)?:[\d.+-][\d.eE+-]*){2,}\s*(?:#|\Z)")
_UTF16 = (re.compile(rb"(?:[\t\n\r -~]\0){4}"), re.compile(rb"(?:\0[\t\n\r -~]){4}"))
_NPY = re.compile(rb"PK\x03\x04.{26}[^/]{1,80}\.npy", re.DOTALL)
_NO_TEXT = re.compile(rb"[\0-\x06\x0e-\x1a\x1c-\x1f]|[\x80-\xff](?=[\0-\x7f])")
_LEAST_BYTES = 32  # of a file of any of these formats; a shorter one is more likely a log by chance
_MARKER = re.compile(r"_.*|\..*\.crc|\.DS_Store")


def foreign(start: bytes, name: str) -> str | None:
    """What a file is, and what to do, as a predicate ("is a zip archive: ..."); None where it may be a log.

    Args:
        start: its first bytes, `START_BYTES` of them if there are so many; unpacked, if it is compressed.
        name: the last part of its path.
    """
    if name == "truth.json":
        return "describes the logs of `generate`, and is no log: leave it out (such as RAW/*.tsv for RAW/*)"
    if _MARKER.fullmatch(name) and not start.strip():
        return "is a marker beside part files, and no log: leave it out (such as DIR/part-* for DIR/*)"
    if len(start) < _LEAST_BYTES:
        return None
    if name.endswith((".json", ".jsonl", ".ndjson")) and _JSON.match(start):
        return f"is JSON: {_JSON_LINES}"
    if start[257:262] == b"ustar":
        return f"is a tar archive: {_UNPACK}"
    if _NPY.match(start):
        return (
            "is a NumPy archive (npz): add --format dlrm (X_int, X_cat, y) or torchrec (multi-hot); else write its "
            "rows as Parquet"
        )
    if _PICKLE.match(start):
        return f"is a Python pickle: {_TEXT}"
    if any(rule.match(start) for rule in _UTF16):
        return "is UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`"
    for known, certain in ((_CERTAIN, True), (_BINARY, False)):
        for magic, what in known.items():
            if start.startswith(magic) and (certain or _NO_TEXT.search(start)):
                return f"is {what}"
    return None


def table_format(start: bytes, name: str) -> Literal["jsonl", "parquet", "arrow", "arrow stream"] | None:
    """Which of the formats that `prep` reads beside text a file is; None where it is none of them.

    Args:
        start, name: as of `foreign`.
    """
    if len(start) < _LEAST_BYTES and not start.startswith((b"PAR1", b"ARROW1")):
        return "jsonl" if name.endswith((".jsonl", ".ndjson")) and _JSON_LINE.match(start) else None
    if start.startswith(b"PAR1") and _NO_TEXT.search(start):
        return "parquet"
    if start.startswith(b"ARROW1\0\0"):
        return "arrow"
    if start.startswith(b"\xff\xff\xff\xff"):
        return "arrow stream"
    line, ended, _ = start.removeprefix(_BOM).lstrip().partition(b"\n")
    whole = not ended or line.rstrip().endswith(b"}")  # or it is one object over many lines
    return "jsonl" if whole and name != "truth.json" and _JSON_LINE.match(line) else None


def text_format(start: bytes) -> str | None:
    """The same for formats that are text, once a file's first row has turned out to be none.

    Args:
        start: the row.
    """
    if _MARKUP.match(start):
        return "is a web page or XML, perhaps an error page instead of a download: fetch the log again"
    if _JSON.match(start):
        return f"is JSON: {_JSON_LINES}"
    if start.startswith(b"%PDF-"):
        return f"is {_BINARY[b'%PDF-']}"
    if sparse := _SPARSE.match(start):
        return f"is sparse text: add --format {'libffm' if sparse[1] else 'libsvm'}"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer to a file in Git LFS: fetch the file itself with `git lfs pull`"
    return None
