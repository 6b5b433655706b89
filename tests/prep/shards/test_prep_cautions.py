"""What is said of prepared rows: integers that float32 cannot hold, rows out of time order, too few to validate."""

import itertools
import json
import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizewise.metrics import scores
from sizewise_core.auc_error import SMALL, rows_enough, standard_error, too_small
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.files import reader
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.parsing.parser import Parser
from sizewise_prep.raw.values.time_order import Stretch, find_time, instant, instants, out_of_order
from sizewise_prep.shards.cautions import cautions
from sizewise_prep.shards.manifest import Manifest

Line = Callable[..., bytes]
START = 1_700_000_000  # in unix seconds


def test_integers_that_float32_cannot_hold_are_counted(
    tmp_path: Path, line: Line, log: Callable[..., Path]
) -> None:
    values = {
        "I2": [16_777_216, 16_777_217, -16_777_217, 16_777_218],
        "I3": [2**62, 2**62 + 1, 2**63 - 1, -(2**63)],
    }
    rows = [
        line(j % 2, I1=str(START + j), **{name: str(v[j % 4]) for name, v in values.items()})
        for j in range(4000)
    ]
    manifest = prepare([log(*rows, b"torn")], tmp_path / "out", max_bad_fraction=0.5)
    inexact = sum(int(np.float32(START + j)) != START + j for j in range(4000))
    assert manifest.dense_inexact == [inexact, 2000, 2000, *[0] * 10]
    assert Manifest.load(tmp_path / "out") == manifest
    (said,) = [text for text in cautions(manifest) if "float32" in text]
    assert f"I1 {inexact:,}, I2 2,000, I3 2,000;" in said
    assert "`string`" in said
    assert len(said) < 300
    path = tmp_path / "out" / "manifest.json"  # of an older version
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("dense_inexact", "time_order")}
    path.write_text(json.dumps(old))
    assert Manifest.load(tmp_path / "out").dense_inexact == []
    assert not [text for text in cautions(Manifest.load(tmp_path / "out")) if "float32" in text]


def test_small_integers_are_exact(tmp_path: Path, line: Line, log: Callable[..., Path]) -> None:
    manifest = prepare([log(*(line(j % 2, I1=str(16_777_217 - j)) for j in range(1, 50)))], tmp_path / "out")
    assert manifest.dense_inexact == [0] * 13
    assert manifest.time_order is None


