"""Runs it all: see the package's docstring."""

import argparse
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

os.environ["TRITON_INTERPRET"] = "0" if torch.cuda.is_available() else "1"  # before Triton is imported

import benchmarks.gpu
import triton
from benchmarks.gpu import checks, limits, sizes, ways
from benchmarks.gpu.sizes import Sizes
from benchmarks.results import with_section
from benchmarks.timing import machine

from sizewise.embedding import fused
from sizewise.embedding.kernels.gpu import DeviceBlocks, Launch

SECTION = "GPU"
SECONDS = 460.0  # what is not measured by then is left out, and said to be
TURN = 8.0  # milliseconds of a way's turn at least, in which it runs again and again as a training does its steps
RUNS = 20  # in a turn at most
NOT_MEASURED = math.inf


class Bench:
    """One run on one device."""

    def __init__(self, of: Sizes, device: torch.device, table_gb: float) -> None:
        self.sizes, self.device = of, device
        self.started = time.monotonic()
        self.lines: list[str] = []
        self.steps: dict[int, tuple[float, float]] = {}
        self.out: dict[str, str] = {}  # why a way of the table at hand was not measured
        self.failed = False
        self.rows = max(8, int(table_gb * 1e9) // (of.features * of.dim * 4))

    def tell(self, *lines: str) -> None:
        """Print, and keep for the results."""
        print(*lines, sep="\n", flush=True)
        self.lines += lines

    def late(self) -> bool:
        """Whether what is left must be left out."""
        return time.monotonic() - self.started > SECONDS

    def times(self, made: dict[str, Callable[[], ways.Way]]) -> dict[str, float]:
        """Median milliseconds of each way, in turns, so that a clock that changes changes all.

        A way that fails is left out, and the others are measured all the same: `out` has the reason.
        """
        self.out = {}
        running: dict[str, tuple[ways.Way, int]] = {}
        taken: dict[str, list[float]] = {name: [] for name in made}
        for name, make in made.items():
            with self._leaving_out(name):
                run = make()
                for _ in range(self.sizes.warm_up):
                    run()
                runs = math.ceil(TURN / max(self._mean(run, 1), 1e-3)) if self.device.type == "cuda" else 1
                running[name] = run, min(runs, RUNS)
        for _ in range(self.sizes.rounds):
            for name, (run, runs) in running.items():
                if name not in self.out:
                    with self._leaving_out(name):
                        taken[name].append(self._mean(run, runs))
        return {
            name: NOT_MEASURED if name in self.out else statistics.median(found)
            for name, found in taken.items()
        }

    @contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        """Whatever fails costs this way, or part, its place in the results; memory may be too small for one."""
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            self.out[name] = "out of memory"
        except Exception as error:
            self.failed = True
            self.out[name] = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

    def _mean(self, run: ways.Way, runs: int) -> float:
        """Milliseconds of a run, of some that follow each other: the host hands them out while the device works."""
        if self.device.type != "cuda":
            begun = time.perf_counter()
            run()
            return (time.perf_counter() - begun) * 1e3
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(runs):
            run()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / runs

    def table(self, title: str, batch: int, times: dict[str, float]) -> None:
        """What was measured, with the goals of MLPerf's `batch` beside it, and whether they were reached."""
        self.tell(
            "",
            title,
            "",
            "| | ms | prototype (H200), ms | goal | reached |",
            "| --- | --- | --- | --- | --- |",
        )
        for name, value in times.items():
            goals = [
                (share, other)
                for source in (sizes.GOALS, sizes.ALSO)
                for share, other in [source.get((batch, name), (0.0, ""))]
                if other in times
            ]
            wanted = [f"<= {share:.3g} x {other}" for share, other in goals]
            if (batch, name) in sizes.GOAL_MS:
                wanted.append(f"<= {sizes.GOAL_MS[batch, name]:g} ms on an H200")
            got = [
                f"{'yes' if value <= share * times[other] else 'no'} ({value / times[other]:.3f} x)"
                for share, other in goals
                # The interpreter's times mean nothing.
                if self.device.type == "cuda" and max(value, times[other]) < NOT_MEASURED
            ]
            told = self.out.get(name, f"{value:.3f}").replace("|", "/")
            prototype = sizes.PROTOTYPE.get((batch, name))
            self.tell(
                f"| {name} | {told} | {prototype or '-'} | {'; '.join(wanted) or '-'} | {'; '.join(got) or '-'} |"
            )

    def embeddings(self, named: int, tables: ways.DeviceTables) -> None:
        """Embeddings alone and with the interaction: forward, backward and SGD."""
        batch, of = self.sizes.batches[named], self.sizes
        full = ways.Embeddings(of, tables, self.rows, batch, self.device)
        pool = ways.Embeddings(of, ways.pool_embedding(of), self.rows, batch, self.device)
        copy = torch.empty_like(pool.gradient)
        made: dict[str, Callable[[], ways.Way]] = {
            sizes.FULL: lambda: ways.recorded(full.alone, self.device),
            sizes.POOL: lambda: ways.recorded(pool.alone, self.device),
            sizes.PLAIN: lambda: ways.recorded(full.then_plain, self.device),
            sizes.SAME: lambda: ways.recorded(full.carried, self.device),
            sizes.FUSED: lambda: ways.recorded(pool.summed(), self.device),
        }
        if named <= 16_384:
            made[sizes.BAGS] = lambda: ways.bags_alone(of, full.weight, self.rows, batch, self.device)
        made["memory copy: vectors read, gradients written"] = lambda: lambda: copy.copy_(pool.gradient)
        self.table(f"Embeddings, batch {batch:,}, forward + backward + SGD:", named, self.times(made))

    def whole(self, named: int, tables: ways.DeviceTables) -> None:
        """Whole training steps."""
        batch, of, device, rows = self.sizes.batches[named], self.sizes, self.device, self.rows
        made: dict[str, Callable[[], ways.Way]] = {}
        if named <= 16_384:
            weight = tables.table.weight.detach()
            made[sizes.REFERENCE] = lambda: ways.reference_step(of, weight, rows, batch, device)
        # A table's gradients wait in the table: two ways must not share one object, only its memory.
        made[sizes.PLAIN_STEP] = lambda: ways.step(
            of, ways.shared(tables), rows, batch, device, interaction=False
        )
        made[sizes.SAME_STEP] = lambda: ways.step(of, ways.shared(tables), rows, batch, device)
        made[sizes.POOL_STEP] = lambda: ways.step(of, ways.pool_embedding(of), rows, batch, device)
        made[sizes.MLPS] = lambda: ways.step(
            of, ways.pool_embedding(of), rows, batch, device, kind=ways.MlpsAlone
        )
        times = self.times(made)
        self.table(f"Whole training step, batch {batch:,}:", named, times)
        best = min(times[sizes.PLAIN_STEP], times[sizes.SAME_STEP])
        floor, ours = times[sizes.MLPS], times[sizes.POOL_STEP]
        if self.device.type != "cuda" or ours == NOT_MEASURED:
            return
        if best < NOT_MEASURED:
            self.steps[batch] = (best, ours)
        if max(floor, times[sizes.SAME_STEP]) == NOT_MEASURED:
            return
        self.tell(
            "",
            f"The MLPs alone set the floor: {floor / ours:.0%} of the pool's step. Size alone, through the same "
            f"kernels, makes it {times[sizes.SAME_STEP] / ours:.2f} times as fast.",
        )

    def kernels(self, named: int, card: str | None) -> None:
        """Each kernel of the pool by itself, beside its limit."""
        batch, of = self.sizes.batches[named], self.sizes
        pool = ways.Embeddings(of, ways.pool_embedding(of), self.rows, batch, self.device)
        sums, bottom, run = torch.zeros_like(pool.weight), pool.bottom.detach(), pool.kernels
        made: dict[str, Callable[[], None]] = {
            "lookup": lambda: void(run.lookup(pool.weight, pool.ids)),
            "scatter (SGD)": lambda: run.scatter(pool.weight, pool.ids, pool.gradient, -sizes.RATE),
            "interaction": lambda: void(run.interact(bottom, pool.weight, pool.ids)),
            "its backward": lambda: void(
                run.interact_backward(bottom, pool.weight, pool.ids, pool.above, sums)
            ),
            "step of the whole pool": lambda: run.dense_step(pool.weight, sums, sizes.RATE),
        }
        found = self.times({k: lambda w=w: ways.recorded(w, self.device) for k, w in made.items()})
        reached = {k: v for k, v in found.items() if self.device.type == "cuda" and k not in self.out}
        self.tell("", *limits.roofline_table(of, batch, reached, card))

    def sweep(self, named: int) -> None:
        """Other tile sizes and warps, for `Launch`'s defaults."""
        batch, of = self.sizes.batches[named], self.sizes
        pool = ways.Embeddings(of, ways.pool_embedding(of), self.rows, batch, self.device)
        _, blocks = ways.pool_embedding(of).pooled()  # type: ignore[misc]
        self.tell("", "| elements | warps | lookup, ms | scatter, ms |", "| --- | --- | --- | --- |")
        for elements in (1024, 2048, 4096, 8192):
            for warps in (2, 4, 8):
                device = DeviceBlocks(blocks, self.device, Launch(elements, warps))
                found = self.times(
                    {
                        "lookup": lambda d=device: ways.recorded(
                            lambda: void(d.lookup(pool.weight, pool.ids)), self.device
                        ),
                        "scatter": lambda d=device: ways.recorded(
                            lambda: d.scatter(pool.weight, pool.ids, pool.gradient, -sizes.RATE), self.device
                        ),
                    }
                )
                self.tell(f"| {elements} | {warps} | {found['lookup']:.3f} | {found['scatter']:.3f} |")
        self.tell("", "| elements a thread | precision | interaction, ms | its backward, ms |")
        self.tell("| --- | --- | --- | --- |")
        sums = torch.zeros_like(pool.weight)
        for precision in ("bf16", "tf32", "tf32x3"):
            kind = torch.bfloat16 if precision == "bf16" else torch.float32
            bottom, above = pool.bottom.detach().to(kind), pool.above.to(kind)
            for share in (16, 32, 64):
                device = DeviceBlocks(blocks, self.device, Launch(thread_elements=share, precision=precision))
                found = self.times(
                    {
                        "forward": lambda d=device, x=bottom, k=kind: ways.recorded(
                            lambda: void(d.interact(x, pool.weight, pool.ids, k)), self.device
                        ),
                        "backward": lambda d=device, x=bottom, g=above: ways.recorded(
                            lambda: void(d.interact_backward(x, pool.weight, pool.ids, g, sums)), self.device
                        ),
                    }
                )
                self.tell(f"| {share} | {precision} | {found['forward']:.3f} | {found['backward']:.3f} |")
        self.tell("", "| elements of the whole pool a program | its step, ms |", "| --- | --- |")
        for elements in (512, 1024, 2048, 4096):
            device = DeviceBlocks(blocks, self.device, Launch(dense_elements=elements))
            step = lambda d=device: d.dense_step(pool.weight, sums, sizes.RATE)  # noqa: E731
            found = self.times({"step": lambda w=step: ways.recorded(w, self.device)})
            self.tell(f"| {elements} | {found['step']:.4f} |")

    def run(self) -> None:
        """All tables, the most telling first."""
        tables = ways.DeviceTables(self.sizes, self.rows, self.device)
        taken = tables.table.weight.numel() * 4 / 1e9
        scaled = "" if taken > 95 else ", scaled down from 96 GB to what fits here"
        self.tell(
            f"Full tables of {taken:.3g} GB ({self.rows:,} rows a feature{scaled}), dim {self.sizes.dim}, "
            f"{self.sizes.features} features, log-uniform ids. Medians of {self.sizes.rounds} rounds in turns, "
            f"each of several runs in a row, {TURN:g} ms or {RUNS} runs. All but the reference path are CUDA graphs; "
            "embeddings by themselves are float32, dot products tf32, PyTorch's too; whole steps take turns with "
            f"{ways.BATCHES} batches."
        )
        parts: list[tuple[str, Callable[[], None]]] = [
            ("embeddings, batch 65,536", lambda: self.embeddings(65_536, tables)),
            ("embeddings, batch 16,384", lambda: self.embeddings(16_384, tables)),
            *((f"step, batch {b:,}", lambda b=b: self.whole(b, tables)) for b in (2_048, 16_384, 65_536)),
            ("rooflines", lambda: self.kernels(65_536, card_of(self.device))),
        ]
        for name, measure in parts:
            if self.late():
                self.tell("", f"{name}: left out, {SECONDS:.0f} s had passed")
                continue
            with self._leaving_out(name):
                measure()
            if name in self.out:
                self.tell("", f"{name}: {self.out[name]}")
            if self.device.type == "cuda":
                gc.collect()  # graphs and models may hold each other, and their memory
                with suppress(RuntimeError):
                    torch.cuda.empty_cache()
        self.tell("", *limits.exchange_table(self.sizes, self.steps))


def void(_: Any) -> None:
    """Drops what a kernel returned."""


def card_of(device: torch.device) -> str | None:
    """H100 or H200, whose bandwidth is known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((card for card in limits.BANDWIDTH if card in name), None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table-gb", type=float, help="full tables (default: what fits, at most 96)")
    parser.add_argument("--sweep", action="store_true", help="only time other tile sizes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that all of it runs")
    parser.add_argument(
        "--results", type=Path, help="file to write (default: benchmarks/RESULTS.md; none for --smoke)"
    )
    asked = parser.parse_args(arguments)
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not asked.smoke:
        print("no CUDA device here: nothing measured (--smoke runs all of it without one)", file=sys.stderr)
        return 2
    device = torch.device("cuda" if on_gpu else "cpu")
    if not on_gpu:
        fused.TRITON_ON.add("cpu")
    bench = Bench(
        sizes.SMOKE if asked.smoke else Sizes(),
        device,
        asked.table_gb or (1e-4 if asked.smoke else _fitting()),
    )
    where = (
        f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB, CUDA "
        f"{torch.version.cuda}"
        if on_gpu
        else "Triton's interpreter on a CPU"
    )
    command = "`python -m benchmarks.gpu" + (" --smoke`" if asked.smoke else "`")
    nothing = " **A smoke test: sizes are tiny and times mean nothing.**" if asked.smoke else ""
    bench.tell(
        f"{command}, {time.strftime('%d %B %Y')}, {where}; {machine()}, Triton {triton.__version__}."
        f"{nothing}",
        "",
    )
    good, table = checks.check(bench.sizes, device)
    bench.tell(*table, "")
    if not good:
        print("a kernel differs from its twin: nothing timed", file=sys.stderr)
        return 1
    bench.sweep(16_384) if asked.sweep else bench.run()
    bench.tell("", f"{time.monotonic() - bench.started:.0f} s in all.")
    file = asked.results or (None if asked.smoke or asked.sweep else Path("benchmarks/RESULTS.md"))
    if file is not None:
        file.write_text(
            with_section(file.read_text() if file.exists() else "", SECTION, "\n".join(bench.lines))
        )
    if bench.failed:
        print("something failed and was left out: see the tables", file=sys.stderr)
    return int(bench.failed)


def _fitting() -> float:
    """Gigabytes of tables: 96, or what leaves room for a batch's activations and two graphs."""
    free, _ = torch.cuda.mem_get_info()
    return min(96.0, free / 1e9 - 20.0)


if __name__ == "__main__":
    sys.exit(main())
