"""Embeddings and whole training steps on one GPU, side by side, as Markdown tables.

    python -m benchmarks.gpu                  # from the repository's root; one GPU, no Ray, under 8 minutes

First every kernel is checked against its PyTorch twin on this GPU, and the run ends with exit code 1 where one
differs; then it is timed. Ids are log-uniform, dim 128, 26 features, pools of 10 MB with block_len 32 aligned to 32;
full tables take --table-gb (as much as fits: 96 on an H200, 60 on an 80 GB card; the printed line says so).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.timing import machine
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, pad, relu

from sizewise.embedding import build
from sizewise.embedding.base import Embedding
from sizewise.embedding.kernels.gpu import DeviceBlocks, Launch

FEATURES, DIM, DENSE = 26, 128, 13
POOL_BYTES, BLOCK_LEN = 10_000_000, 32
BOTTOM, TOP = [512, 256, 128], [1024, 1024, 512, 256]
RATE = 1e-3
DEVICE = torch.device("cuda")


def milliseconds(run: Callable[[], object], rounds: int = 30) -> float:
    """Median time of a call on the device."""
    for _ in range(5):
        run()
    times = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


def captured(run: Callable[[], object]) -> Callable[[], object]:
    """The same work as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def draw_ids(rows: int, batch: int) -> Tensor:
    """Log-uniform ids, int64 (batch, 26), on the device."""
    draws = torch.rand(batch, FEATURES, device=DEVICE, dtype=torch.float64)
    return torch.exp(draws * torch.log(torch.tensor(float(rows)))).long().clamp_(max=rows - 1)


def pool_embedding() -> Embedding:
    options = {"block_len": BLOCK_LEN, "align": BLOCK_LEN}
    return build("robe", [10_000_000] * FEATURES, DIM, POOL_BYTES, 1, **options)


class FullTables:
    """The stand-in for a `full` embedding too large to be drawn on a CPU: its kernels, tables on the device."""

    def __init__(self, rows: int, launch: Launch) -> None:
        small = build("full", [4] * FEATURES, DIM, 4 * FEATURES * DIM * 4, 1)
        self.device = DeviceBlocks(small, DEVICE, launch)
        self.device.increment = (torch.arange(FEATURES, device=DEVICE) * rows).view(-1, 1)
        self.weight = torch.empty(FEATURES * rows * DIM, device=DEVICE).uniform_(-0.01, 0.01)


def plain_interaction(bottom: Tensor, vectors: Tensor, pairs: Tensor) -> Tensor:
    """PyTorch's: (batch, dim + pairs)."""
    x = torch.cat([bottom.unsqueeze(1), vectors], dim=1)
    return torch.cat([bottom, torch.bmm(x, x.transpose(1, 2)).flatten(1).index_select(1, pairs)], dim=1)


def pair_positions() -> Tensor:
    rows, columns = torch.tril_indices(FEATURES + 1, FEATURES + 1, offset=-1)
    return (rows * (FEATURES + 1) + columns).to(DEVICE)


def check(batch: int = 4_096) -> bool:
    """Every kernel against PyTorch in float32 on this device; prints the greatest error of each."""
    embedding = pool_embedding().to(DEVICE)
    embedding.fused = False
    device = DeviceBlocks(embedding, DEVICE, Launch(precision="ieee"))
    pool = next(embedding.parameters())
    with torch.no_grad():
        pool.mul_(50)
    ids = draw_ids(10_000_000, batch)
    ids[0] = 2**32 - 1
    bottom = torch.randn(len(ids), DIM, device=DEVICE, requires_grad=True)
    vectors = embedding(ids)
    expected = plain_interaction(bottom, vectors, pair_positions())
    gradient = torch.randn(len(ids), device.width, device=DEVICE)
    vectors.retain_grad()
    expected.backward(gradient[:, : expected.shape[1]])
    assert pool.grad is not None
    assert vectors.grad is not None
    assert bottom.grad is not None
    flat = pool.detach()
    sums = torch.zeros_like(flat)
    device.scatter(sums, ids, vectors.grad)
    fused_sums = torch.zeros_like(flat)
    passed = device.interact_backward(bottom.detach(), flat, fused_sums, ids, gradient)
    stepped, squares = flat.clone(), torch.zeros_like(flat)
    device.adagrad(stepped, sums.clone(), squares, ids, 0.1)
    twin = flat.clone().requires_grad_()
    twin.grad = pool.grad
    torch.optim.Adagrad([twin], lr=0.1).step()
    left = sums.clone()
    device.adagrad(flat.clone(), left, torch.zeros_like(flat), ids, 0.1)
    results = [
        ("lookup", device.lookup(flat, ids), vectors.detach(), 0.0),
        ("scatter", sums, pool.grad, 1e-4),
        (
            "interact",
            device.interact(bottom.detach(), flat, ids)[:, : expected.shape[1]],
            expected.detach(),
            1e-4,
        ),
        ("interact backward, bottom", passed, bottom.grad, 1e-4),
        ("interact backward, pool", fused_sums, pool.grad, 1e-4),
        ("Adagrad", stepped, twin.detach(), 1e-3),
        ("sums are cleared", left, torch.zeros_like(left), 0.0),
    ]
    good = True
    print("| kernel | greatest error, of the greatest value | allowed | |\n| --- | --- | --- | --- |")
    for name, ours, theirs, allowed in results:
        error = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
        fine = error <= allowed
        good &= fine
        print(f"| {name} | {error:.1e} | {allowed:g} | {'equal' if fine else 'DIFFERS'} |")
    print()
    return good


