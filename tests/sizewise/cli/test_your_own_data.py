"""The four layouts of docs/your_own_data.md: its commands, one after another, from the file to the answer."""

import gzip
import random
import re
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from typer.testing import CliRunner

from sizewise import cli

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[3] / "docs" / "your_own_data.md"
WALKS = DOCUMENT.read_text().partition("## Four layouts")[2]
ROWS = 1_000
SPARSE = (
    3,
    2,
    1,
    2,
    6,
    1,
    1,
    1,
    1,
    7,
    3,
    8,
    1,
    6,
    9,
    5,
    1,
    1,
    1,
    12,
    100,
    27,
    10,
    3,
    1,
    1,
)  # values of a row


def block(language: str, holding: str) -> str:
    """The block of the document that holds a text."""
    (found,) = (text for text in re.findall(rf"```{language}\n(.*?)```", WALKS, re.DOTALL) if holding in text)
    return str(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the commands run, with the document's study; one Ray serves all of them."""
    made = tmp_path_factory.mktemp("own")
    (made / "study.yaml").write_text(block("yaml", "name: mine"))
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()


def avazu(folder: Path) -> None:
    draw = random.Random(1)
    tokens = (
        "site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,device_model"
    )
    lines = [f"id,click,hour,C1,banner_pos,{tokens},device_type,C14,C15,C16"]
    for row in range(ROWS):
        site = draw.randrange(40)
        hexes = [f"{site * 99991 + 0xA0000000:08x}"] + [
            f"{draw.randrange(40) + 0xB0000000:08x}" for _ in range(8)
        ]
        row_ = [
            10**18 + row * 7919,
            int(draw.random() < 0.1 + 0.3 * (site % 2)),
            14102100 + row // 300,
            1005,
            0,
        ]
        row_ += [
            *hexes,
            draw.randrange(3),
            draw.randrange(900),
            draw.choice([320, 300]),
            draw.choice([50, 250]),
        ]
        lines.append(",".join(map(str, row_)))
    (folder / "train.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


def movielens(folder: Path) -> None:
    draw = random.Random(2)
    movies = [
        "|".join(draw.sample(["Action", "Comedy", "Crime", "Drama"], draw.randint(1, 3))) for _ in range(200)
    ]
    lines = ["userId,movieId,rating,timestamp,genres"]
    for _ in range(ROWS):
        movie, time = draw.randrange(200), 1_147_880_044 + draw.randrange(10**6)
        rating = draw.choice((1, 2.5, 4, 5) if movie % 2 else (1, 1.5, 2.5, 4))
        lines.append(f"{draw.randrange(90)},{movie},{rating:.1f},{time},{movies[movie]}")
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")


def events(folder: Path) -> None:
    draw = random.Random(3)
    items = [draw.randrange(480) * 10**15 for _ in range(ROWS)]
    columns = {
        "user_id": [draw.randrange(150) - 2**62 for _ in range(ROWS)],
        "item_id": items,
        "history": [[draw.randrange(480) * 10**15 for _ in range(draw.randrange(7))] for _ in range(ROWS)],
        "clicked": [draw.random() < 0.1 + 0.4 * (item % 2) for item in (item // 10**15 for item in items)],
        "ts": [datetime(2024, 5, 1) + timedelta(seconds=row) for row in range(ROWS)],
    }
    pq.write_table(pa.table(columns), folder / "events.parquet")


def multi_hot(folder: Path) -> None:
    draw, days = np.random.default_rng(4), folder / "days"
    days.mkdir()
    np.save(days / "day_0_labels.npy", draw.integers(0, 2, (ROWS, 1)).astype("i4"))
    np.save(days / "day_0_dense.npy", draw.random((ROWS, 13)).astype("f4"))
    lists = {str(n): draw.integers(0, 90, (ROWS, size)).astype("i4") for n, size in enumerate(SPARSE)}
    np.savez(days / "day_0_sparse_multi_hot.npz", **lists)


LAYOUTS = {"avazu": avazu, "movielens": movielens, "events": events, "multi-hot": multi_hot}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_documents_commands_end_with_an_answer(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LAYOUTS[name](folder)
    monkeypatch.chdir(folder)
    said = {}
    for line in block("console", f"name={name}").splitlines():
        _, *arguments = shlex.split(line)
        ran = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert ran.exit_code == 0, (line, ran.output)
        said[arguments[0]] = " ".join(ran.output.split())
    assert re.search(r"[Tt]he (smallest model within .* AUC|best model \(AUC )", said["run"]), said["run"]
    if "score" in said:
        scores = pl.read_parquet("scores.parquet")
        assert (scores.height, scores["label"].null_count()) == (ROWS, 0)
        assert f"{ROWS:,} rows" in said["evaluate"]
