"""Embedding lookup, backward and update on a CPU against what users would pick instead, as Markdown tables.

    python -m benchmarks.cpu --threads 2     # from the repository's root; about two minutes, 1.5 GB

One step of embeddings alone: batch 2,048, 26 features, ids log-uniform, forward, backward, SGD.

fused            `robe` through the kernels that studies use: 10 MB pool, block_len 16, align 4
fused, bfloat16  the same numbers in half of the bytes, rounded after every step
plain            the same pool through plain PyTorch operations and torch.optim.SGD
authors' way     a transcription of the authors' CPU module: int64 hash arithmetic for every element, gather,
                 scatter-add into a dense gradient, SGD over the pool
full, fused      full tables through the very same kernels: what size alone buys
bfloat16 to int2 as many numbers in other storages, rounded after every step or to a step that is learnt
hash, hot        the same bytes in rows of `hash`, and of `hot` with its list; `width 2`: narrow vectors, repeated
EmbeddingBag     full tables, 26 torch.nn.EmbeddingBag with sparse gradients, torch.optim.SGD (640 MB at dim 16,
                 1 GB at dim 128)
memory copy      as many bytes read as the gradient has and written as the vectors have, the same arrays each time:
                 what a step would take if the pool cost nothing

Then a whole training step of a DLRM with each of these (`reference`: EmbeddingBag, and all else plain PyTorch),
rooflines of the kernels (`benchmarks.rooflines`), the step over growing pools, the input pipeline from mapped
shards to batches, and how random their order is.

The ways take turns of five steps, all with freed memory kept as studies keep it; figures are medians over turns. CPU
counts the time of all threads, PyTorch's that wait by spinning included. `--smoke` runs all of it within seconds, over
sizes at which times mean nothing.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.alternatives import BLOCK_LEN, AuthorsRobe, Bags, Reference
from benchmarks.results import kept
from benchmarks.rooflines import HEAD, rooflines
from benchmarks.scaling import BOTTOM, TOP
from benchmarks.timing import machine, take_turns
from torch import Tensor, nn

from sizewise.embedding import FeatureCounts, build
from sizewise.embedding.base import Embedding
from sizewise.embedding.methods.robe import Robe
from sizewise.embedding.storage.quantization import BITS, SCALE_BYTES
from sizewise.models.dlrm import DLRM
from sizewise.training.input.batches import Batch, Split
from sizewise.training.steps.optimizers import build_optimizer
from sizewise.training.steps.step import Step
from sizewise_core.machine import allocator
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.shards.files import Shape, read_shard, write_shard

FEATURES = 26
REPEAT = 5  # steps a turn
MLPS = {16: ([128, 64], [256, 128]), 128: (BOTTOM, TOP)}  # bottom, top: the quickstart's, MLPerf's


@dataclass(frozen=True)
class Sizes:
    """Of what is measured; tables by the length of their vectors."""

    batch: int = 2_048
    pool_bytes: int = 10_000_000
    table_bytes: dict[int, int] = field(default_factory=lambda: {16: 640_000_000, 128: 1_000_000_000})
    growing_bytes: tuple[int, ...] = (1_000_000, 10_000_000, 100_000_000)
    growing_rows: int = 380_000
    split_rows: int = 1_048_576
    split_batch: int = 16_384
    ordered_batches: tuple[int, ...] = (512, 16_384)


SMOKE = Sizes(
    batch=2,
    pool_bytes=20_000,
    table_bytes={16: 100_000, 128: 400_000},
    growing_bytes=(20_000, 40_000),
    growing_rows=100,
    split_rows=4_096,
    split_batch=512,
    ordered_batches=(64, 512),
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


def log_uniform(batch: int, rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(batch, FEATURES, generator=generator, dtype=torch.float64)
    return torch.exp(draws * torch.log(torch.tensor(float(rows)))).long().clamp_(max=rows - 1)


def embeddings(sizes: Sizes, dim: int, rounds: int) -> None:
    rows = sizes.table_bytes[dim] // (FEATURES * dim * 4)
    cardinalities = [rows] * FEATURES
    batches = [log_uniform(sizes.batch, rows, seed) for seed in range(4)]
    gradient, output = (torch.randn(sizes.batch, FEATURES, dim) for _ in range(2))
    robe = {"block_len": BLOCK_LEN, "align": 4}

    def made(method: str, fused: bool, budget: int, **options: Any) -> Embedding:
        embedding = build(method, cardinalities, dim, budget, 1, **options)
        embedding.fused = fused
        return embedding

    def ours(embedding: Embedding) -> Callable[[], None]:
        return embedding_step(
            embedding, build_optimizer("sgd", embedding, 1e-3, in_backward=True), batches, gradient
        )

    def torchs(module: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
        return embedding_step(module, optimizer, batches, gradient)

    ways: dict[str, Callable[[], object]] = {
        "fused": ours(made("robe", True, sizes.pool_bytes, **robe)),
        "fused, bfloat16": ours(made("robe", True, sizes.pool_bytes // 2, **robe, storage="bfloat16")),
        "plain": torchs(made("robe", False, sizes.pool_bytes, **robe)),
        "authors' way": torchs(AuthorsRobe(cardinalities, dim, sizes.pool_bytes)),
        "EmbeddingBag": torchs(Bags(cardinalities, dim, sizes.batch)),
        "memory copy": lambda: output.copy_(gradient),
    }
    print_table(f"dim {dim}: forward, backward, SGD", take_turns(ways, rounds, REPEAT))
    del ways["EmbeddingBag"]
    full = {
        "fused": ways["fused"],
        "full, fused": ours(made("full", True, 4 * dim * rows * FEATURES)),
    }
    print_table(f"dim {dim}: the same kernels over full tables", take_turns(full, rounds, REPEAT))
    storages: dict[str, Callable[[], object]] = {"float32": ways["fused"]}
    for storage in ("bfloat16", "int8", "int4", "int2"):
        budget = sizes.pool_bytes * BITS[storage] // 32 + SCALE_BYTES[storage]
        storages[storage] = ours(made("robe", True, budget, **robe, storage=storage))
    title = f"dim {dim}: training in other storages, as many numbers"
    print_table(title, take_turns(storages, rounds, REPEAT))
    frequent = np.arange(min(rows, 100_000), dtype=np.uint32)
    counts = [FeatureCounts(frequent, 10**9 // (1 + frequent.astype(np.int64)))] * FEATURES

    def rows_of(method: str, width: int) -> Callable[[], None]:
        embedding = made(method, True, sizes.pool_bytes, width=width)
        embedding.assign_rows(counts)
        return ours(embedding)

    others = {
        "fused": ways["fused"],
        **{
            f"{method}, width {width}": rows_of(method, width)
            for method in ("hash", "hot")
            for width in (dim, 2)
        },
    }
    print_table(f"dim {dim}: other methods, wide and narrow", take_turns(others, rounds, REPEAT))


def training(sizes: Sizes, dim: int, rounds: int) -> None:
    """Steps of SGD on a whole DLRM."""
    rows = sizes.table_bytes[dim] // (FEATURES * dim * 4)
    cardinalities = [rows] * FEATURES
    batches = [
        Batch(
            torch.rand(sizes.batch, 13),
            log_uniform(sizes.batch, rows, seed),
            torch.randint(0, 2, (sizes.batch,)).float(),
        )
        for seed in range(4)
    ]

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        taken, coming = Step(model, optimizer, sizes.batch, torch.device("cpu")), cycle(batches)
        return lambda: taken(next(coming), sizes.batch)

    def dlrm(method: str, fused: bool, budget: int, **options: Any) -> DLRM:
        embedding = build(method, cardinalities, dim, budget, 1, **options)
        embedding.fused = fused
        return DLRM(embedding, 13, *MLPS[dim])

    pool = {"block_len": BLOCK_LEN, "align": 4}
    models = {
        "10 MB pool, fused": dlrm("robe", True, sizes.pool_bytes, **pool),
        "full tables, fused": dlrm("full", True, 4 * dim * rows * FEATURES),
    }
    ways: dict[str, Callable[[], object]] = {
        name: step(model, build_optimizer("sgd", model, 1e-3, in_backward=True))
        for name, model in models.items()
    }
    plain = dlrm("robe", False, sizes.pool_bytes, **pool)
    ways["10 MB pool, plain"] = step(plain, torch.optim.SGD(plain.parameters(), lr=1e-3))
    reference = Reference(plain, Bags(cardinalities, dim, sizes.batch))
    ways["full tables, reference"] = step(reference, torch.optim.SGD(reference.parameters(), lr=1e-3))
    dense, above = (
        torch.rand(sizes.batch, 13),
        torch.rand(sizes.batch, len(plain.pairs) + dim, requires_grad=True),
    )

    def mlps() -> None:
        plain.bottom(dense).sum().backward()
        plain.top(above).sum().backward()

    ways["the MLPs alone, forward and backward"] = mlps
    print_table(f"dim {dim}: training step, MLPs {MLPS[dim]}", take_turns(ways, rounds, REPEAT))


def limits(sizes: Sizes, rounds: int) -> None:
    """How near the kernels come to what memory allows."""
    print(f"Rooflines of the fused kernels, one thread\n\n{HEAD}")
    for dim, size in sizes.table_bytes.items():
        rows = size // (FEATURES * dim * 4)
        embedding = build("robe", [rows] * FEATURES, dim, sizes.pool_bytes, 1, block_len=BLOCK_LEN, align=4)
        assert isinstance(embedding, Robe)
        batches = [log_uniform(sizes.batch, rows, seed) for seed in range(4)]
        print(*rooflines(embedding, batches, rounds), sep="\n")
    print()


def growth(sizes: Sizes, rounds: int) -> None:
    """A step of Adagrad over pools of growing size, through our optimizer and through torch.optim's."""
    dim, rows = 16, sizes.growing_rows
    gradient = torch.randn(sizes.batch, FEATURES, dim)
    batches = [log_uniform(sizes.batch, rows, seed) for seed in range(4)]
    print("Adagrad, dim 16: ms a step by the size of the pool (wall, CPU)\n")
    print("| pool | fused, what was read | plain, dense gradient |\n| --- | --- | --- |")
    for size in sizes.growing_bytes:
        modules = [build("robe", [rows] * FEATURES, dim, size, 1) for _ in range(2)]
        modules[1].fused = False
        dense = torch.optim.Adagrad(modules[1].parameters(), lr=1e-3, fused=True)
        medians = take_turns(
            {
                "ours": embedding_step(
                    modules[0],
                    build_optimizer("adagrad", modules[0], 1e-3, in_backward=True),
                    batches,
                    gradient,
                ),
                "dense": embedding_step(modules[1], dense, batches, gradient),
            },
            rounds,
        )
        cells = " | ".join(f"{wall:.2f}, {cpu:.2f}" for wall, cpu in medians.values())
        print(f"| {size / 1e6:g} MB | {cells} |")
    print()


