"""Every type that Arrow has: read as the values that it stands for, or named before any row is read."""

import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.prep.raw.tables.table_logs import blake, shard

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.proposing import propose

WORDS = [["apple", "", "cherry", None][j % 4] for j in range(40)]
IDS = [[2**53 + 1, -7, 5, None][j % 4] for j in range(40)]
BIG = [Decimal(10) ** 60, *(None if one is None else Decimal(one) for one in IDS[1:])]


def coded(values: pa.Array) -> pa.Array:
    """With a dictionary that Arrow itself neither makes nor decodes."""
    distinct = values.unique()
    places = pa.array([distinct.to_pylist().index(value) for value in values.to_pylist()], pa.uint32())
    return pa.DictionaryArray.from_arrays(places, distinct)


def ends(values: list[object], kind: pa.DataType) -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(
        pa.array(range(1, len(values) + 1), pa.int32()), pa.array(values, kind)
    )


TOKENS: dict[str, tuple[list[object], Callable[[list[object]], pa.Array]]] = {
    "a dictionary of views": (
        WORDS,
        lambda texts: pl.Series(texts, dtype=pl.Categorical).to_arrow(compat_level=pl.CompatLevel.newest()),
    ),
    "a dictionary of decimals": (IDS, lambda ids: coded(pa.array(map(decimal, ids), pa.decimal128(20, 0)))),
    "run ends": (WORDS, lambda texts: ends(texts, pa.string())),
    "run ends of integers": (IDS, lambda ids: ends(ids, pa.int64())),
    "an extension": (
        WORDS,
        lambda texts: pa.ExtensionArray.from_storage(pa.opaque(pa.string(), "a", "b"), pa.array(texts)),
    ),
    "decimals of 60 digits": (BIG, lambda ids: pa.array(ids, pa.decimal256(70, 2))),
}  # fmt: skip


def decimal(value: object) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def as_token(value: object) -> int:
    return 0 if value in (None, "") else blake(f"{value:f}" if isinstance(value, Decimal) else str(value))


def written(folder: Path, column: pa.Array) -> Path:
    table = pa.table(
        {"click": [j % 2 for j in range(len(column))], "x": column, "u": ["a", "b"] * (len(column) // 2)}
    )
    path = folder / "log.arrow"
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table, max_chunksize=7)
    return path


@pytest.mark.parametrize("name", TOKENS)
def test_a_column_is_read_however_its_values_are_stored(name: str, tmp_path: Path) -> None:
    values, made = TOKENS[name]
    raw = written(tmp_path, made(values))
    propose([raw])
    layout = Layout(columns={"click": "label", "x": "token", "u": "token"})
    prepare(raw, tmp_path / "out", layout=layout, split="rows:40,0")
    assert shard(tmp_path / "out").ids[:, 0].tolist() == [as_token(value) for value in values]


LISTS: dict[str, Callable[[list[list[int]]], pa.Array]] = {
    "views": lambda lists: pa.array(lists, pa.list_view(pa.int64())),
    "decimals of 64 bits": lambda lists: pa.array(
        [[Decimal(one) for one in values] for values in lists], pa.list_(pa.decimal256(40, 0))
    ),
    "categories": lambda lists: pl.Series(
        [[str(one) for one in values] for values in lists], dtype=pl.List(pl.Categorical)
    ).to_arrow(compat_level=pl.CompatLevel.newest()),
    "texts that are views": lambda lists: pa.array([[str(one) for one in values] for values in lists],
                                                   pa.list_(pa.string_view())),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_read_however_its_values_are_stored(name: str, tmp_path: Path) -> None:
    lists = [[2**53 + 1, j][: j % 3] for j in range(40)]
    raw = written(tmp_path, LISTS[name](lists))
    layout = Layout(columns={"click": "label", "x": "tokens", "u": "token"})
    prepare(raw, tmp_path / "out", layout=layout, split="rows:40,0")
    (column,) = shard(tmp_path / "out").lists
    assert column.lengths.tolist() == [len(values) for values in lists]
    assert column.used.tolist() == [blake(str(one)) for values in lists for one in values]


UNREAD: dict[str, Callable[[], pa.Array]] = {
    "intervals": lambda: pa.array([(1, 2, 3)] * 40, pa.month_day_nano_interval()),
    "unions": lambda: pa.UnionArray.from_sparse(pa.array([0] * 40, pa.int8()), [pa.array(range(40))]),
    "lists of times": lambda: pa.array([[datetime.date(2024, 5, 1)]] * 40),
    "lists of bytes": lambda: pa.array([[b"\xff"]] * 40),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_a_column_that_cannot_be_read_is_named_and_proposed_to_be_skipped(name: str, tmp_path: Path) -> None:
    raw = written(tmp_path, UNREAD[name]())
    (tmp_path / "log.yaml").write_text(propose([raw]).text)
    assert Layout.load(tmp_path / "log.yaml").columns["x"] == "skip"
    assert prepare(raw, tmp_path / "out", layout=Layout.load(tmp_path / "log.yaml")).rows_out == 40
    for kind in ("token", "tokens"):
        with pytest.raises(InputError, match="column x"):
            prepare(
                raw, tmp_path / "other", layout=Layout(columns={"click": "label", "x": kind, "u": "token"})
            )


def test_times_of_any_zone_are_in_order(tmp_path: Path) -> None:
    """By an offset too, which is no zone's name: of the same instants the same order."""
    seconds = np.random.default_rng(1).permutation(40) + 1_714_521_600
    raw = written(tmp_path, pa.array(seconds, pa.timestamp("s", "+05:30")))
    layout = Layout(columns={"click": "label", "x": "time", "u": "token"})
    prepare(raw, tmp_path / "out", layout=layout, split="rows:40,0", sort=True)
    assert shard(tmp_path / "out").labels.tolist() == [int(j) % 2 for j in np.argsort(seconds)]


def test_lists_of_categories_in_several_row_groups(tmp_path: Path) -> None:
    lists = [["a", "b"][: j % 3] for j in range(40)]
    log = {"click": [j % 2 for j in range(40)], "x": pl.Series(lists, dtype=pl.List(pl.Categorical))}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet", row_group_size=7)
    assert pq.ParquetFile(tmp_path / "log.parquet").num_row_groups > 1
    (tmp_path / "log.yaml").write_text(propose([tmp_path / "log.parquet"]).text)
    prepare(
        tmp_path / "log.parquet",
        tmp_path / "out",
        layout=Layout.load(tmp_path / "log.yaml"),
        split="rows:40,0",
    )
    (column,) = shard(tmp_path / "out").lists
    assert column.used.tolist() == [blake(one) for values in lists for one in values]
