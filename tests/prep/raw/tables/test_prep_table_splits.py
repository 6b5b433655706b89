"""Rows of tables that a column, or their times, put into splits."""

import datetime
from pathlib import Path
from typing import Any

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
    for unit in (1, 1000, 10**6):
        path = tmp_path / f"{unit}.csv"
        path.write_text("".join(f"{j % 2},u,{j},{int(day) * unit}\n" for j, day in enumerate(days)))
        split = "time:2024-05-11,2024-05-16" if unit > 1 else f"time:{int(days[10])},{int(days[15])}"
        manifest = prepare(path, tmp_path / f"out-{unit}", layout=layout, split=split)
        assert [part.rows for part in manifest.splits.values()] == [10, 5, 5]
