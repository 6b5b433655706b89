"""Token columns that are made of others: crosses."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.proposing import propose
from sizewise_prep.shards.manifest import verify
from sizewise_prep.shards.values.vocabulary import Vocabulary

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
