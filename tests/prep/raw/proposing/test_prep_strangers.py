"""Files as strangers have them: what `schema` proposes and `prep` makes of it, or one sentence that says the fix."""

import datetime
import json
import math
import string
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.proposing import propose

ROWS = range(240)
HEADER = "click,user,price\n"
LINES = [f"{j % 2},u{j % 37},{j % 9 * 1.5}\n" for j in ROWS]
CSV = HEADER + "".join(LINES)


def each(form: str, header: str = HEADER) -> str:
    """A line for each row, of a format string of its number `j`, its click and its user."""
    return header + "".join(form.format(j=j, click=j % 2, user=f"u{j % 37}") + "\n" for j in ROWS)


READ = {
    "a mark of UTF-8": (b"\xef\xbb\xbf" + CSV.encode(), {"click": "label", "price": "number"}),
    "CRLF": (CSV.replace("\n", "\r\n"), {"click": "label", "price": "number"}),
    "quoted line breaks": (
        each('{click},"Line {user}\nand ""more"", yes",1.5'),
        {"click": "label", "user": "token"},
    ),
    "semicolons and quotes": (each('"{click}";"{user}";"1.5"', '"click";"user";"price"\n'), {"click": "label"}),
    "the index of pandas": (each("{j},{click},{user}", ",click,user\n"), {"": "skip", "click": "label"}),
    "a comma behind each row": (each("{click},{user},1.5,", "click,user,price,\n"), {"": "skip"}),
    "more than 2^53": (each("{click},{user},90071992547409{j:03}"), {"price": "integer"}),
    "64 bits without a sign": (each("{click},{user},18446744073709551{j:03}", "click,user,n_id\n"), {"n_id": "token"}),
    "several nulls": (CSV.replace(",u3,", ",NULL,").replace(",1.5\n", ",\\N\n"), {"user": "token", "price": "number"}),
    "names of digits": (each("{click},{user},1.5,7", "click,12,price,views\n"), {"click": "label", "12": "token"}),
    "beyond 64 bits": (each("{click},{user},18446744073709{j:06}", "click,user,views\n"), {"views": "token"}),
    "n/a": (CSV.replace(",1.5\n", ",n/a\n"), {"price": "number"}),
    "carets": (CSV.replace(",", "^"), {"click": "label", "user": "token", "price": "number"}),
    "Hive's separator": (CSV.replace(",", "\x01"), {"click": "label", "user": "token", "price": "number"}),
    "tildes, and blanks within": (each("{click}~a b {user}~1.5", "click~user~price\n"), {"user": "token"}),
    "yes and no": (CSV.replace("\n0,", "\nno,").replace("\n1,", "\nyes,"), {"click": "label == yes"}),
    "-1 and 1": (CSV.replace("\n0,", "\n-1,"), {"click": "label > 0"}),
    "mixed types of JSON": (
        "".join(json.dumps({"click": j % 2, "user": j if j % 3 else f"u{j}", "x": str(j) if j % 2 else j / 7}) + "\n"
                for j in ROWS),
        {"click": "label", "user": "token", "x": "number"},
    ),
    "nested JSON": (
        "".join(json.dumps({"click": j % 2, "user": {"id": j}, "tags": [f"t{j % 4}", "x"]}) + "\n" for j in ROWS),
        {"click": "label", "user": "skip", "tags": "tokens"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_file_is_proposed_for_and_prepared(name: str, tmp_path: Path) -> None:
    content, kinds = READ[name]
    raw = tmp_path / ("log.jsonl" if "JSON" in name else "log.csv")
    raw.write_bytes(content if isinstance(content, bytes) else content.encode())
    layout = proposed(raw)
    assert {column: layout.columns[column] for column in kinds} == kinds
    manifest = prepare(raw, tmp_path / "out", layout=layout)
    assert (manifest.rows_in, manifest.rows_out) == (len(ROWS), len(ROWS))
    assert manifest.click_rate == 0.5


def proposed(raw: Path) -> Layout:
    found = raw.with_name("proposed.yaml")
    found.write_text(propose([raw]).text)
    return Layout.load(found)


REFUSED = {
    "two equal names": (CSV.replace("price", "user"), r"log\.csv, line 1: names two columns 'user': rename one"),
    "carriage returns in a quoted text": (
        each('"{click}","a",1').replace("\n", "\r"), r"line 1: lines end with a carriage return alone: .* `tr"
    ),
    "a comment": ("# of 2024\n" + CSV, r"line 1: has 1 fields \('# of 2024'\), and the others have 3: remove it"),
    "carriage returns": (CSV.replace("\n", "\r"), r"line 1: lines end with a carriage return alone: .* `tr"),
    "Latin-1": (each("{click},Caf\xe9 {user},1.5").encode("latin-1"), r"line 2: is not text in UTF-8: .* `iconv"),
    "a name in Latin-1": (b"click,caf\xe9\n1,2\n" * 9, r"line 1: is not text in UTF-8"),
    "MovieLens's colons": (each("{click}::{user}::5", ""), r"are separated by '::', .* `sed 's/::/\\t/g'`"),
    "no rows": (HEADER, r"log\.csv: has no rows to look at"),
    "nothing": ("", r"log\.csv: is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_with_the_fix(name: str, tmp_path: Path) -> None:
    content, said = REFUSED[name]
    raw = tmp_path / "log.csv"
    raw.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as caught:
        propose([raw])
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


DOUBTS = {
    "thousands": (each('{click},{user},"{j},234"'), "number, once written as 1234.5"),
    "decimal commas": (each("{click};{user};{j},5", "click;user;price\n"), "number, once written as 1234.5"),
    "dollars": (each("{click},{user},${j}.50"), "number, once written as 1234.5"),
    "dates": (each("{click},{user},3/{click}7/24"), "time, once written as 2024-05-01"),
    "blanks": (each("{click},{user}, b{user}"), "some values begin or end with blanks"),
    "infinity": (CSV.replace(",12.0\n", ",inf\n", 1), "some values are no numbers, such as inf"),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_values_that_may_be_meant_otherwise_are_doubted(name: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(DOUBTS[name][0])
    (column,) = (one for one in propose([tmp_path / "log.csv"]).columns if one.name == "price")
    assert DOUBTS[name][1] in column.unsure


def test_a_label_that_is_missing_at_times_is_still_the_label(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(CSV.replace("\n1,", "\n,", 3))
    layout = proposed(tmp_path / "log.csv")
    assert layout.columns["click"] == "label"
    assert (
        prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout, max_bad_fraction=0.1).rows_quarantined
        == 3
    )


def test_rows_that_are_all_bad_are_counted(tmp_path: Path) -> None:
    """Also where many that follow one another are, and none of them is good."""
    bad = b"".join(b"1,Caf\xe9 %d,2\n" % j for j in range(3_000))
    (tmp_path / "log.csv").write_bytes(CSV.encode() + bad)
    columns = {"click": "label", "user": "token", "price": "number"}
    layout = Layout(separator=",", header=True, columns=columns)
    with pytest.raises(InputError, match=r"log\.csv, line 242: is not text in UTF-8; .*`iconv"):
        prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout)
    manifest = prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout, max_bad_fraction=0.99)
    assert (manifest.rows_out, manifest.rows_quarantined) == (len(ROWS), 3_000)
    assert manifest.quarantine.reasons == {"not_text": 3_000}


@pytest.mark.parametrize("empty", [False, True])
def test_types_of_parquet_that_no_kind_reads_are_skipped(tmp_path: Path, empty: bool) -> None:
    rows = [] if empty else list(ROWS)
    table = pa.table(
        {
            "click": pa.array([j % 2 for j in rows], pa.int8()),
            "user": pa.array([f"u{j % 9}" for j in rows], pa.string()),
            "at": pa.array([datetime.time(1, 2)] * len(rows), pa.time32("s")),
            "took": pa.array([datetime.timedelta(seconds=j) for j in rows], pa.duration("s")),
            "bytes": pa.array([b"\xff%d" % j for j in rows], pa.binary()),
            "record": pa.array([{"a": j} for j in rows], pa.struct({"a": pa.int64()})),
            "nothing": pa.nulls(len(rows)),
            "vector": pa.array([[j / 7, 0.5] for j in rows], pa.list_(pa.float32(), 2)),
        }
    )
    raw = tmp_path / "log.parquet"
    pq.write_table(table, raw, row_group_size=100)
    if empty:
        with pytest.raises(InputError, match=r"log\.parquet: has no rows to look at"):
            propose([raw])
        return
    layout = proposed(raw)
    assert {name for name, kind in layout.columns.items() if kind == "skip"} == set(table.column_names[2:])
    assert prepare(raw, tmp_path / "out", layout=layout).rows_out == len(ROWS)
    twice = pa.table([table["click"], table["user"], table["user"]], names=["click", "user", "user"])
    pq.write_table(twice, raw)
    with pytest.raises(InputError, match=r"log\.parquet: has two columns 'user': rename one"):
        propose([raw])


def test_partitions_with_odd_names_are_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"click": [j % 2 for j in ROWS], "user": [f"u{j % 9}" for j in ROWS]})
    for name in ("US", "a b", "x%2Fy", "é", string.punctuation.replace("/", "").replace("\\", "")):
        folder = tmp_path / "log" / f"country={name}"
        folder.mkdir(parents=True)
        frame.write_parquet(folder / "part 0.parquet")
    manifest = prepare(
        tmp_path / "log", tmp_path / "out", layout=Layout(columns={"click": "label", "user": "token"})
    )
    assert manifest.rows_out == 5 * len(ROWS)


def test_names_of_folders_are_columns(tmp_path: Path) -> None:
    """Also the label: as Hive and Spark write a table that is partitioned by it."""
    for click in "01":
        for day in ("2024-05-01", "2024-05-02", "__HIVE_DEFAULT_PARTITION__"):
            folder = tmp_path / "log" / f"day={day}" / "country=a%20b" / f"click={click}"
            folder.mkdir(parents=True)
            frame = pl.DataFrame({"user": [f"u{j % 9}" for j in ROWS]})
            frame.write_parquet(folder / "b.parquet")
            frame.clear().write_parquet(folder / "a.parquet")  # as programs do that write a table in parts
    layout = proposed(tmp_path / "log")
    assert layout.columns == {"user": "token", "day": "time", "country": "skip", "click": "label"}
    layout = Layout(columns=layout.columns | {"country": "token"})
    raw, options = tmp_path / "log", {"layout": layout, "max_bad_fraction": 0.5}
    manifest = prepare(raw, tmp_path / "out", split="time:2024-05-02,2024-05-03", **options)
    assert (manifest.rows_in, manifest.rows_out) == (6 * len(ROWS), 4 * len(ROWS))
    assert manifest.quarantine.reasons == {"split": 2 * len(ROWS)}
    assert manifest.splits["validation"].click_rate == 0.5
    assert manifest.cardinalities == [9, 1]


def test_folders_of_more_files_than_the_first_has_rows(tmp_path: Path) -> None:
    """All their names count; and a label that is a decimal is one."""
    clicks = pl.Series(["0", "1"]).str.to_decimal(scale=2)
    for number in range(4):
        folder = tmp_path / "log" / f"tier={number}"
        folder.mkdir(parents=True)
        pl.DataFrame({"user": ["a", "b"], "click": clicks}).write_parquet(folder / "part.parquet")
    layout = proposed(tmp_path / "log")
    assert (layout.columns["click"], layout.columns["tier"]) == ("label", "skip")
    assert prepare(tmp_path / "log", tmp_path / "out", layout=layout).click_rate == 0.5


def test_numbers_of_any_type_mean_the_same_as_their_texts(tmp_path: Path) -> None:
    """Ids beyond 64 bits, or beyond their half, and labels and values that are real numbers."""
    ids = [10**25 + j % 37 for j in ROWS]
    columns = {
        "click": pa.array([float(j % 2) for j in ROWS], pa.float32()),
        "user": pa.array([Decimal(value) for value in ids], pa.decimal128(38, 2)),
        "item": pa.array([2**63 + j % 11 for j in ROWS], pa.uint64()),
        "at": pa.array([float(j % 5 - 1) for j in ROWS], pa.float64()),
    }
    rows = list(
        zip((j % 2 for j in ROWS), ids, columns["item"].to_pylist(), columns["at"].to_pylist(), strict=True)
    )
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    (tmp_path / "log.csv").write_text(
        "click,user,item,at\n" + "".join(",".join(map(str, row)) + "\n" for row in rows).replace("-1.0", "-1")
    )
    kinds = {"click": "label", "user": "token", "item": "token", "at": "number"}
    made = []
    for name, more in {"log.csv": {"separator": ",", "header": True}, "log.parquet": {}}.items():
        layout = Layout(columns=kinds, nulls=["-1"], **more)
        made.append(prepare(tmp_path / name, tmp_path / f"of_{name}", layout=layout))
        assert made[-1].cardinalities == [37, 11]
        assert made[-1].dense_missing == [0.2]
    assert made[0].splits == made[1].splits


def test_fractions_are_no_ids(tmp_path: Path) -> None:
    ids = [Decimal(10**20 + j) + (Decimal("0.5") if j == 7 else 0) for j in ROWS]
    table = {"click": [j % 2 for j in ROWS], "user": pa.array(ids, pa.decimal128(38, 2))}
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    layout = Layout(columns={"click": "label", "user": "token"})
    manifest = prepare(tmp_path / "log.parquet", tmp_path / "out", layout=layout, max_bad_fraction=0.1)
    assert (manifest.rows_out, manifest.quarantine.reasons) == (len(ROWS) - 1, {"not_a_token": 1})
    assert manifest.cardinalities == [len(ROWS) - 1]


def test_json_with_what_it_does_not_have(tmp_path: Path) -> None:
    raw = tmp_path / "log.jsonl"

    def write(every: int) -> None:
        rows = ({"click": j % 2, "user": f"u{j}", "x": j if j % every else math.nan} for j in ROWS)
        raw.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(5)
    layout = proposed(raw)
    with pytest.raises(
        InputError, match=r"jsonl, line 1: holds what JSON does not have, such as NaN .* write null"
    ):
        prepare(raw, tmp_path / "out", layout=layout)
    manifest = prepare(raw, tmp_path / "out", layout=layout, max_bad_fraction=0.2)
    assert (manifest.rows_out, manifest.rows_quarantined) == (4 * len(ROWS) // 5, len(ROWS) // 5)
    write(1)
    with pytest.raises(InputError, match=r"log\.jsonl: line 1: holds what JSON does not have, such as NaN"):
        propose([raw])


def test_fields_of_json_that_are_in_one_file_alone(tmp_path: Path) -> None:
    """Also where the first file has nothing but nulls, or another file has records."""
    more: list[dict[str, object]] = [{"x": None}, {"tags": ["a"]}, {"place": {"city": "y"}}]
    files = [tmp_path / f"{place}.jsonl" for place in range(3)]
    for file, fields in zip(files, more, strict=True):
        rows = [{"click": j % 2, "user": f"u{j % 37}", **fields} for j in ROWS]
        for j, row in enumerate(rows if "tags" in fields else []):
            row["x"] = j * 1.5
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "log.yaml").write_text(propose(files).text)
    layout = Layout.load(tmp_path / "log.yaml")
    kinds = {"click": "label", "user": "token", "x": "number", "tags": "tokens", "place": "skip"}
    assert layout.columns == kinds
    assert prepare(files, tmp_path / "out", layout=layout).rows_out == 3 * len(ROWS)
