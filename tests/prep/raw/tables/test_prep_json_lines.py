"""JSON lines as programs write them: backslashes in lists, fields that come late, marks and blanks before them."""

import json
from pathlib import Path

import pytest
from tests.prep.raw.tables.table_logs import blake, shard

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.proposing import propose

LAYOUT = Layout(columns={"click": "label", "tags": "tokens", "user": "token", "price": "number"})
TEXTS = ["\\n", "\n", "C:\\new", "a\\", "\\u0041", '\\"', '"', "\t", "\\\\", "[", "é😀", "1e3"]


def test_lists_of_texts_with_backslashes(tmp_path: Path) -> None:
    rows = [{"click": j % 2, "tags": [text, "x"], "user": text, "price": j} for j, text in enumerate(TEXTS)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(tmp_path / "log.jsonl", tmp_path / "out", layout=LAYOUT, split=f"rows:{len(TEXTS)},0")
    read = shard(tmp_path / "out")
    assert read.ids[:, 0].tolist() == [blake(text) for text in TEXTS]
    assert read.lists[0].used.tolist() == [blake(one) for text in TEXTS for one in (text, "x")]


def test_lists_in_text_with_backslashes(tmp_path: Path) -> None:
    """JSON's texts and Python's, in the cells of a CSV."""
    layout = LAYOUT.model_copy(update={"separator": ";", "header": True, "quotes": True})
    cells = [written([text, "x"]).replace('"', '""') for text in TEXTS for written in (json.dumps, repr)]
    lines = [f'{j % 2};"{cell}";u;1\n' for j, cell in enumerate(cells)]
    (tmp_path / "log.csv").write_text("click;tags;user;price\n" + "".join(lines))
    prepare(tmp_path / "log.csv", tmp_path / "out", layout=layout, split=f"rows:{len(cells)},0")
    wanted = [blake(one) for text in TEXTS for _ in range(2) for one in (text, "x")]
    assert shard(tmp_path / "out").lists[0].used.tolist() == wanted


def test_a_field_may_come_after_the_first_rows(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"click": j % 2, "user": "u"} for j in range(1_500)]
    rows[-1] |= {"price": 3, "tags": ["a"]}
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prepare(tmp_path / "log.jsonl", tmp_path / "out", layout=LAYOUT).rows_out == 1_500
    other = Layout(columns={**LAYOUT.columns, "pric": "number"})
    with pytest.raises(InputError, match="has no column 'pric'"):
        prepare(tmp_path / "log.jsonl", tmp_path / "other", layout=other)


def test_a_field_may_be_in_one_file_alone(tmp_path: Path) -> None:
    """Programs that leave out fields without a value leave out a field in all rows of a file."""
    some = [{"click": j % 2, "user": "u", "tags": []} for j in range(20)]
    for name, more in {"a": {}, "b": {"price": 3}, "c": {}}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({**row, **more}) + "\n" for row in some))
    files = [tmp_path / f"{name}.jsonl" for name in "abc"]
    assert prepare(files, tmp_path / "out", layout=LAYOUT).dense_missing == [2 / 3]
    with pytest.raises(InputError, match=r"a\.jsonl: is JSON, an object a line and has no column 'price'"):
        prepare([files[0], files[2]], tmp_path / "other", layout=LAYOUT)


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\n", b"  "])
def test_what_comes_before_the_first_object(before: bytes, tmp_path: Path) -> None:
    """Also where its first name has a quote in it."""
    rows = [{'say "x"': 1, "click": j % 2, "user": "u", "price": 1, "tags": []} for j in range(20)]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "log.json").write_bytes(before + text)
    columns = {**LAYOUT.columns, 'say "x"': "token"}
    found = prepare(
        tmp_path / "log.json", tmp_path / "out", layout=Layout(columns=columns), max_bad_fraction=0.1
    )
    assert (found.rows_in, found.rows_out) == (20 + before.count(b"\n"), 20)
    assert propose([tmp_path / "log.json"]).rows == 20


def test_halves_of_surrogate_pairs_are_set_aside(tmp_path: Path) -> None:
    """Of columns that are read; two halves that belong together are text, and so is a backslash before a `u`."""
    wrong = [
        r'"\ud800"',
        r'"\uDC00x"',
        r'"\ud800\ud800"',
        r'"\udc00\ud800"',
        r'"\\ud83d\ude00"',
        r'"\ud83d\\ude00"',
    ]
    right = [r'"\ud83d\ude00"', r'"\\ud800"', r'"\uD83D\uDE00\ud83d\ude01"', r'"\\ud83d\\ude00"', r'"\u0041"']
    lines = [
        f'{{"click": {j % 2}, "user": {user}, "tags": [{tag}], "price": 1, "note": "\\ud800"}}\n'
        for j, (user, tag) in enumerate(
            [(text, '"a"') for text in right + wrong] + [('"b"', text) for text in right + wrong]
        )
    ]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    layout = LAYOUT.model_copy(update={"others": "skip"})
    with pytest.raises(InputError, match=r"line 6: column user: has \\ud800, half of a surrogate pair"):
        prepare(tmp_path / "log.jsonl", tmp_path / "out", layout=layout)
    found = prepare(
        tmp_path / "log.jsonl", tmp_path / "out", layout=layout, max_bad_fraction=0.6, split="rows:10,0"
    )
    assert found.quarantine.reasons == {"not_text": 2 * len(wrong)}
    read = shard(tmp_path / "out")
    texts = [json.loads(text) for text in right]
    assert read.ids[:, 0].tolist() == [blake(text) for text in texts + ["b"] * len(texts)]
    assert read.lists[0].used.tolist() == [blake(text) for text in ["a"] * len(texts) + texts]


def test_a_field_without_a_column_that_comes_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused as in the first rows, in whichever piece it is; names within values, and bad rows, are none."""
    monkeypatch.setattr("sizewise_prep.raw.files.reader.BLOCK_BYTES", 20_000)
    monkeypatch.setattr("sizewise_prep.pipeline.jobs.parts.PIECE_BYTES", 60_000)
    row = {"click": 1, "user": 'a", "usr": {"', "pri\u00e7e": 1, "tags": ["x", 'y": ', "\\"]}
    columns = {**LAYOUT.columns, "pri\u00e7e": "number"}
    layout = Layout(columns={name: kind for name, kind in columns.items() if name != "price"})
    lines = [json.dumps(row, ensure_ascii=j % 2 == 0) for j in range(2_500)]
    lines[1_800] = '{"click", "usr"'
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    kept = prepare(tmp_path / "log.jsonl", tmp_path / "out", layout=layout, max_bad_fraction=0.1)
    assert (kept.rows_out, kept.quarantine.reasons) == (2_499, {"not_json": 1})
    lines[2_200] = json.dumps({**row, "usr": 7})
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    with pytest.raises(
        InputError, match=r"log\.jsonl, line 2201: has a column 'usr' that the schema does not name"
    ):
        prepare(tmp_path / "log.jsonl", tmp_path / "late", layout=layout, max_bad_fraction=0.1)
    skipping = layout.model_copy(update={"others": "skip"})
    assert (
        prepare(tmp_path / "log.jsonl", tmp_path / "skipped", layout=skipping, max_bad_fraction=0.1).rows_out
        == 2_499
    )
