"""Metrics that a study asks for, against their definitions written out row by row, and where they stand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sizewise import config, figures, results
from sizewise.config.trial import TrialConfig
from sizewise.metrics.asked import TENTHS, calibration_error, group_auc, logloss_by_frequency, tenths
from sizewise.metrics.registry import constrainable, objectives
from sizewise.training.building import build_model
from sizewise.training.checkpoints import checkpoint
from sizewise.training.input.batches import Split
from sizewise.training.loop import train
from sizewise.training.scoring.predicting import predict
from sizewise_core.errors import InputError
from sizewise_prep.shards.manifest import Manifest
from study_folder import StudyWriter

ASKED = {"gauc_by": "C3", "frequency_of": "C14", "calibration_bins": 20}


def rows() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    logits = np.round(rng.normal(-1, 1, 900), 1).astype(np.float32)  # with ties
    labels = (rng.random(900) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return labels, logits, rng.zipf(1.5, 900).clip(max=2**32 - 1).astype(np.uint32)


def test_the_auc_within_groups_is_that_of_every_pair() -> None:
    labels, logits, keys = rows()
    total, weight = 0.0, 0
    for key in np.unique(keys):
        mine = keys == key
        clicked, others = logits[mine & (labels == 1)], logits[mine & (labels == 0)]
        if len(clicked) and len(others):
            wins = sum((c > o) + 0.5 * (c == o) for c in clicked for o in others)
            total += mine.sum() * wins / (len(clicked) * len(others))
            weight += mine.sum()
    assert group_auc(labels, logits, keys) == pytest.approx(total / weight, rel=1e-12)
    assert math.isnan(group_auc(labels, logits, np.arange(900)))


def test_tenths_hold_the_rarest_values_first() -> None:
    labels, logits, keys = rows()
    counts = np.array([(keys == key).sum() for key in keys])
    tenth = tenths(counts)
    for one in np.unique(counts):  # equal counts stay together, where the middle of their rows lies
        middle = (counts < one).sum() + (counts == one).sum() / 2
        assert set(tenth[counts == one]) == {min(int(10 * middle / 900), 9)}
    found = logloss_by_frequency(labels, logits, tenth)
    for number, name in enumerate(TENTHS):
        mine = tenth == number
        p = 1 / (1 + np.exp(-logits[mine].astype(np.float64)))
        loss = -np.mean(np.where(labels[mine] == 1, np.log(p), np.log(1 - p))) if mine.any() else math.nan
        assert found[name] == pytest.approx(loss, rel=1e-12, nan_ok=True)
    assert sum(not math.isnan(value) for value in found.values()) > 3


def test_the_calibration_error_is_that_of_the_bins() -> None:
    labels, logits, _ = rows()
    order = sorted(range(900), key=lambda row: logits[row])  # stable
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    bins = [order[begin : begin + 90] for begin in range(0, 900, 90)]
    expected = sum(len(b) / 900 * abs(np.mean(p[b]) - np.mean(labels[b].astype(np.float64))) for b in bins)
    assert calibration_error(labels, logits, 10) == pytest.approx(expected, rel=1e-12)
    assert calibration_error(labels[:3], logits[:3], 10) == pytest.approx(np.abs(p[:3] - labels[:3]).mean())


def test_trained_and_read_from_disk(
    trial_config: Callable[..., TrialConfig], shards: Path, tmp_path: Path
) -> None:
    plain = train(trial_config(epochs=1), tmp_path / "plain", lambda row: None)
    assert not {"gauc", "calibration_error", *TENTHS} & set(plain.evaluations[-1])
    asked = trial_config(epochs=1, **ASKED)
    outcome = train(asked, tmp_path / "asked", lambda row: None)
    last = outcome.evaluations[-1]
    assert last["auc"] == plain.evaluations[-1]["auc"]
    model = build_model(asked, Manifest.load(shards))
    state = checkpoint.load_newest(tmp_path / "asked")
    assert state is not None
    model.load_state_dict(state["model"])
    split = Split.open(shards, "validation")
    labels, logits = predict(model, split.in_order(512), next(model.parameters()).device)
    keys = np.concatenate([batch.ids[:, 2].numpy() for batch in split.in_order(512)])
    assert last["gauc"] == group_auc(labels, logits, keys)
    assert last["calibration_error"] == calibration_error(labels, logits, 20)
    # The rows of all tenths together are all rows.
    seen = np.concatenate([batch.ids[:, 13].numpy() for batch in Split.open(shards, "train").in_order(512)])
    values, counts = np.unique(seen, return_counts=True)
    of_value = dict(zip(values.tolist(), counts.tolist(), strict=True))
    mine = np.concatenate([batch.ids[:, 13].numpy() for batch in split.in_order(512)])
    tenth = tenths(np.array([of_value.get(value, 0) for value in mine.tolist()]))
    assert {name: last[name] for name in TENTHS} == pytest.approx(
        logloss_by_frequency(labels, logits, tenth), nan_ok=True
    )
    assert 0 < outcome.test.others["gauc"] < 1

    writer = StudyWriter(tmp_path / "runs", "asked", 1)
    for row in outcome.evaluations:
        writer.evaluation(0, **row)
    writer.ledger(0, evaluations=len(outcome.evaluations), tested=True)
    scored = {k: None if v != v else v for k, v in outcome.test.as_row().items()}  # as the ledger writes them
    writer.json("test/0000.json", {"trial_id": 0, **scored})
    writer.driver("finished")
    study = results.load(tmp_path / "runs", "asked")
    assert study.problems == []
    assert study.evaluations["gauc"].to_list() == [row["gauc"] for row in outcome.evaluations]
    assert study.trials["test_gauc"].to_list() == [outcome.test.others["gauc"]]
    assert figures.accuracy_against_size(study, axes=figures.Axes(score="gauc")).layout.yaxis.title.text == (
        "AUC within groups (validation split)"
    )
    writer.json("test/0000.json", {"trial_id": 0, **plain.test.as_row()})
    for file in (tmp_path / "runs" / "asked" / "evaluations").iterdir():
        file.unlink()
    for row in plain.evaluations:
        writer.evaluation(0, **row)
    tables = results.load(tmp_path / "runs", "asked")
    assert not [
        c for c in (*tables.evaluations.columns, *tables.trials.columns) if "gauc" in c or "tenth" in c
    ]
    assert isinstance(tables.trials, pl.DataFrame)


def test_objectives_and_constraints_that_nothing_measures_are_refused(shards: Path, tmp_path: Path) -> None:
    assert objectives(asked=True)["gauc"] == "maximize"
    assert "logloss_tenth_1" in constrainable(asked=True)
    file = tmp_path / "asked.yaml"
    study = {
        "name": "asked",
        "data": str(shards),
        "objectives": {"gauc": "maximize", "embedding_bytes": "minimize"},
    }
    file.write_text(json.dumps(study))
    with pytest.raises(InputError, match=r"objectives: gauc is measured where train.gauc_by says by what"):
        config.load(file)
    file.write_text(json.dumps({**study, "train": {"gauc_by": "C3"}}))
    spec = config.load(file)
    assert config.resolve(spec, Manifest.load(shards), "study").train.gauc_by == "C3"
    file.write_text(json.dumps({**study, "train": {"gauc_by": "C33"}}))
    with pytest.raises(
        InputError, match=r"train.gauc_by: the data has no token column .*C33.* \(did you mean C"
    ):
        config.resolve(config.load(file), Manifest.load(shards), "study")


def test_weights_count_rows_that_often() -> None:
    labels, logits, keys = rows()
    times = np.random.default_rng(4).integers(1, 4, 900)
    again = [np.repeat(column, times) for column in (labels, logits, keys)]
    weights = times.astype(np.float32)
    assert group_auc(labels, logits, keys, weights) == pytest.approx(group_auc(*again), rel=1e-12)
    tenth = tenths(keys)
    repeated = logloss_by_frequency(again[0], again[1], np.repeat(tenth, times))
    assert logloss_by_frequency(labels, logits, tenth, weights) == pytest.approx(
        repeated, rel=1e-9, nan_ok=True
    )
    one = calibration_error(labels, logits, 1, weights)
    assert one == pytest.approx(calibration_error(again[0], again[1], 1), rel=1e-9)
