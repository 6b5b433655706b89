"""The parts of a run, each with its tables: `PARTS` has them in the order in which they are measured."""

import time
from collections.abc import Callable

import torch
import triton
from benchmarks.gpu import checks, fbgemm, limits, memory, reads, sizes, variants
from benchmarks.gpu.bench import NOT_MEASURED, RUNS, TURN, Bench
from benchmarks.gpu.variants import Variant
from benchmarks.timing import machine

from sizewise.embedding.kernels.gpu import DeviceBlocks, Launch


def check(bench: Bench) -> None:
    """What ran where, and every kernel against its twin."""
    on = "Triton's interpreter on a CPU"
    if bench.on_gpu:
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        on = f"{torch.cuda.get_device_name()}, {memory:.0f} GB, CUDA {torch.version.cuda}"
    smoke = bench.sizes is sizes.SMOKE
    bench.write(
        f"`python -m benchmarks.gpu{' --smoke' if smoke else ''}`, {time.strftime('%d %B %Y')}, {on}; {machine()}, "
        f"Triton {triton.__version__}."
        + (" **A smoke test: sizes are tiny and times mean nothing.**" if smoke else ""),
        "",
    )
    good, table = checks.check(bench.sizes, bench.device)
    bench.failed |= not good
    bench.write(*table, "", "" if good else "**A kernel differs from its twin: see above.**")
    scaled = "" if bench.table_gb > 95 else ", scaled down from 96 GB to what fits here"
    bench.write(
        f"Full tables of {bench.table_gb:.3g} GB ({bench.rows:,} rows a feature{scaled}), dim {bench.sizes.dim}, "
        f"{bench.sizes.features} features, log-uniform ids. Medians of {bench.sizes.rounds} rounds in turns, each of "
        f"several runs in a row, {TURN:g} ms or {RUNS} runs. All but the reference path are CUDA graphs; embeddings by "
        "themselves are float32, dot products tf32, PyTorch's too; whole steps take turns with "
        f"{variants.BATCHES} batches.",
    )


def embeddings(bench: Bench) -> None:
    """Embeddings alone and with the interaction: forward, backward and SGD."""
    tables = variants.DeviceTables(bench.sizes, bench.rows, bench.device)
    for named in (65_536, 16_384):
        _embeddings(bench, named, tables)
        bench.free()


def _embeddings(bench: Bench, named: int, tables: variants.DeviceTables) -> None:
    batch, of, device, rows = bench.sizes.batches[named], bench.sizes, bench.device, bench.rows
    full = variants.Embeddings(of, tables, rows, batch, device)
    pool = variants.Embeddings(of, variants.pool_embedding(of), rows, batch, device)
    copy = torch.empty_like(pool.gradient)
    made: dict[str, Callable[[], Variant]] = {
        sizes.FULL: lambda: variants.recorded(full.alone, device),
        sizes.POOL: lambda: variants.recorded(pool.alone, device),
        sizes.PLAIN: lambda: variants.recorded(full.then_plain, device),
        sizes.SAME: lambda: variants.recorded(full.carried, device),
        sizes.FUSED: lambda: variants.recorded(pool.summed(), device),
    }
    if named <= 16_384:
        made[sizes.BAGS] = lambda: variants.bags_alone(of, full.weight, rows, batch, device)
        made[sizes.BAGS_DOTS] = lambda: variants.bags_alone(of, full.weight, rows, batch, device, dots=True)
    made["memory copy: vectors read, gradients written"] = lambda: lambda: copy.copy_(pool.gradient)
    bench.table(f"Embeddings, batch {batch:,}, forward + backward + SGD:", named, bench.times(made))


def optimizers(bench: Bench) -> None:
    """Adagrad and bfloat16: three tensors of the tables' size, so tables are a third as large."""
    of, device = bench.sizes, bench.device
    rows = bench.rows_of(bench.table_gb / 3.2)
    tables = variants.DeviceTables(of, rows, device)
    for named in (65_536, 16_384):
        batch = of.batches[named]
        full = variants.Embeddings(of, tables, rows, batch, device)
        pool = variants.Embeddings(of, variants.pool_embedding(of), rows, batch, device)
        squares, sums = torch.zeros_like(full.weight), torch.zeros_like(full.weight)
        times = bench.times(
            {
                "full tables, fused gather and Adagrad": lambda f=full, q=squares, s=sums: variants.recorded(
                    lambda: f.adagrad(s, q), device
                ),
                "shared pool 10 MB, Adagrad": lambda p=pool: variants.recorded(p.whole_adagrad(), device),
                "shared pool 10 MB fused with the interaction, Adagrad": lambda p=pool: variants.recorded(
                    p.summed(adagrad=True), device
                ),
                "shared pool fused with the interaction, SGD, stored as bfloat16": lambda p=pool: (
                    variants.recorded(p.summed(rounding=True), device)
                ),
            }
        )
        bench.table(
            f"Embeddings, batch {batch:,}, forward + backward + other optimizers and storages "
            f"(full tables of {bench.table_gb / 3.2:.3g} GB, with two more tensors of their size):",
            named,
            times,
        )
        del full, pool, squares, sums
        bench.free()
    made: dict[str, Callable[[], Variant]] = {
        f"{sizes.PLAIN_STEP}, Adagrad": lambda: variants.step(
            of,
            variants.shared(tables),
            rows,
            of.batches[16_384],
            device,
            interaction=False,
            optimizer="adagrad",
        ),
        f"{sizes.POOL_STEP}, Adagrad": lambda: variants.step(
            of, variants.pool_embedding(of), rows, of.batches[16_384], device, optimizer="adagrad"
        ),
    }
    bench.table(f"Whole training step, batch {of.batches[16_384]:,}, Adagrad:", 16_384, bench.times(made))


