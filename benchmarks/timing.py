"""Times of several ways to do one thing, taken in turns, so that a busy machine slows all alike."""

import contextlib
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def take_turns(
    ways: Mapping[str, Callable[[], object]], rounds: int, repeat: int = 1
) -> dict[str, tuple[float, float]]:
    """Median (wall, CPU) milliseconds of each way; two rounds are run first and not counted.

    `repeat`: runs of a way at its turn, whose mean counts: a training repeats its step, in caches that it has filled.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 2):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                way()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn >= 2:
                times[name].append((wall * 1e3 / repeat, cpu * 1e3 / repeat))
    return {
        name: (statistics.median(w for w, _ in pairs), statistics.median(c for _, c in pairs))
        for name, pairs in times.items()
    }


def machine() -> str:
    """What the figures were taken on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    commit = ""
    with contextlib.suppress(OSError):  # no git, as on a machine that is only lent
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores of {name}, load {load:.1f}, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, commit {commit or 'unknown'}"
    )
