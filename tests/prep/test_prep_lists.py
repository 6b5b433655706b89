"""Columns of lists: from every format to the same shards, with their counts, ids and figures."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.files.sources import resolve
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.options import ListForm
from sizewise_prep.raw.parsing.parser import BadRow
from sizewise_prep.raw.parsing.rows import ListColumn, Rows
from sizewise_prep.raw.proposing import propose
from sizewise_prep.raw.row_readers import check, open_rows, stretches
from sizewise_prep.raw.values import hashing
from sizewise_prep.shards.files import Shape, list_names, read_shard, write_shard
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.counts import training_counts
from sizewise_prep.shards.values.vocabulary import Vocabulary
from sizewise_prep.shards.verifying import verify

Row = dict[str, Any]
FORMS: dict[str, dict[str, str]] = {"token": {}, "string": {"of": "string"}, "hex": {"of": "hex"}}
WORD = st.text("abc -[]{}", min_size=1, max_size=4).filter(lambda text: not text.startswith(("[", "{")))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "token": st.integers(-(1 << 63), (1 << 63) - 1) | st.none(),
    "string": WORD | st.none() | st.just(""),
    "hex": st.sampled_from(["0", "ff", "FFFFFFFF", "00a", None, "xyz"]),
}


def lists_of(rows: Rows) -> list[list[list[int]]]:
    """The lists of each column of each row."""
    columns = []
    for column in rows.lists:
        ends = column.offsets.tolist()
        columns.append([column.values[low:high].tolist() for low, high in pairwise(ends)])
    return columns


def shards_of(folder: Path) -> Rows:
    manifest = Manifest.load(folder)
    assert verify(folder) == []
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    return Rows.concatenated([read_shard(folder / shard.file, manifest.shape(shard)) for shard in shards])


def parsed(path: Path, layout: Layout) -> tuple[Rows, list[BadRow]]:
    """A file's rows, and those that are bad."""
    (raw,) = resolve(path)
    check([raw], layout)
    found = [
        part
        for stretch in stretches(raw, layout, 1 << 20, 1 << 20)
        for block in open_rows(raw, layout, stretch, 1 << 20)
        for part in block.parsed(first=1)
    ]
    return Rows.concatenated([part.rows for part in found]), [bad for part in found for bad in part.bad]


def cell(value: Any) -> str:
    """A field of text; a list's values with bars between."""
    if isinstance(value, list):
        value = "|".join("" if one is None else str(one) for one in value)
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\n') else text


