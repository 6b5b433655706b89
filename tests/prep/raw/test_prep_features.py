"""Columns that are made of others: crosses, buckets, and dense values as models take them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.blocks import Stretch
from sizewise_prep.raw.files.sources import resolve
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.options import Bucket
from sizewise_prep.raw.parsing.features import with_features
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.raw.proposing import propose
from sizewise_prep.raw.row_readers import for_scoring, open_rows
from sizewise_prep.shards.values.vocabulary import Vocabulary
from sizewise_prep.shards.verifying import verify

ROWS = 90
WORD = (1 << 64) - 1


def crossed(*tokens: int) -> int:
    """As docs/data_prep.md has it."""
    if not all(tokens):
        return 0
    mixed = 0
    for token in tokens:
        mixed = (mixed + token + 0x9E3779B97F4A7C15) & WORD
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & WORD
        mixed ^= mixed >> 31
    return mixed >> 32 or 1


def rows() -> list[dict[str, object]]:
    return [
        {
            "user": f"u{j % 7}" if j % 5 else None,
            "item": j % 11 - 3,
            "price": j / 4 if j % 6 else None,
            "clicked": j % 2,
            "site": f"{j % 3:x}" if j % 4 else "",
        }
        for j in range(ROWS)
    ]


def written(folder: Path) -> dict[str, Path]:
    """The same rows in three formats."""
    table, paths = rows(), {name: folder / f"log.{name}" for name in ("csv", "jsonl", "parquet")}
    lines = [",".join("" if value is None else str(value) for value in row.values()) for row in table]
    paths["csv"].write_text("\n".join([",".join(table[0]), *lines]) + "\n")
    paths["jsonl"].write_text("".join(json.dumps(row) + "\n" for row in table))
    pq.write_table(pa.Table.from_pylist(table), paths["parquet"], row_group_size=40)
    return paths


SCHEMA = """
separator: ","
header: true
columns:
  user: token
  item: token
  price: number
  clicked: label
  site: hex
  both: {kind: cross, of: [user, item]}
crosses: {all three: [site, item, user]}
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "log.yaml").write_text(SCHEMA)
    return Layout.load(tmp_path / "log.yaml")


def test_crosses_in_every_format(tmp_path: Path, layout: Layout) -> None:
    assert layout.tokens == ["user", "item", "site", "all three", "both"]
    shards = []
    for name, path in written(tmp_path).items():
        manifest = prepare(path, tmp_path / name, layout=layout, shard_rows=25)
        assert verify(tmp_path / name) == []
        assert manifest.token_missing[3] > manifest.token_missing[4] == manifest.token_missing[0] > 0
        shards.append([file.read_bytes() for file in sorted((tmp_path / name).glob("*.arrow"))])
    assert shards[0] == shards[1] == shards[2]
    ids = read_shard(tmp_path / "csv" / "train-00001.arrow").ids.tolist()
    assert [row[3] for row in ids] == [crossed(row[2], row[1], row[0]) for row in ids]
    assert [row[4] for row in ids] == [crossed(row[0], row[1]) for row in ids]
    assert len({row[4] for row in ids}) > 20

    numbered = prepare(tmp_path / "log.csv", tmp_path / "ids", layout=layout, tokens="contiguous")
    raw = read_shard(tmp_path / "csv" / "test-00000.arrow").ids
    assert len(numbered.vocabulary) == len(numbered.cardinalities) == 5
    known = Vocabulary.load(tmp_path / "ids")
    assert np.array_equal(read_shard(tmp_path / "ids" / "test-00000.arrow").ids, known.ids(raw))


def test_a_cross_of_text_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_text("".join(f"{j % 2}\t{j}\t{j % 3 + 1:x}\t{j % 5}\n" for j in range(30)))
    layout = Layout(
        columns={"y": "label", "n": "integer", "a": "hex", "b": "decimal"}, crosses={"ab": ("b", "a")}
    )
    assert layout.is_plain
    prepare(tmp_path / "log.tsv", tmp_path / "out", layout=layout)
    ids = read_shard(tmp_path / "out" / "train-00000.arrow").ids.tolist()
    assert [row[2] for row in ids] == [crossed(row[1], row[0]) for row in ids]
    assert sum(row[2] == 0 for row in ids) == 5  # a decimal 0 is missing


