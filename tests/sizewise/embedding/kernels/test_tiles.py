"""Narrow vectors: copies and folds in the definition's bits, by themselves and within look-ups and steps."""

import pytest
import torch

from sizewise.embedding import build, fused
from sizewise.embedding.kernels import cpu, tiles
from sizewise.embedding.kernels.blocks import common
from sizewise.embedding.width import STRENGTH


def folded(gradient: torch.Tensor, copies: int) -> torch.Tensor:
    """The sums over copies, in the order that checkpoints depend on: halves as long as they are equal, then in turn."""
    parts = list(gradient.unflatten(-1, (copies, -1)).unbind(-2))
    while len(parts) % 2 == 0:
        half = len(parts) // 2
        parts = [one + other for one, other in zip(parts[:half], parts[half:], strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total * STRENGTH


@pytest.mark.parametrize(("width", "copies"), [(2, 8), (3, 12), (24, 2)])
@pytest.mark.parametrize("streamed", [False, True])
def test_copies_and_their_sums_have_the_definition_s_bits(
    width: int, copies: int, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "STREAMED_BYTES", 0 if streamed else 2**40)
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(41, 3, width, generator=generator)
    gradient = torch.randn(41, 3, width * copies, generator=generator)
    expected = (vectors * STRENGTH).repeat(1, 1, copies)
    assert torch.equal(tiles.spread(vectors, copies, STRENGTH), expected)
    assert torch.equal(tiles.fold(gradient, copies, STRENGTH), folded(gradient, copies))


@pytest.mark.parametrize(
    ("method", "options", "width", "copies"),
    [("hash", {}, 2, 8), ("robe", {"sign": True}, 3, 12), ("hash", {"storage": "bfloat16"}, 2, 8)],
)
def test_a_step_of_repeated_vectors_is_that_of_narrow_ones(
    method: str, options: dict[str, object], width: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "BLOCKS_PER_THREAD", 500)  # more than one thread, where there are
    ids = torch.randint(0, 2**32, (300, 5), generator=torch.Generator().manual_seed(2))
    target = torch.randn(300, 5, width * copies, generator=torch.Generator().manual_seed(3))
    tables = []
    for at_once in (True, False):
        embedding = build(method, [100] * 5, width * copies, 1_200, 1, width=width, **options)
        embedding.optimize_in_backward(torch.optim.Adagrad, lr=0.1)
        table, blocks = embedding.pooled()
        for _ in range(3):
            vectors = embedding(ids) if at_once else embedding.tiles.spread(fused.vectors(table, blocks, ids))
            (vectors - target).square().sum().backward()
        tables.append(table().detach())
    assert torch.equal(*tables)