def step(bench: Bench, named: int) -> None:
    """Whole training steps."""
    batch, of, device, rows = bench.sizes.batches[named], bench.sizes, bench.device, bench.rows
    tables = variants.DeviceTables(of, rows, device)
    made: dict[str, Callable[[], Variant]] = {}
    if named <= 16_384:
        weight = tables.table.weight.detach()
        made[sizes.REFERENCE] = lambda: variants.reference_step(of, weight, rows, batch, device)
    # A table's gradients wait in the table: two variants must not share one object, only its memory.
    made |= {
        sizes.PLAIN_STEP: lambda: variants.step(
            of, variants.shared(tables), rows, batch, device, interaction=False
        ),
        sizes.PLAIN_STEP_BF16: lambda: variants.step(
            of,
            variants.shared(tables),
            rows,
            batch,
            device,
            interaction=False,
            kind=variants.RoundedInteraction,
        ),
        sizes.SAME_STEP: lambda: variants.step(of, variants.shared(tables), rows, batch, device),
        sizes.POOL_STEP: lambda: variants.step(of, variants.pool_embedding(of), rows, batch, device),
        sizes.ROUNDED_STEP: lambda: variants.step(
            of, variants.pool_embedding(of, storage="bfloat16"), rows, batch, device
        ),
        sizes.MLPS: lambda: variants.step(
            of, variants.pool_embedding(of), rows, batch, device, kind=variants.MlpsAlone
        ),
    }
    times = bench.times(made)
    bench.table(f"Whole training step, batch {batch:,}:", named, times)
    opponents = [times[name] for name in (sizes.PLAIN_STEP, sizes.PLAIN_STEP_BF16, sizes.SAME_STEP)]
    best, floor, ours, same = (
        min(opponents),
        times[sizes.MLPS],
        times[sizes.POOL_STEP],
        times[sizes.SAME_STEP],
    )
    if not bench.on_gpu or ours == NOT_MEASURED:
        return
    if best < NOT_MEASURED:
        bench.steps[batch] = (best, ours)
    if max(floor, same) < NOT_MEASURED:
        rate = limits.mlp_operations(of, batch) / floor / 1e9
        bench.write(
            "",
            f"The MLPs alone set the floor: {floor / ours:.0%} of the pool's step, at {rate:.0f} TFLOP/s. Size alone, "
            f"through the same kernels, makes it {same / ours:.2f} times as fast.",
        )


def kernels(bench: Bench) -> None:
    """Each kernel of the pool by itself, beside its limit, and what the card reaches of what is stated."""
    named = 65_536
    batch, of, device = bench.sizes.batches[named], bench.sizes, bench.device
    pool = variants.Embeddings(of, variants.pool_embedding(of), bench.rows_of(60.0), batch, device)
    sums, bottom, run = torch.zeros_like(pool.weight), pool.bottom.detach(), pool.kernels
    work: dict[str, Callable[[], object]] = {
        "lookup": lambda: run.lookup(pool.weight, pool.ids),
        "scatter (SGD)": lambda: run.scatter(pool.weight, pool.ids, pool.gradient, -sizes.RATE),
        "interaction": lambda: run.interact(bottom, pool.weight, pool.ids),
        "its backward": lambda: run.interact_backward(bottom, pool.weight, pool.ids, pool.above, sums),
        "step of the whole pool": lambda: run.dense_step(pool.weight, sums, sizes.RATE),
    }
    found = bench.times({k: lambda w=w: variants.recorded(w, device) for k, w in work.items()})
    reached = {k: v for k, v in found.items() if bench.on_gpu and k not in bench.out}
    bench.write("", *limits.roofline_table(of, batch, reached, bench.card))
    if bench.on_gpu:
        del pool, sums, bottom
        bench.free()
        bench.write("", *_ceilings(bench))