def write_text(path: Path, rows: list[Row], _: list[str]) -> None:
    lines = [",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def write_json(path: Path, rows: list[Row], _: list[str]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def table_of(rows: list[Row], kinds: list[str]) -> pa.Table:
    types = [pa.int64(), *(pa.list_(pa.int64() if kind == "token" else pa.string()) for kind in kinds)]
    schema = pa.schema([pa.field(name, kind) for name, kind in zip(rows[0], types, strict=True)])
    return pa.Table.from_pylist(rows, schema=schema)


def write_parquet(path: Path, rows: list[Row], kinds: list[str]) -> None:
    pq.write_table(table_of(rows, kinds), path, row_group_size=7)


def write_arrow(path: Path, rows: list[Row], kinds: list[str]) -> None:
    with pa.ipc.new_file(path, table_of(rows, kinds).schema) as file:
        file.write_table(table_of(rows, kinds), max_chunksize=5)


WRITERS: dict[str, Callable[[Path, list[Row], list[str]], None]] = {
    "log.csv": write_text,
    "log.jsonl": write_json,
    "log.parquet": write_parquet,
    "log.arrow": write_arrow,
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


LAYOUT = Layout(columns={"click": "label", "user": "token", "seen": "tokens", "ids": "tokens"})


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows whose lists have 0 to 6 values, most of them frequent ones."""
    draw = np.random.default_rng(5)
    seen = [(draw.pareto(1.0, draw.integers(0, 7)) * 3).astype(np.int64).tolist() for _ in range(600)]
    columns = {
        "click": draw.integers(0, 2, 600),
        "user": draw.integers(-9, 9, 600),
        "seen": [None if len(one) == 3 else one for one in seen],
        "ids": [[f"v{value % 5}" for value in one[:2]] for one in seen],
    }
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def training_lists(log: Path, column: str, rows: int = 480) -> tuple[Counter[int], Counter[int]]:
    """How often the training rows hold each token, and in rows with a click."""
    frame = pl.read_parquet(log)[:rows]
    held, clicked = Counter[int](), Counter[int]()
    for click, values in zip(frame["click"], frame[column], strict=True):
        tokens = [hashing.token(str(value)) for value in (values if values is not None else [])]
        held.update(tokens)
        clicked.update(tokens if click else [])
    return held, clicked


def test_counts_and_figures_of_lists(log: Path, tmp_path: Path) -> None:
    manifest = prepare(log, tmp_path / "out", layout=LAYOUT, shard_rows=100)
    lengths = [0 if one is None else len(one) for one in pl.read_parquet(log)["seen"]]
    seen, ids = manifest.lists
    assert (seen.name, seen.column, ids.name, ids.column) == ("seen", "seen", "ids", "ids_list")
    assert (seen.values, seen.longest, seen.cut) == (sum(lengths), 6, 0)
    assert seen.mean_length == sum(lengths) / 600
    assert manifest.token_missing[1] == lengths.count(0) / 600
    frame = pl.read_ipc(tmp_path / "out" / "train-00000.arrow")
    assert frame.schema["seen"] == frame.schema["ids_list"] == pl.List(pl.UInt32)
    counts = training_counts(str(tmp_path / "out"))
    for column, found in zip(("seen", "ids"), counts[1:], strict=True):
        held, clicked = training_lists(log, column)
        assert dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True)) == held
        assert {
            key: count for key, count in zip(found.ids.tolist(), found.clicks.tolist(), strict=True) if count
        } == clicked


def test_contiguous_ids_of_lists(log: Path, tmp_path: Path) -> None:
    manifest = prepare(log, tmp_path / "out", layout=LAYOUT, shard_rows=100, tokens="contiguous", min_count=3)
    held, _ = training_lists(log, "seen")
    known = sorted(token for token, count in held.items() if count >= 3)
    assert manifest.cardinalities[1] == len(known) + 1
    vocabulary = Vocabulary.load(tmp_path / "out")
    tokens = [[hashing.token(str(v)) for v in one or []] for one in pl.read_parquet(log)["seen"].to_list()]
    numbered = [[known.index(token) + 1 if token in known else 0 for token in one] for one in tokens]
    assert lists_of(shards_of(tmp_path / "out"))[0] == numbered
    flat = np.array([token for one in tokens for token in one], np.uint32)
    assert vocabulary.ids_of(1, flat).tolist() == [number for one in numbered for number in one]


def test_the_latest_values_are_kept(log: Path, tmp_path: Path) -> None:
    whole = prepare(log, tmp_path / "whole", layout=LAYOUT)
    manifest = prepare(log, tmp_path / "out", layout=LAYOUT, max_list=2)
    everything = lists_of(shards_of(tmp_path / "whole"))
    assert lists_of(shards_of(tmp_path / "out")) == [[one[-2:] for one in column] for column in everything]
    for before, after in zip(whole.lists, manifest.lists, strict=True):
        assert after.values + after.cut == before.values
    assert manifest.lists[0].longest == 2
    assert manifest.lists[0].cut > 0
    with pytest.raises(InputError, match="no columns of lists"):
        prepare(
            log, tmp_path / "none", layout=Layout(columns={"click": "label", "user": "token"}), max_list=2
        )


def test_shuffled_shards_and_mlperf_tokens(log: Path, tmp_path: Path) -> None:
    prepare(log, tmp_path / "raw", layout=LAYOUT, shard_rows=100)
    prepare(log, tmp_path / "out", layout=LAYOUT, shard_rows=100, tokens="mlperf", shuffle=4)
    before, after = shards_of(tmp_path / "raw"), shards_of(tmp_path / "out")

    def joined(rows: Rows, first: int, modulus: int) -> list[tuple[int, int, tuple[int, ...]]]:
        lists = lists_of(rows)[0]
        return [
            (int(rows.labels[row]), int(rows.ids[row, 0]) % modulus, tuple(v % modulus for v in lists[row]))
            for row in range(first, first + 100)
        ]

    assert joined(after, 0, 2**32) != joined(before, 0, 40_000_000)
    assert sorted(joined(after, 0, 2**32)) == sorted(joined(before, 0, 40_000_000))


@pytest.mark.parametrize("tokens", ["raw", "contiguous"])
def test_interrupted_at_any_step_it_ends_with_the_same_bytes(
    log: Path, tmp_path: Path, tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted when a file of any step is about to get its name, each time a few files later."""
    layout = Layout(columns={**LAYOUT.columns, "user": "skip"})
    options: dict[str, Any] = {
        "layout": layout,
        "tokens": tokens,
        "shard_rows": 100,
        "max_list": 4,
        "shuffle": 2,
    }
    prepare(log, tmp_path / "whole", **options)
    rename, interruptions = os.rename, 0
    while True:
        left = 2 + 6 * interruptions

        def stop(*arguments: Any, **named: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            rename(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", stop)
            patch.setattr(os, "replace", stop)
            try:
                prepare(log, tmp_path / "out", **options)
                break
            except KeyboardInterrupt:
                interruptions += 1
    assert interruptions >= 3
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "whole")).read_bytes()


def some_lists() -> Rows:
    lists = ListColumn(np.array([0, 2, 2, 5]), np.arange(7, 12, dtype=np.uint32))
    return Rows(
        np.array([0, 1, 0], np.uint8), np.empty((3, 0), np.float32), np.empty((3, 0), np.uint32), (lists,)
    )


@pytest.mark.parametrize(
    ("offsets", "match"),
    [
        ([0, 2, 1, 5], "end before they begin"),
        ([0, 2, 2, 6], "do not begin or end"),
        ([1, 2, 2, 5], "do not begin or end"),
        ([0, 2, -(2**31), 5], "end before they begin"),
    ],
)
def test_offsets_that_lead_out_of_the_values_are_refused(
    tmp_path: Path, offsets: list[int], match: str
) -> None:
    path, shape = tmp_path / "train-00000.arrow", Shape(3, 0, 0, lists=("seen",))
    write_shard(path, some_lists(), ["seen"])
    assert lists_of(read_shard(path, shape)) == [[[7, 8], [], [9, 10, 11]]]
    good = path.read_bytes()
    path.write_bytes(
        good.replace(np.array([0, 2, 2, 5], "<i4").tobytes(), np.array(offsets, "<i4").tobytes())
    )
    with pytest.raises(InputError, match=match):
        read_shard(path, shape)
    path.write_bytes(good)
    with pytest.raises(InputError, match="instead of column other"):
        read_shard(path, shape._replace(lists=("other",)))


def test_names_that_shards_have_for_other_columns() -> None:
    assert list_names(["seen", "ids", "label"]) == ["seen", "ids_list", "label_list"]
    assert list_names(["ids", "ids_list"]) == ["ids_list_list", "ids_list"]


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


def test_mutated_shards_with_lists_are_refused_or_read_right(tmp_path: Path) -> None:
    """Whatever bytes change, offsets stay within the values."""
    path, shape, choices = (
        tmp_path / "train-00000.arrow",
        Shape(60, 2, 3, lists=("seen", "ids_list")),
        random.Random(2),
    )
    numbers = np.random.default_rng(2)
    lists = [
        ListColumn.of_lengths(lengths, numbers.integers(0, 2**32, lengths.sum(), np.uint32))
        for lengths in (numbers.integers(0, 5, 60), numbers.integers(0, 3, 60))
    ]
    dense, ids = numbers.random((60, 2), np.float32), numbers.integers(0, 2**32, (60, 3), np.uint32)
    write_shard(
        path, Rows(numbers.integers(0, 2, 60).astype(np.uint8), dense, ids, tuple(lists)), shape.lists
    )
    good, refused = path.read_bytes(), 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(choices.choice((1, 1, 2, 8))):
            data[choices.randrange(len(data))] = choices.choice((0, 1, 127, 128, 255, choices.randrange(256)))
        if choices.random() < 0.2:
            del data[choices.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            rows = read_shard(path, shape)
        except InputError:
            refused += 1
            continue
        assert len(rows) == 60
        for column in rows.lists:
            assert column.offsets[0] == 0
            assert column.offsets[-1] == len(column.values)
            assert (np.diff(column.offsets) >= 0).all()
    assert 100 < refused < 600
