"""Logs of other layouts, from a schema file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrow_shards import read_shard
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.parsing.parser import Parser
from sizewise_prep.raw.values import hashing
from sizewise_prep.shards.manifest import Manifest
from sizewise_prep.shards.values.vocabulary import Vocabulary
from sizewise_prep.shards.verifying import verify

AVAZU = Path(__file__).parents[3] / "docs" / "avazu.yaml"
HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)
ROW = (
    "1000009418151094273,{click},14102100,1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,a99f214a,"
    "{ip},44956a24,1,2,15706,320,50,1722,0,35,-1,79"
)
SMALL = Layout(
    separator=";",
    columns={
        "day": "skip",
        "price": "integer",
        "word": "string",
        "y": "label",
        "code": "decimal",
        "hex": "hex",
    },
)


def blake(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") or 1


def test_avazu(tmp_path: Path) -> None:
    raw = tmp_path / "train.csv"
    rows = [ROW.format(click=j % 2, ip=f"{j:08x}") for j in range(1, 11)]
    raw.write_text("\n".join([HEADER, *rows[:4], "torn,row", *rows[4:]]) + "\n")
    layout = Layout.load(AVAZU)
    manifest = prepare(raw, tmp_path / "out", layout=layout, max_bad_fraction=0.1)
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_quarantined) == (11, 10, 1)
    assert (
        b"train.csv\t6\tfield_count\ttorn,row" in (tmp_path / "out" / "quarantine" / "rows.tsv").read_bytes()
    )
    assert manifest.settings.layout == layout == Manifest.load(tmp_path / "out").settings.layout
    train = read_shard(tmp_path / "out" / "train-00000.arrow")
    assert train.dense.tolist() == [[320, 50]] * 8
    assert train.labels.tolist() == [1, 0] * 4
    ids = dict(zip(layout.tokens, train.ids.T.tolist(), strict=True))
    assert ids["device_ip"] == list(range(1, 9))
    assert ids["site_id"] == [0x1FBE01FE] * 8
    assert ids["banner_pos"] == [blake("0")] * 8
    assert ids["C20"] == [blake("-1")] * 8
    assert dict(zip(layout.tokens, manifest.cardinalities, strict=True))["device_ip"] == 10
    assert verify(tmp_path / "out") == []
    contiguous = prepare(raw, tmp_path / "ids", layout=layout, max_bad_fraction=0.1, tokens="contiguous")
    assert len(contiguous.vocabulary) == len(Vocabulary.load(tmp_path / "ids").tokens) == len(layout.tokens)
    with pytest.raises(InputError, match="other settings \\(layout another instead of None\\)"):
        prepare(raw, tmp_path / "out", max_bad_fraction=0.1)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            HEADER.replace("banner_pos", "position"),
            r"line 1: names column 5 'position' instead of 'banner_pos'",
        ),
        (ROW.format(click=0, ip="1"), r"line 1: names column 1 '1000009418151094273' instead of 'id'"),
        ("id,click", r"line 1: has 2 columns instead of 24"),
    ],
)
def test_another_header_is_named(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(header + "\n" + ROW.format(click=0, ip="1") + "\n")
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "train.csv", tmp_path / "out", layout=Layout.load(AVAZU))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {a: label", "not valid YAML"),
        (
            "columns: {a: label, b: integer, c: hexx}",
            r"columns\.c: hexx is not a kind \(did you mean hex\?\)",
        ),
        ("columns: {a: label > yes, b: token}", r"columns\.a: label > yes is no rule: write `label`"),
        ("{others: keep, columns: {a: label, b: token}}", "others: write `skip`"),
        ("{nulls: [1], columns: {a: label, b: token}}", "nulls: write a list of texts"),
        ("{quotes: 1, columns: {a: label, b: token}}", "quotes: write true or false"),
        ("columns: {a: label, b: integer}", "at least one token column"),
        ("columns: {a: hex, b: integer}", "0 columns are the label"),
        ("{separator: ab, columns: {a: label, b: integer, c: hex}}", "separator 'ab': give one character"),
        ("{separator: x, columns: {a: label, b: integer, c: hex}}", "letters and digits"),
        ("{seperator: x, columns: {a: label, b: integer, c: hex}}", "seperator"),
    ],
)
def test_a_bad_schema_names_its_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "schema.yaml").write_text(text)
    with pytest.raises(InputError, match=r"schema\.yaml(:\d+)?: .*" + message):
        Layout.load(tmp_path / "schema.yaml")
    with pytest.raises(InputError, match=r"absent\.yaml: cannot be read"):
        Layout.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize("start", ["x\x01", "x^", "(", "\x1f"])
def test_a_log_may_begin_like_a_compressed_file(tmp_path: Path, start: str) -> None:
    layout = Layout(columns={"word": "string", "y": "label", "n": "integer"})
    (tmp_path / "raw.tsv").write_text(f"{start}\t1\t7\nword\t0\t8\nword\t0\t9\n")
    prepare(tmp_path / "raw.tsv", tmp_path / "out", layout=layout, split="rows:2,1")
    train = read_shard(tmp_path / "out" / "train-00000.arrow")
    assert train.ids.tolist() == [[blake(start)], [blake("word")]]
    assert train.dense.tolist() == [[7], [8]]


def test_a_folder_that_another_schema_file_made_names_the_column(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("y,u,n\n" + "".join(f"{j % 2},u{j % 3},{j}\n" for j in range(20)))
    kinds = {"y": "label", "u": "token", "n": "number"}
    made = Layout(separator=",", header=True, columns=kinds)
    prepare(tmp_path / "raw.csv", tmp_path / "out", layout=made)
    for asked, said in (
        (
            made.model_copy(update={"columns": kinds | {"n": "integer"}}),
            "column n was `number` instead of `integer`",
        ),
        (made.model_copy(update={"nulls": ("NA",)}), "another schema file"),
    ):
        with pytest.raises(InputError, match=rf"was made with other settings \(.*{said}\)"):
            prepare(tmp_path / "raw.csv", tmp_path / "out", layout=asked)


def test_a_text_that_stands_for_no_value_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text(
        "y,u,n\n" + "".join(f"{j % 2},u{j % 3},{j}\n" for j in range(20)) + "1,u,NaN\n"
    )
    layout = Layout(separator=",", header=True, columns={"y": "label", "u": "token", "n": "number"})
    with pytest.raises(
        InputError, match=r"line 22: column n: 'NaN' is not a number; .* name the text among the `nulls`"
    ):
        prepare(tmp_path / "raw.csv", tmp_path / "out", layout=layout)
    read = layout.model_copy(update={"nulls": ("NaN",)})
    assert prepare(tmp_path / "raw.csv", tmp_path / "other", layout=read).rows_out == 21


def test_criteos_layout_needs_no_schema(
    tmp_path: Path, line: Callable[..., bytes], log: Callable[..., Path]
) -> None:
    manifest = prepare([log(line(), line(1))], tmp_path / "out", layout=CRITEO)
    assert manifest.settings.layout is None


@given(st.lists(st.one_of(st.none(), st.text(min_size=1, max_size=5)), max_size=20))
@settings(deadline=None)
def test_strings_are_hashed_as_stated(texts: list[str | None]) -> None:
    found = hashing.tokens(pl.Series(texts, dtype=pl.String)).to_list()
    assert found == [None if text is None else blake(text) for text in texts]
    assert all(hashing.token(text) == blake(text) for text in texts if text is not None)


number = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "007", "4294967295", "4294967296", "9" * 19, "-" + "9" * 30, "+1", " 1", "1.0"]
    ),
    st.integers(-(2**64), 2**64).map(str),
)
text = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=6)
rows = st.tuples(
    text,
    number,
    text,
    st.sampled_from("0110 2"),
    number,
    st.sampled_from(["", "a", "FF", "123456789", "xy", "+a"]),
)


@given(st.lists(rows, max_size=6))
@settings(max_examples=300, deadline=None)
def test_every_good_row_comes_out_intact_and_every_bad_one_is_told(lines: list[tuple[str, ...]]) -> None:
    block = b"".join(";".join(fields).encode() + b"\n" for fields in lines)
    found, set_aside = Parser(SMALL).parse(block)
    good = [fields for fields in lines if _is_good(fields)]
    assert [row.line for row in set_aside] == [n for n, fields in enumerate(lines, 1) if not _is_good(fields)]
    assert found.labels.tolist() == [int(fields[3]) for fields in good]
    expected = [np.float32(int(fields[1])) if fields[1] else np.float32("nan") for fields in good]
    assert np.array_equal(found.dense[:, 0], np.array(expected, np.float32), equal_nan=True)
    assert found.ids.tolist() == [
        [blake(word) if word else 0, int(code or "0"), int(token or "0", 16)]
        for _, _, word, _, code, token in good
    ]


def _is_good(fields: tuple[str, ...]) -> bool:
    """The rule, spelled out a second time without the code under test."""
    line = ";".join(fields).removesuffix("\r")
    parts = line.split(";")
    if (
        len(parts) != 6
        or "\0" in line
        or "\r" in line
        or line.startswith("\ufeff")
        or parts[2].startswith("\ufeff")
    ):
        return False
    _, price, _, label, code, token = parts
    integer = price.removeprefix("-")
    return (
        label in ("0", "1")
        and (not price or (integer.isascii() and integer.isdigit() and -(2**63) <= int(price) < 2**63))
        and (not code or (code.isascii() and code.isdigit() and int(code) < 2**32))
        and len(token) <= 8
        and all(c in "0123456789abcdefABCDEF" for c in token)
    )


def test_bytes_that_are_no_text_are_set_aside() -> None:
    block = b"x;1;a;0;2;ff\nx;1;\xff;0;2;ff\n\xfe;1;a;1;2;ff\nx;y;a;1;2;ff\nx;1;a;1;-2;ff\nx;1;a;1;9999999999;ff\n"
    found, set_aside = Parser(SMALL).parse(block)
    assert found.labels.tolist() == [0]
    assert [(row.line, row.fault.reason) for row in set_aside] == [
        (2, "not_text"),
        (3, "not_text"),
        (4, "not_an_integer"),
        (5, "not_decimal"),
        (6, "token_range"),
    ]
