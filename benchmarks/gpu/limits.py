"""Limits on paper: what each kernel must move and compute, and what exchanging embeddings between cards costs."""

from dataclasses import dataclass
from itertools import pairwise

from benchmarks.gpu.sizes import Sizes

# Stated by NVIDIA: bytes a second of device memory.
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}
# Stated: bytes a second that a card can send, while it receives as many.
LINKS = {
    "NVLink 4, 8 cards": (8, 450e9),
    "InfiniBand NDR, 8 cards": (8, 50e9),
    "PCIe 3.0 x16, 4 cards": (4, 16e9),
}


@dataclass(frozen=True)
class Work:
    """What a kernel must do, however it does it."""

    name: str
    bytes: float  # of device memory; a pool of 10 MB stays in the L2 cache and does not count
    cached: float  # bytes through the L2 cache beside those
    operations: str

    def limit(self, card: str) -> float:
        """Milliseconds by the card's stated bandwidth."""
        return self.bytes / BANDWIDTH[card] * 1e3


def rooflines(sizes: Sizes, batch: int) -> list[Work]:
    """Of the kernels of a shared pool, float32 in and out."""
    vectors = 4.0 * batch * sizes.features * sizes.dim
    ids, bottom, out = 8.0 * batch * sizes.features, 4.0 * batch * sizes.dim, 4.0 * batch * sizes.width
    rows = max(16, 1 << sizes.features.bit_length())
    products = 2e-9 * batch * rows * rows * sizes.dim
    hashes = 20e-9 * batch * sizes.features * -(-sizes.dim // sizes.block_len)
    return [
        Work("lookup", vectors + ids, vectors, f"{hashes:.2g} G integer"),
        Work(
            "scatter (SGD)", vectors + ids, 2 * vectors, f"{hashes:.2g} G integer, as many atomic as numbers"
        ),
        Work("interaction", ids + bottom + out, vectors, f"{products:.2g} GFLOP of 32 x 32 tiles"),
        Work("its backward", ids + 2 * bottom + out, 3 * vectors, f"{products:.2g} GFLOP"),
        Work("step of the whole pool", 0.0, 4.0 * sizes.pool_bytes, "2 a number"),
    ]


def roofline_table(sizes: Sizes, batch: int, reached: dict[str, float], card: str | None) -> list[str]:
    """Bytes, operations, limit on either card, and what this run reached, if any."""
    lines = [
        f"Rooflines at batch {batch:,}: limits by stated bandwidth of device memory; 10 MB stay in the L2 cache.",
        "",
        "| kernel | GB of device memory | GB through L2 beside | operations | H100 limit, ms | H200 limit, ms "
        "| reached |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for work in rooflines(sizes, batch):
        time = reached.get(work.name)
        of_limit = f", {work.limit(card) / time:.0%} of the limit" if time and card and work.bytes else ""
        told = f"{time:.3f} ms{of_limit}" if time else "not measured"
        lines.append(
            f"| {work.name} | {work.bytes / 1e9:.3f} | {work.cached / 1e9:.3f} | {work.operations} | "
            f"{work.limit('H100'):.3f} | {work.limit('H200'):.3f} | {told} |"
        )
    return lines


def _layers(sizes: Sizes) -> list[tuple[int, int]]:
    """Columns in and out of all layers of both MLPs."""
    widths = [[sizes.dense, *sizes.bottom], [sizes.dim + sizes.pairs, *sizes.top, 1]]
    return [layer for mlp in widths for layer in pairwise(mlp)]


def mlp_operations(sizes: Sizes, batch: int) -> float:
    """Multiplications and additions of both MLPs in a step: forward, and backward to weights and to inputs."""
    return 6.0 * batch * sum(a * b for a, b in _layers(sizes))


def mlp_bytes(sizes: Sizes) -> int:
    """Of the gradients of both MLPs, float32."""
    return 4 * sum(a * b + b for a, b in _layers(sizes))


def exchange(sizes: Sizes, batch: int, cards: int, link: float) -> tuple[float, float]:
    """Milliseconds a step of sending, with full tables spread over cards, and with a shared pool on each.

    Tables: every card looks up its tables' vectors for the whole batch and sends each other card its rows, and gets
    their gradients back: twice (n - 1) / n of batch x features x dim x 4 bytes. Pool: gradients are summed in a ring,
    2 (n - 1) / n of its bytes. Either sums its MLPs' gradients in a ring as well.

    Assumes: tables spread evenly, so that every card sends as much; float32; every card sends and receives at its
    link's stated speed; no latency; nothing overlapped with computing. Ids, 1/64 of a vector's bytes, are left out.

    Args:
        sizes: of the model.
        batch: rows of each card.
        cards: that train one model.
        link: bytes a second that a card sends.
    """
    share = (cards - 1) / cards
    mlps = 2 * share * mlp_bytes(sizes)
    vectors = 2 * share * batch * sizes.features * sizes.dim * 4
    pool = 2 * share * sizes.pool_bytes
    return (vectors + mlps) / link * 1e3, (pool + mlps) / link * 1e3


def exchange_table(sizes: Sizes, steps: dict[int, tuple[float, float]]) -> list[str]:
    """What full tables cost beyond one card, by rows a card.

    Args:
        sizes: of the model.
        steps: batch -> measured milliseconds of a step on one card, (full tables, pool); where empty, only sending
            is told.
    """
    lines = [
        "Tables that no longer fit on one card, modelled: sending from stated link speeds, nothing overlapped"
        + (", steps as measured above." if steps else "; steps not measured, so sending alone."),
        "",
        "| links | rows a card | full tables: sending, ms | pool: sending, ms | full tables: step, ms | pool: step, ms "
        "| pool is faster by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, (cards, link) in LINKS.items():
        for batch in sizes.batches.values():
            tables, pool = exchange(sizes, batch, cards, link)
            cells = ["-", "-", "-"]
            if batch in steps:
                whole = steps[batch][0] + tables, steps[batch][1] + pool
                cells = [f"{whole[0]:.2f}", f"{whole[1]:.2f}", f"{whole[0] / whole[1]:.1f}x"]
            lines.append(f"| {name} | {batch:,} | {tables:.2f} | {pool:.2f} | " + " | ".join(cells) + " |")
    return lines
