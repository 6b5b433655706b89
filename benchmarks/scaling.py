"""Data-parallel training beyond this machine, on paper: efficiency by cards and size of the model.

    python -m benchmarks.scaling --step-ms 10       # a second; nothing is measured but the size of the MLPs

`--step-ms` is one card's step of `--batch` rows, exchange left out, and wants a measurement on the card in question
(`python -m benchmarks.gpu`). 10 MB and 1 GB are one pool, kept by every card, whose gradients are added up densely
together with those of the MLPs. 100 GB does not fit a card: tables are cut up, and vectors travel in float32. No
exchange overlaps with computing, which is pessimistic for all.
"""

import argparse
from pathlib import Path

from benchmarks.results import kept

from sizewise.embedding import build
from sizewise.models.dlrm import DLRM
from sizewise.theory.communication import Links, all_to_all_seconds, efficiency, exchange_seconds, wire_bytes

DIM, FEATURES, BOTTOM, TOP = 128, 26, [512, 256, 128], [1024, 1024, 512, 256]  # MLPerf's DLRM


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step-ms", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=65_536, help="rows a card")
    parser.add_argument(
        "--results", type=Path, help="file to keep the table in, such as benchmarks/RESULTS.md"
    )
    arguments = parser.parse_args()
    with kept("Scaling on paper", arguments.results):
        _print_table(arguments.step_ms, arguments.batch)


def _print_table(step_ms: float, batch: int) -> None:
    embedding = build("robe", [1] * FEATURES, DIM, 4096, 1)
    model, links, step = DLRM(embedding, 13, BOTTOM, TOP), Links(), step_ms / 1e3
    mlps = model.model_bytes - embedding.embedding_bytes
    vectors = batch * FEATURES * DIM * 4
    print(
        f"`python -m benchmarks.scaling --step-ms {step_ms:g}`: a step of {step_ms:g} ms is assumed, **not measured**, "
        f"for {batch:,} rows a card of MLPerf's DLRM; gradients of the MLPs {mlps / 1e6:.1f} MB, vectors "
        f"{vectors / 1e6:,.0f} MB. Cards send "
        f"{links.within / 1e9:g} GB/s within a node of {links.cards_per_node}, {links.between / 1e9:g} GB/s between "
        f"nodes, {links.reached:.0%} of it reached, {links.latency * 1e6:g} us latency, no overlap.\n"
    )
    print("| embeddings | exchanged | sent by a card and step, 64 cards | 8 cards | 64 cards | 512 cards |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, size in (("10 MB", 10e6), ("1 GB", 1e9)):
        gradients = int(size) + mlps
        cells = [efficiency(step, exchange_seconds(gradients, n, links)) for n in (8, 64, 512)]
        _row(name, "gradients of pool and MLPs", wire_bytes(gradients, 64), cells)
    for name in ("1 GB", "100 GB"):
        cells = [
            efficiency(step, all_to_all_seconds(vectors, n, links) + exchange_seconds(mlps, n, links))
            for n in (8, 64, 512)
        ]
        sent = wire_bytes(mlps, 64) + 2 * vectors * 63 // 64
        _row(f"{name}, cut up", "vectors, their gradients, those of the MLPs", sent, cells)
    print()


def _row(name: str, exchanged: str, sent: int, cells: list[float]) -> None:
    print(
        f"| {name} | {exchanged} | {sent / 1e6:,.0f} MB | "
        + " | ".join(f"{cell:.2f}" for cell in cells)
        + " |"
    )


if __name__ == "__main__":
    main()
