"""Fused kernels for lists of values step as `torch.optim` does, and lists of one value exactly as single values."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sizewise.embedding import Bags, Embedding, build
from sizewise.embedding.in_backward import is_gradient
from sizewise.embedding.kernels import cpu
from sizewise.embedding.kernels.blocks.common import CHUNK_BLOCKS
from sizewise.training.steps.optimizers import build_optimizer

CARDINALITIES = [1, 7, 300, 2, 40]
ROWS, COLUMNS, DIM = 600, 2, 16
Read = tuple[Tensor, Bags | None]


@pytest.fixture(autouse=True)
def little_work_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "BLOCKS_PER_THREAD", 1_000)


def make(method: str, fused: bool = True, storage: str = "float32", pooling: Any = "mean") -> Embedding:
    budget = sum(CARDINALITIES) * DIM * 4 if method == "full" else 20_000
    embedding = build(method, CARDINALITIES, DIM, budget, 3, storage=storage, pooling=pooling)
    embedding.fused = fused
    return embedding


def drawn(seed: int, longest: int = 8) -> Read:
    """Ids of the first features and lists of 0 to `longest` values of the others; one list is much longer."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, longest + 1, (len(CARDINALITIES) - COLUMNS, ROWS))
    lengths[0, 3] = 5_000  # more than are found at a time
    columns = [random.integers(0, n, ROWS) for n in CARDINALITIES[:COLUMNS]]
    values = [
        random.integers(0, n, row.sum()) for n, row in zip(CARDINALITIES[COLUMNS:], lengths, strict=True)
    ]
    offsets = torch.from_numpy(np.concatenate([[0], lengths.ravel().cumsum()]))
    return torch.from_numpy(np.stack(columns, 1)), Bags(torch.from_numpy(np.concatenate(values)), offsets)


def single(seed: int) -> Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([random.integers(0, n, ROWS) for n in CARDINALITIES], 1))


def trained(embedding: Embedding, optimizer: str, reads: list[Read], threads: int = 1) -> Tensor:
    """The table after a step by each of the reads."""
    stepper: torch.optim.Optimizer
    if embedding.fused:
        stepper = build_optimizer(optimizer, embedding, 0.1, in_backward=True)
    else:
        kind = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}[optimizer]
        stepper = kind(embedding.parameters(), lr=0.1)  # type: ignore[operator]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for step, read in enumerate(reads):
            stepper.zero_grad()
            vectors = embedding(*read)
            target = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(step))
            (vectors - target).square().mean().backward()  # type: ignore[no-untyped-call]
            assert not embedding.fused or not any(is_gradient(p.grad) for p in embedding.parameters())
            stepper.step()
    finally:
        torch.set_num_threads(before)
    embedding(*reads[0])  # tables in fewer bits are rounded when they are read
    return next(embedding.parameters()).detach().clone()


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("method", ["full", "robe"])
def test_steps_equal_those_of_torch_and_any_number_of_threads(method: str, optimizer: str) -> None:
    for pooling in ("mean", "sum"):
        reads = [drawn(seed) for seed in range(3)]
        ours = trained(make(method, pooling=pooling), optimizer, reads)
        theirs = trained(make(method, fused=False, pooling=pooling), optimizer, reads)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
        for threads in (2, 3):
            assert torch.equal(trained(make(method, pooling=pooling), optimizer, reads, threads), ours)


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "hash", "robe"])
def test_lists_of_one_value_train_to_the_bits_of_single_values(method: str, storage: str) -> None:
    rows = [single(seed) for seed in range(3)]
    expected = trained(make(method, storage=storage), "adagrad", [(ids, None) for ids in rows])
    for columns in (0, COLUMNS):
        reads: list[Read] = [
            (
                ids[:, :columns],
                Bags(ids[:, columns:].T.flatten(), torch.arange(ids[:, columns:].numel() + 1)),
            )
            for ids in rows
        ]
        assert torch.equal(trained(make(method, storage=storage), "adagrad", reads), expected)


def test_nothing_of_the_size_of_all_values_is_made() -> None:
    """What PyTorch allocates for a lookup and its backward pass: results, and ids of 4 bytes."""
    embedding, (ids, bags) = make("robe"), drawn(0, longest=50)
    embedding(ids, bags).sum().backward()
    with torch.profiler.profile(profile_memory=True) as profile:
        embedding(ids, bags).sum().backward()
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())
    result = ROWS * len(CARDINALITIES) * DIM * 4
    assert allocated < 3 * result + 20_000 + 4 * 4 * len(bags.values) < len(bags.values) * DIM * 4
    assert CHUNK_BLOCKS < 5_000
