"""An export scores raw rows of another layout as its model scores their shards: crosses, buckets, transforms."""

import hashlib
import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from counted import build_ready
from sizewise.export.deployed import DESCRIPTION, PROGRAM, Deployed, Description
from sizewise.export.program import to_program
from sizewise.export.scoring import evaluate, score
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batches import Split
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.shards.manifest import Manifest

SCHEMA = """
separator: ","
header: true
columns:
  user: token
  item: token
  price: {kind: number, transform: standardize}
  offset: {kind: number, transform: none}
  views: integer
  age: {kind: bucket, quantiles: 5}
  clicked: label
crosses: {user_item: [user, item], user_age: [user, age]}
"""


def exported(folder: Path, model: DLRM, manifest: Manifest) -> None:
    """Write an untrained model as `export` writes a trained one."""
    buffer = io.BytesIO()
    torch.export.save(to_program(model, manifest.settings.tokens, None, manifest.layout), buffer)
    content = buffer.getvalue()
    description = Description(
        sizewise="0", study="s", trial_id=0, iteration=1, config={}, layout=manifest.layout,
        tokens=manifest.settings.tokens, validation={}, test={}, embedding_bytes=0, model_bytes=0, compression_ratio=1,
        latency=[], measured_on="", program_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    folder.mkdir()
    (folder / PROGRAM).write_bytes(content)
    (folder / DESCRIPTION).write_text(description.model_dump_json())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, DLRM]:
    """A log, its shards and an export."""
    folder = tmp_path_factory.mktemp("columns")
    lines = [
        f"{f'u{j % 13}' if j % 7 else ''},{j % 5},{j / 8 - 9 if j % 4 else ''},{j % 3 - 1},{j % 6},{j * j % 89},"
        f"{j % 2}\n"
        for j in range(300)
    ]
    (folder / "log.csv").write_text("user,item,price,offset,views,age,clicked\n" + "".join(lines))
    (folder / "log.yaml").write_text(SCHEMA)
    manifest = prepare(folder / "log.csv", folder / "data", layout=Layout.load(folder / "log.yaml"))
    embedding = build_ready("hash", manifest.cardinalities, 8, 4000, 1)
    model = DLRM(embedding, 3, [8], [8])
    exported(folder / "model", model, manifest)
    return folder, manifest, model


def test_raw_rows_are_scored_as_their_shards_are(made: tuple[Path, Manifest, DLRM]) -> None:
    folder, _, _ = made
    score(Deployed.open(folder / "model"), [str(folder / "log.csv")], folder / "scores.parquet")
    found = pl.read_parquet(folder / "scores.parquet")["log_odds"].to_numpy()
    again = DLRM(build_ready("hash", made[1].cardinalities, 8, 4000, 1), 3, [8], [8])
    again.load_state_dict(made[2].state_dict(), strict=False)
    with torch.inference_mode():
        batches = [
            batch
            for name in ("train", "validation", "test")
            for batch in Split.open(folder / "data", name).in_order(64)
        ]
        wanted = torch.cat([again(batch.dense, batch.ids) for batch in batches]).numpy()
    assert len(np.unique(wanted)) > 200
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_an_export_without_its_edges_is_refused(made: tuple[Path, Manifest, DLRM]) -> None:
    folder, manifest, model = made
    exported(folder / "bare", model, manifest)
    path = folder / "bare" / DESCRIPTION
    description = Description.model_validate_json(path.read_text())
    bare = description.model_copy(update={"layout": manifest.settings.layout})
    path.write_text(bare.model_dump_json())
    with pytest.raises(InputError, match="lacks the edges or moments of its columns; export the trial again"):
        Deployed.open(folder / "bare")


def test_files_without_a_label_are_scored(made: tuple[Path, Manifest, DLRM]) -> None:
    folder, _, _ = made
    model = Deployed.open(folder / "model")
    rows = pl.read_csv(folder / "log.csv")
    bare = rows.drop("clicked").select("item", "views", "user", "offset", "age", "price")
    bare.write_csv(folder / "bare.csv")
    bare.write_parquet(folder / "bare.parquet")
    bare.write_ndjson(folder / "bare.jsonl")
    score(model, [str(folder / "log.csv")], folder / "all.parquet")
    wanted = pl.read_parquet(folder / "all.parquet")
    for name in ("bare.csv", "bare.parquet", "bare.jsonl"):
        score(model, [str(folder / name)], folder / "some.parquet")
        found = pl.read_parquet(folder / "some.parquet")
        assert found["label"].null_count() == len(found) == 300
        assert found["log_odds"].equals(wanted["log_odds"])
        with pytest.raises(InputError, match=f"{name}: has no column 'clicked', so without the label"):
            evaluate(model, [str(folder / name)])
    both = score(model, [str(folder / "log.csv"), str(folder / "bare.csv")], folder / "both.csv")
    assert both.rows == 600
    assert pl.read_csv(folder / "both.csv")["label"].null_count() == 300
    bare.drop("user").write_csv(folder / "less.csv")
    with pytest.raises(InputError, match=r"less\.csv, line 1: has no column 'user'"):
        score(model, [str(folder / "less.csv")], folder / "less.parquet")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "user: token\n  item: token",
            "item: token\n  user: token",
            "takes column 'user' where the data has 'item'",
        ),
        (
            "offset: {kind: number, transform: none}\n  views: integer",
            "views: integer\n  offset: {kind: number, transform: none}",
            "takes column 'offset' where the data has 'views'",
        ),
        ("quantiles: 5", "edges: [20, 40, 60, 80]", "takes column 'age' as its own data had it"),
        (
            "[user, item], user_age",
            "[item, age], user_age",
            "takes column 'user_item' as its own data had it",
        ),
    ],
)
def test_rows_with_other_columns_are_none_that_an_export_can_score(
    made: tuple[Path, Manifest, DLRM], tmp_path: Path, before: str, after: str, message: str
) -> None:
    folder, manifest, _ = made
    deployed = Deployed.open(folder / "model")
    assert deployed.misfit(manifest) == ""
    assert before in SCHEMA
    (tmp_path / "log.yaml").write_text(SCHEMA.replace(before, after))
    other = prepare(folder / "log.csv", tmp_path / "data", layout=Layout.load(tmp_path / "log.yaml"))
    assert message in deployed.misfit(other)