class Model:
    """MLPerf's DLRM around one way of looking up and stepping embeddings; SGD throughout.

    Args:
        path: "fused" (kernels with the interaction), "gather" (fused gather and update, PyTorch's interaction),
            "reference" (26 EmbeddingBag, sparse gradients) or "none" (MLPs alone).
        half: the MLPs compute in bfloat16, their weights stay float32.
    """

    def __init__(self, path: str, batch: int, weight: Any, device: Any, rows: int, half: bool) -> None:
        self.path, self.weight, self.device, self.half = path, weight, device, half
        self.width = -(-(DIM + FEATURES * (FEATURES + 1) // 2) // 16) * 16
        self.bottom = [nn.Linear(a, b).to(DEVICE) for a, b in zip([DENSE, *BOTTOM], BOTTOM, strict=False)]
        self.top = [nn.Linear(a, b).to(DEVICE) for a, b in zip([self.width, *TOP], [*TOP, 1], strict=True)]
        self.parameters = [p for layer in (*self.bottom, *self.top) for p in layer.parameters()]
        self.pairs = pair_positions()
        self.ids = draw_ids(rows, batch)
        self.dense = torch.randn(batch, DENSE, device=DEVICE)
        self.label = (torch.rand(batch, device=DEVICE) < 0.25).float()
        self.sums = torch.zeros_like(weight) if path == "fused" else None
        self.bags = weight if path == "reference" else None
        self.offsets = torch.arange(batch, device=DEVICE)
        # Stands for embeddings whose cost is not to be counted.
        self.still = torch.randn(batch, self.width, device=DEVICE)

    def step(self) -> None:
        """Forward, backward and the update of everything, without waiting for the host."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.half):
            bottom = self._mlp(self.dense, self.bottom, last=True)
        leaf = bottom.detach().float().requires_grad_()
        vectors = None
        if self.path == "fused":
            kind = torch.bfloat16 if self.half else torch.float32
            top_input = self.device.interact(leaf.detach(), self.weight, self.ids, kind).requires_grad_()
        elif self.path == "none":
            top_input = self.still.detach().requires_grad_()
        else:
            if self.path == "reference":
                columns = zip(self.bags, self.ids.T.contiguous(), strict=True)
                vectors = torch.stack([bag(column, self.offsets) for bag, column in columns], 1)
                source = vectors
            else:
                vectors = source = self.device.lookup(self.weight, self.ids).requires_grad_()
            joined = plain_interaction(leaf, source, self.pairs)
            top_input = pad(joined, (0, self.width - joined.shape[1]))
        with torch.autocast("cuda", torch.bfloat16, enabled=self.half):
            logits = self._mlp(top_input, self.top, last=False)
        loss = binary_cross_entropy_with_logits(logits.float().squeeze(1), self.label)
        if vectors is not None:
            vectors.retain_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.path == "fused":
            gradient = top_input.grad
            passed = self.device.interact_backward(leaf.detach(), self.weight, self.sums, self.ids, gradient)
            self.device.sgd_from_sums(self.weight, self.sums, self.ids, RATE)
        elif self.path == "none":
            passed = top_input.grad[:, :DIM]
        else:
            passed = leaf.grad
        bottom.backward(passed.to(bottom.dtype))
        with torch.no_grad():
            if self.path == "gather":
                self.device.sgd(self.weight, self.ids, vectors.grad, RATE)
            elif self.path == "reference":
                for bag in self.bags:
                    bag.weight.add_(bag.weight.grad, alpha=-RATE)
                    bag.weight.grad = None
            torch._foreach_add_(self.parameters, [p.grad for p in self.parameters], alpha=-RATE)
            for parameter in self.parameters:
                parameter.grad = None

    def _mlp(self, x: Tensor, layers: list[nn.Linear], last: bool) -> Tensor:
        for number, layer in enumerate(layers):
            x = linear(x, layer.weight, layer.bias)
            if last or number < len(layers) - 1:
                x = relu(x)
        return x


def embeddings(batch: int, tables: FullTables | None, rows: int, launch: Launch) -> None:
    """Forward, backward and SGD of embeddings alone, and with the interaction."""
    embedding = pool_embedding()
    device = DeviceBlocks(embedding, DEVICE, launch)
    pool = next(embedding.parameters()).detach().to(DEVICE)
    sums, ids = torch.zeros_like(pool), draw_ids(rows, batch)
    gradient = torch.randn(batch, FEATURES, DIM, device=DEVICE)
    bottom = torch.randn(batch, DIM, device=DEVICE, requires_grad=True)
    pairs, top_gradient = pair_positions(), torch.randn(batch, device.width, device=DEVICE)

    def alone(where: DeviceBlocks, weight: Tensor) -> Callable[[], None]:
        def run() -> None:
            where.lookup(weight, ids)
            where.sgd(weight, ids, gradient, RATE)

        return run

    def then_plain(where: DeviceBlocks, weight: Tensor) -> Callable[[], None]:
        def run() -> None:
            vectors = where.lookup(weight, ids).requires_grad_()
            out = plain_interaction(bottom, vectors, pairs)
            out.backward(top_gradient[:, : out.shape[1]])
            assert vectors.grad is not None
            where.sgd(weight, ids, vectors.grad, RATE)

        return run

    def fused(where: DeviceBlocks, weight: Tensor, into: Tensor) -> Callable[[], None]:
        def run() -> None:
            where.interact(bottom.detach(), weight, ids)
            where.interact_backward(bottom.detach(), weight, into, ids, top_gradient)
            where.sgd_from_sums(weight, into, ids, RATE)

        return run

    rows_out: list[tuple[str, float]] = []
    if tables:
        rows_out.append(
            ("full tables, fused gather and update", milliseconds(alone(tables.device, tables.weight)))
        )
    rows_out.append(("shared pool 10 MB", milliseconds(alone(device, pool))))
    if tables:
        plain = milliseconds(then_plain(tables.device, tables.weight))
        rows_out.append(("full tables fused, then PyTorch interaction", plain))
    rows_out.append(("shared pool 10 MB fused with the interaction", milliseconds(fused(device, pool, sums))))
    # Bytes that must move: vectors written and gradients read, or the interaction's output and its gradient.
    moved = 2 * batch * FEATURES * DIM * 4
    buffer = torch.empty_like(gradient)
    rows_out.append((f"memory copy of {moved / 1e9:.2f} GB", milliseconds(lambda: buffer.copy_(gradient))))
    print(
        f"\nbatch {batch}, embeddings alone\n\n| | ms | GB/s of vectors and gradients |\n| --- | --- | --- |"
    )
    for name, time_ms in rows_out:
        print(f"| {name} | {time_ms:.3f} | {moved / time_ms / 1e6:.0f} |")
    sys.stdout.flush()


def steps(batch: int, tables: FullTables | None, rows: int, launch: Launch) -> None:
    """Whole training steps of MLPerf's model."""
    embedding = pool_embedding()
    device = DeviceBlocks(embedding, DEVICE, launch)
    pool = next(embedding.parameters()).detach().to(DEVICE)
    times: dict[str, float] = {}
    if tables:
        bag_rows = rows
        table = tables.weight.view(FEATURES, bag_rows, DIM)
        bags = [nn.EmbeddingBag.from_pretrained(t, freeze=False, mode="sum", sparse=True) for t in table]
        if batch <= 16_384:
            times["reference path, eager"] = milliseconds(
                Model("reference", batch, bags, None, rows, False).step
            )
        model = Model("gather", batch, tables.weight, tables.device, rows, True)
        times["full tables fused + PyTorch interaction, CUDA graph, bf16"] = milliseconds(
            captured(model.step)
        )
    model = Model("fused", batch, pool, device, rows, True)
    times["10 MB pool fused, CUDA graph, bf16"] = milliseconds(captured(model.step))
    times["MLPs alone, CUDA graph, bf16"] = milliseconds(
        captured(Model("none", batch, pool, device, rows, True).step)
    )
    print(f"\nbatch {batch}, whole step\n\n| | ms |\n| --- | --- |")
    for name, time_ms in times.items():
        print(f"| {name} | {time_ms:.3f} |")
    sys.stdout.flush()


def same_kernels(batch: int, rows: int, launch: Launch) -> None:
    """What size alone buys: lookup with the interaction, then its backward, full tables against the pool.

    Gradients go straight into a second buffer; for full tables that is as large again, so a fifth of them.
    """
    fewer = rows // 5
    small = FullTables(fewer, launch)
    ids, bottom = draw_ids(fewer, batch), torch.randn(batch, DIM, device=DEVICE)
    sums, gradient = torch.zeros_like(small.weight), torch.randn(batch, small.device.width, device=DEVICE)

    def run() -> None:
        small.device.interact(bottom, small.weight, ids)
        small.device.interact_backward(bottom, small.weight, sums, ids, gradient)
        small.device.sgd_from_sums(small.weight, sums, ids, RATE)

    size = small.weight.numel() * 4 / 1e9
    print(
        f"\nbatch {batch}: full tables of {size:.1f} GB through the interaction's kernels: {milliseconds(run):.3f} ms"
    )


def sweep(batch: int) -> None:
    """Other tile sizes and warps, for `Launch`'s defaults."""
    print("\n| elements | warps | lookup ms | scatter ms | interaction ms |\n| --- | --- | --- | --- | --- |")
    embedding = pool_embedding()
    pool = next(embedding.parameters()).detach().to(DEVICE)
    ids, bottom = draw_ids(10_000_000, batch), torch.randn(batch, DIM, device=DEVICE)
    gradient = torch.randn(batch, FEATURES, DIM, device=DEVICE)
    for elements in (1024, 2048, 4096, 8192):
        for warps in (2, 4, 8):
            device = DeviceBlocks(embedding, DEVICE, Launch(elements, warps))
            times = (
                milliseconds(lambda d=device: d.lookup(pool, ids), 10),  # type: ignore[misc]
                milliseconds(lambda d=device: d.scatter(pool, ids, gradient, -RATE), 10),  # type: ignore[misc]
                milliseconds(lambda d=device: d.interact(bottom, pool, ids), 10),  # type: ignore[misc]
            )
            print(f"| {elements} | {warps} | " + " | ".join(f"{t:.3f}" for t in times) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table-gb", type=float, help="full tables (default: what fits, at most 96)")
    parser.add_argument("--precision", choices=["ieee", "tf32", "bf16"], default="tf32")
    parser.add_argument("--sweep", action="store_true", help="only time other tile sizes")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing measured", file=sys.stderr)
        return 2
    started = time.monotonic()
    free, total = torch.cuda.mem_get_info()
    print(f"{torch.cuda.get_device_name()}, {total / 1e9:.0f} GB; {machine()}\n")
    if not check():
        print("a kernel differs from its twin: nothing timed", file=sys.stderr)
        return 1
    if arguments.sweep:
        sweep(16_384)
        return 0
    launch = Launch(precision=arguments.precision)
    gigabytes = arguments.table_gb or min(96.0, free / 1e9 * 0.75)
    rows = int(gigabytes * 1e9) // (FEATURES * DIM * 4)
    tables = FullTables(rows, launch)
    print(f"full tables: {tables.weight.numel() * 4 / 1e9:.1f} GB, {rows} rows a feature")
    for batch in (16_384, 65_536):
        embeddings(batch, tables, rows, launch)
    for batch in (2_048, 16_384, 65_536):
        steps(batch, tables, rows, launch)
    del tables
    torch.cuda.empty_cache()
    same_kernels(16_384, rows, launch)
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
