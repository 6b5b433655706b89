"""Models learn what data holds: `full` comes near the Bayes-optimal AUC, small pools stay well above chance."""

import numpy as np
import pytest
import torch

from counted import build_ready
from sizewise.embedding import METHODS
from sizewise.metrics.scores import evaluate_scores
from sizewise.models.dlrm import DLRM

CARDINALITIES = [20, 20, 20, 20]
ROWS, TEST = 160_000, 80_000


@pytest.fixture(scope="module")
def planted():
    """Rows whose log-odds are a sum of value effects, pair effects and dense values, and their true log-odds."""
    random = np.random.default_rng(0)
    total = ROWS + TEST
    ids = random.integers(0, 20, (total, 4))
    dense = random.normal(size=(total, 2)).astype(np.float32)
    factors = random.normal(size=(4, 20, 2)) * 0.6
    effects = random.normal(size=(4, 20)) * 0.5
    columns = np.arange(4)
    vectors = factors[columns, ids]
    pairs = 0.5 * (vectors.sum(1) ** 2 - (vectors**2).sum(1)).sum(1)
    logits = effects[columns, ids].sum(1) + pairs + dense @ [0.4, -0.3] - 1
    labels = (random.random(total) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return dense, ids, labels, logits


def trained_auc(planted, method, budget, epochs, **options):
    """AUC on the last TEST rows after training on the first ROWS."""
    dense, ids, labels, _ = (torch.as_tensor(column) for column in planted)
    model = DLRM(build_ready(method, CARDINALITIES, 8, budget, 1, **options), 2, [16], [32])
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.02)
    order = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for rows in torch.randperm(ROWS, generator=order).split(512):
            logits = model(dense[rows], ids[rows])
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return evaluate_scores(labels[ROWS:], model(dense[ROWS:], ids[ROWS:])).auc


@pytest.mark.slow
def test_full_comes_within_0_005_of_the_best_possible(planted):
    """8,000 rows of training a value leave each effect uncertain by 0.03 or so: the rest must be learnt."""
    _, _, labels, logits = planted
    bayes = evaluate_scores(labels[ROWS:], logits[ROWS:]).auc
    assert bayes > 0.75
    assert trained_auc(planted, "full", 80 * 8 * 4, epochs=3) > bayes - 0.005


@pytest.mark.slow
@pytest.mark.parametrize("method", [method for method in METHODS if method != "full"])
def test_half_the_bytes_learn_a_good_part_of_it(planted, method):
    """All values are equally frequent here, the hardest case for sharing; the bar is a quarter of the way."""
    options = {"block_len": 8} if method == "robe" else {"count_pointers": False} if method == "cce" else {}
    _, _, labels, logits = planted
    bayes = evaluate_scores(labels[ROWS:], logits[ROWS:]).auc
    dense_only = evaluate_scores(labels[ROWS:], planted[0][ROWS:] @ [0.4, -0.3]).auc
    found = trained_auc(planted, method, 80 * 8 * 4 // 2, epochs=1, **options)
    assert found > dense_only + 0.25 * (bayes - dense_only)