@given(
    times=st.lists(st.integers(0, 50), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
def test_rows_out_of_order_are_counted_over_any_pieces(times: list[int], cuts: list[int]) -> None:
    bounds = sorted({0, len(times), *(min(cut, len(times)) for cut in cuts)})
    stretches = [Stretch.of(np.array(times[a:b], np.int64)) for a, b in itertools.pairwise(bounds)]
    expected = sum(time < max(times[: j + 1]) for j, time in enumerate(times))
    assert out_of_order([stretch for stretch in stretches if stretch]) == expected


def test_the_count_of_long_stretches_is_near() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        times = np.sort(rng.integers(0, 10**6, 5000))
        halves = np.concatenate([times[2500:], times[:2500]]) if seed % 2 else rng.permutation(times)
        jitter = np.concatenate([times, times + rng.integers(-3 * 10**5, 10**5, 5000)])
        for log in (halves, jitter):
            expected = int((log < np.maximum.accumulate(log)).sum())
            found = out_of_order([s for part in np.array_split(log, 7) if (s := Stretch.of(part))])
            assert abs(found - expected) <= 0.01 * len(log)


def _isoformat(j: int) -> str:
    return (datetime(2024, 2, 28, tzinfo=UTC) + timedelta(minutes=j)).isoformat(" ")[:19]


TIMES: dict[str, tuple[str, str, Callable[[int], str]]] = {
    "declared unix time": ("when", "time", lambda j: str(START + j)),
    "declared ISO": ("when", "time", _isoformat),
    "declared digits": ("when", "time", lambda j: f"141021{j // 60:02d}"),
    "found integer": ("n2", "integer", lambda j: str(START + j)),
    "found milliseconds": ("t", "skip", lambda j: str(1000 * (START + j))),
    "found ISO": ("t", "string", lambda j: _isoformat(j).replace(" ", "T") + "Z"),
    "found date and hour": ("hour", "string", lambda j: f"1410{1 + j // 24 % 31:02d}{j % 24:02d}"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_rows_out_of_time_order_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(parts, "PIECE_BYTES", 3000)
    monkeypatch.setattr(reader, "BLOCK_BYTES", 1000)
    name, column, written = TIMES[kind]
    layout = Layout(separator=",", columns={"y": "label", "n": "integer", name: column, "h": "hex"})  # type: ignore[dict-item]
    rows = [f"{j % 2},{j},{written(j)},ab\n" for j in range(600)]
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("".join(rows[:300]))
    second.write_text("".join(rows[300:]))
    in_order = prepare([first, second], tmp_path / "in_order", layout=layout)
    assert in_order.time_order is not None
    assert (in_order.time_order.column, in_order.time_order.rows) == (name, 600)
    assert in_order.time_order.out_of_order == 0
    assert not [text for text in cautions(in_order) if "before them" in text]

    swapped = prepare([second, first], tmp_path / "swapped", layout=layout)  # across files
    assert swapped.time_order is not None
    assert swapped.time_order.out_of_order == pytest.approx(300, abs=60)
    random.Random(1).shuffle(rows)
    first.write_text("".join(rows))
    shuffled = prepare([first], tmp_path / "shuffled", layout=layout)
    (said,) = [text for text in cautions(shuffled) if "before them" in text]
    assert f"earlier in {name} than a row before them" in said
    assert "sort the log" in said
    assert len(said) < 300
    assert shuffled.time_order is not None
    assert shuffled.time_order.out_of_order > 500
    assert Manifest.load(tmp_path / "shuffled") == shuffled


def test_what_is_no_time_is_not_taken_for_one(line: Line) -> None:
    layout = Layout(
        columns={
            "y": "label",
            "n": "integer",
            "id": "decimal",
            "day": "string",
            "h": "hex",
            "price": "string",
        }
    )
    rng = random.Random(1)
    rows = [f"0\t{j}\t{START + rng.randrange(10**6)}\t{j % 7}\t20240101\t{j}-{j}" for j in range(500)]
    assert find_time(layout, [row.encode() for row in rows]) is None
    assert find_time(CRITEO, [line(I1=str(j)) for j in range(500)]) is None
    both = Layout(columns={"y": "label", "born": "string", "seen": "string", "n": "integer", "h": "hex"})
    rows = [f"0\t{_isoformat(rng.randrange(10**6))}\t{_isoformat(j)}\t{j}\tab" for j in range(500)]
    assert find_time(both, [row.encode() for row in rows]) == "seen"


def test_a_declared_time_has_to_be_one() -> None:
    layout = Layout(separator=",", columns={"y": "label", "n": "integer", "t": "time", "h": "hex"})
    texts = [
        "1",
        "2024-01-02",
        "2024-01-02T03:04:05.5+02:00",
        "",
        "yesterday",
        "2024-13-01",
        "1" * 19,
        "-5",
        "1.5",
        "1" * 20,
    ]
    rows, bad = Parser(layout, "t").parse("".join(f"0,1,{text},a\n" for text in texts).encode())
    assert len(rows) == 6  # 19 digits are nanoseconds
    assert [(row.line, row.fault.reason) for row in bad] == [(n, "not_a_time") for n in (5, 6, 9, 10)]
    assert instant("2024-01-02T01:00+01:00") == instant("2024-01-02") == instant("2024-01-02 00:00:00Z")


@pytest.mark.parametrize("between", [" ", "T"])
def test_many_dates_are_read_as_one_is(between: str) -> None:
    texts = [_isoformat(37 * j).replace(" ", between) for j in range(200)]
    assert instants(pl.Series([*texts, None])).to_list() == [*map(instant, texts), None]
    assert (
        instants(pl.Series([*texts, "2023-02-29T00:00:00", f"2024-01-01{between}24:00:00"])).to_list()[-2:]
        == [None] * 2
    )


def test_an_unreadable_first_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "day.tsv").write_bytes(b"0" * (2 << 20))
    with pytest.raises(InputError, match="a line is longer"):
        prepare([tmp_path / "day.tsv"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["day.tsv"]


def test_the_standard_error_is_that_of_scores() -> None:
    rng = np.random.default_rng(1)
    for clicks, others in ((50, 500), (400, 1200), (3000, 3000)):
        labels = np.repeat([1, 0], [clicks, others])
        logits = np.concatenate(
            [rng.exponential(3.0, clicks), rng.exponential(1.0, others)]
        )  # an AUC of 0.75
        order = rng.permutation(clicks + others)
        delong = math.sqrt((scores.auc_parts(labels[order], logits[order]) ** 2).sum())
        assert scores.standard_error(0.75, clicks, others) == pytest.approx(delong, rel=0.3)
    # Hanley and McNeil's own example: an AUC of 0.893 from 51 abnormal and 58 normal images has an error of 0.032.
    assert standard_error(0.893, 51, 58) == pytest.approx(0.032, abs=1e-3)
    assert standard_error(0.75, 0, 10) == standard_error(0.75, 10, 0) == math.inf


def test_too_few_validation_rows_are_said_with_how_many_are_enough() -> None:
    for rate in (0.01, 0.25, 0.5, 0.9):
        enough = rows_enough(rate)
        assert too_small(enough, rate) == ""
        clicks = round(0.9 * enough * rate)
        assert standard_error(0.75, clicks, round(0.9 * enough) - clicks) > SMALL
        said = too_small(enough // 2, rate)
        assert f"about {enough:,} validation rows" in said
        assert len(said) < 300
    assert "10 rows (2 clicks)" in too_small(10, 0.2)
    assert "all of one label" in too_small(10, 0.0)
    assert "split it by a key (--split key:COLUMN)" in too_small(10, 1.0)
    assert too_small(0, None) == ""
