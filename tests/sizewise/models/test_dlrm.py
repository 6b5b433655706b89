"""DLRM against a NumPy float64 transcription of the published architecture, with its own backward pass."""

import numpy as np
import pytest
import torch

from sizewise.embedding import build
from sizewise.models.dlrm import DLRM

CARDINALITIES = [10, 1, 33]


def make(bottom=(7, 5), top=(9, 4), dim=5, seed=1):
    embedding = build("full", CARDINALITIES, dim, 10**6, seed)
    return DLRM(embedding, 3, bottom, top)


def inputs(rows=6):
    random = np.random.default_rng(0)
    ids = np.stack([random.integers(0, n, rows) for n in CARDINALITIES], axis=1)
    return random.normal(size=(rows, 3)), ids, random.integers(0, 2, rows)


def layers(mlp):
    return [
        (m.weight.detach().numpy(), m.bias.detach().numpy()) for m in mlp if isinstance(m, torch.nn.Linear)
    ]


def numpy_loss_and_gradients(model, dense, ids, labels):
    """Logits, mean binary cross-entropy and its gradients, written out layer by layer."""
    table = model.embedding.table.weight.detach().numpy()
    rows = ids + np.cumsum([0, *CARDINALITIES[:-1]])
    bottom, top = layers(model.bottom), layers(model.top)

    def forward(x, mlp, last_relu):
        kept = [x]
        for number, (weight, bias) in enumerate(mlp):
            x = x @ weight.T + bias
            if last_relu or number < len(mlp) - 1:
                x = np.maximum(x, 0)
            kept.append(x)
        return kept

    def backward(gradient, kept, mlp, last_relu):
        out = []
        for number in reversed(range(len(mlp))):
            if last_relu or number < len(mlp) - 1:
                gradient = gradient * (kept[number + 1] > 0)
            out.append((gradient.T @ kept[number], gradient.sum(0)))
            gradient = gradient @ mlp[number][0]
        return gradient, out[::-1]

    below = forward(dense, bottom, True)
    vectors = np.concatenate([below[-1][:, None], table[rows]], axis=1)
    pairs = [(i, j) for i in range(vectors.shape[1]) for j in range(i)]
    dots = np.stack([(vectors[:, i] * vectors[:, j]).sum(1) for i, j in pairs], axis=1)
    above = forward(np.concatenate([below[-1], dots], axis=1), top, False)
    logits = above[-1][:, 0]
    loss = np.mean(np.logaddexp(0, logits) - labels * logits)

    gradient = ((1 / (1 + np.exp(-logits)) - labels) / len(labels))[:, None]
    gradient, top_gradients = backward(gradient, above, top, False)
    dim = vectors.shape[2]
    vector_gradients = np.zeros_like(vectors)
    vector_gradients[:, 0] = gradient[:, :dim]
    for number, (i, j) in enumerate(pairs):
        part = gradient[:, dim + number, None]
        vector_gradients[:, i] += part * vectors[:, j]
        vector_gradients[:, j] += part * vectors[:, i]
    _, bottom_gradients = backward(vector_gradients[:, 0], below, bottom, True)
    table_gradient = np.zeros_like(table)
    np.add.at(table_gradient, rows, vector_gradients[:, 1:])
    return logits, loss, bottom_gradients, top_gradients, table_gradient


def test_forward_and_gradients_equal_numpy():
    model = make().double()
    # Larger vectors than at the start of training, so that the interaction matters in every gradient.
    with torch.no_grad():
        model.embedding.table.weight.mul_(50)
    dense, ids, labels = inputs()
    logits, loss, bottom, top, table = numpy_loss_and_gradients(model, dense, ids, labels)
    found = model(torch.from_numpy(dense), torch.from_numpy(ids))
    np.testing.assert_allclose(found.detach().numpy(), logits, rtol=0, atol=1e-10)
    criterion = torch.nn.functional.binary_cross_entropy_with_logits(found, torch.from_numpy(labels).double())
    assert criterion.item() == pytest.approx(loss, abs=1e-12)
    criterion.backward()
    for mlp, expected in ((model.bottom, bottom), (model.top, top)):
        linears = [m for m in mlp if isinstance(m, torch.nn.Linear)]
        for linear, (weight, bias) in zip(linears, expected, strict=True):
            np.testing.assert_allclose(linear.weight.grad.numpy(), weight, rtol=0, atol=1e-10)
            np.testing.assert_allclose(linear.bias.grad.numpy(), bias, rtol=0, atol=1e-10)
            assert np.abs(weight).max() > 1e-6
    np.testing.assert_allclose(model.embedding.table.weight.grad.numpy(), table, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("bottom", "widths"), [((128, 64), [3, 128, 64, 16]), ((128, 16), [3, 128, 16]), ((), [3, 16])]
)
def test_bottom_mlp_ends_at_dim(bottom, widths):
    linears = [m for m in make(bottom, (9,), dim=16).bottom if isinstance(m, torch.nn.Linear)]
    assert [linears[0].in_features, *(m.out_features for m in linears)] == widths


