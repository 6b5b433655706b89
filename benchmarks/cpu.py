"""Embedding lookup, backward and update on a CPU against what users would pick instead, as Markdown tables.

    python -m benchmarks.cpu --threads 2     # from the repository's root; about two minutes, 1.5 GB

One step of embeddings alone: batch 2,048, 26 features, ids log-uniform, forward, backward, SGD.

fused            `robe` through the kernels that studies use: 10 MB pool, block_len 16, align 4
plain            the same pool through plain PyTorch operations and torch.optim.SGD
authors' way     a transcription of the authors' CPU module: int64 hash arithmetic for every element, gather,
                 scatter-add into a dense gradient, SGD over the pool
full, fused      full tables through the very same kernels: what size alone buys
EmbeddingBag     full tables, 26 torch.nn.EmbeddingBag with sparse gradients, torch.optim.SGD (640 MB at dim 16,
                 1 GB at dim 128)
memory copy      the limit: as many bytes read as the gradient has and written as the vectors have

Then the step over growing pools, and the input pipeline from mapped shards to batches.

The ways take turns; figures are medians. CPU counts the time of all threads and is what to compare on a machine
that does other things too.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.timing import machine, take_turns
from torch import Tensor, nn

from sizewise.batches import Split
from sizewise.embedding import build
from sizewise.embedding.base import Embedding
from sizewise.embedding.hashing import AUTHORS_PRIME, AuthorsHash
from sizewise.optimizers import build_optimizer
from sizewise_prep.rows import Rows
from sizewise_prep.shards import write_shard

BATCH, FEATURES, POOL_BYTES, BLOCK_LEN = 2_048, 26, 10_000_000, 16
TABLE_BYTES = {16: 640_000_000, 128: 1_000_000_000}


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pool: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = pool.numel()
        return pool[index]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        dense = torch.zeros(ctx.size)
        dense.scatter_add_(0, index.view(-1), gradients[0].reshape(-1))
        return dense, None


class AuthorsWay(nn.Module):
    """((v*R3 + (i // Z)*R2 + R1) mod P) mod (m - Z + 1) + i mod Z for every element i of every vector."""

    def __init__(self, cardinalities: list[int], dim: int) -> None:
        super().__init__()
        self.hash = AuthorsHash(cardinalities, 1)
        self.pool = nn.Parameter(torch.empty(POOL_BYTES // 4).uniform_(-0.01, 0.01))
        self.element = torch.arange(dim)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of ids, (batch, features, dim)."""
        v = (ids + self.hash.offsets).unsqueeze(-1)
        block = self.element // BLOCK_LEN
        h = (v * self.hash.r3 + block * self.hash.r2 + self.hash.r1) % AUTHORS_PRIME
        index = h % (self.pool.numel() - BLOCK_LEN + 1) + self.element % BLOCK_LEN
        vectors: Tensor = _Gather.apply(self.pool, index)  # type: ignore[no-untyped-call]
        return vectors


class Bags(nn.Module):
    """The reference DLRM's 26 tables."""

    def __init__(self, cardinalities: list[int], dim: int) -> None:
        super().__init__()
        self.bags = nn.ModuleList(
            nn.EmbeddingBag(rows, dim, mode="sum", sparse=True) for rows in cardinalities
        )
        self.offsets = torch.arange(BATCH)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors of ids, (batch, features, dim)."""
        return torch.stack(
            [bag(column, self.offsets) for bag, column in zip(self.bags, ids.T.contiguous(), strict=True)], 1
        )


def embedding_step(
    module: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Tensor], gradient: Tensor
) -> Callable[[], None]:
    """One step on the next batch of ids at every call."""
    turn = iter(range(10**9))

    def step() -> None:
        optimizer.zero_grad()
        module(batches[next(turn) % len(batches)]).backward(gradient)
        optimizer.step()

    return step


def log_uniform(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(BATCH, FEATURES, generator=generator, dtype=torch.float64)
    return torch.exp(draws * torch.log(torch.tensor(float(rows)))).long().clamp_(max=rows - 1)


def embeddings(dim: int, rounds: int) -> None:
    rows = TABLE_BYTES[dim] // (FEATURES * dim * 4)
    cardinalities = [rows] * FEATURES
    batches = [log_uniform(rows, seed) for seed in range(4)]
    gradient, output = torch.randn(BATCH, FEATURES, dim), torch.empty(BATCH, FEATURES, dim)
    robe = {"block_len": BLOCK_LEN, "align": 4}

    def made(method: str, fused: bool, budget: int, **options: Any) -> Embedding:
        embedding = build(method, cardinalities, dim, budget, 1, **options)
        embedding.fused = fused
        return embedding

    def ours(embedding: Embedding) -> Callable[[], None]:
        return embedding_step(embedding, build_optimizer("sgd", embedding, 1e-3), batches, gradient)

    def torchs(module: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
        return embedding_step(module, optimizer, batches, gradient)

    ways: dict[str, Callable[[], object]] = {
        "fused": ours(made("robe", True, POOL_BYTES, **robe)),
        "plain": torchs(made("robe", False, POOL_BYTES, **robe)),
        "authors' way": torchs(AuthorsWay(cardinalities, dim)),
        "EmbeddingBag": torchs(Bags(cardinalities, dim)),
        "memory copy": lambda: output.copy_(gradient),
    }
    print_table(f"dim {dim}: forward, backward, SGD", take_turns(ways, rounds))
    del ways["EmbeddingBag"]
    full = {
        "fused": ways["fused"],
        "full, fused": ours(made("full", True, 4 * dim * rows * FEATURES)),
    }
    print_table(f"dim {dim}: the same kernels over full tables", take_turns(full, rounds))


def growth(rounds: int) -> None:
    """A step of Adagrad over pools of growing size, through our optimizer and through torch.optim's."""
    dim, gradient = 16, torch.randn(BATCH, FEATURES, 16)
    batches = [log_uniform(380_000, seed) for seed in range(4)]
    print("Adagrad, dim 16: ms a step by the size of the pool (wall, CPU)\n")
    print("| pool | fused, what was read | plain, dense gradient |\n| --- | --- | --- |")
    for size in (1_000_000, 10_000_000, 100_000_000):
        modules = [build("robe", [380_000] * FEATURES, dim, size, 1) for _ in range(2)]
        modules[1].fused = False
        dense = torch.optim.Adagrad(modules[1].parameters(), lr=1e-3, fused=True)
        medians = take_turns(
            {
                "ours": embedding_step(
                    modules[0], build_optimizer("adagrad", modules[0], 1e-3), batches, gradient
                ),
                "dense": embedding_step(modules[1], dense, batches, gradient),
            },
            rounds,
        )
        cells = " | ".join(f"{wall:.2f}, {cpu:.2f}" for wall, cpu in medians.values())
        print(f"| {size // 1_000_000} MB | {cells} |")
    print()


def pipeline(rounds: int) -> None:
    """Shuffled batches of 16,384 rows from mapped shards, one core."""
    rows, batch = 1_000_000, 16_384
    random = np.random.default_rng(1)
    data = Rows(
        (random.random(rows) < 0.25).astype(np.uint8),
        random.random((rows, 13), np.float32),
        random.integers(0, 2**32, (rows, 26), np.uint32),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.arrow"
        write_shard(file, data)
        turn = iter(range(10**9))
        splits = {log: Split((file,), (rows,), dense_is_log=not log) for log in (False, True)}

        def ours(log: bool) -> Callable[[], object]:
            return lambda: splits[log].batch(0, next(turn) % (rows // batch), batch, 1)

        sparse, labels = data.ids.view(np.int32), data.labels.astype(np.int32)

        def torchrec() -> object:
            """After TorchRec's InMemoryBinaryCriteoIterDataPipe with shuffle_batches: arrays in memory."""
            low = next(turn) % (rows // batch) * batch
            shuffler = np.random.permutation(batch)
            return (
                torch.from_numpy(data.dense[low : low + batch][shuffler].copy()),
                torch.from_numpy(sparse[low : low + batch][shuffler].transpose(1, 0).reshape(-1).copy()),
                torch.from_numpy(labels[low : low + batch][shuffler].copy()),
                torch.ones(batch * 26, dtype=torch.int32),
                torch.arange(batch * 26 + 1, dtype=torch.int32),
            )

        source = torch.empty(batch * (13 * 4 + 26 * 8 + 4), dtype=torch.uint8).fill_(1)
        ways = {
            "batches": ours(False),
            "batches, and log(x + 1)": ours(True),
            "TorchRec's in-memory pipe": torchrec,
            "memory copy of a batch's bytes": source.clone,
        }
        print_table(f"input pipeline: a batch of {batch} rows", take_turns(ways, 3 * rounds))


def print_table(title: str, medians: dict[str, tuple[float, float]]) -> None:
    """Medians, and how many times as long each way takes as the first."""
    first = next(iter(medians.values()))
    print(f"{title}\n\n| | wall ms | CPU ms | wall, times the first | CPU, times the first |")
    print("| --- | --- | --- | --- | --- |")
    for name, (wall, cpu) in medians.items():
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {wall / first[0]:.2f} | {cpu / first[1]:.2f} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{machine()}, {arguments.threads} threads, medians of {arguments.rounds} rounds\n")
    for dim in TABLE_BYTES:
        embeddings(dim, arguments.rounds)
    growth(arguments.rounds)
    torch.set_num_threads(1)
    pipeline(arguments.rounds)


if __name__ == "__main__":
    main()