def pipeline(sizes: Sizes, rounds: int) -> None:
    """Shuffled batches from mapped shards, one core; a whole block of rows a turn."""
    rows, batch = sizes.split_rows, sizes.split_batch
    random = np.random.default_rng(1)
    data = Rows(
        (random.random(rows) < 0.25).astype(np.uint8),
        random.random((rows, 13), np.float32),
        random.integers(0, 2**32, (rows, 26), np.uint32),
    )
    data.ids[:, 0] = np.arange(rows)  # for `order`
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.arrow"
        write_shard(file, data)
        mapped, starts = read_shard(file, Shape(rows, 13, 26)), iter(range(10**9))
        splits = {log: Split((file,), (rows,), 13, 26, dense_is_log=not log) for log in (False, True)}
        sparse, labels = data.ids.view(np.int32), data.labels.astype(np.int32)[:, None]

        def block(way: Callable[[int], object]) -> Callable[[], None]:
            """The next four batches, whose orders cost a permutation of 65,536 rows."""

            def run() -> None:
                first = next(starts) * 4
                for number in range(first, first + 4):
                    way(number)

            return run

        def ours(log: bool) -> Callable[[int], object]:
            per_epoch = rows // batch
            return lambda number: splits[log].batch(*divmod(number, per_epoch), batch, 1)

        def torchrec(number: int) -> object:
            """What TorchRec's InMemoryBinaryCriteoIterDataPipe does with shuffle_batches, arrays in memory."""
            low = number * batch % rows
            shuffler = np.random.permutation(batch)
            of_ids = sparse[low : low + batch][shuffler]
            return (
                torch.from_numpy(data.dense[low : low + batch][shuffler].copy()),
                torch.from_numpy(of_ids.transpose(1, 0).reshape(-1)),
                torch.from_numpy(labels[low : low + batch][shuffler].reshape(-1).copy()),
            )

        def copied(number: int) -> object:
            """The next rows of the same mapped file, in order, into arrays of a batch's types."""
            low = number * batch % rows
            part = slice(low, low + batch)
            return mapped.labels[part].astype(np.float32), mapped.dense[part].copy(), mapped.ids[part].copy()

        ways = {
            "batches": block(ours(False)),
            "batches, and log(x + 1)": block(ours(True)),
            "TorchRec's in-memory pipe": block(torchrec),
            "memory copy of the next rows": block(copied),
        }
        medians = {name: (w / 4, c / 4) for name, (w, c) in take_turns(ways, 2 * rounds).items()}
        print_table(f"input pipeline: a batch of {batch} rows", medians)
        order(splits[False], sizes.ordered_batches)


