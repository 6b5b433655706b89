"""Rows with weights, from raw logs to the loss and the scores: a row of weight 2 counts as two rows."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from sizewise.metrics.scores import auc_parts, evaluate_scores, logloss_parts
from sizewise.training.input.batches import Batch, Split
from sizewise.training.scoring.predicting import Weighed
from sizewise.training.steps.step import Distill, Step
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.raw.layout import Layout
from sizewise_prep.shards.manifest import Manifest, rows_problem
from sizewise_prep.shards.verifying import verify

LAYOUT = Layout(
    separator=",",
    header=True,
    columns={"row": "number", "w": "weight", "y": "label", "t": "token", "age": "bucket"},
    transforms={"row": "none"},
)


def frame() -> pl.DataFrame:
    rows = np.arange(200)
    columns = {"row": rows, "w": rows % 7 / 2, "y": rows % 2, "t": rows % 5, "age": rows * 3 % 31}
    return pl.DataFrame(columns)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    frame().write_csv(folder / "log.csv")
    frame().write_parquet(folder / "log.parquet")
    frame().write_ndjson(folder / "log.jsonl")
    for name in ("csv", "parquet", "jsonl"):
        prepare(
            folder / f"log.{name}",
            folder / name,
            layout=LAYOUT,
            shard_rows=60,
            tokens="contiguous",
            shuffle=1,
        )
    return folder


def test_shards_hold_weights(data: Path) -> None:
    shards = [
        [path.read_bytes() for path in sorted((data / name).glob("*.arrow"))]
        for name in ("csv", "parquet", "jsonl")
    ]
    assert shards[0] == shards[1] == shards[2]
    manifest = Manifest.load(data / "csv")
    assert verify(data / "csv") == []
    assert manifest.weights is not None
    assert manifest.weights["train"] == pytest.approx(frame()["w"][:160].mean())
    with pa.memory_map(str(data / "csv" / "test-00000.arrow")) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        assert batch.schema.names == ["label", "dense", "ids", "weight"]
        weights = batch.column("weight").to_numpy()
    assert sorted(weights) == sorted(frame()["w"][180:])
    damaged = bytearray((data / "csv" / "test-00000.arrow").read_bytes())
    at = damaged.index(weights.astype("<f4").tobytes())
    damaged[at : at + 4] = np.float32(-1).tobytes()
    (data / "jsonl" / "test-00000.arrow").write_bytes(damaged)
    (shard,) = Manifest.load(data / "jsonl").splits["test"].shards
    assert "has weights that are not from 0 on" in str(rows_problem(data / "jsonl", manifest, shard))


def test_bad_weights_are_set_aside(tmp_path: Path) -> None:
    rows = frame().to_dicts()
    for number, bad in enumerate((-0.5, None, "nan", "1e39", "heavy")):
        rows[10 * number]["w"] = bad
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        InputError, match=r"log\.jsonl, line 1: column w: '-0.5' is no weight: a number from 0 on"
    ):
        prepare(tmp_path / "log.jsonl", tmp_path / "out", layout=LAYOUT)
    manifest = prepare(tmp_path / "log.jsonl", tmp_path / "out", layout=LAYOUT, max_bad_fraction=0.1)
    assert manifest.quarantine.reasons == {"weight": 5}
    frame().with_columns(w=pl.lit(0.0)).write_csv(tmp_path / "zero.csv")
    with pytest.raises(InputError, match="column w: the weights of all train rows are 0"):
        prepare(tmp_path / "zero.csv", tmp_path / "zero", layout=LAYOUT)
    with pytest.raises(ValueError, match="2 columns are the weight"):
        Layout(columns={"y": "label", "t": "token", "v": "weight", "w": "weight"})


@pytest.mark.parametrize("world", [1, 2])
def test_batches_carry_the_weights_of_their_rows(data: Path, world: int) -> None:
    split, mean = Split.open(data / "csv", "train"), frame()["w"][:160].mean()
    seen = 0
    for rank in range(world):
        for batch in [*split.stream(0, 5, 37, 1, rank, world), *split.in_order(50, rank, world)]:
            assert batch.weight is not None
            rows = batch.dense[:, 0].long()
            torch.testing.assert_close(batch.weight, (rows % 7 / 2 / mean).float())
            seen += len(rows)
    assert seen == 2 * 160
    rows_in_order = Weighed(split.in_order(50))
    assert sum(len(batch.label) for batch in rows_in_order) == 160
    found = rows_in_order.weights()
    assert found is not None
    assert found.mean() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("distill", [None, Distill(0.4, 2.0)])
def test_a_row_of_weight_2_steps_as_two_rows(distill: Distill | None) -> None:
    draw = torch.Generator().manual_seed(1)
    dense, label = torch.randn(6, 3, generator=draw), torch.tensor([0.0, 1, 1, 0, 1, 0])
    weight, teacher = torch.tensor([1.0, 2, 0, 1, 3, 1]), torch.randn(6, generator=draw)
    repeated = torch.repeat_interleave(torch.arange(6), weight.long())
    models = []
    for rows, weights, count in ((torch.arange(6), weight, 8), (repeated, None, 8)):
        torch.manual_seed(2)
        linear = torch.nn.Linear(3, 1)
        model = _Dense(linear)
        step = Step(model, torch.optim.SGD(model.parameters(), 0.5), 8, torch.device("cpu"), distill=distill)
        ids = torch.zeros(len(rows), 1, dtype=torch.uint32)
        step(Batch(dense[rows], ids, label[rows], teacher[rows], weights), count)
        models.append((linear.weight.detach(), step.loss()))
    torch.testing.assert_close(models[0][0], models[1][0])
    assert models[0][1] == pytest.approx(models[1][1], rel=1e-6)


class _Dense(torch.nn.Module):
    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.linear(dense).squeeze(1)


def test_scores_with_weights_are_those_of_repeated_rows() -> None:
    draw = np.random.default_rng(3)
    labels, weights = draw.integers(0, 2, 3000), draw.integers(0, 4, 3000)
    logits = np.round(draw.normal(size=3000) + labels, 1)  # with ties
    again = np.repeat(np.arange(3000), weights)
    np.testing.assert_allclose(
        evaluate_scores(labels, logits, weights)[:4],
        evaluate_scores(labels[again], logits[again])[:4],
        rtol=1e-12,
    )
    for parts in (auc_parts, logloss_parts):
        np.testing.assert_allclose(
            parts(labels, logits, np.full(3000, 2.5)), parts(labels, logits), atol=1e-15
        )
        scaled = parts(labels, logits, weights)
        np.testing.assert_allclose(parts(labels, logits, weights * 3.0), scaled, atol=1e-15)
        # Removing a row from the sample moves the score by about its component.
    without = weights.astype(float)
    without[::128] *= 1.001
    moved = evaluate_scores(labels, logits, without).auc - evaluate_scores(labels, logits, weights).auc
    (own,) = auc_parts(labels, logits, weights)[:1] * np.sqrt(127 / 128)
    assert moved == pytest.approx(0.001 * (own + 0), rel=0.05, abs=2e-7)
    only = evaluate_scores([0, 1, 1], [0.0, 1, 2], [1, 0, 0])
    assert np.isnan(only.auc)
    assert "one class" in only.undefined
    for bad in ([1, 2], [1, -1, 1], [1, np.nan, 1], [0, 0, 0]):
        with pytest.raises(InputError, match="weights must be finite"):
            evaluate_scores([0, 1, 1], [0.0, 1, 2], bad)
