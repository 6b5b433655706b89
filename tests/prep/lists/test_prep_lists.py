"""Columns of lists: from every format to the same rows; what is no list is refused by name."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.prep.lists.formats import FORMS, WRITERS, Row, lists_of, parsed, shards_of, write_json

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.options import ListForm
from sizewise_prep.raw.proposing import propose
from sizewise_prep.raw.values import hashing

WORD = st.text("abc -[]{}", min_size=1, max_size=4).filter(lambda text: not text.startswith(("[", "{")))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "token": st.integers(-(1 << 63), (1 << 63) - 1) | st.none(),
    "string": WORD | st.none() | st.just(""),
    "hex": st.sampled_from(["0", "ff", "FFFFFFFF", "00a", None, "xyz"]),
}


def token(kind: str, value: Any) -> int:
    return int(value, 16) if kind == "hex" else hashing.token(str(value))


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_lists_come_back_equal_from_every_format(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=3))
    names = [f"list {place}" for place in range(len(kinds))]
    of_row = {"clicked": st.integers(0, 1)} | {
        name: st.none() | st.lists(VALUES[kind], max_size=5) for name, kind in zip(names, kinds, strict=True)
    }
    drawn: list[Row] = data.draw(st.lists(st.fixed_dictionaries(of_row), min_size=12, max_size=30))
    rows = [{name: row[name] for name in of_row} for row in drawn]  # in the columns' order
    layout = Layout(
        separator=",",
        header=True,
        quotes=True,
        columns={"clicked": "label"} | dict.fromkeys(names, "tokens"),
        lists={name: {"separator": "|", **FORMS[kind]} for name, kind in zip(names, kinds, strict=True)},  # type: ignore[dict-item]
    )
    good = [row for row in rows if not any("xyz" in (row[name] or []) for name in names)]
    if len(good) < 10:
        return
    expected = [
        [[token(kind, one) for one in row[name] or [] if one not in (None, "")] for row in good]
        for name, kind in zip(names, kinds, strict=True)
    ]
    folder = tmp_path_factory.mktemp("lists")
    for file, write in WRITERS.items():
        write(folder / file, rows, kinds)
        with pytest.MonkeyPatch.context() as patch:  # some rows at a time
            patch.setattr("sizewise_prep.raw.tables.frames._MOST_VALUES", 7)
            found, bad = parsed(folder / file, layout)
        lines = [row for row, of_row in enumerate(rows, 1) if of_row not in good]
        if file in ("log.parquet", "log.arrow"):
            assert [one.line for one in bad] == lines
        assert {one.fault.reason for one in bad} <= {"not_hex"}
        assert len(bad) == len(rows) - len(good)
        assert found.labels.tolist() == [row["clicked"] for row in good]
        assert lists_of(found) == expected
    if data.draw(st.integers(0, 9)) == 0:
        manifest = prepare(folder / file, folder / "out", layout=layout, max_bad_fraction=0.9, shard_rows=8)
        assert (manifest.rows_out, manifest.rows_quarantined) == (len(good), len(rows) - len(good))
        assert lists_of(shards_of(folder / "out")) == expected
        for column, figures in zip(expected, manifest.lists, strict=True):
            assert (figures.values, figures.longest) == (sum(map(len, column)), max(map(len, column)))


@pytest.mark.parametrize(
    ("columns", "rows", "match"),
    [
        (
            {"genres": "token"},
            {"genres": [["a"], ["b"]]},
            "genres holds lists, and is no `token`: make it `tokens`",
        ),
        ({"genres": "integer"}, {"genres": [[1], [2]]}, "genres holds lists, and is no `integer`"),
        (
            {"genres": "tokens"},
            {"genres": ["a|b", "c"]},
            r"genres: 'a\|b' is not a list, such as \[1, 2\]; .* give the column a separator, such as {kind: tokens",
        ),
        ({"genres": "tokens"}, {"genres": [7, 8]}, "genres holds no lists: make it a `token`"),
        ({"genres": "tokens"}, {"genres": [[[1]], [[2]]]}, "genres holds list.* no column can be made"),
    ],
)
def test_lists_and_single_values_are_not_mistaken_for_each_other(
    tmp_path: Path, columns: dict[str, str], rows: dict[str, list[Any]], match: str
) -> None:
    layout = Layout(columns={"click": "label", "user": "token", **columns})
    frame = pl.DataFrame({"click": [0, 1], "user": [1, 2], **rows})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match=match):
        prepare(tmp_path / "log.parquet", tmp_path / "out", layout=layout)
    frame.write_ndjson(tmp_path / "log.jsonl")
    with pytest.raises(InputError, match=match.removeprefix("genres ").removeprefix("genres: ")):
        prepare(tmp_path / "log.jsonl", tmp_path / "out", layout=layout)


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_list(pa.int64()),
        pa.list_(pa.int8(), 2),
        pa.list_view(pa.uint64()),
        pa.list_(pa.float32()),
        pa.list_(pa.decimal256(50, 0)),
        pa.list_(pa.string()),
    ],
    ids=str,
)
def test_a_list_is_the_same_in_every_type_of_arrow(tmp_path: Path, kind: pa.DataType) -> None:
    values: list[Any] = [["7", "8"], None] if kind == pa.list_(pa.string()) else [[7, 8], None]
    lists = pa.array(values, kind)
    with pa.ipc.new_file(tmp_path / "log.arrow", pa.schema({"click": pa.int8(), "seen": lists.type})) as file:
        file.write_table(pa.table({"click": pa.array([0, 1], pa.int8()), "seen": lists}))
    layout = Layout(columns={"click": "label", "seen": "tokens"})
    found, bad = parsed(tmp_path / "log.arrow", layout)
    assert (lists_of(found), bad) == ([[[hashing.token("7"), hashing.token("8")], []]], [])


def test_text_needs_a_separator_and_bad_values_are_named(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("click,genres\n1,ff|a0\n0,zz|1\n" + "1,3|4\n" * 20)
    bare = Layout(separator=",", header=True, columns={"click": "label", "genres": "tokens"})
    with pytest.raises(
        InputError, match=r"line 2: column genres: 'ff\|a0' is not a list, .* give the column a separator"
    ):
        prepare(log, tmp_path / "out", layout=bare)
    form = ListForm(separator="|", of="hex")
    layout = bare.model_copy(update={"lists": {"genres": form}})
    with pytest.raises(InputError, match=r"line 3: column genres: 'zz' is not a hexadecimal token"):
        prepare(log, tmp_path / "out", layout=layout)
    manifest = prepare(log, tmp_path / "out", layout=layout, max_bad_fraction=0.1)
    assert manifest.quarantine.reasons == {"not_hex": 1}


def test_lists_in_brackets_are_the_same_in_every_format(tmp_path: Path) -> None:
    """As pandas, NumPy, JSON, Hive and Spark write them into cells."""
    cells = ["[1, 2]", "[1 2]", "['1', \"2\"]", "(1, 2)", " [1,2,] ", '["1","2"]', "[1, None, 2]", "[]", ""]
    wanted = [["1", "2"]] * 7 + [[], []]
    words = [
        "['it\\'s', 'a, b']",
        '["x|y", "caf\\u00e9"]',
        "[Sci Fi, Drama]",
        "[True]",
        "[-1.5]",
        "[a]",
        "[b]",
        "",
        "[]",
    ]
    said = [["it's", "a, b"], ["x|y", "café"], ["Sci Fi", "Drama"], ["true"], ["-1.5"], ["a"], ["b"], [], []]
    frame = pl.DataFrame({"click": [0] + [1] * 8, "seen": cells, "words": words})
    frame.write_csv(tmp_path / "log.csv")
    frame.write_csv(tmp_path / "log.tsv", separator="\t", quote_style="never")
    frame.write_parquet(tmp_path / "log.parquet")
    columns = {"click": "label", "seen": "tokens", "words": "tokens"}
    comma = Layout(separator=",", header=True, quotes=True, columns=columns)
    plain = Layout(header=True, columns=columns)
    separated = comma.model_copy(
        update={"lists": {"seen": ListForm(separator=","), "words": ListForm(separator=", ")}}
    )
    for name, layout in (
        ("log.csv", comma),
        ("log.csv", separated),
        ("log.tsv", plain),
        ("log.parquet", Layout(columns=columns)),
    ):
        found, bad = parsed(tmp_path / name, layout)
        assert not bad
        assert lists_of(found) == [
            [[hashing.token(value) for value in row] for row in rows] for rows in (wanted, said)
        ]
    proposed = Layout.load(_written(tmp_path / "log.yaml", propose([tmp_path / "log.csv"]).text))
    assert proposed.columns["seen"] == "tokens"
    (tmp_path / "bad.csv").write_text('click,seen,words\n1,"[1, [2]]",[]\n0,[1,[]\n0,{},[]\n0,"[\'a]",[]\n')
    _, bad = parsed(tmp_path / "bad.csv", comma)
    assert [(row.line, row.fault.reason) for row in bad] == [(line, "not_a_list") for line in (1, 2, 3, 4)]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_schema_files_say_how_lists_are_written(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text('columns:\n  click: label\n  genres: {kind: tokens, separator: "|"}\n  seen: tokens\n')
    layout = Layout.load(path)
    assert layout.token_lists == ["genres", "seen"]
    assert (layout.list_form("genres").separator, layout.list_form("seen").separator) == ("|", None)
    assert Layout.model_validate_json(layout.model_dump_json()) == layout
    for wrong, match in {
        'genres: {kind: tokens, separator: ""}': "yaml:3: columns.genres.separator: write what stands between",
        "genres: {kind: tokens, of: number}": "yaml:3: columns.genres.of: number is not a kind of values",
        "genres: {kind: tokens, sep: '|'}": "yaml:3: columns.genres.sep: unknown option",
        'genres: {kind: tokens, separator: "\\t"}': "genres: has the columns' separator",
    }.items():
        path.write_text(f"columns:\n  click: label\n  {wrong}\n")
        with pytest.raises(InputError, match=match):
            Layout.load(path)


def test_a_list_among_single_values_of_json_is_a_bad_row(tmp_path: Path) -> None:
    """Far behind the rows that are looked at first; a text in brackets is no list."""
    rows: list[Row] = [{"click": j % 2, "user": f"u{j % 9}", "seen": [j]} for j in range(2000)]
    rows[1500] |= {"user": ["a", "b"]}
    rows[1600] |= {"user": {"id": 7}}
    rows[1700] |= {"user": "[deleted]"}
    rows[1800] |= {"seen": [[1]]}
    write_json(tmp_path / "log.jsonl", rows, [])
    layout = Layout(columns={"click": "label", "user": "token", "seen": "tokens"})
    found, bad = parsed(tmp_path / "log.jsonl", layout)
    assert [(one.line, one.fault.reason) for one in bad] == [
        (1501, "not_a_value"),
        (1601, "not_a_value"),
        (1801, "not_a_list"),
    ]
    assert bad[0].fault.detail.endswith("is a list instead of one value")
    assert found.ids[1698, 0] == hashing.token("[deleted]")
    assert len(found) == 1997