NUMBERS = """
separator: ","
header: true
columns:
  user: token
  item: integer
  price: {kind: number, transform: standardize}
  clicked: label
  site: skip
buckets:
  band: {of: price, quantiles: 4}
  level: {of: item, edges: [-2, 0.5, 6]}
crosses: {user_band: [user, band]}
transforms: {item: none}
"""


def test_buckets_and_transforms_follow_from_training_rows(tmp_path: Path) -> None:
    (tmp_path / "log.yaml").write_text(NUMBERS)
    layout = Layout.load(tmp_path / "log.yaml")
    assert layout.tokens == ["user", "band", "level", "user_band"]
    shards, fitted = [], None
    for name, path in written(tmp_path).items():
        manifest = prepare(path, tmp_path / name, layout=layout, shard_rows=25)
        assert verify(tmp_path / name) == []
        fitted = manifest.fitted
        shards.append([file.read_bytes() for file in sorted((tmp_path / name).glob("*.arrow"))])
    assert shards[0] == shards[1] == shards[2]

    train = [row["price"] for row in rows()[:72]]
    known = np.sort(np.array([price for price in train if price is not None], np.float64))
    edges = known[[len(known) * k // 4 for k in (1, 2, 3)]].tolist()
    assert fitted is not None
    assert list(fitted.edges.items()) == [("band", tuple(edges))]
    assert fitted.moments["price"].mean == pytest.approx(known.mean())
    assert fitted.moments["price"].deviation == pytest.approx(known.std())

    found = read_shard(tmp_path / "csv" / "test-00000.arrow")  # rows whose prices training has not seen
    for row, ids, dense in zip(rows()[81:], found.ids.tolist(), found.dense.tolist(), strict=True):
        price, item = row["price"], row["item"]
        assert isinstance(item, int)
        assert ids[2] == 1 + sum(item >= edge for edge in (-2, 0.5, 6))
        assert dense[0] == item
        if price is None:
            assert ids[1] == ids[3] == 0
            assert np.isnan(dense[1])
        else:
            assert isinstance(price, float)
            assert ids[1] == 1 + sum(price >= edge for edge in edges)
            assert ids[3] == crossed(ids[0], ids[1])
            assert dense[1] == pytest.approx((price - known.mean()) / known.std(), rel=1e-5)

    again = with_features(
        Rows(found.labels, np.full((9, 2), 7, np.float32), found.ids[:, :1]), manifest.layout
    )
    assert again.ids[:, 1].tolist() == [1 + sum(edge <= 7 for edge in edges)] * 9  # as `score` makes them


def test_a_column_of_which_only_buckets_are_kept(tmp_path: Path) -> None:
    columns = {"y": "label", "n": "integer", "age": "bucket", "word": "string"}
    layout = Layout(separator=",", columns=columns, buckets={"fine": Bucket(of="age", quantiles=50)})
    lines = [f"{j % 2},{j},{'' if j % 9 == 8 else j * j % 101 - 50.5},w{j % 4}\n" for j in range(400)]
    (tmp_path / "log.csv").write_text("".join(lines))
    options = {"layout": layout, "tokens": "contiguous", "shard_rows": 60}
    manifest = prepare(tmp_path / "log.csv", tmp_path / "out", **options)
    assert layout.dense == ["n"]
    assert manifest.dense_inexact == [0]
    assert (
        manifest.cardinalities == [5, 11, len(manifest.fitted.edges["fine"]) + 2]
        if manifest.fitted
        else False
    )
    shares = np.bincount(read_shard(tmp_path / "out" / "train-00000.arrow").ids[:, 1], minlength=11)[1:]
    assert shares.min() >= 2
    assert manifest.token_missing[1] == manifest.token_missing[2] == pytest.approx(1 / 9, abs=0.01)
    lines[3] = "1,3,nan,w\n"
    (tmp_path / "log.csv").write_text("".join(lines))
    with pytest.raises(InputError, match=r"log\.csv, line 4: column age: 'nan' is not a number"):
        prepare(tmp_path / "log.csv", tmp_path / "bad", **options)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("b: {kind: bucket, of: pric}", "b: of: pric is no column of numbers"),
        ("b: {kind: bucket, edges: [3, 1]}", r":6: columns\.b: edges must ascend"),
        ("b: {kind: bucket, edges: [3], quantiles: 4}", r":6: columns\.b: give quantiles or edges, not both"),
        (
            "b: {kind: bucket, quantiles: 1}",
            r":6: columns\.b: quantiles: Input should be greater than or equal to 2",
        ),
        (
            "b: {kind: number, transform: log}",
            r":6: columns\.b\.transform: log is none of log1p, standardize, none",
        ),
        ("b: {kind: token, transform: none}", r":6: columns\.b\.transform: unknown option"),
        ("b: skip\ntransforms: {user: none}", r"transforms\.user: is no `number` or `integer` column"),
        ("b: skip\nbuckets: {price: {of: price}}", r"buckets\.price: a column has that name"),
        ("b: skip\nfitted: {}", r":7: fitted: unknown key"),
    ],
)
def test_a_bad_bucket_or_transform_is_named(tmp_path: Path, written: str, message: str) -> None:
    path = tmp_path / "log.yaml"
    path.write_text(f"columns:\n  y: label\n  user: token\n  item: token\n  price: number\n  {written}\n")
    with pytest.raises(InputError, match=r"log\.yaml.*" + message):
        Layout.load(path)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("both: {kind: cross}", r":6: columns\.both\.of: name two or more columns"),
        (
            "both: {kind: cross, of: [user, itme]}",
            r"both: itme is no column \(did you mean item\?\); name tok",
        ),
        ("both: {kind: cross, of: [user, price]}", r"both: price is a `number`; name token columns"),
        ("both: {kind: cross, of: [user, user]}", "both: name two or more different columns"),
        (
            "both: {kind: cross, from: [user, item]}",
            r":6: columns\.both\.from: unknown option; a `cross` has of",
        ),
        ("both: {of: [user, item]}", r":6: columns\.both: write `kind:` and its options"),
        (
            "both: {kind: token, size: 3}",
            r":6: columns\.both\.size: unknown option; a `token` has no options",
        ),
        ("both: cross", r":6: columns\.both: write its columns too, such as {kind: cross"),
    ],
)
def test_a_bad_cross_is_named(tmp_path: Path, written: str, message: str) -> None:
    columns = ["y: label", "user: token", "item: token", "price: number", written]
    path = tmp_path / "log.yaml"
    path.write_text("columns:\n" + "".join(f"  {column}\n" for column in columns))
    with pytest.raises(InputError, match=r"log\.yaml.*" + message):
        Layout.load(path)


