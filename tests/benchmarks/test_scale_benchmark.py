"""`python -m benchmarks.scale` runs from end to end on a CPU; and what its numbers rest on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.scale.arrays import Data, Split, number_values, predicted, scored
from benchmarks.scale.methods import FingerprintKeys, Repeated, Spec, make
from benchmarks.scale.runs import Training, train
from benchmarks.scale.table import Evaluation, Record, reached
from benchmarks.scale.training import Schedule, fit, mixed
from sklearn.metrics import log_loss, roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from sizewise.embedding import full_bytes, fused

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
UNIVERSE = [5, 300, 4000]


def rows(count: int, seed: int) -> Split:
    generator = np.random.default_rng(seed)
    ids = np.stack([(limit * generator.random(count) ** 4).astype(np.int32) for limit in UNIVERSE], axis=1)
    label = (generator.random(count) < 0.2 + 0.5 * (ids[:, 1] < 10)).astype(np.uint8)
    dense = generator.random((count, 13), np.float32)
    return Split(torch.from_numpy(dense), torch.from_numpy(ids), torch.from_numpy(label))


def numbered() -> tuple[Data, Split]:
    """Data, and its training rows before they were numbered."""
    splits = [rows(2000, 1), rows(500, 2), rows(500, 3)]
    before = Split(splits[0].dense, splits[0].ids.clone(), splits[0].label)
    values = number_values(splits[0], splits[1:], UNIVERSE, with_clicks=True)
    return Data(*splits, values), before


def test_values_are_numbered_by_what_training_rows_hold() -> None:
    data, before = numbered()
    test = rows(500, 3)
    for column, size in enumerate(data.values.sizes):
        seen, number, counts = np.unique(
            before.ids[:, column].numpy(), return_inverse=True, return_counts=True
        )
        assert size == len(seen)
        assert (data.train.ids[:, column].numpy() == number + 1).all()
        start = int(data.values.starts()[column])
        assert data.values.counts[start : start + size + 1].tolist() == [0, *counts.tolist()]
        assert data.values.clicks is not None
        clicks = np.bincount(number, before.label.numpy(), size).astype(int)
        assert data.values.clicks[start : start + size + 1].tolist() == [0, *clicks.tolist()]
        # Values that training rows lack keep apart, above the others.
        unseen = ~np.isin(test.ids[:, column].numpy(), seen)
        found = data.test.ids[:, column].numpy()
        assert ((found > size) == unseen).all()
        assert len(np.unique(found[unseen])) == len(np.unique(test.ids[:, column].numpy()[unseen]))
    assert (data.test.ids[:, 2] > data.values.sizes[2]).any()


def test_scores_and_the_error_of_their_difference() -> None:
    generator = np.random.default_rng(5)
    label = (generator.random(4000) < 0.3).astype(np.uint8)
    logits = [np.round(generator.normal(size=4000) + s * label, 1).astype(np.float32) for s in (1.0, 1.1)]
    found = [scored(torch.from_numpy(label), torch.from_numpy(z), with_parts=True) for z in logits]
    for mine, z in zip(found, logits, strict=True):
        assert mine.auc == pytest.approx(roc_auc_score(label, z), abs=1e-12)
        assert mine.logloss == pytest.approx(log_loss(label, 1 / (1 + np.exp(-z.astype(float)))), abs=1e-9)
    assert found[0].error_of_difference(found[0]) == 0
    # Of independent scores: the errors' squares add up (Hanley and McNeil: about 0.0095 each here).
    assert 0.008 < found[0].error_of_difference(found[1]) < 0.018


def test_a_student_of_mixed_labels_has_the_sum_of_both_losses() -> None:
    label, teacher, logits = torch.tensor([0, 1, 1, 0]), torch.randn(4), torch.randn(4)
    both = 0.1 * binary_cross_entropy_with_logits(logits, label.float())
    both += 0.9 * binary_cross_entropy_with_logits(logits, torch.sigmoid(teacher))
    assert float(binary_cross_entropy_with_logits(logits, mixed(label, teacher).float())) == pytest.approx(
        float(both), abs=1e-3
    )


def test_hot_values_find_their_rows_and_others_hardly_ever_do() -> None:
    data, _ = numbered()
    values = data.values
    chosen = torch.nonzero(values.counts >= 4).squeeze(1)
    keys = FingerprintKeys(chosen, values, bits=6, seed=1, exact=False)
    row_of = keys.of_training_values(values)
    feature = torch.searchsorted(values.starts().long(), chosen, right=True) - 1
    for column in range(3):
        mine = row_of[chosen[feature == column]]
        assert (mine > 0).all()
        assert mine.max() <= keys.rows[column]
    others = (values.counts > 0) & (values.counts < 4)
    assert 0 < float((row_of[others] > 0).float().mean()) < 0.08  # one in 64 is expected
    # What training rows look up is what any rows do, and exact keys find exactly what was chosen.
    ids = data.train.ids[:200]
    assert (keys(ids) == row_of[(ids + values.starts()).long()]).all()
    exact = FingerprintKeys(chosen, values, 6, 1, exact=True).of_training_values(values)
    assert set(torch.nonzero(exact).squeeze(1).tolist()) == set(chosen.tolist())
    # A feature without hot values has no rows and takes none of another's.
    alone = FingerprintKeys(chosen[feature == 2], values, 6, 1, exact=False)
    assert alone.rows[:2] == [0, 0]
    assert (alone(ids)[:, :2] == 0).all()


@pytest.mark.parametrize("by", ["count", "chi"])
@pytest.mark.parametrize("ratio", [100, 150])
def test_everything_that_ships_fits_into_the_budget(by: str, ratio: int) -> None:
    data, _ = numbered()
    budget = full_bytes(data.values.cardinalities, 16) // ratio
    hot = make(Spec("hot", ratio, width=2, bits=4, by=by), data.values, 1, CPU)
    assert 0.85 * budget < hot.shipped_bytes <= budget
    for spec in (Spec("robe", ratio), Spec("robe", ratio, bits=4), Spec("hash", ratio, width=1, bits=4)):
        assert 0.9 * budget < make(spec, data.values, 1, CPU).shipped_bytes <= budget


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2, 8])
def test_narrow_vectors_interact_on_a_gpu_as_if_they_were_repeated(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    data, _ = numbered()
    few = data.train.head(12)

    def trained() -> tuple[torch.Tensor, torch.Tensor]:
        method = make(Spec("hot", 10, width=width, bits=8), data.values, 1, CPU)
        assert isinstance(method.embedding, Repeated)
        table = next(method.embedding.parameters())
        with torch.no_grad():
            table.mul_(50)  # so that the interaction matters
        model = method.model()
        before = predicted(model, method.ids, few, 12)
        fit(method, model, few, few.label, Schedule(1, 6, 0.05), 1, lambda *_: True)
        return before, predicted(model, method.ids, few, 12)

    plain = trained()
    monkeypatch.setattr(fused, "TRITON_ON", {"cuda", "cpu"})
    for mine, theirs in zip(trained(), plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain[0], plain[1])


def test_numbers_are_rounded_while_they_ship_and_train_on_as_they_were() -> None:
    data, _ = numbered()
    method = make(Spec("hot", 10, width=2, bits=4), data.values, 1, CPU)
    table = next(method.embedding.parameters()).detach()
    before = table.clone()
    with method.shipped():
        for piece in method.pieces():
            assert len(piece.unique()) <= 16
        assert not table.equal(before)
    assert table.equal(before)


def test_a_rate_that_falls_and_the_order_of_later_epochs() -> None:
    data, _ = numbered()
    data.train = data.train.head(1920)
    method = make(Spec("robe", 10), data.values, 1, CPU)
    seen: list[tuple[int, float]] = []
    schedule = Schedule(3, 64, 0.1, falling=True, looks=(0.5, 1, 2))
    rows, label = data.train, data.train.label
    assert fit(method, method.model(), rows, label, schedule, 1, lambda n, e, _: not seen.append((n, e)))
    assert seen == [(15, 0.5), (30, 1.0), (60, 2.0), (90, 3.0)]
    assert not fit(method, method.model(), rows, label, schedule, 1, lambda *_: False)


def test_where_a_curve_reaches_an_auc() -> None:
    curve = [Evaluation("a", n, n / 40, 0.0, auc, 0.5) for n, auc in ((10, 0.6), (20, 0.7), (40, 0.8))]
    assert reached(curve, 0.55) == 10
    assert reached(curve, 0.75) == pytest.approx(30)
    assert reached(curve, 0.81) is None


def test_a_training_that_was_cut_short_is_forgotten_and_trained_again(tmp_path: Path) -> None:
    data, _ = numbered()
    record = Record.open(tmp_path)

    def run(training: Training, late: bool) -> None:
        method = make(training.spec, data.values, 1, CPU)
        schedule = Schedule(training.epochs, 250, 0.02, looks=(0.5, 1.0))
        train(training, method, method.model(), data, data.train.label, schedule, record, late=lambda: late)

    first, second = Training(Spec("robe", 10), epochs=2), Training(Spec("robe", 20))
    run(first, late=False)
    run(second, late=True)
    assert [result.state for result in record.results] == ["epoch", "end", "cut short"]
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"run": "torn')
    again = Record.open(tmp_path)
    assert again.has(first.key)
    assert not again.has(second.key)
    assert again.results == record.results[:2]
    assert {evaluation.run for evaluation in again.evaluations} == {first.key}
    assert again.results[0].test_auc > 0.6


@pytest.mark.slow
def test_the_program_from_end_to_end_and_again(tmp_path: Path) -> None:
    only = "hot 1000x dim2 4bit f6 least2 count 1ep taught"
    command = [sys.executable, "-m", "benchmarks.scale", "--smoke", "--only", only, "--out", str(tmp_path)]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": f"{ROOT}/platform:{ROOT}/data_prep",
    }

    def run() -> str:
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    printed = run()
    table = (tmp_path / "table.md").read_text()
    assert "Bayes AUC on the test rows 0.78" in table
    assert "| labels and 2 teachers (rate falls to 0) | 1 | 1.00 | 16 |" in table
    assert "finished before" not in printed
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["name"] for row in results][:3] == ["full", "full", "full"]
    assert (tmp_path / "table.csv").read_text().count("\n") == len(results) + 1
    assert run().count("finished before") == len({row["run"] for row in results})
    again = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert again == results


@pytest.mark.slow
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.scale", "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "no CUDA device here: nothing measured (--smoke runs all of it without one)\n"
    assert not (tmp_path / "out").exists()