def test_mlperf_configuration_has_its_published_sizes():
    """13-512-256-128 and 1024-1024-512-256-1 at dim 128 with 26 features: 2,368,897 MLP parameters."""
    embedding = build("robe", [40_000_000] * 26, 128, 1024, 1, block_len=128)
    model = DLRM(embedding, 13, [512, 256, 128], [1024, 1024, 512, 256])
    count = lambda mlp: sum(p.numel() for p in mlp.parameters())  # noqa: E731
    assert count(model.bottom) == 7_168 + 131_328 + 32_896
    # 27 vectors give 351 pairs; with the 128 of the bottom MLP the top one reads 479.
    assert model.top[0].in_features == 479
    assert count(model.top) == 491_520 + 1_049_600 + 524_800 + 131_328 + 257
    assert model.model_bytes == 4 * 2_368_897 + 1024


def test_initialization_has_the_reference_spread():
    model = DLRM(build("robe", [5], 64, 1024, 1), 400, [600, 64], [500])
    first = model.bottom[0]
    assert first.weight.std().item() == pytest.approx((2 / 1000) ** 0.5, rel=0.02)
    assert first.bias.std().item() == pytest.approx((1 / 600) ** 0.5, rel=0.15)
    assert abs(first.weight.mean().item()) < 5 * (2 / 1000 / 240_000) ** 0.5


def test_one_seed_makes_the_whole_model():
    dense, ids, _ = inputs()
    dense, ids = torch.from_numpy(dense).float(), torch.from_numpy(ids)
    first = make(seed=1)
    torch.rand(7)  # whatever else draws from the global generator
    second, other = make(seed=1), make(seed=2)
    assert first(dense, ids).shape == (6,)
    assert torch.equal(first(dense, ids), second(dense, ids))
    assert all(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_model_bytes_count_the_stored_form():
    float32 = DLRM(build("robe", [100], 8, 4004, 1, block_len=8), 3, [16], [32])
    mlps = (3 * 16 + 16) + (16 * 8 + 8) + ((8 + 1) * 32 + 32) + (32 + 1)
    assert float32.model_bytes == 4000 + 4 * mlps  # pools are multiples of the alignment, here 16 bytes
    int8 = DLRM(build("robe", [100], 8, 4004, 1, block_len=8, storage="int8"), 3, [16], [32])
    assert int8.model_bytes == 4004 + 4 * mlps


def test_rows_without_dense_values_have_no_bottom_mlp():
    """The mean of the vectors takes the place of what it would give, and gradients reach every row that is read."""
    model = DLRM(build("full", CARDINALITIES, 5, 10**6, 1), 0, (7, 5), (9, 4))
    _, ids, labels = inputs()
    table = model.embedding.table.weight.detach().numpy()
    vectors = table[ids + np.cumsum([0, *CARDINALITIES[:-1]])]
    joined = np.concatenate([vectors.mean(1, keepdims=True), vectors], axis=1)
    dots = np.stack([(joined[:, i] * joined[:, j]).sum(1) for i in range(4) for j in range(i)], axis=1)
    hidden = np.concatenate([joined[:, 0], dots], axis=1)
    for number, (weight, bias) in enumerate(layers(model.top)):
        hidden = hidden @ weight.T + bias
        hidden = np.maximum(hidden, 0) if number < 2 else hidden
    logits = model(torch.empty(6, 0), torch.tensor(ids))
    np.testing.assert_allclose(logits.detach().numpy(), hidden[:, 0], rtol=1e-4, atol=1e-6)
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(labels).float()).backward()
    assert len({name.split(".")[0] for name, _ in model.named_parameters()}) == 2
    options = DLRM.options(bottom_mlp=[7, 5], top_mlp=[9, 4])
    assert DLRM.floats(3, 0, 5, options).parameters == sum(p.numel() for p in model.top.parameters())
