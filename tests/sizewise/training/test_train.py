"""The training loop: learns, resumes to the last bit, scores the test split once, fails with a reason."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sizewise.config.trial import TrialConfig
from sizewise.embedding.ids.keys import ContiguousKeys
from sizewise.metrics.evaluation import best
from sizewise.training.checkpoints import checkpoint
from sizewise.training.input.batches import Split
from sizewise.training.loop import (
    DivergedError,
    Outcome,
    build_model,
    evaluation_points,
    model_sizes,
    predict,
    train,
)
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.prep import prepare
from sizewise_prep.shards.manifest import Manifest

ASKED = {"gauc_by": "C3", "frequency_of": "C14", "calibration_bins": 20}
TIMED = {"train_seconds", "samples_per_second", "peak_memory_bytes"}


def untimed(outcome: Outcome) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = [{k: v for k, v in row.items() if k not in TIMED} for row in outcome.evaluations]
    return rows, outcome.test


@pytest.mark.parametrize(("method", "options"), [("full", {}), ("qr", {}), ("tt", {})])
def test_contiguous_ids_are_known_from_the_data(
    trial_config: Callable[..., TrialConfig],
    shards: Path,
    contiguous_shards: Path,
    method: str,
    options: dict[str, Any],
) -> None:
    for folder, contiguous in ((shards, False), (contiguous_shards, True)):
        config = trial_config(data=str(folder), method=method, options=options, memory_budget=10_000_000)
        batch = Split.open(folder, "train").batch(0, 0, 64, seed=1)
        model = build_model(config, Manifest.load(folder))
        if method == "full" and not contiguous:
            with pytest.raises(InputError, match="contiguous"):
                model(batch.dense, batch.ids)
            continue
        assert model(batch.dense, batch.ids).shape == (64,)
        if method != "full":
            assert isinstance(model.embedding.keys, ContiguousKeys) == contiguous


class KilledError(Exception):
    """Stands for the end of the process."""


def killed_after(evaluations: int) -> Callable[[dict[str, Any]], None]:
    seen = []

    def report(row: dict[str, Any]) -> None:
        seen.append(row)
        if len(seen) == evaluations:
            raise KilledError

    return report


def test_it_learns_and_reports_every_evaluation(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    reported: list[dict[str, Any]] = []
    outcome = train(trial_config(epochs=4), tmp_path, reported.append)
    assert reported == outcome.evaluations
    assert [row["iteration"] for row in reported] == [12, 25, 38, 50, 62, 75, 88, 100]
    assert best(reported)["auc"] > reported[0]["auc"] > 0.5
    assert reported[-1]["samples"] == 4 * 3_200
    assert reported[-1]["embedding_bytes"] <= 20_000


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adagrad"},
        {"optimizer": "adam"},
        {"precision": "bfloat16"},
        {"options": {"block_len": 8, "storage": "int8"}},
        {"options": {"block_len": 8, "storage": "bfloat16"}},
        {"options": {"block_len": 8, "storage": "int4", "group": 64}},
        {"method": "hash", "options": {"storage": "int2"}, "optimizer": "adam"},
        {"also_stored_as": ["int8", "int4"]},
        {"method": "cce", "options": {"cluster_every": 20, "count_pointers": False, "storage": "int4"}},
        {"method": "hash", "options": {}},
        {"method": "qr", "options": {}, "memory_budget": 200_000},
        {"method": "tt", "options": {}},
        # clusters at iterations 20 and 40, between and after the interruptions
        {"method": "cce", "options": {"cluster_every": 20, "count_pointers": False}},
        # after the first epoch and the second, at iterations 25 and 50
        {"method": "cce", "options": {"count_pointers": False}, "evaluate_every": 0.6, "epochs": 3},
        {"method": "hot", "options": {"storage": "bfloat16", "hashed_share": 0.2}},
        {"decay": "cosine", "decay_share": 0.4, "schedule_warmup": 0.2, "weight_decay": 1e-4, "dropout": 0.1},
        {"optimizer": "rowwise_adagrad", "dropout": 0.2, "accumulate": 3, "clip_norm": 0.5},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_a_resumed_trial_equals_the_uninterrupted_one_to_the_last_bit(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = trial_config(**changes)
    calm = train(config, tmp_path / "calm", lambda row: None)
    for evaluations in (1, 2):  # killed twice, the second time after going on from a checkpoint
        with pytest.raises(KilledError):
            train(config, tmp_path / "killed", killed_after(evaluations))
    resumed = train(config, tmp_path / "killed", lambda row: None)
    assert untimed(resumed) == untimed(calm)
    ours, theirs = (checkpoint.load_newest(tmp_path / name) for name in ("killed", "calm"))
    assert ours is not None
    assert theirs is not None
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value), name


def test_trials_share_a_curve_unless_their_schedule_depends_on_their_length(
    trial_config: Callable[..., TrialConfig],
) -> None:
    def shared(options: dict[str, Any]) -> bool:
        short, long = (trial_config(method="cce", options=options, epochs=epochs) for epochs in (1, 3))
        return short.curve() == long.curve()

    assert shared({})
    assert shared({"cluster_every": 90})
    assert not shared(
        {"cluster_every": 0.9}
    )  # one epoch ends without clustering, three cluster within the first


def test_a_checkpoint_between_evaluations_is_enough(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial_config(evaluate_every=25)
    calm = train(config, tmp_path / "calm", lambda row: None)
    saves: list[int] = []
    save = checkpoint.save

    def save_then_die(folder: Path, iteration: int, state: dict[str, Any]) -> None:
        save(folder, iteration, state)
        saves.append(iteration)
        if iteration == 7:
            raise KilledError

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    eager = trial_config(evaluate_every=25, checkpoint_seconds=1e-9)
    with pytest.raises(KilledError):
        train(eager, tmp_path / "killed", lambda row: None)
    monkeypatch.undo()
    assert saves == [1, 2, 3, 4, 5, 6, 7]
    assert untimed(train(config, tmp_path / "killed", lambda row: None)) == untimed(calm)


def test_what_a_checkpoint_carried_is_told_first(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config()
    evaluations: list[dict[str, Any]] = []
    with pytest.raises(KilledError):
        train(config, tmp_path, killed_after(2))
    told: list[Any] = []
    train(config, tmp_path, evaluations.append, resumed=lambda *what: told.append(what))
    ((carried, damage),) = told
    assert [row["iteration"] for row in carried + evaluations] == evaluation_points(config, 25)
    assert damage == []


def test_damaged_weights_of_the_best_evaluation_have_the_trial_start_anew(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    calm = train(trial_config(), tmp_path / "calm", lambda row: None)
    with pytest.raises(KilledError):
        train(trial_config(), tmp_path / "killed", killed_after(2))
    (weights,) = (tmp_path / "killed").glob("best-*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    told: list[Any] = []
    again = train(
        trial_config(), tmp_path / "killed", lambda row: None, resumed=lambda *what: told.append(what)
    )
    ((carried, damage),) = told
    assert carried == []
    assert damage == [f"{weights}: its content does not match its checksum: the trial starts anew"]
    assert untimed(again) == untimed(calm)
    assert len(list((tmp_path / "killed").glob("*.damaged"))) == 2


def test_a_finished_trial_returns_what_it_had(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    first = train(trial_config(), tmp_path, lambda row: None)
    reported: list[dict[str, Any]] = []
    again = train(trial_config(), tmp_path, reported.append)
    assert reported == []
    assert again == first


def test_the_test_split_is_scored_at_the_best_evaluation(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    # So high a rate over-fits at once: the best evaluation is not the last one.
    outcome = train(
        trial_config(epochs=6, learning_rate=0.3, memory_budget=2_000_000), tmp_path, lambda row: None
    )
    top = best(outcome.evaluations)
    assert outcome.test.iteration == top["iteration"] < outcome.evaluations[-1]["iteration"]
    assert 0.5 < outcome.test.scores.auc < 1.0
    assert len(list(tmp_path.glob("best-*.safetensors"))) == 1


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_scores_are_those_of_all_rows_in_order(
    at_once: int, trial_config: Callable[..., TrialConfig], shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches a GPU is left alone with."""
    monkeypatch.setattr("sizewise.training.scoring.predicting.EVALUATED_AT_ONCE", at_once)
    model, split = build_model(trial_config(), Manifest.load(shards)), Split.open(shards, "validation")
    (whole,) = split.in_order(split.rows)
    labels, logits = predict(model, split.in_order(split.rows // 7, ahead=True), torch.device("cpu"))
    np.testing.assert_array_equal(labels, whole.label.numpy())
    np.testing.assert_allclose(logits, model(whole.dense, whole.ids).detach().numpy(), atol=1e-6)


def test_without_test_rows_there_is_no_test_score(
    trial_config: Callable[..., TrialConfig], shards: Path, tmp_path: Path
) -> None:
    prepare([shards.parent / "raw" / "day_0.tsv"], tmp_path / "shards", split=(0.9, 0.1, 0.0))
    outcome = train(
        trial_config(data=str(tmp_path / "shards"), epochs=1), tmp_path / "trial", lambda row: None
    )
    assert np.isnan(outcome.test.scores.auc)
    assert outcome.test.scores.undefined == "the data has no test rows"


def test_a_diverged_trial_says_so(trial_config: Callable[..., TrialConfig], tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"iteration \d+ \(learning rate 1e\+30\): search lower"):
        train(trial_config(optimizer="sgd", learning_rate=1e30), tmp_path, lambda row: None)


@pytest.mark.parametrize(("optimizer", "states"), [("sgd", 0), ("adagrad", 1), ("adam", 2)])
def test_the_state_of_the_optimizer_is_counted_apart(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, optimizer: str, states: int
) -> None:
    (row,) = train(
        trial_config(optimizer=optimizer, epochs=1, evaluate_every=1.0), tmp_path, print
    ).evaluations
    parameters = 1 + 2 * 4  # the pool; weight and bias of two layers in each MLP
    counts = 4 * parameters if states else 0  # steps, a float32 each
    assert row["optimizer_bytes"] == states * row["model_bytes"] + counts


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (0.5, [5, 10, 15, 20]),
        (1.0, [10, 20]),
        (8, [8, 16, 20]),
        (0.001, list(range(1, 21))),
        (1e-300, list(range(1, 21))),
        (100, [20]),
    ],
)
def test_evaluation_points(
    trial_config: Callable[..., TrialConfig], every: float, expected: list[int]
) -> None:
    assert evaluation_points(trial_config(evaluate_every=every), 10) == expected


