"""Proposed schema files, on the layouts of docs/your_own_data.md: what is found, and that `prep` takes it as it is."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sizewise.cli import app
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.planted import generate
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.proposing import propose
from sizewise_prep.raw.proposing.text_form import text_form
from sizewise_prep.shards.files import read_shard

AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)


def avazu(rows: int = 1200) -> bytes:
    draw = random.Random(1)
    lines = [AVAZU]
    for j in range(rows):
        tokens = [f"{draw.randrange(40) * 99991 + 0xA0000000:08x}" for _ in range(9)]
        row = [10**18 + j * 7919, int(draw.random() < 0.2), 14102100 + j // 300, 1005 + draw.randrange(3)]
        row += [draw.randrange(3), *tokens, draw.randrange(3), draw.randrange(3), draw.randrange(400, 9000)]
        row += [
            draw.choice([320, 300]),
            draw.choice([50, 250]),
            draw.randrange(900),
            0,
            35 + draw.randrange(9),
        ]
        row += [draw.choice([-1, 100084]), draw.choice([79, 23])]
        lines.append(",".join(map(str, row)))
    return ("\n".join(lines) + "\n").encode()


def table(rows: int = 2000) -> pa.Table:
    draw = random.Random(2)
    users = [draw.randrange(-(2**62), 2**62) for _ in range(150)]
    return pa.table(
        {
            "user_id": [draw.choice(users) for _ in range(rows)],
            "item_id": [draw.randrange(480) * 10**15 for _ in range(rows)],
            "price": [None if j % 32 == 0 else draw.random() * 9 for j in range(rows)],
            "clicked": [draw.random() < 0.2 for _ in range(rows)],
            "ts": [datetime(2024, 5, 1) + timedelta(seconds=j) for j in range(rows)],
        }
    )


def layout_of(path: Path, folder: Path) -> Layout:
    (folder / "proposed.yaml").write_text(propose([path]).text)
    return Layout.load(folder / "proposed.yaml")


def test_avazu(tmp_path: Path) -> None:
    path = tmp_path / "train.gz"
    path.write_bytes(gzip.compress(avazu()))
    layout = layout_of(path, tmp_path)
    assert (layout.separator, layout.header, layout.quotes) == (",", True, False)
    expected = {"id": "skip", "click": "label", "hour": "time", "site_id": "hex", "device_type": "token"}
    assert {name: layout.columns[name] for name in expected} == expected
    manifest = prepare(path, tmp_path / "out", layout=layout)
    assert (manifest.rows_out, manifest.rows_quarantined) == (1200, 0)
    assert manifest.time_order is not None
    assert manifest.time_order.out_of_order == 0


def test_parquet_with_64_bit_ids_and_real_numbers(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(table(), path)
    result = CliRunner().invoke(app, ["schema", str(path), "--out", str(tmp_path / "log.yaml")])
    assert result.exit_code == 0, result.output
    layout = Layout.load(tmp_path / "log.yaml")
    kinds = {"user_id": "token", "item_id": "token", "price": "number", "clicked": "label", "ts": "time"}
    assert layout.columns == kinds
    assert "3.1% missing" in (tmp_path / "log.yaml").read_text()
    manifest = prepare(path, tmp_path / "out", layout=layout)
    assert manifest.cardinalities == [150, 480] or max(manifest.cardinalities) <= 480
    lines = "".join(json.dumps(row, default=str) + "\n" for row in table().to_pylist())
    (tmp_path / "log.jsonl").write_text(lines)
    same = prepare(tmp_path / "log.jsonl", tmp_path / "json", layout=layout)
    assert [shard.sha256 for split in same.splits.values() for shard in split.shards] == [
        shard.sha256 for split in manifest.splits.values() for shard in split.shards
    ]
    again = CliRunner().invoke(app, ["schema", str(path), "--out", str(tmp_path / "log.yaml")])
    assert again.exit_code == 2 or isinstance(again.exception, InputError)


def _quoted(separator: str) -> Callable[[], bytes]:
    def made() -> bytes:
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, delimiter=separator)
        writer.writerow(["title", "is_click", "cnt", "yes"])
        for j in range(300):
            writer.writerow([f'a{separator} "{j % 7}"\nb', j % 2, j % 9, "NULL" if j % 3 else f"v{j % 5}"])
        return stream.getvalue().encode()

    return made


RATINGS = "".join(f"{1 + j // 20},{j * 37 % 900},{j % 5 + 1},{964980868 + j * 37}\n" for j in range(400))
FORMS: dict[str, tuple[Callable[[], bytes], dict[str, Any]]] = {
    "quoted;": (_quoted(";"), {"title": "token", "is_click": "label", "cnt": "integer", "yes": "token"}),
    "quoted,": (_quoted(","), {"title": "token", "is_click": "label", "cnt": "integer", "yes": "token"}),
    "ratings": (
        lambda: b"userId,movieId,rating,timestamp\n" + RATINGS.encode(),
        {"userId": "token", "movieId": "token", "rating": "label >= 4", "timestamp": "time"},
    ),
    "no header": (
        lambda: "".join(f"{j % 2}|w{j % 9}|{j % 13 / 4 + 0.1}\n" for j in range(400)).encode(),
        {"c1": "label", "c2": "token", "c3": "number"},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_is_proposed_is_what_prep_takes(tmp_path: Path, name: str) -> None:
    made, kinds = FORMS[name]
    path = tmp_path / "log.txt"
    path.write_bytes(made())
    layout = layout_of(path, tmp_path)
    assert layout.columns == kinds
    if name.startswith("quoted"):
        assert layout.quotes
        assert "NULL" in layout.nulls
    rows = 300 if name.startswith("quoted") else 400
    assert prepare(path, tmp_path / "out", layout=layout).rows_out == rows


def test_a_log_that_needs_none(tmp_path: Path) -> None:
    generate(tmp_path / "raw", 300, seed=1)
    assert propose([tmp_path / "raw" / "day_0.tsv"]).text == ""
    result = CliRunner().invoke(app, ["schema", str(tmp_path / "raw" / "day_0.tsv"), "--json"])
    assert json.loads(result.stdout)["schema"] == ""


def test_what_is_unsure_is_said(tmp_path: Path) -> None:
    """No label, lists, names that YAML would not take as text, and a file that is none."""
    rows = pa.table(
        {"on": [f"a{j % 3}" for j in range(200)], "genres": [[1, 2]] * 200, "n": [1.5, -2.5] * 100}
    )
    pq.write_table(rows, tmp_path / "log.parquet")
    found = propose([tmp_path / "log.parquet"])
    assert '"on": token' in found.text
    assert "genres: tokens" in found.text
    assert "50.0% negative, which models see as 0" in found.text
    assert "UNSURE: which column is the label" in found.text
    (tmp_path / "one.txt").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match=r"one\.txt: no separator"):
        propose([tmp_path / "one.txt"])
    (tmp_path / "two.txt").write_text("a,b\n1,2\n")
    (tmp_path / "other.txt").write_text("a,c\n1,2\n")
    with pytest.raises(InputError, match=r"other\.txt: has other columns than .*two\.txt"):
        propose([tmp_path / "two.txt", tmp_path / "other.txt"])


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3\n4,5,6\n",
        "label,user\n0,a\n1,b\n",
        'a,b\n"x, y",2\n',
        "",
        "\n\n\n",
        "a\tb\n",
        "\ufeffa;b\n1;2\n",
        '"""\n',
    ],
)
def test_any_text_has_a_form_or_none(text: str) -> None:
    form = text_form(text.encode())
    assert form is None or len(form.names) > 1


