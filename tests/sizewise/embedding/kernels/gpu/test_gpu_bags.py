"""The Triton kernels for lists of values against plain PyTorch, in Triton's interpreter or on a GPU.

TRITON_INTERPRET=0 pytest tests/sizewise/embedding/kernels/gpu/test_gpu_bags.py runs them on a GPU.
"""

import os
from typing import Any

import pytest
import torch

from counted import ready
from sizewise.embedding import Bags, Embedding, build, fused
from sizewise.embedding.in_backward import is_gradient
from sizewise.training.steps.optimizers import build_optimizer

pytest.importorskip("triton", reason="Triton is not installed: pip install sizewise[gpu]")

COMPILED = os.environ["TRITON_INTERPRET"] == "0"  # tests/conftest.py asks for the interpreter
DEVICE = torch.device("cuda" if COMPILED else "cpu")
pytestmark = pytest.mark.skipif(COMPILED and not torch.cuda.is_available(), reason="no CUDA device")
CARDINALITIES = [5, 7, 300, 40]
LENGTHS = [[0, 3, 1, 2, 0, 1], [1, 0, 6, 2, 1, 1]]
ROWS, COLUMNS = 6, 2
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "robe": ("robe", 3_000, {}),
    "robe, sign, several blocks": ("robe", 40_000, {"block_len": 4, "sign": True}),
    "robe, ragged": ("robe", 3_000, {"block_len": 6, "align": 2}),
    "hash, narrow": ("hash", 3_000, {"width": 2}),
    "full": ("full", sum(CARDINALITIES) * 64, {}),
    "hot": ("hot", 6_000, {"width": 16}),
}


@pytest.fixture(autouse=True)
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "TRITON_ON", {"cuda", "cpu"})


def read(seed: int) -> tuple[torch.Tensor, Bags]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(0, n, (ROWS,), generator=generator) for n in CARDINALITIES[:COLUMNS]], 1)
    values = [
        torch.randint(0, n, (sum(lengths),), generator=generator)
        for n, lengths in zip(CARDINALITIES[COLUMNS:], LENGTHS, strict=True)
    ]
    offsets = torch.tensor([0, *LENGTHS[0], *LENGTHS[1]]).cumsum(0)
    return ids.to(DEVICE), Bags(torch.cat(values).to(DEVICE), offsets.to(DEVICE))


def make(case: str, use: bool, pooling: Any, storage: str = "float32") -> Embedding:
    method, budget, options = CASES[case]
    embedding = build(method, CARDINALITIES, 16, budget, 3, pooling=pooling, storage=storage, **options)
    all_ids = torch.stack([torch.arange(40) % n for n in CARDINALITIES], 1)
    embedding = ready(embedding, all_ids).to(DEVICE)
    embedding.fused = use
    return embedding


@pytest.mark.parametrize("case", CASES)
def test_vectors_and_gradients_are_those_of_the_plain_path(case: str) -> None:
    for pooling in ("mean", "sum"):
        ours, plain = (make(case, use, pooling) for use in (True, False))
        vectors, expected = (embedding(*read(0)) for embedding in (ours, plain))
        torch.testing.assert_close(vectors, expected, rtol=1e-6, atol=1e-8)
        weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        gradients = [
            torch.autograd.grad((out * weights).sum(), next(embedding.parameters()))[0]
            for out, embedding in ((vectors, ours), (expected, plain))
        ]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "optimizer", "storage"),
    [
        ("robe", "adagrad", "float32"),
        ("robe, sign, several blocks", "adagrad", "float32"),
        ("robe, sign, several blocks", "adagrad", "bfloat16"),
        ("full", "sgd", "float32"),
        ("hot", "sgd", "bfloat16"),
    ],
)
def test_steps_in_the_backward_pass_are_those_of_torch(case: str, optimizer: str, storage: str) -> None:
    tables = []
    for use in (True, False):
        embedding = make(case, use, "mean", storage)
        stepper = build_optimizer(optimizer, embedding, 0.1, in_backward=use)
        for seed in range(3):
            stepper.zero_grad()
            embedding(*read(seed)).square().sum().backward()  # type: ignore[no-untyped-call]
            assert use != any(is_gradient(weight.grad) for weight in embedding.parameters())
            stepper.step()
        embedding(*read(0))
        tables.append(next(embedding.parameters()).detach())
    bound = 1e-5 if storage == "float32" else 2**-7
    torch.testing.assert_close(tables[0], tables[1], rtol=bound, atol=1e-6)


def test_a_list_of_one_is_a_single_value_to_the_last_bit() -> None:
    embedding, (ids, _) = make("robe, ragged", True, "mean"), read(0)
    ids = torch.cat([ids, ids], 1)
    bags = Bags(ids[:, 1:].T.flatten().contiguous(), torch.arange(3 * ROWS + 1, device=DEVICE))
    assert torch.equal(embedding(ids[:, :1], bags), embedding(ids))
