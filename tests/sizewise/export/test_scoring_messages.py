"""What `score` and `evaluate` say of raw files: as `prep`, but nothing of a schema file, which they do not take."""

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sizewise.export import Deployed, evaluate, score
from sizewise.export.deployed import Description
from sizewise_core.errors import InputError
from sizewise_prep.raw.layout import CRITEO, Layout

ROW = (
    "\t".join(["1", *"123456789abcd".translate({ord(c): "7" for c in "abcd"}), *["ab"] * 26]).encode() + b"\n"
)
SMALL = Layout(
    separator=",", header=True, columns={"y": "label", "n": "integer", "code": "decimal", "t": "time"}
)


class Constant(torch.nn.Module):
    """The same log-odds for every row."""

    def forward(self, dense: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(dense))


def deployed(layout: Layout = CRITEO) -> Deployed:
    return Deployed(Description.model_construct(layout=layout, tokens="raw"), Constant())


FILES: dict[str, tuple[Callable[[], bytes], Layout, str]] = {
    "header": (
        lambda: "\t".join(CRITEO.columns).encode() + b"\n" + ROW,
        CRITEO,
        "names columns .* remove it",
    ),
    "commas": (
        lambda: ROW.replace(b"\t", b","),
        CRITEO,
        "separated by commas, not by tabs: write the logs as",
    ),
    "quotes": (lambda: ROW.replace(b"\t", b'"\t"'), CRITEO, "in quotes|names columns|is not 0 or 1"),
    "Parquet": (lambda: b"PAR1\x15\x04" + bytes(100) + b"PAR1", CRITEO, "is a Parquet file"),
    "JSON": (lambda: b'{"label": 1, "I1": 5}\n' * 5, CRITEO, "is JSON"),
    "hex": (lambda: ROW.replace(b"ab", b"shop", 1), CRITEO, "is not a hexadecimal token; fix the row"),
    "other header": (
        lambda: b"y,n,color,t\n",
        SMALL,
        "names column 3 'color' instead of 'code'; the model reads files",
    ),
    "no header": (lambda: b"1,2,3,4\n", SMALL, "names column 1 '1' instead of 'y'; the model reads files"),
    "sign": (lambda: b"y,n,code,t\n1,2,-3,4\n", SMALL, "'-3' is not a decimal token; fix the row"),
    "newlines": (lambda: b"\n" * (8 << 20), CRITEO, "line 1: is blank"),
    "newlines in gzip": (lambda: gzip.compress(b"\n" * (8 << 20)), CRITEO, "line 1: is blank"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_said_names_nothing_that_they_do_not_take(tmp_path: Path, kind: str) -> None:
    content, layout, message = FILES[kind]
    path = tmp_path / "day.log"
    path.write_bytes(content())
    began = time.process_time()
    for ask in (
        lambda: score(deployed(layout), [str(path)], tmp_path / "s.parquet"),
        lambda: evaluate(deployed(layout), [str(path)]),
    ):
        with pytest.raises(InputError, match=message) as ended:
            ask()
        said = str(ended.value).replace(str(tmp_path), "")
        assert "schema" not in said.lower()
        assert "header:" not in said
        assert len(said) < 300
    assert time.process_time() - began < 10
    assert not (tmp_path / "s.parquet").exists()


def test_bad_rows_that_are_allowed_leave_the_others_with_their_lines(tmp_path: Path) -> None:
    import polars as pl

    (tmp_path / "day.log").write_bytes(b"\n" * 100_000 + ROW * 3 + b"\n" * 100_000 + ROW)
    done = score(deployed(), [str(tmp_path / "day.log")], tmp_path / "s.parquet", max_bad_fraction=1.0)
    assert (done.rows, done.bad_rows) == (4, 200_000)
    assert pl.read_parquet(tmp_path / "s.parquet")["line"].to_list() == [100_001, 100_002, 100_003, 200_004]
    assert np.isclose(pl.read_parquet(tmp_path / "s.parquet")["probability"].to_numpy(), 0.5).all()
