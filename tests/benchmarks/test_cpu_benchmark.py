"""`python -m benchmarks.cpu` runs from end to end, so that what changes in the project cannot break it unseen."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_row_of_every_table_at_tiny_sizes(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n## Last run: benchmarks.cpu\n\nolder\n\n## After\n\nkept\n")
    command = [sys.executable, "-m", "benchmarks.cpu", "--smoke", "--threads", "1", "--results", str(results)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (
        results.read_text()
        == f"# Results\n\n## Last run: benchmarks.cpu\n\n{ended.stdout.strip()}\n\n## After\n\nkept\n"
    )
    for row, times in {
        "fused": 6,
        "hash, width 16": 1,
        "hash, width 2": 2,
        "hot, width 128": 1,
        "hot, width 2": 2,
        "fused, bfloat16": 2,
        "int8": 2,
        "int4": 2,
        "int2": 2,
        "plain": 2,
        "authors' way": 2,
        "EmbeddingBag": 2,
        "memory copy": 2,
        "full, fused": 2,
        "10 MB pool, fused": 2,
        "full tables, reference": 2,
        "dim 16, lookup": 1,
        "dim 128, scatter (SGD)": 1,
        "0.02 MB": 1,
        "0.04 MB": 1,
        "batches": 1,
        "batches, and log(x + 1)": 1,
        "TorchRec's in-memory pipe": 1,
        "memory copy of the next rows": 1,
        "64": 1,
        "512": 1,
    }.items():
        assert ended.stdout.count(f"\n| {row} |") == times, row
