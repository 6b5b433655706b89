"""Timing of several variants on one device in turns, and the tables of what was found."""

import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from benchmarks.gpu import limits, sizes
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.variants import Variant

TURN = 8.0  # milliseconds of a variant's turn at least, in which it runs again and again as a training does its steps
RUNS = 20  # in a turn at most
NOT_MEASURED = math.inf
ROOM = 26.0  # GB beside the full tables: activations and graphs of all variants of a table of results


class Bench:
    """One part of a run, on one device.

    Args:
        of: what is measured.
        device: a GPU, or the CPU for a smoke test.
        table_gb: of full tables; None for what fits, at most 96.
        file: what is printed is also written here, at once; None: only printed.
    """

    def __init__(
        self, of: Sizes, device: torch.device, table_gb: float | None, file: Path | None = None
    ) -> None:
        self.sizes, self.device, self.file = of, device, file
        self.out: dict[str, str] = {}  # why a variant of the table at hand was not measured
        self.failed = False
        self.steps: dict[int, tuple[float, float]] = {}  # see `limits.exchange_table`
        self.table_gb = table_gb or (self._fitting() if self.on_gpu else 1e-4)
        self.rows = self.rows_of(self.table_gb)
        if file is not None:
            file.write_text("")

    @property
    def on_gpu(self) -> bool:
        """Whether times mean anything."""
        return self.device.type == "cuda"

    @property
    def card(self) -> str | None:
        """H100 or H200, whose bandwidth is known."""
        name = torch.cuda.get_device_name(self.device) if self.on_gpu else ""
        return next((card for card in limits.BANDWIDTH if card in name), None)

    def rows_of(self, table_gb: float) -> int:
        """Rows a feature of full tables of so many GB."""
        return max(8, int(table_gb * 1e9) // (self.sizes.features * self.sizes.dim * 4))

    def write(self, *lines: str) -> None:
        """Print, and keep."""
        print(*lines, sep="\n", flush=True)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write("\n".join(lines) + "\n")

    def finish(self) -> None:
        """Write what other parts need beside the text."""
        if self.file is not None:
            found = {"failed": self.failed, "steps": {str(b): pair for b, pair in self.steps.items()}}
            self.file.with_suffix(".json").write_text(json.dumps(found))

    @contextmanager
    def leaving_out(self, name: str) -> Iterator[None]:
        """Whatever fails costs this variant, or part, its row in the results; memory may be too small for one."""
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            self.out[name] = "out of memory"
        except Exception as error:
            self.failed = True
            reason = str(error).strip().partition("\n")[0][:200]
            self.out[name] = f"failed: {type(error).__name__}: {reason}"
            self.write("", f"{name}: {self.out[name]}")

    def free(self) -> None:
        """Graphs and models may hold each other, and their memory."""
        gc.collect()
        if self.on_gpu:
            with suppress(RuntimeError):
                torch.cuda.empty_cache()

    def times(self, made: Mapping[str, Callable[[], Variant]], rounds: int | None = None) -> dict[str, float]:
        """Median milliseconds of each variant, in turns, so that a clock that changes changes all.

        A variant that fails is left out, and the others are measured all the same: `out` has the reason.
        """
        self.out = {}
        running: dict[str, tuple[Variant, int]] = {}
        taken: dict[str, list[float]] = {name: [] for name in made}
        for name, make in made.items():
            with self.leaving_out(name):
                run = make()
                for _ in range(self.sizes.warm_up):
                    run()
                runs = math.ceil(TURN / max(self._mean(run, 1), 1e-3)) if self.on_gpu else 1
                running[name] = run, min(runs, RUNS)
        for _ in range(rounds or self.sizes.rounds):
            for name, (run, runs) in running.items():
                if name not in self.out:
                    with self.leaving_out(name):
                        taken[name].append(self._mean(run, runs))
        return {
            name: NOT_MEASURED if name in self.out else statistics.median(found)
            for name, found in taken.items()
        }

    def table(self, title: str, batch: int, times: dict[str, float]) -> None:
        """What was measured, with the goals of MLPerf's `batch` beside it, and whether they were reached."""
        self.write(
            "",
            title,
            "",
            "| | ms | prototype (H200), ms | goal | reached |",
            "| --- | --- | --- | --- | --- |",
        )
        for name, value in times.items():
            goals = [goal for goal in sizes.GOALS.get((batch, name), []) if goal[1] in times]
            wanted = "; ".join(f"<= {share:.3g} x {other}" for share, other in goals) or "-"
            got = [
                f"{'yes' if value <= share * times[other] else 'no'} ({value / times[other]:.3f} x)"
                for share, other in goals
                # The interpreter's times mean nothing.
                if self.on_gpu and max(value, times[other]) < NOT_MEASURED
            ]
            cell = self.out.get(name, f"{value:.3f}").replace("|", "/")
            prototype = sizes.PROTOTYPE.get((batch, name), "-")
            self.write(f"| {name} | {cell} | {prototype} | {wanted} | {'; '.join(got) or '-'} |")

    def _mean(self, run: Variant, runs: int) -> float:
        """Milliseconds of a run, of some that follow each other: the host hands them out while the device works."""
        if not self.on_gpu:
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

    def _fitting(self) -> float:
        free, _ = torch.cuda.mem_get_info()
        return min(96.0, free / 1e9 - ROOM)
