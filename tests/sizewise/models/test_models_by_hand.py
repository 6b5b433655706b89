"""The models against NumPy float64 transcriptions, backward passes too."""

import numpy as np
import pytest
import torch
from tests.sizewise.models.by_hand import (
    BY_HAND,
    CARDINALITIES,
    DIM,
    ROWS,
    Layers,
    array,
    inputs,
    make,
    rows_of,
)
from torch.nn.functional import binary_cross_entropy_with_logits

from sizewise.embedding import Bags, build
from sizewise.models import build as build_model
from sizewise.training.steps.optimizers import build_optimizer


@pytest.mark.parametrize("dense_features", [3, 0])
@pytest.mark.parametrize("kind", BY_HAND)
def test_forward_and_gradients_equal_numpy(kind, dense_features):
    model = make(kind, dense_features).double()
    with torch.no_grad():  # larger than at the start of training, so that every product matters
        model.embedding.table.weight.mul_(50)
        if kind == "dcn":
            for bias in model.crosses.bias:
                bias.normal_(generator=torch.Generator().manual_seed(2))
    dense, ids, label = inputs(dense_features)
    found = model(torch.from_numpy(dense), torch.from_numpy(ids))
    assert found.shape == (ROWS,)
    binary_cross_entropy_with_logits(found, torch.from_numpy(label).double()).backward()

    table = array(model.embedding.table.weight)
    rows = ids + np.cumsum([0, *CARDINALITIES[:-1]])

    def backward(logits):
        np.testing.assert_allclose(array(found), logits, rtol=0, atol=1e-10)
        return (1 / (1 + np.exp(-logits)) - label) / ROWS

    gradients, of_vectors = BY_HAND[kind](model, dense, table[rows], backward)
    of_table = np.zeros_like(table)
    np.add.at(of_table, rows, of_vectors)
    gradients[model.embedding.table.weight] = of_table
    assert gradients.keys() == set(model.parameters())
    for parameter, expected in gradients.items():
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=0, atol=1e-10)
        assert np.abs(expected).max() > 1e-6


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("dense_features", [3, 0])
def test_din_equals_numpy(dense_features, pooling):
    """Four features: the target, another token, the history, and a list that is pooled."""
    cardinalities, lists = (
        [10, 4, 33, 5],
        [[[3], [], [7, 7, 1], [30], [2, 9], [4]], [[], [1, 2], [4], [], [0, 0, 3], [2]]],
    )
    embedding = build("full", cardinalities, DIM, 10**6, 1, pooling=pooling)
    options = {"target": 1, "history": 2, "attention_mlp": [6, 3], "top_mlp": [9, 4]}
    model = build_model("din", embedding, dense_features, options).double()
    with torch.no_grad():
        embedding.table.weight.mul_(80)
    dense, ids, label = inputs(dense_features)
    ids = np.stack([ids[:, 0], ids[:, 2] % 4], axis=1)
    bags = [bag for column in lists for bag in column]
    offsets = torch.tensor(np.cumsum([0, *map(len, bags)]))
    found = model(
        torch.from_numpy(dense),
        torch.from_numpy(ids),
        Bags(torch.tensor([value for bag in bags for value in bag]), offsets),
    )
    binary_cross_entropy_with_logits(found, torch.from_numpy(label).double()).backward()

    table, starts = array(embedding.table.weight), np.cumsum([0, *cardinalities[:-1]])
    attention, top = Layers(model.attention), Layers(model.top)
    row = np.repeat(np.arange(ROWS), list(map(len, lists[0])))
    keys = np.concatenate([np.array(bag, dtype=int) for bag in lists[0]]) + starts[2]
    q, k = table[ids[row, 1] + starts[1]], table[keys]
    weights = attention.forward(np.concatenate([q, k, q - k, q * k], axis=1))
    history, other = np.zeros((ROWS, DIM)), np.zeros((ROWS, DIM))
    np.add.at(history, row, weights * k)
    share = [1 / max(len(bag), 1) if pooling == "mean" else 1 for bag in lists[1]]
    for number, bag in enumerate(lists[1]):
        other[number] = share[number] * table[np.array(bag, dtype=int) + starts[3]].sum(0)
    single = table[ids + starts[:2]]
    logits = top.forward(np.concatenate([dense, single.reshape(ROWS, -1), other, history], axis=1))[:, 0]
    np.testing.assert_allclose(array(found), logits, rtol=0, atol=1e-10)

    gradient = top.backward(((1 / (1 + np.exp(-logits)) - label) / ROWS)[:, None])[:, dense_features:]
    of_single, of_other, of_history = np.split(gradient, [2 * DIM, 3 * DIM], axis=1)
    of_table = np.zeros_like(table)
    np.add.at(of_table, ids + starts[:2], of_single.reshape(ROWS, 2, DIM))
    for number, bag in enumerate(lists[1]):
        for value in bag:
            of_table[value + starts[3]] += share[number] * of_other[number]
    of_weights = (of_history[row] * k).sum(1, keepdims=True)
    of_q, of_k, of_difference, of_product = np.split(attention.backward(of_weights), 4, axis=1)
    np.add.at(of_table, ids[row, 1] + starts[1], of_q + of_difference + of_product * k)
    np.add.at(of_table, keys, weights * of_history[row] + of_k - of_difference + of_product * q)
    expected = {**attention.gradients, **top.gradients, embedding.table.weight: of_table}
    assert expected.keys() == set(model.parameters())
    for parameter, wanted in expected.items():
        np.testing.assert_allclose(parameter.grad.numpy(), wanted, rtol=0, atol=1e-10)
        assert np.abs(wanted).max() > 1e-6


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("method", ["full", "robe", "hash"])
def test_din_steps_its_tables_in_the_backward_pass_as_an_optimizer_would(method, optimizer):
    """By the gradients of single values and of a list's together."""
    dense, ids, bags = rows_of("din")
    label, models = torch.tensor([0.0, 1, 1, 0, 1, 0]), [make("din", method=method) for _ in range(2)]
    for model, in_backward in zip(models, (True, False), strict=True):
        stepper = build_optimizer(optimizer, model, 0.3, in_backward=in_backward)
        for _ in range(4):
            stepper.zero_grad()
            binary_cross_entropy_with_logits(model(dense, ids, bags), label).backward()
            stepper.step()
    before = make("din", method=method).state_dict()
    for name, value in models[1].state_dict().items():
        torch.testing.assert_close(models[0].state_dict()[name], value, rtol=1e-4, atol=1e-6)
        assert not torch.equal(value, before[name]) or value.dim() == 0