def order(split: Split, batches: tuple[int, ...]) -> None:
    """How far the order of an epoch is from a full shuffle, by where the rows of a batch come from.

    Within a batch rows lie in the file's order, which no step depends on.
    """
    print(f"Order of an epoch of {split.rows:,} rows in one shard, against a full shuffle\n")
    print("| batch | spread of a batch | its rows within 100 of another, share | next to another, share |")
    print("| --- | --- | --- | --- |")
    random = np.random.default_rng(1)
    for size in batches:
        read = (split.batch(0, number, size, 1) for number in range(split.rows // size))
        numbers = np.concatenate([batch.ids[:, 0].numpy().astype(np.int64) for batch in read])
        cells = []
        for places in (numbers, random.permutation(split.rows)):
            drawn = np.sort(places.reshape(-1, size), axis=1)
            apart = np.diff(drawn, axis=1)
            cells.append((drawn.std(axis=1).mean(), (apart <= 100).mean(), (apart == 1).mean()))
        shown = (f"{ours:,.4g} ({full:,.4g})" for ours, full in zip(*cells, strict=True))
        print(f"| {size} | {' | '.join(shown)} |")
    print()


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
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--smoke", action="store_true", help="one round over tiny sizes: does it all run?")
    parser.add_argument(
        "--results", type=Path, help="file to keep the tables in, such as benchmarks/RESULTS.md"
    )
    arguments = parser.parse_args()
    sizes, rounds = (SMOKE, 1) if arguments.smoke else (Sizes(), arguments.rounds)
    torch.set_num_threads(arguments.threads)
    allocator.keep_freed()
    with kept("Last run: benchmarks.cpu", arguments.results):
        print(f"{machine()}, {arguments.threads} threads, medians of {rounds} rounds\n")
        for dim in sizes.table_bytes:
            embeddings(sizes, dim, rounds)
        for dim in sizes.table_bytes:
            training(sizes, dim, rounds)
        growth(sizes, rounds)
        torch.set_num_threads(1)
        limits(sizes, rounds)
        pipeline(sizes, rounds)


if __name__ == "__main__":
    main()