# A process of its own rather than a fork of pytest's, whose __main__ other tests may have replaced.
WORKER = """
import json, os, sys, torch.distributed
from pathlib import Path
from sizewise.training.loop import Worker, train
from sizewise.config.trial import TrialConfig
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
for number, config in enumerate(map(TrialConfig.model_validate_json, sys.argv[3:])):
    teacher = json.loads(os.environ["TEACHER"]) if config.train.distill_teacher else ()
    train(config, folder / f"shared-{number}", lambda row: None, worker=Worker(rank, 2), teacher=teacher)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_workers_train_the_model_of_one(
    trial_config: Callable[..., TrialConfig], contiguous_shards: Path, tmp_path: Path
) -> None:
    """Each with half of every batch: pool or tables, and MLPs. And say what they send. So do students."""
    np.save(tmp_path / "scores.npy", np.linspace(-3, 1, 3_200, dtype=np.float32))
    scores = {
        "kind": "scores",
        "name": "s",
        "path": str(tmp_path / "scores.npy"),
        "digest": "s",
        "rows": 3_200,
    }
    # Scores are kept beside the shards: not beside those that all tests of a process share.
    own = Path(shutil.copytree(trial_config().data, tmp_path / "own"))
    settings: dict[str, Any] = {"evaluate_every": 1.0, "learning_rate": 0.1}
    student = {"data": str(own), "decay": "linear", "distill_teacher": ["s"], "distill_temperature": 2.0}
    full = {"data": str(contiguous_shards), "method": "full", "options": {}, "memory_budget": 10_000_000}
    configs = [
        trial_config(**settings, optimizer="sgd"),
        trial_config(**settings, optimizer="sgd", **full),
        trial_config(
            evaluate_every=1.0, epochs=1, method="cce", options={"cluster_every": 10}, memory_budget=200_000
        ),
        trial_config(**settings, optimizer="sgd", **student),
        trial_config(**settings, optimizer="sgd", accumulate=3, clip_norm=0.05, **ASKED),
    ]
    arguments = [str(tmp_path), *(config.model_dump_json() for config in configs)]
    environment = {**os.environ, "TEACHER": json.dumps([scores])}
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), *arguments], env=environment)
        for rank in (0, 1)
    ]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    for number, config in enumerate(configs):
        teacher = [scores] if config.train.distill_teacher else []
        train(config, tmp_path / f"alone-{number}", lambda row: None, teacher=teacher)
        two, one = (checkpoint.load_newest(tmp_path / f"{name}-{number}") for name in ("shared", "alone"))
        assert two is not None
        assert one is not None
        if config.embedding.method != "cce":  # whose clusters a last bit may change
            for name, value in one["model"].items():
                np.testing.assert_allclose(two["model"][name], value, rtol=1e-3, atol=1e-5, err_msg=name)
        assert [row["auc"] for row in two["evaluations"]] == pytest.approx(
            [row["auc"] for row in one["evaluations"]], abs=1e-3 if config.embedding.method != "cce" else 2e-2
        )
        for metric in ("gauc", "calibration_error", "logloss_tenth_2"):  # whose rows the workers share
            for ours, theirs in zip(two["evaluations"], one["evaluations"], strict=True):
                assert ours.get(metric, 0.0) == pytest.approx(theirs.get(metric, 0.0), abs=1e-3)
        assert {row["wire_bytes"] for row in one["evaluations"]} == {0}
        trained = sum(tensor.nbytes for tensor in one["model"].values() if tensor.is_floating_point())
        assert {row["wire_bytes"] for row in two["evaluations"]} == {
            trained
        }  # half of it twice, around the ring


@pytest.mark.parametrize("method", ["robe", "hash", "qr", "tt", "cce", "hot"])
def test_sizes_are_known_before_training(method: str, trial_config: Callable[..., TrialConfig]) -> None:
    config = trial_config(method=method, options={}, memory_budget=1_000_000)
    manifest = Manifest.load(Path(config.data))
    model = build_model(config, manifest)
    assert model_sizes(config, manifest) == {
        "embedding_bytes": model.embedding.embedding_bytes,
        "model_bytes": model.model_bytes,
    }
