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
    assert "genres: skip" in found.text
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
