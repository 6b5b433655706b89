"""Tables whose rows, types or bytes are wrong: which is named, and what is set aside."""

import datetime
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.prep.raw.tables.table_logs import LAYOUT, WRITERS, Row, as_csv, as_parquet, blake, rows_of, shard

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout

BAD_ROWS: list[tuple[str, Row, str]] = [
    ("clicked", {"clicked": 2}, "label"),
    ("clicked", {"clicked": None}, "label"),
    ("age", {"age": 1.5}, "not_an_integer"),
    ("age", {"age": "old"}, "not_an_integer"),
    ("age", {"age": str(1 << 63)}, "integer_range"),
    ("price", {"price": "cheap"}, "not_a_number"),
    ("price", {"price": "1e39"}, "number_range"),
    ("at", {"at": "yesterday"}, "not_a_time"),
]


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
@pytest.mark.parametrize(("column", "change", "reason"), BAD_ROWS)
def test_bad_rows_are_set_aside_with_file_row_and_reason(
    tmp_path: Path, small_pieces: None, name: str, column: str, change: Row, reason: str
) -> None:
    rows = rows_of(130)
    for row in rows:
        row["title"] = "a\nb"
        row["price"] = 1.0
    rows[123] |= change
    if name == "log.parquet":  # whose columns hold one type each
        for row in rows:
            row[column] = None if row[column] is None else str(row[column])
    path = tmp_path / name
    path.write_bytes(WRITERS[name](rows))
    manifest = prepare(path, tmp_path / "out", layout=LAYOUT, max_bad_fraction=0.01)
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (130, 129, 1)
    assert manifest.quarantine.reasons == {reason: 1}
    file, number, written, row = (
        (tmp_path / "out" / "quarantine" / "rows.tsv").read_bytes().rstrip(b"\n").split(b"\t")
    )
    expected = 2 + 2 * 123 if name == "log.csv" else 124
    assert (file, number, written) == (str(path).encode(), b"%d" % expected, reason.encode())
    assert b"a\\nb" in row
    where = f"row {expected} (row group 2, row 24)" if name == "log.parquet" else f"line {expected}"
    with pytest.raises(InputError) as ended:
        prepare(path, tmp_path / "strict", layout=LAYOUT)
    assert str(ended.value).startswith(f"{path}, {where}: column {column}: ")
    assert len(str(ended.value).replace(str(tmp_path), "")) < 300


QUOTED_FAULTS = [
    (b'1,"a"b,2,3,1,,\r\n', "quotes"),
    (b"1,a,2,3,1,\r\n", "field_count"),
    (b'1,"a,b",2,3,1,,,\r\n', "field_count"),
    (b"1,\xff,2,3,1,,\r\n", "not_text"),
    (b"1,a\rb,2,3,1,,\r\n", "not_text"),
    (b"1,a\0b,2,3,1,,\r\n", "nul_bytes"),
    (b"\r\n", "field_count"),
]


@pytest.mark.parametrize(("line", "reason"), QUOTED_FAULTS)
def test_rows_of_quoted_text_that_are_none(
    tmp_path: Path, small_pieces: None, line: bytes, reason: str
) -> None:
    good = as_csv(rows_of(60))
    header_and_rows = good + line + good.partition(b"\r\n")[2]
    (tmp_path / "log.csv").write_bytes(header_and_rows)
    manifest = prepare(tmp_path / "log.csv", tmp_path / "out", layout=LAYOUT, max_bad_fraction=0.1)
    assert (manifest.rows_in, manifest.rows_out) == (121, 120)
    assert manifest.quarantine.reasons == {reason: 1}
    number = (tmp_path / "out" / "quarantine" / "rows.tsv").read_bytes().split(b"\t")[1]
    assert int(number) == good.count(b"\n") + 1


def test_an_open_quote_is_found_at_its_row(tmp_path: Path) -> None:
    good = as_csv(rows_of(30))
    path = tmp_path / "log.csv"
    path.write_bytes(good + b'1,"open,2,3,1,,\r\n' + good.partition(b"\n")[2])
    manifest = prepare(path, tmp_path / "out", layout=LAYOUT, max_bad_fraction=0.5)
    assert manifest.rows_in == manifest.rows_out + manifest.rows_quarantined
    assert manifest.quarantine.reasons["quotes"] >= 1
    path.write_bytes(good + b'1,"open,2,3,1,,\r\n' + b"word," * 300_000)
    line = good.count(b"\n") + 1
    with pytest.raises(
        InputError, match=rf"line {line}: the row that begins there is longer .* quote not closed"
    ):
        prepare(path, tmp_path / "other", layout=LAYOUT, max_bad_fraction=0.5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds lists"),
        ({"a": 1}, "holds struct"),
        (datetime.datetime(2024, 1, 1), "make it `time` or `skip`"),
    ],
)
def test_types_that_no_column_can_have(tmp_path: Path, value: object, message: str) -> None:
    pq.write_table(pa.table({"y": [1], "n": [1], "c": [value]}), tmp_path / "log.parquet")
    layout = Layout(columns={"y": "label", "n": "integer", "c": "token"})
    with pytest.raises(InputError, match=rf"log\.parquet: column c .*{message}"):
        prepare(tmp_path / "log.parquet", tmp_path / "out", layout=layout, max_bad_fraction=1.0)