def test_a_proposal_shows_how_to_write_a_cross(tmp_path: Path) -> None:
    text = propose([written(tmp_path)["parquet"]]).text
    line = next(line for line in text.splitlines() if line.startswith("# crosses: "))
    (tmp_path / "log.yaml").write_text(text + line.removeprefix("# ") + "\n")
    assert Layout.load(tmp_path / "log.yaml").crosses == {"item_x_user": ("item", "user")}


def test_lines_without_a_label_are_read_to_be_scored(tmp_path: Path, line: Callable[..., bytes]) -> None:
    lines = [line(j % 2, I3="", I5=f"-{j}", C2="", C7=f"{j:X}") for j in range(20)]
    found = []
    for name, ending in (("with.tsv", lines), ("without.tsv", [row[2:] for row in lines])):
        (tmp_path / name).write_bytes(b"".join(row + b"\n" for row in ending))
        (raw,) = resolve(tmp_path / name)
        layout = for_scoring(raw, CRITEO)
        reader = open_rows(raw, layout, Stretch(0, raw.bytes), 1 << 20)
        found.append(Rows.concatenated([part.rows for block in reader for part in block.parsed(1)]))
    assert layout.label is None
    assert np.array_equal(found[0].ids, found[1].ids)
    assert np.array_equal(found[0].dense, found[1].dense, equal_nan=True)
