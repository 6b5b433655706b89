"""Rows that a device makes are those of `World`, and what is measured on them there is what Sizewise measures."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.scale import rows
from benchmarks.scale.arrays import scored
from benchmarks.scale.rows import DeviceWorld, Rows, bayes, distinct

from sizewise.metrics.scores import evaluate_scores
from sizewise_prep.planted import Dials, World
from sizewise_prep.planted.bayes import BayesMeter
from sizewise_prep.planted.text import tokens

ROOT = Path(__file__).parents[2]
DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
LOG = 1_000_000
WORLDS = [
    (1, Dials()),
    (2, Dials(missing=1.3, rarity_decay=0.3, drift=1.2, factor_rank=6, noise=0.2)),
    (3, Dials(zipf=0, missing=0, interactions=1)),
    (4, Dials(zipf=1 / 1.05)),  # a tail whose integral is a logarithm
    (5, Dials(zipf=1.5, vocabulary=10, rarity_decay=1)),
    (6, Dials(vocabulary=0.05, token_signal=2, integer_signal=0.5, click_rate=0.03)),
]


@pytest.fixture(params=DEVICES, ids=str)
def device(request: pytest.FixtureRequest) -> torch.device:
    chosen: torch.device = request.param
    return chosen


@pytest.mark.parametrize(("seed", "dials"), WORLDS)
def test_rows_are_those_of_the_world(seed: int, dials: Dials, device: torch.device) -> None:
    world = World(seed, LOG, dials)
    made = DeviceWorld(world, device)
    assert made.cardinalities == [column.values + 1 for column in world.columns]
    for start, stop in ((0, 1), (123_456, 143_456), (LOG - 1000, LOG)):
        expected = world.chunk(start, stop)
        room = Rows.empty(stop - start, device, torch.float32, torch.float64)
        assert made.rows(start, stop, out=room) is room
        dense, ids, label, probability = (column.cpu().numpy() for column in room)
        differ = tokens(ids.T.astype(np.int64), world.token_keys) != expected.tokens
        assert differ.mean() <= 1e-6
        alike = ~differ.any(axis=0)
        assert np.array_equal(label[alike], expected.labels[alike])
        assert np.abs(probability - expected.probability)[alike].max() <= 1e-9
        values = np.where(expected.observed, np.maximum(expected.integers, 0), 0).T
        assert dense == pytest.approx(np.log1p(values), abs=1e-5)


def test_what_dials_add_is_refused_and_not_left_out(device: torch.device) -> None:
    with pytest.raises(ValueError, match="are not made on devices"):
        DeviceWorld(World(1, LOG, Dials(crosses=1)), device)


def test_rows_do_not_depend_on_their_chunks(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    made = DeviceWorld(World(7, LOG, Dials(drift=1)), device)
    once = made.rows(5000, 8000)
    assert [column.dtype for column in once] == [torch.float16, torch.int32, torch.uint8, torch.float32]
    monkeypatch.setattr(rows, "BLOCK", 700)
    room = Rows.empty(3000, device)
    for start, stop in ((0, 1), (1, 1999), (1999, 1999), (1999, 3000)):
        made.rows(5000 + start, 5000 + stop, out=room.part(start, stop))
    for one, other in zip(once, room, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="out has 3000 rows; 10 are asked for"):
        made.rows(0, 10, out=room)


def scored_auc(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return scored(labels, scores).auc


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_auc_is_that_of_sizewise(dtype: torch.dtype, device: torch.device) -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(100_000, generator=random).to(dtype)  # in bfloat16 nearly all scores are tied
    labels = (torch.rand(100_000, generator=random) < (logits.double() - 1).sigmoid()).to(torch.uint8)
    expected = evaluate_scores(labels.numpy(), logits.double().numpy()).auc
    assert scored_auc(logits.to(device), labels.to(device)) == pytest.approx(expected, abs=1e-12)


def test_the_auc_of_all_ties_is_a_half_and_undefined_ones_are_none(device: torch.device) -> None:
    labels = torch.tensor([0, 1, 1, 0, 1], device=device)
    scores = torch.zeros(5, device=device)
    assert scored_auc(scores, labels) == 0.5
    assert scored_auc(labels.float(), labels) == 1
    assert math.isnan(scored_auc(scores, torch.ones(5, device=device)))
    assert math.isnan(scored_auc(scores.log() * 0, labels))


def test_the_best_possible_figures_are_those_of_the_generator(device: torch.device) -> None:
    made = DeviceWorld(World(1, LOG), device)
    room = made.rows(0, 60_000, Rows.empty(60_000, device, probability=torch.float64))
    meter = BayesMeter()
    meter.add(room.probability.cpu().numpy(), room.label.cpu().numpy())
    area, logloss = bayes(room.probability)
    assert area == pytest.approx(meter.bayes_auc, abs=2e-6)  # the meter has bins of probabilities
    assert logloss == pytest.approx(meter.bayes_logloss, abs=1e-12)
    assert bayes(room.probability.float()) == pytest.approx((area, logloss), abs=1e-6)
    assert scored_auc(room.probability, room.label) == pytest.approx(meter.realised_auc, abs=2e-6)


@pytest.mark.parametrize("dials", [Dials(vocabulary=10), Dials(zipf=1 / 1.05)])
def test_as_many_values_are_shown_as_expected(dials: Dials) -> None:
    world = World(1, LOG, dials)
    chunk = world.chunk(0, 60_000)
    for column, found in zip(world.columns, chunk.tokens, strict=True):
        shown = len(np.unique(found[found != 0]))
        assert distinct(column, 60_000) == pytest.approx(shown, abs=4 * shown**0.5)


@pytest.mark.slow
def test_a_machine_without_polars_and_ray_has_what_it_needs() -> None:
    absent = (
        "import sys; sys.modules.update(polars=None, ray=None, optuna=None); import benchmarks.scale.rows"
    )
    subprocess.run([sys.executable, "-c", absent], cwd=ROOT, check=True)
