"""The interaction's CPU kernel is the twin of DLRM's plain PyTorch, forward and backward."""

import pytest
import torch
from torch import Tensor

from sizewise.embedding import build
from sizewise.embedding.kernels import dots
from sizewise.models.dlrm import DLRM


def plain(bottom: Tensor, vectors: Tensor) -> Tensor:
    """By its definition, in float64."""
    rows = torch.cat([bottom.unsqueeze(1), vectors], dim=1).double()
    count = rows.shape[1]
    products = [(rows[:, i] * rows[:, j]).sum(1) for i in range(count) for j in range(i)]
    return torch.cat([bottom.double(), torch.stack(products, dim=1)], dim=1)


@pytest.mark.parametrize("batch", [0, 1, 33])
@pytest.mark.parametrize(("features", "dim"), [(1, 1), (2, 16), (26, 16), (5, 7), (16, 40), (33, 128)])
def test_results_and_gradients_equal_the_definition(batch: int, features: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(1)
    bottom = torch.randn(batch, dim, generator=generator, requires_grad=True)
    vectors = torch.randn(batch, features, dim, generator=generator, requires_grad=True)
    expected = plain(bottom, vectors)
    gradient = torch.randn(expected.shape, generator=generator)
    expected.backward(gradient.double())
    joined = dots.interact(bottom, vectors)
    torch.testing.assert_close(joined, expected.float(), rtol=1e-5, atol=1e-5)
    assert torch.equal(joined[:, :dim], bottom)
    for ours, argument in zip(
        dots.interact_backward(bottom, vectors, gradient), (bottom, vectors), strict=True
    ):
        assert argument.grad is not None
        torch.testing.assert_close(ours, argument.grad, rtol=1e-5, atol=1e-4)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dots, "PRODUCTS_PER_THREAD", 100)
    bottom, vectors, gradient = torch.randn(501, 10), torch.randn(501, 6, 10), torch.randn(501, 31)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append([dots.interact(bottom, vectors), *dots.interact_backward(bottom, vectors, gradient)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    bottom, vectors, gradient = torch.randn(4, 5), torch.randn(4, 3, 5), torch.randn(4, 11)
    spoilt = vectors.clone()
    spoilt[1] = torch.inf
    joined = dots.interact(bottom, spoilt)
    _, passed = dots.interact_backward(bottom, spoilt, gradient)
    kept = [0, 2, 3]
    assert torch.equal(joined[kept], dots.interact(bottom, vectors)[kept])
    assert torch.equal(passed[kept], dots.interact_backward(bottom, vectors, gradient)[1][kept])
    assert not torch.isfinite(joined[1]).all()


@pytest.mark.parametrize("method", ["robe", "tt", "full"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_models_score_and_learn_the_same_with_kernels_and_without(method: str, precision: str) -> None:
    cardinalities, batch = [50, 3, 700], 40
    dense, ids = torch.rand(batch, 4), torch.stack([torch.randint(0, n, (batch,)) for n in cardinalities], 1)
    scores, gradients = [], []
    for fused in (True, False):
        embedding = build(method, cardinalities, 12, 753 * 12 * 4, 1)
        embedding.fused = fused
        model = DLRM(embedding, 4, [8], [16], precision=precision)  # type: ignore[arg-type]
        logits = model(dense, ids)
        logits.square().sum().backward()
        scores.append(logits.detach())
        gradients.append([parameter.grad for parameter in model.parameters()])
    # Rounding to bfloat16 can go the other way where sums differ in their last bit.
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 2e-2, "atol": 1e-2}
    torch.testing.assert_close(scores[0], scores[1], **tolerance)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, **tolerance)
