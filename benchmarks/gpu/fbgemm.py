"""FBGEMM's table-batched embeddings beside ours, over the very same full tables; where it is installed."""

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.gpu import sizes, variants
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.sizes import RATE
from benchmarks.gpu.variants import Variant

ALONE, GRAPH = "FBGEMM, table-batched, SGD in its backward", "the same, CUDA graph"
THEN_PLAIN = "FBGEMM, then PyTorch interaction, CUDA graph"


def fbgemm(bench: Bench) -> None:
    """Forward, backward and SGD of full tables by FBGEMM and by ours, and of the pool."""
    try:
        tables = _tables(bench)
    except ImportError as error:
        bench.write("", f"FBGEMM is not installed here and was not measured ({error}).")
        return
    of, device = bench.sizes, bench.device
    weight = tables.weights_dev.detach().view(-1, of.dim)
    weight.uniform_(-0.01, 0.01)
    ours = variants.DeviceTables(of, bench.rows, device, weight)
    for named in (65_536, 16_384):
        batch = of.batches[named]
        full = variants.Embeddings(of, ours, bench.rows, batch, device)
        pool = variants.Embeddings(of, variants.pool_embedding(of), bench.rows, batch, device)
        alone, then_plain = _runs(tables, full)
        made: dict[str, Callable[[], Variant]] = {
            sizes.FULL: lambda f=full: variants.recorded(f.alone, device),
            sizes.POOL: lambda p=pool: variants.recorded(p.alone, device),
            sizes.PLAIN: lambda f=full: variants.recorded(f.then_plain, device),
            sizes.FUSED: lambda p=pool: variants.recorded(p.summed(), device),
            ALONE: lambda a=alone: a,
            GRAPH: lambda a=alone: variants.recorded(a, device),
            THEN_PLAIN: lambda t=then_plain: variants.recorded(t, device),
        }
        times = bench.times(made)
        bench.table(f"Embeddings beside FBGEMM's, batch {batch:,}, forward + backward + SGD:", named, times)
        del full, pool, alone, then_plain, made
        bench.free()


def _tables(bench: Bench) -> Any:
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    if not bench.on_gpu:
        raise ImportError("no GPU")
    of = bench.sizes
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(bench.rows, of.dim, EmbeddingLocation.DEVICE, ComputeDevice.CUDA)] * of.features,
        optimizer=EmbOptimType.EXACT_SGD,
        learning_rate=RATE,
        bounds_check_mode=BoundsCheckMode.NONE,
        device=bench.device,
    )


def _runs(tables: Any, full: variants.Embeddings) -> tuple[Callable[[], None], Callable[[], None]]:
    """Its step alone, and with PyTorch's interaction behind it, of the same ids and gradients as ours."""
    rows = len(full.ids)
    ids = full.ids.T.reshape(-1).contiguous()
    offsets = torch.arange(len(ids) + 1, device=full.device)
    gradient = full.gradient.view(rows, -1)

    def alone() -> None:
        tables(ids, offsets).backward(gradient)

    def then_plain() -> None:
        with variants.tf32():
            vectors = tables(ids, offsets).view_as(full.gradient)
            out = variants.plain_interaction(full.bottom, vectors, full.pairs)
            full.bottom.grad = None
            out.backward(full.above[:, : out.shape[1]])

    return alone, then_plain
