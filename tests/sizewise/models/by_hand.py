"""The models in NumPy with float64, forwards and backwards; small models and rows for them."""

import numpy as np
import torch

from sizewise.embedding import Bags, build
from sizewise.models import MODELS
from sizewise.models import build as build_model

CARDINALITIES, DIM, ROWS = [10, 1, 33], 5, 6
OPTIONS = {
    "dlrm": {"bottom_mlp": [7], "top_mlp": [9, 4]},
    "dcn": {"layers": 3, "rank": 2, "bottom_mlp": [7], "top_mlp": [9, 4]},
    "deepfm": {"top_mlp": [9, 4]},
    "wide_deep": {"top_mlp": [9, 4]},
    "din": {"target": 0, "attention_mlp": [6, 3], "top_mlp": [9, 4]},
    "mlp": {"top_mlp": [9, 4]},
}


def make(kind, dense=3, seed=1, dim=DIM, method="full", **options):
    embedding = build(method, CARDINALITIES, dim, 10**6, seed)
    return build_model(kind, embedding, dense, {**OPTIONS[kind], **options})


def inputs(dense=3):
    random = np.random.default_rng(0)
    ids = np.stack([random.integers(0, n, ROWS) for n in CARDINALITIES], axis=1)
    return random.normal(size=(ROWS, dense)), ids, random.integers(0, 2, ROWS)


def rows_of(kind, dense=3):
    """What a model is called with, float32: its last feature is a list where it needs one."""
    numbers, ids, _ = inputs(dense)
    numbers, ids = torch.from_numpy(numbers).float(), torch.from_numpy(ids)
    if "list" not in MODELS[kind].columns.values():
        return numbers, ids
    lengths = torch.tensor([2, 0, 1, 3, 1, 4])
    values = torch.arange(int(lengths.sum())) % CARDINALITIES[-1]
    return (
        numbers,
        ids[:, :2],
        Bags(values, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])),
    )


def array(parameter):
    return parameter.detach().numpy()


class Layers:
    """An MLP with ReLU between its layers, forwards and backwards."""

    def __init__(self, module, last_relu=False):
        self.linears = [m for m in module if isinstance(m, torch.nn.Linear)]
        self.last_relu = last_relu
        self.gradients = {}

    def forward(self, x):
        self.kept = [x]
        for number, linear in enumerate(self.linears):
            x = x @ array(linear.weight).T + array(linear.bias)
            x = np.maximum(x, 0) if self.last_relu or number < len(self.linears) - 1 else x
            self.kept.append(x)
        return x

    def backward(self, gradient):
        for number, linear in reversed(list(enumerate(self.linears))):
            if self.last_relu or number < len(self.linears) - 1:
                gradient = gradient * (self.kept[number + 1] > 0)
            self.gradients[linear.weight] = gradient.T @ self.kept[number]
            self.gradients[linear.bias] = gradient.sum(0)
            gradient = gradient @ array(linear.weight)
        return gradient


def by_hand_dcn(model, dense, vectors, backward):
    bottom, over = Layers(model.bottom, last_relu=True), Layers(model.over)
    parts = ([bottom.forward(dense)] if model.dense_features else []) + [vectors.reshape(ROWS, -1)]
    start = x = np.concatenate(parts, axis=1)
    crosses = list(zip(model.crosses.down, model.crosses.up, model.crosses.bias, strict=True))
    kept = []
    for v, w, b in crosses:
        low = x @ array(v).T
        factor = low @ array(w).T + array(b)
        kept.append((x, low, factor))
        x = start * factor + x
    gradient = over.backward(backward(over.forward(x)[:, 0])[:, None])
    of_start, gradients = np.zeros_like(start), {}
    for (v, w, b), (x, low, factor) in reversed(list(zip(crosses, kept, strict=True))):
        of_factor, of_start = gradient * start, of_start + gradient * factor
        gradients |= {w: of_factor.T @ low, b: of_factor.sum(0), v: (of_factor @ array(w)).T @ x}
        gradient = gradient + of_factor @ array(w) @ array(v)
    gradient = gradient + of_start
    if model.dense_features:
        bottom.backward(gradient[:, :DIM])
        gradient = gradient[:, DIM:]
    return {**gradients, **bottom.gradients, **over.gradients}, gradient.reshape(vectors.shape)


def by_hand_deepfm(model, dense, vectors, backward):
    deep, v, first = Layers(model.deep), vectors[:, :, :-1], vectors[:, :, -1]
    pairs = sum((v[:, i] * v[:, j]).sum(1) for i in range(3) for j in range(i))
    logits = first.sum(1) + pairs
    logits += deep.forward(np.concatenate([v.reshape(ROWS, -1), dense], axis=1))[:, 0]
    gradients = {}
    if model.dense_features:
        logits += (dense @ array(model.linear.weight).T)[:, 0]
    gradient = backward(logits)
    if model.dense_features:
        gradients[model.linear.weight] = gradient[None] @ dense
    of_vectors = deep.backward(gradient[:, None])[:, : v[0].size].reshape(v.shape)
    of_vectors = of_vectors + gradient[:, None, None] * (v.sum(1, keepdims=True) - v)
    of_first = np.broadcast_to(gradient[:, None, None], (ROWS, 3, 1))
    return {**gradients, **deep.gradients}, np.concatenate([of_vectors, of_first], axis=2)


def by_hand_wide_deep(model, dense, vectors, backward):
    deep, v = Layers(model.deep), vectors[:, :, :-1]
    logits = vectors[:, :, -1].sum(1)
    logits += deep.forward(np.concatenate([v.reshape(ROWS, -1), dense], axis=1))[:, 0]
    if model.dense_features:
        logits += (dense @ array(model.linear.weight).T)[:, 0]
    gradient, gradients = backward(logits), {}
    if model.dense_features:
        gradients[model.linear.weight] = gradient[None] @ dense
    of_vectors = deep.backward(gradient[:, None])[:, : v[0].size].reshape(v.shape)
    of_first = np.broadcast_to(gradient[:, None, None], (ROWS, 3, 1))
    return {**gradients, **deep.gradients}, np.concatenate([of_vectors, of_first], axis=2)


def by_hand_mlp(model, dense, vectors, backward):
    layers = Layers(model.layers)
    logits = layers.forward(np.concatenate([dense, vectors.reshape(ROWS, -1)], axis=1))[:, 0]
    gradient = layers.backward(backward(logits)[:, None])
    return layers.gradients, gradient[:, dense.shape[1] :].reshape(vectors.shape)


BY_HAND = {"dcn": by_hand_dcn, "deepfm": by_hand_deepfm, "wide_deep": by_hand_wide_deep, "mlp": by_hand_mlp}