def _ceilings(bench: Bench) -> list[str]:
    """What this card reaches: a copy, and a product of matrices in bfloat16, of random numbers."""
    size = 2**30
    source, target = torch.randn(size, device=bench.device), torch.empty(size, device=bench.device)
    a, b = (torch.randn(8192, 8192, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    found = bench.times({"copy": lambda: lambda: target.copy_(source), "product": lambda: lambda: a @ b}, 10)
    return [
        f"Reached on this card: {8e-9 * size / found['copy']:.2f} TB/s by a copy of 4.3 GB (read and written), "
        f"{2e-9 * 8192**3 / found['product']:.0f} TFLOP/s by a bfloat16 product of 8192 x 8192 matrices."
    ]


def tuning(bench: Bench) -> None:
    """Where a step's time goes, and other tile sizes and warps: for tuning the kernels."""
    for named in (65_536, 16_384):
        with bench.leaving_out("profile"):
            _profile(bench, named)
        bench.free()
    with bench.leaving_out("tiles"):
        _tiles(bench)


def _profile(bench: Bench, named: int) -> None:
    """The kernels of a step by their time, and the MLPs with columns rounded up."""
    of, device, rows, batch = bench.sizes, bench.device, bench.rows_of(60.0), bench.sizes.batches[named]
    found = bench.times(
        {
            name: lambda k=kind: variants.step(of, variants.pool_embedding(of), rows, batch, device, kind=k)
            for name, kind in (("as they are", variants.MlpsAlone), ("padded", variants.PaddedMlps))
        },
        5,
    )
    cells = ", ".join(f"{name} {bench.out.get(name, f'{value:.3f} ms')}" for name, value in found.items())
    bench.write("", f"MLPs alone, batch {batch:,}, the first layer's columns: {cells}", "")
    run = variants.step(of, variants.pool_embedding(of), rows, batch, device, graph=False)
    run()
    kinds = [torch.profiler.ProfilerActivity.CUDA if bench.on_gpu else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(4):
            run()
        if bench.on_gpu:
            torch.cuda.synchronize()
    bench.write("| kernel | times a step | microseconds a step |", "| --- | --- | --- |")
    spent = {
        event.key: (event.count / 4, (event.self_device_time_total or event.self_cpu_time_total) / 4)
        for event in profile.key_averages()
    }
    for name, (count, time_) in sorted(spent.items(), key=lambda pair: -pair[1][1])[:16]:
        bench.write(f"| {name[:110].replace('|', '/')} | {count:g} | {time_:.0f} |")


def _tiles(bench: Bench) -> None:
    """Other tile sizes and warps, for the defaults of `Launch`."""
    named, of, device = 65_536, bench.sizes, bench.device
    pool = variants.Embeddings(
        of, variants.pool_embedding(of), bench.rows_of(60.0), of.batches[named], device
    )
    _, blocks = variants.pool_embedding(of).pooled()  # type: ignore[misc]

    def measured(**work: Callable[[], object]) -> list[str]:
        found = bench.times({k: lambda w=w: variants.recorded(w, device) for k, w in work.items()}, 5)
        return [bench.out.get(name, f"{value:.4f}") for name, value in found.items()]

    bench.write("", "| elements | warps | lookup, ms | scatter, ms |", "| --- | --- | --- | --- |")
    for elements in (1024, 2048, 4096):
        for warps in (2, 4, 8):
            d = DeviceBlocks(blocks, device, Launch(elements, warps))
            cells = measured(
                lookup=lambda d=d: d.lookup(pool.weight, pool.ids),
                scatter=lambda d=d: d.scatter(pool.weight, pool.ids, pool.gradient, -sizes.RATE),
            )
            bench.write(f"| {elements} | {warps} | {' | '.join(cells)} |")
    bench.write("", "| elements a thread | precision | interaction, ms | its backward, ms |")
    bench.write("| --- | --- | --- | --- |")
    sums = torch.zeros_like(pool.weight)
    for precision in ("bf16", "tf32", "tf32x3"):
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        bottom, above = pool.bottom.detach().to(kind), pool.above.to(kind)
        for share in (16, 32, 64):
            d = DeviceBlocks(blocks, device, Launch(thread_elements=share, precision=precision))
            cells = measured(
                forward=lambda d=d, x=bottom, k=kind: d.interact(x, pool.weight, pool.ids, k),
                backward=lambda d=d, x=bottom, g=above: d.interact_backward(
                    x, pool.weight, pool.ids, g, sums
                ),
            )
            bench.write(f"| {share} | {precision} | {' | '.join(cells)} |")
    bench.write("", "| elements of the whole pool a program | its step, ms |", "| --- | --- |")
    for elements in (512, 1024, 2048, 4096):
        d = DeviceBlocks(blocks, device, Launch(dense_elements=elements))
        cells = measured(step=lambda d=d: d.dense_step(pool.weight, sums, sizes.RATE))
        bench.write(f"| {elements} | {cells[0]} |")


PARTS: dict[str, Callable[[Bench], None]] = {
    "checks": check,
    "embeddings": embeddings,
    "step-16384": lambda bench: step(bench, 16_384),
    "step-2048": lambda bench: step(bench, 2_048),
    "step-65536": lambda bench: step(bench, 65_536),
    "kernels": kernels,
    "reads": reads.reads,
    "optimizers": optimizers,
    "memory": memory.memory,
    "fbgemm": fbgemm.fbgemm,
    "tuning": tuning,
}