def test_prep_without_a_schema_says_what_proposes_one(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(avazu(50))
    with pytest.raises(
        InputError, match=r"line 1: fields are separated by commas.*`sizewise schema` proposes one"
    ):
        prepare(tmp_path / "train.csv", tmp_path / "out")
    (tmp_path / "tabs.tsv").write_bytes(avazu(50).replace(b",", b"\t").partition(b"\n")[2])
    with pytest.raises(
        InputError, match=r"line 1: has 24 tab-separated fields.*`sizewise schema` proposes one"
    ):
        prepare(tmp_path / "tabs.tsv", tmp_path / "out")


def movielens(rows: int = 1500) -> bytes:
    draw = random.Random(4)
    genres = ["Action", "Comedy", "Crime", "Drama", "Sci-Fi", "(no genres listed)"]
    movies = ["|".join(draw.sample(genres, draw.randint(1, 3))) for _ in range(200)]
    lines = ["userId,movieId,rating,timestamp,genres"]
    for _ in range(rows):
        movie, time = draw.randrange(200), 1_147_880_044 + draw.randrange(10**6)
        lines.append(f"{draw.randrange(90)},{movie},{draw.choice((1, 2.5, 4, 5)):.1f},{time},{movies[movie]}")
    return ("\n".join(lines) + "\n").encode()


def test_movielens_has_genres_between_bars_and_no_dense_column(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(movielens())
    proposal = propose([path])
    assert 'genres: {kind: tokens, separator: "|"}' in proposal.text
    assert 'genres: token, if "|" separates nothing' in proposal.unsure
    layout = layout_of(path, tmp_path)
    assert (layout.columns["rating"], layout.time, layout.dense) == ("label >= 4", "timestamp", [])
    manifest = prepare(path, tmp_path / "out", layout=layout, sort=True)
    assert manifest.rows_out == 1500
    assert (manifest.lists[0].name, manifest.lists[0].longest, manifest.cardinalities[-1]) == ("genres", 3, 6)
    shard = manifest.splits["train"].shards[0]
    rows = sorted(
        (line.split(",") for line in movielens().decode().splitlines()[1:]), key=lambda row: int(row[3])
    )
    lengths = read_shard(tmp_path / "out" / shard.file, manifest.shape(shard)).lists[0].lengths
    assert lengths.tolist() == [row[4].count("|") + 1 for row in rows[: shard.rows]]


def test_columns_of_lists_are_found_in_tables(tmp_path: Path) -> None:
    draw, rows = random.Random(5), 1000
    columns = {
        "history": [[draw.randrange(10**12) for _ in range(j % 7)] for j in range(rows)],
        "tags": [["a", None, "b"] if j % 2 else None for j in range(rows)],
        "vector": [[draw.random()] * 3 for _ in range(rows)],
        "deep": [[[j]] for j in range(rows)],
    }
    made = table(rows)
    for name, values in columns.items():
        made = made.append_column(name, [values])
    pq.write_table(made, tmp_path / "events.parquet")
    layout = layout_of(tmp_path / "events.parquet", tmp_path)
    assert {name: layout.columns[name] for name in columns} == {
        "history": "tokens",
        "tags": "tokens",
        "vector": "skip",
        "deep": "skip",
    }
    assert "lists, of 3.0 values in the mean and at most 6" in propose([tmp_path / "events.parquet"]).text
    manifest = prepare(tmp_path / "events.parquet", tmp_path / "out", layout=layout, max_list=4)
    history, tags = manifest.lists
    assert (history.longest, tags.longest) == (4, 2)
    assert (history.cut, tags.cut) == (sum(max(0, j % 7 - 4) for j in range(rows)), 0)


def test_texts_that_only_look_like_lists_stay_texts(tmp_path: Path) -> None:
    draw = random.Random(6)
    words = [f"{draw.choice('abcdef')}{draw.randrange(300)}x, the {draw.randrange(90)}th" for _ in range(400)]
    lines = ["click,user,title", *(f'{j % 2},{draw.randrange(50)},"{words[j]}"' for j in range(400))]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    assert layout_of(path, tmp_path).columns["title"] == "token"