@pytest.mark.parametrize("name", ["log.parquet", "log.jsonl", "log.arrow"])
def test_without_a_schema_a_table_asks_for_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name](rows_of(5)))
    with pytest.raises(InputError, match=rf"not in Criteo's layout.*run `sizewise schema {name}`"):
        prepare(tmp_path / name, tmp_path / "out", max_bad_fraction=1.0)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    data = as_parquet(rows_of(2000))
    (tmp_path / "log.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"log\.parquet: is a Parquet file that cannot be read"):
        prepare(tmp_path / "log.parquet", tmp_path / "out", layout=LAYOUT)
    (tmp_path / "log.parquet").write_bytes(data[:2000] + bytes(2000) + data[4000:])
    with pytest.raises(
        InputError, match=r"log\.parquet: is a Parquet file that cannot be read|log\.parquet, row"
    ):
        prepare(tmp_path / "log.parquet", tmp_path / "out", layout=LAYOUT)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    table = pa.table({"y": [0, 1, 1], "n": [1, 2, 3], "c": pa.array([b"a", b"\xff", None], pa.binary())})
    pq.write_table(table, tmp_path / "log.parquet")
    layout = Layout(columns={"y": "label", "n": "integer", "c": "token"})
    manifest = prepare(
        tmp_path / "log.parquet", tmp_path / "out", layout=layout, max_bad_fraction=0.5, split="rows:2,0"
    )
    assert manifest.quarantine.reasons == {"not_text": 1}
    assert shard(tmp_path / "out").ids.tolist() == [[blake("a")], [0]]


@pytest.mark.slow
def test_any_damage_is_refused_or_set_aside(tmp_path: Path) -> None:
    """Bytes changed, cut out and put in, in files of every format: no other error, and counts that add up."""
    draw = random.Random(1)
    good = {name: write(rows_of(40)) for name, write in WRITERS.items()}
    read = refused = 0
    for number in range(120):
        name = list(WRITERS)[number % len(WRITERS)]
        data = bytearray(good[name])
        for _ in range(draw.choice((1, 2, 4))):
            at = draw.randrange(len(data))
            data[at : at + draw.choice((0, 1, 5))] = draw.choice(
                (b'"', b"\n", b"\0", b",", b"\xff", draw.randbytes(3))
            )
        (tmp_path / name).write_bytes(data)
        out = tmp_path / f"out-{number}"
        try:
            manifest = prepare(tmp_path / name, out, layout=LAYOUT, max_bad_fraction=1.0)
        except InputError as error:
            refused += str(error).isprintable()
            continue
        read += 1
        assert manifest.rows_in == manifest.rows_out + manifest.rows_quarantined
        kept = out / "quarantine" / "rows.tsv"
        lines = kept.read_bytes().split(b"\n")[:-1] if kept.exists() else []
        assert len(lines) == manifest.rows_quarantined
        numbers = [int(line.split(b"\t")[1]) for line in lines]
        assert numbers == sorted(set(numbers))
    assert read > 40
    assert refused == 120 - read > 20


def test_no_row_of_a_parquet_file_is_lost(tmp_path: Path) -> None:
    """Arrow gives no row of the second row group, whose only list is one of a dictionary, and no error."""
    tags = [[f"v{j}" for j in range(50)]] * 5 + [["q"]]
    lists = pa.array(tags, pa.list_(pa.dictionary(pa.int32(), pa.string())))
    table = pa.table({"click": [0, 1] * 3, "tags": lists})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=5, data_page_size=200)
    layout = Layout(columns={"click": "label", "tags": "tokens"})
    try:
        rows = prepare(tmp_path / "log.parquet", tmp_path / "out", layout=layout, split="rows:5,0").rows_in
    except InputError as error:
        rows = 6 * ("cannot be read (0 of 1 rows of row group 2 come out)" in str(error))
    assert rows == 6


def test_a_byte_order_mark_that_begins_a_text_is_kept(tmp_path: Path) -> None:
    """But for that of the file, also where rows are looked at one by one."""
    lines = [f"\ufeff{text},{label}\n" for text, label in [("z", 0), ("y", 1), ("z", "bad"), ("x", 1)]]
    (tmp_path / "log.csv").write_text("\ufeff" + "".join(lines))
    layout = Layout(separator=",", quotes=True, columns={"user": "token", "click": "label"})
    prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout, split="rows:3,0", max_bad_fraction=0.5)
    assert shard(tmp_path / "out").ids[:, 0].tolist() == [blake(f"\ufeff{text}") for text in "zyx"]


def test_a_column_that_one_file_lacks_is_named(tmp_path: Path) -> None:
    for name, columns in (("a", ["click", "user"]), ("b", ["click"])):
        table = pa.table({"click": [0, 1], "user": ["x", "y"]}).select(columns)
        pq.write_table(table, tmp_path / f"{name}.parquet")
    layout = Layout(columns={"click": "label", "user": "token"})
    with pytest.raises(InputError, match=r"b\.parquet: .* has no column 'user'; .*: other files have it"):
        prepare(str(tmp_path / "*.parquet"), tmp_path / "out", layout=layout)
