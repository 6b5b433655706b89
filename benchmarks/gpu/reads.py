"""Lookup alone, as a model that serves does it: full tables, pools of float32 and of packed numbers."""

from collections.abc import Callable

import torch
from benchmarks.gpu import limits, variants
from benchmarks.gpu.bench import NOT_MEASURED, Bench
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.variants import Variant
from torch import Tensor

from sizewise.embedding import build
from sizewise.embedding.kernels.cpu import Blocks
from sizewise.embedding.kernels.gpu import DeviceBlocks

FREQUENT = 1_000_000  # values with a row of their own, of all features


def reads(bench: Bench) -> None:
    """Lookups of one batch of 65,536 rows, beside what writing the vectors takes at the stated bandwidth."""
    of, device = bench.sizes, bench.device
    batch = of.batches[65_536]
    tables = variants.DeviceTables(of, bench.rows, device)
    ids = variants.draw_ids(of, bench.rows, batch, device)
    full = DeviceBlocks(tables.blocks, device)
    weight = tables.table.weight.detach()
    numbers = of.pool_bytes // 4
    pool = torch.empty(8 * numbers, device=device).uniform_(-0.01, 0.01)
    codes = torch.randint(0, 256, (4 * numbers,), dtype=torch.uint8, device=device)
    scale = torch.full((1,), 0.001, device=device)
    aligned = DeviceBlocks(variants.pool_embedding(of).pooled()[1], device)  # type: ignore[index]
    unaligned = DeviceBlocks(_unaligned(of), device)
    frequent = _Frequent(of, min(FREQUENT, of.features * bench.rows), device)
    work: dict[str, Callable[[], object]] = {
        "full tables": lambda: full.lookup(weight, ids),
        f"rows for the {len(frequent.keys):,} most frequent values, found by searchsorted in PyTorch": (
            lambda: frequent.lookup(ids)
        ),
        "pool of 10 MB, float32": lambda: aligned.lookup(pool[:numbers], ids),
        "pool of 80 MB, float32": lambda: aligned.lookup(pool, ids),
        "the same numbers in 4 bits: 10 MB": lambda: aligned.lookup_packed(codes, scale, ids, 4, 8 * numbers),
        "pool of 10 MB, its numbers in 4 bits: 1.25 MB": lambda: aligned.lookup_packed(
            codes[: numbers // 2], scale, ids, 4, numbers
        ),
        "pool of 10 MB, its numbers in 2 bits: 0.6 MB": lambda: aligned.lookup_packed(
            codes[: numbers // 4], scale, ids, 2, numbers
        ),
        "80 MB in 4 bits, blocks unaligned": lambda: unaligned.lookup_packed(
            codes, scale, ids, 4, 8 * numbers
        ),
    }
    made: dict[str, Callable[[], Variant]] = {
        name: lambda run=run: variants.recorded(run, device)  # type: ignore[misc]
        for name, run in work.items()
    }
    found = bench.times(made, bench.sizes.rounds)
    lookup = next(kernel for kernel in limits.rooflines(of, batch) if kernel.name == "lookup")
    bench.write(
        "",
        f"Lookup alone, batch {batch:,}; writing the vectors takes "
        + ", ".join(f"{lookup.limit(card):.3f} ms on an {card}" for card in limits.BANDWIDTH)
        + ":",
        "",
        "| | ms | of the limit |",
        "| --- | --- | --- |",
    )
    for name, value in found.items():
        share = f"{lookup.limit(bench.card) / value:.0%}" if bench.card and value < NOT_MEASURED else "-"
        bench.write(f"| {name} | {bench.out.get(name, f'{value:.3f}')} | {share} |")


def _unaligned(of: Sizes) -> Blocks:
    options = {"block_len": of.block_len, "align": 1}
    embedding = build("robe", [2**32] * of.features, of.dim, of.pool_bytes, 1, **options)
    return embedding.pooled()[1]  # type: ignore[index]


class _Frequent:
    """Rows of their own for the most frequent values of each feature, and one row for all others."""

    def __init__(self, of: Sizes, count: int, device: torch.device) -> None:
        self.feature = torch.arange(of.features, device=device) << 32
        each = torch.arange(
            count // of.features, device=device
        )  # ids are drawn so that small ones are frequent
        self.keys = (self.feature[:, None] + each).flatten()
        self.rows = torch.empty(len(self.keys) + 1, of.dim, device=device).uniform_(-0.01, 0.01)

    def lookup(self, ids: Tensor) -> Tensor:
        """(batch, features, dim)."""
        wanted = (ids + self.feature).flatten()
        place = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        row = torch.where(self.keys[place] == wanted, place, len(self.keys))
        return self.rows.index_select(0, row).view(*ids.shape, -1)
