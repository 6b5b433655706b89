"""Rows of tables that a column, or their times, put into splits."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.prep.raw.tables.table_logs import LAYOUT, WRITERS, Row, as_csv, rows_of, shard

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.shards.verifying import verify


def split_rows() -> list[Row]:
    """Rows whose splits lie mixed in the log."""
    names = ("train", "Train", "VALID", "test", "train ")
    rows = rows_of(200)
    for j, row in enumerate(rows):
        row["note"] = names[j % 5]
        row["at"] = f"2024-05-{1 + j * 7 % 30:02d} 00:00:00"
        row["age"] = j
    rows[150] |= {"note": "other"}
    rows[151] |= {"at": None}
    return rows


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_split_as_a_column_says(tmp_path: Path, small_pieces: None, name: str) -> None:
    rows = split_rows()
    for row in rows if name == "log.parquet" else []:
        row["at"] = row["at"] and datetime.datetime.fromisoformat(row["at"])
    path = tmp_path / name
    path.write_bytes(WRITERS[name](rows))

    def ages(out: str, split: str, bad: str) -> list[list[float]]:
        options: dict[str, Any] = {"layout": LAYOUT, "split": split, "shard_rows": 1000}
        manifest = prepare(path, tmp_path / out, max_bad_fraction=0.1, **options)
        assert manifest.quarantine.reasons == {bad: 1}
        assert manifest.rows_out == 199
        assert verify(tmp_path / out) == []
        assert prepare(path, tmp_path / out, max_bad_fraction=0.1, **options) == manifest
        return [shard(tmp_path / out, f"{part}-00000.arrow").dense[:, 1].tolist() for part in manifest.splits]

    by_column = ages("column", "column:note", "split")
    good = [j for j in range(200) if j != 150]
    assert by_column == [[j for j in good if j % 5 in places] for places in ((0, 1, 4), (2,), (3,))]
    days = {j: 1 + j * 7 % 30 for j in range(200) if j != 151}
    by_time = ages("time", "time:2024-05-20,2024-05-25T12:00:00", "split")
    assert by_time == [
        [j for j, day in days.items() if low <= day < high] for low, high in ((1, 20), (20, 26), (26, 31))
    ]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("column:user", r"the schema file makes it a `token`; make it `skip`"),
        ("column:absent", r"has no column 'absent'"),
        ("time:2024-05-01", r"give two ISO dates"),
        ("time:2024-05-01,5", r"give two ISO dates"),
        ("time:2024-05-02,2024-05-01", r"the second time is before the first"),
        ("time:2020-01-01,2024-05-01", r"leaves no good row to train on"),
    ],
)
def test_a_split_that_cannot_be(tmp_path: Path, split: str, message: str) -> None:
    (tmp_path / "log.csv").write_bytes(as_csv(rows_of(20)))
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "log.csv", tmp_path / "out", layout=LAYOUT, split=split)
    with pytest.raises(InputError, match="needs a column that holds the time"):
        prepare(tmp_path / "log.csv", tmp_path / "out", split="time:2024-05-01,2024-05-02")


def test_unix_times_are_split_by_dates(tmp_path: Path) -> None:
    """Whatever their unit; and by numbers as they are."""
    layout = Layout(separator=",", columns={"y": "label", "user": "token", "n": "integer", "ts": "time"})
    days = [datetime.datetime(2024, 5, 1 + j, tzinfo=datetime.UTC).timestamp() for j in range(20)]
    for unit in (1, 1000, 10**6, 10**9):
        path = tmp_path / f"{unit}.csv"
        path.write_text("".join(f"{j % 2},u,{j},{int(day) * unit}\n" for j, day in enumerate(days)))
        split = "time:2024-05-11,2024-05-16" if unit > 1 else f"time:{int(days[10])},{int(days[15])}"
        manifest = prepare(path, tmp_path / f"out-{unit}", layout=layout, split=split)
        assert [part.rows for part in manifest.splits.values()] == [10, 5, 5]


def test_times_are_exact_to_the_nanosecond(tmp_path: Path) -> None:
    """In every format, and in one order with dates that 64 bits of nanoseconds do not reach."""
    times = [
        f"{text}.{j * 7919 % 1000:09d}"
        for j in range(40)
        for text in ("2024-05-01T00:00:00", "1969-12-31T23:59:59")
    ]
    ascending = sorted(times)
    cut = f"time:{ascending[30]},{ascending[60]}"
    layout = Layout(separator=",", columns={"y": "label", "user": "token", "n": "integer", "ts": "time"})
    rows = [(j % 2, "u", j, time) for j, time in enumerate(times)]
    (tmp_path / "log.csv").write_text("".join(f"{','.join(map(str, row))}\n" for row in rows))
    columns = dict(zip(layout.columns, map(list, zip(*rows, strict=True)), strict=True))
    stamps = pa.array(times).cast(pa.timestamp("ns"))
    units = pa.array([str(stamp.value) for stamp in stamps])  # 19 digits
    pq.write_table(pa.table({**columns, "ts": stamps}), tmp_path / "log.parquet")
    pq.write_table(pa.table({**columns, "ts": units}), tmp_path / "units.parquet")
    wanted = [times.index(time) for time in ascending]
    for name in ("log.csv", "log.parquet", "units.parquet"):
        by = {"layout": layout, "sort": True}
        prepare(tmp_path / name, tmp_path / "sorted" / name, split="rows:80,0", **by)
        assert shard(tmp_path / "sorted" / name).dense[:, 0].tolist() == wanted
        if name != "units.parquet":
            found = prepare(tmp_path / name, tmp_path / "split" / name, split=cut, layout=layout)
            assert [part.rows for part in found.splits.values()] == [30, 30, 20]
    years = ["9999-12-31", "0001-01-01", "1690-01-01", "1692-01-01", "2248-01-01", "2249-01-01 00:00:00.5"]
    (tmp_path / "far.csv").write_text("".join(f"1,u,{j},{year}\n" for j, year in enumerate(years * 2)))
    prepare(tmp_path / "far.csv", tmp_path / "far", split="rows:12,0", **by)
    order = sorted(range(12), key=lambda j: (years * 2)[j])
    assert shard(tmp_path / "far").dense[:, 0].tolist() == order


def test_dates_before_2000_are_split_by_dates(tmp_path: Path) -> None:
    """They are no unix times of another unit; numbers do not split them."""
    layout = Layout(separator=",", columns={"y": "label", "user": "token", "ts": "time"})
    days = ["1970-01-15", "1970-01-01", "1997-09-20", "1998-03-07 10:00:00", "1998-04-22"]
    (tmp_path / "log.csv").write_text("".join(f"{j % 2},u,{day}\n" for j, day in enumerate(days)))
    found = prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout, split="time:1998-01-01,1998-04-01")
    assert [part.rows for part in found.splits.values()] == [3, 1, 1]
    with pytest.raises(
        InputError, match="line 1: column ts: '1970-01-15' cannot be compared with the numbers"
    ):
        prepare(tmp_path / "log.csv", tmp_path / "no", layout=layout, split="time:5,7")
