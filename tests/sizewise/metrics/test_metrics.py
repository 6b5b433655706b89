"""Metrics against scikit-learn and direct formulas, on ordinary and on adversarial input."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from sizewise.metrics.scores import StreamingScores, evaluate_scores
from sizewise_core.errors import InputError


def sample(rows=5000, seed=0, rounded=1, scale=1.0):
    random = np.random.default_rng(seed)
    logits = (random.normal(size=rows) * scale).round(rounded)
    labels = (random.random(rows) < 1 / (1 + np.exp(-np.clip(logits, -60, 60) / 2))).astype(int)
    labels[:2] = 0, 1
    return labels, logits


@pytest.mark.parametrize("scale", [0.1, 1, 10])
def test_agrees_with_scikit_learn(scale):
    labels, logits = sample(scale=scale)
    scores = evaluate_scores(labels, logits)
    probabilities = 1 / (1 + np.exp(-logits))
    assert scores.auc == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    assert scores.logloss == pytest.approx(log_loss(labels, probabilities), abs=1e-12)
    assert scores.calibration == pytest.approx(probabilities.sum() / labels.sum(), abs=1e-12)
    base = log_loss(labels, np.full(len(labels), labels.mean()))
    assert scores.normalized_entropy == pytest.approx(scores.logloss / base, abs=1e-12)
    assert scores.undefined == ""


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=40))
def test_auc_counts_pairs(rows):
    labels, logits = (np.array(column) for column in zip(*rows, strict=True))
    scores = evaluate_scores(labels, logits)
    if labels.min() == labels.max():
        assert np.isnan(scores.auc)
        return
    clicks, others = logits[labels == 1], logits[labels == 0]
    wins = (clicks[:, None] > others).sum() + 0.5 * (clicks[:, None] == others).sum()
    assert scores.auc == pytest.approx(wins / (len(clicks) * len(others)), abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("streamed", [False, True])
def test_one_class_is_undefined_and_says_why(label, streamed):
    stream = StreamingScores()
    stream.update([label] * 3, [0.1, 0.2, 0.3])
    scores = stream.scores() if streamed else evaluate_scores([label] * 3, [0.1, 0.2, 0.3])
    assert np.isnan(scores.auc)
    assert np.isnan(scores.normalized_entropy)
    assert np.isfinite(scores.logloss)
    assert np.isnan(scores.calibration) == (label == 0)
    assert f"all 3 labels are {label}" in scores.undefined
    assert np.isnan(stream.auc_error)


def test_all_ties_are_one_half():
    assert evaluate_scores([0, 1, 1], [2.0, 2.0, 2.0]).auc == 0.5


def test_saturated_float32_keeps_its_loss():
    """Probabilities of these logits are 0 and 1 in float32; the loss is still the logit's size."""
    scores = evaluate_scores([0, 1, 0, 1], np.float32([200.0, -200.0, -200.0, 200.0]))
    assert scores.logloss == pytest.approx(100.0, abs=1e-12)
    assert scores.auc == 0.5


def test_infinite_logits_have_an_order_and_an_infinite_loss():
    right = evaluate_scores([0, 1, 1], [-np.inf, 0.0, np.inf])
    assert right.auc == 1.0
    assert right.logloss == pytest.approx(np.log(2) / 3, abs=1e-12)
    assert evaluate_scores([0, 1], [np.inf, 0.0]).logloss == np.inf


def test_huge_losses_do_not_overflow():
    scores = evaluate_scores([0, 1], np.float32([3e38, 0.0]))
    assert scores.logloss == pytest.approx((float(np.float32(3e38)) + np.log(2)) / 2, rel=1e-15)


@pytest.mark.parametrize("evaluate", [evaluate_scores, StreamingScores().update])
@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([0, 1], [0.0], "2 labels and 1 logits"),
        ([0, 2], [0.0, 1.0], "labels must be 0 or 1"),
        ([0, np.nan], [0.0, 1.0], "labels must be 0 or 1"),
        ([0, 1], [0.0, np.nan], "1 of 2 logits are NaN"),
    ],
)
def test_bad_input_is_refused(evaluate, labels, logits, message):
    with pytest.raises(InputError, match=message):
        evaluate(labels, logits)


def test_no_rows_are_refused():
    with pytest.raises(InputError, match="at least one row"):
        evaluate_scores([], [])
    with pytest.raises(InputError, match="at least one"):
        StreamingScores().scores()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), workers=st.integers(1, 5), scale=st.sampled_from([0.01, 1.0, 30.0, 1e7]))
def test_parts_in_any_order_equal_the_whole(seed, workers, scale):
    """Loss, entropy and calibration bit for bit, AUC within its stated error, over workers and orders."""
    labels, logits = sample(700, seed, rounded=9, scale=scale)
    exact = evaluate_scores(labels, logits)
    random = np.random.default_rng(seed)
    order = random.permutation(700)
    streams = [StreamingScores(bins=512) for _ in range(workers)]
    for part in np.array_split(order, 13):
        streams[random.integers(workers)].update(labels[part], logits[part])
    total = pickle.loads(pickle.dumps(streams[0]))
    for stream in streams[1:]:
        total.merge(stream)
    found = total.scores()
    assert (found.logloss, found.normalized_entropy, found.calibration) == exact[1:2] + exact[2:4]
    assert abs(found.auc - exact.auc) <= total.auc_error + 1e-12


def test_auc_error_is_small_at_the_default_and_reached_in_the_worst_case():
    labels, logits = sample(100_000, rounded=9)
    stream = StreamingScores()
    stream.update(labels, logits)
    assert stream.auc_error < 1e-4
    assert abs(stream.scores().auc - evaluate_scores(labels, logits).auc) < 1e-5
    worst = StreamingScores(bins=1)
    worst.update([0, 1], [-1.0, 1.0])
    assert worst.scores().auc == 0.5
    assert worst.auc_error == 0.5


def test_different_bins_do_not_merge():
    with pytest.raises(InputError, match="same bins and limit"):
        StreamingScores(bins=4).merge(StreamingScores(bins=8))
