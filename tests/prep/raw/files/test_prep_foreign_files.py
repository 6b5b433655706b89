"""Files that are no logs, or logs in another form: one sentence says what they are and what to do."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import CRITEO, Layout

Line = Callable[..., bytes]
NAMES = list(CRITEO.columns)


def text(line: Line, rows: int = 40) -> bytes:
    return b"".join(line(j % 2, I1=str(j)) + b"\n" for j in range(rows))


def _zip(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("day_0.tsv", data)
    return stream.getvalue()


def _tar(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("day_0.tsv")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _arrow(kind: str) -> Callable[[bytes], bytes]:
    table = pa.table({"label": list(range(100))})

    def made(_: bytes) -> bytes:
        stream = io.BytesIO()
        if kind == "parquet":
            pyarrow.parquet.write_table(table, stream)
        elif kind == "feather":
            pyarrow.feather.write_feather(table, stream)
        else:
            with pa.ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)
        return stream.getvalue()

    return made


def _numpy(save: Callable[..., None]) -> Callable[[bytes], bytes]:
    def made(_: bytes) -> bytes:
        stream = io.BytesIO()
        save(stream, np.arange(1000))
        return stream.getvalue()

    return made


def _zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


FOREIGN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "xz of gzip": (
        lambda data: lzma.compress(gzip.compress(data)),
        "is gzip within another|is xz within another",
    ),
    "bzip2 of xz": (
        lambda data: bz2.compress(lzma.compress(data)),
        "is xz within another|is bzip2 within another",
    ),
    "zip": (_zip, "is a zip archive"),
    "tar": (_tar, "is a tar archive"),
    "npz": (_numpy(np.savez), r"is a NumPy archive \(npz\)"),
    "npy": (_numpy(np.save), "is a NumPy array"),
    "parquet": (_arrow("parquet"), "is a Parquet file"),
    "feather": (_arrow("feather"), "is an Arrow file"),
    "arrow stream": (_arrow("stream"), "is an Arrow stream"),
    "gzip of gzip": (gzip.compress, "is gzip within another compression"),
    "pickle": (lambda data: pickle.dumps(data), "is a Python pickle"),
    "PDF": (lambda _: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(range(256)), "is a PDF document"),
    "web page": (lambda _: b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "is a web page"),
    "JSON": (lambda _: json.dumps([{"label": 1}] * 9).encode(), "is JSON"),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), "is UTF-16 text: .*iconv"),
    "UTF-16 without a mark": (lambda data: data.decode().encode("utf-16-le"), "is UTF-16 text"),
    "noise": (lambda _: np.random.default_rng(0).bytes(100_000), "is not text: give a log"),
    "one line": (lambda _: b"0" * (3 << 20), "a line is longer than"),
    "CR": (lambda data: data.replace(b"\n", b"\r"), "carriage return alone"),
    "long CR": (lambda data: data.replace(b"\n", b"\r") * 300, "carriage return alone"),
}


@pytest.mark.parametrize("wrapped", ["as it is", "gzip", "zstd"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_another_kind_of_file_is_named(tmp_path: Path, line: Line, kind: str, wrapped: str) -> None:
    make, message = FOREIGN[kind]
    content = make(text(line))
    if wrapped != "as it is":
        content = gzip.compress(content) if wrapped == "gzip" else _zstd(content)
    elif kind == "gzip of gzip":
        content = gzip.compress(content)
    path = tmp_path / "day_0.tsv"
    path.write_bytes(content)
    for allowed in (0.0, 1.0):
        with pytest.raises(InputError, match=message) as ended:
            prepare([path], tmp_path / "out", max_bad_fraction=allowed)
        said = str(ended.value).replace(str(tmp_path), "")
        assert len(said) < 300
        assert said.isprintable()
        assert "\\x" not in said
        assert list(tmp_path.iterdir()) == [path]


FORMS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "header": (
        lambda data: "\t".join(NAMES).encode() + b"\n" + data,
        "line 1: names columns .*header: true.*--schema",
    ),
    "other header": (
        lambda data: b"\t".join([b"name of it"] * 40) + b"\n" + data,
        "names columns .*header: true",
    ),
    "commas": (
        lambda data: data.replace(b"\t", b","),
        'separated by commas, not by tabs: write `separator: ","`',
    ),
    "semicolons": (lambda data: data.replace(b"\t", b";"), 'separated by semicolons.*separator: ";"'),
    "bars": (lambda data: data.replace(b"\t", b"|"), "separated by bars"),
    "commas, header": (
        lambda data: ",".join(NAMES).encode() + b"\n" + data.replace(b"\t", b","),
        "separated by commas.*`header: true`",
    ),
    "few columns": (lambda _: b"click,hour,site\n1,2,abc\n", "separated by commas.*--schema"),
    "quotes": (lambda data: data.replace(b"\t", b'"\t"').replace(b"\n", b'"\n"'), "in quotes"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_log_in_another_form_says_what_to_write_in_a_schema_file(
    tmp_path: Path, line: Line, form: str
) -> None:
    make, message = FORMS[form]
    path = tmp_path / "day_0.tsv"
    path.write_bytes(make(text(line)))
    with pytest.raises(InputError, match=message) as ended:
        prepare([path], tmp_path / "out")
    assert len(str(ended.value).replace(str(tmp_path), "")) < 300


def test_a_file_of_another_column_kind_points_to_string(tmp_path: Path) -> None:
    layout = Layout(separator=",", columns={"y": "label", "n": "integer", "code": "decimal", "site": "hex"})
    for row, message in (
        (
            b"0,1,-5,a\n",
            r"field 3 \(code\): '-5' is not a decimal token; .*make the column a `string` .*signs",
        ),
        (
            b"0,1,9999999999,a\n",
            r"does not fit into 32 bits; .*make the column a `string` .*more than 32 bits",
        ),
        (b"0,1,5,shop\n", r"is not a hexadecimal token; .*make the column a `string` \(--schema\)$"),
    ):
        (tmp_path / "day.csv").write_bytes(b"0,1,2,a\n" + row)
        with pytest.raises(InputError, match=message):
            prepare([tmp_path / "day.csv"], tmp_path / "out", layout=layout)


def test_what_lies_beside_logs_is_left_out_or_named(tmp_path: Path, line: Line) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    for name in ("part-00010", "part-00002"):
        (folder / name).write_bytes(text(line))
    (folder / "_SUCCESS").touch()
    (folder / ".part-00002.crc").write_bytes(b"crc\0\0\1\2\3")
    with pytest.raises(InputError, match=r"is a folder; name the files in it, for example .*/part-\*"):
        prepare([folder], tmp_path / "out")
    with pytest.raises(InputError, match=r"_SUCCESS: is a marker beside part files.*DIR/part-\*"):
        prepare(sorted(folder.iterdir())[1:], tmp_path / "out")  # as a shell takes *
    found = prepare([folder / "*"], tmp_path / "out")
    assert [Path(source.path).name for source in found.sources] == ["part-00002", "part-00010"]
    (folder / "truth.json").write_text(json.dumps({"bayes_auc": 0.79}))
    with pytest.raises(InputError, match=r"truth\.json: describes the logs of `generate`"):
        prepare([folder / "part-*", folder / "truth.json"], tmp_path / "out2")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("separator: '\\t'\ncolumns: {a: label}", r"schema\.yaml:1: separator: .*\"\\t\" in double quotes"),
        (
            "separator: |\ncolumns: {a: label}",
            r"schema\.yaml:1: separator: write one character in double quotes",
        ),
        ("columns:\n  y: label\n  101: hex", r"schema\.yaml:3: columns\.101: quote the key.*'101': hex"),
        ("columns:\n  y: label\n  true: hex", r"schema\.yaml:3: columns\.True: quote the key.*'true': hex"),
        ("columns:\n  y: label\n  n:", r"schema\.yaml:3: columns\.n: has no kind"),
        ("columns:\n  - y: label", r"columns: write one `name: kind` a line"),
        ("header: maybe\ncolumns: {a: label}", r"header: write true or false"),
        ("- a\n- b", "a schema file is a mapping with `columns:`"),
        ("", "a schema file is a mapping with `columns:`"),
        (
            "columns: {y: label, n: integer, t: time, u: time, h: hex}",
            r"schema\.yaml: 2 columns are the time",
        ),
        ("PAR1\0\0", "not valid YAML"),
    ],
)
def test_a_schema_file_says_its_mistake(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "schema.yaml").write_text(written)
    with pytest.raises(InputError, match=message) as ended:
        Layout.load(tmp_path / "schema.yaml")
    said = str(ended.value).replace(str(tmp_path), "")
    assert len(said) < 300
    assert "Value error" not in said
    assert "file:" not in said
