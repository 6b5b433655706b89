"""`python -m benchmarks.gpu` runs from end to end, so that it works on the day when there is a GPU."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install sizewise[gpu]")
ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_without_a_gpu_one_line_says_so() -> None:
    before = (ROOT / "benchmarks" / "RESULTS.md").read_bytes()
    ended = run()
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == ("no CUDA device here: nothing measured (--smoke runs all of it without one)\n")
    assert (ROOT / "benchmarks" / "RESULTS.md").read_bytes() == before


# What studies need and a machine that is only lent has not.
ABSENT = ("polars", "ray", "optuna", "plotly", "typer", "upath")


@pytest.mark.slow
def test_rows_of_the_tables_at_tiny_sizes(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n## Before\n\nkept\n\n## GPU\n\nnot measured.\n\n## After\n\nkept too\n")
    parts = "checks,embeddings,step-16384,kernels,reads,optimizers"
    ended = run("--smoke", "--results", str(results), "--out", str(tmp_path / "parts"), "--parts", parts)
    assert ended.returncode == 0, ended.stderr
    text = results.read_text()
    assert text.startswith("# Results\n\n## Before\n\nkept\n\n## GPU\n\n`python -m benchmarks.gpu --smoke`")
    assert text.endswith("\n\n## After\n\nkept too\n")
    assert "not measured.\n" not in text
    assert "DIFFERS" not in text
    assert text.count("| equal |") == 43
    for row in (
        "full tables, fused gather and update",
        "shared pool 10 MB, block 32 aligned",
        "full tables fused, then PyTorch interaction",
        "shared pool 10 MB fused with the interaction",
        "full tables through the very same fused kernels",
        "reference path, embeddings alone",
        "reference path, eager",
        "full tables fused + PyTorch interaction, CUDA graph, bf16",
        "full tables, same fused kernels, CUDA graph, bf16",
        "10 MB pool fused, CUDA graph, bf16",
        "MLPs alone, CUDA graph, bf16",
        "10 MB pool stored as bfloat16, fused, CUDA graph, bf16",
        "shared pool 10 MB, Adagrad",
        "the same numbers in 4 bits: 10 MB",
        "its backward",
        "InfiniBand NDR, 8 cards",
    ):
        assert f"| {row} |" in text, row
    assert "| yes (" not in text  # the interpreter's times reach no goal, and miss none
    assert "| no (" not in text
    assert "A smoke test: sizes are tiny and times mean nothing." in text
    again = run("--smoke", "--results", str(results), "--out", str(tmp_path / "parts"), "--parts", parts)
    assert again.returncode == 0
    assert "| equal |" not in again.stdout  # parts that are done are not measured again
    assert results.read_text() == text


@pytest.mark.slow
def test_parts_that_fail_or_come_too_late_leave_the_others(tmp_path: Path) -> None:
    results, parts = tmp_path / "RESULTS.md", tmp_path / "parts"
    ended = run(
        "--smoke", "--results", str(results), "--out", str(parts), "--parts", "kernels", "--seconds", "1"
    )
    assert ended.returncode == 1
    assert "kernels: left out, 1 s had passed." in results.read_text()
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); from benchmarks.gpu.__main__ import main; "
        f"sys.exit(main(['--smoke', '--part', 'kernels', '--out', {str(parts)!r}]))"
    )
    alone = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    assert "Rooflines at batch 4" in (parts / "kernels.md").read_text()


@pytest.mark.slow
def test_a_lent_machine_needs_no_polars_to_compute_what_trials_take() -> None:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); from benchmarks.gpu import memory; "
        "from sizewise.training import building, footprint; from sizewise.training.scoring import predicting; "
        "print(min(footprint.training_bytes(memory.trial_config(t), 26, 13) for t in memory.TRIALS.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10**8


def test_what_fails_is_left_out_and_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.gpu.bench import Bench
    from benchmarks.gpu.sizes import FULL, POOL, SMOKE

    def failing() -> None:
        raise ValueError("unaligned | address\nand more")

    def too_large() -> Callable[[], None]:
        raise torch.cuda.OutOfMemoryError("out of it")

    file = tmp_path / "part.md"
    bench = Bench(SMOKE, torch.device("cpu"), 1e-4, file)
    times = bench.times({FULL: lambda: failing, "tables": too_large, POOL: lambda: lambda: None})
    assert times[POOL] < 1000
    assert bench.failed
    bench.table("Embeddings:", 65_536, times)
    rows = {
        line.split(" | ")[0].removeprefix("| "): line
        for line in file.read_text().splitlines()
        if line.startswith("| ")
    }
    assert "| failed: ValueError: unaligned / address |" in rows[FULL]
    assert "| out of memory |" in rows["tables"]
    assert rows[POOL].endswith("| - |")  # a goal against what was not measured is neither reached nor missed


def test_everything_is_on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without memory on the device `meta` mix with those on the host as little as a GPU's do."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.gpu import checks, variants
    from benchmarks.gpu.sizes import SMOKE

    from sizewise.embedding import fused
    from sizewise.embedding.kernels import gpu
    from sizewise.models.dlrm import DLRM

    meta = torch.device("meta")
    monkeypatch.setattr(fused, "TRITON_ON", {"meta"})
    monkeypatch.setattr(gpu, "_launch", lambda *arguments, **constants: None)
    monkeypatch.setattr(DLRM, "_precision", lambda self, dense: nullcontext())
    for embedding in (variants.pool_embedding(SMOKE).to(meta), variants.DeviceTables(SMOKE, 8, meta)):
        checks._whole(SMOKE, embedding, 8, meta)
        checks._pairs(SMOKE, embedding, 8, meta)
    tables = variants.DeviceTables(SMOKE, 8, meta)
    for made in (tables, variants.pool_embedding(SMOKE)):
        of = variants.Embeddings(SMOKE, made, 8, 4, meta)
        for run_once in (of.alone, of.then_plain, of.carried, of.summed()):
            run_once()
    variants.Bags(tables.table.weight.detach(), SMOKE.features, SMOKE.dim)(
        variants.draw_ids(SMOKE, 8, 4, meta)
    )
    for interaction in (True, False):
        variants.step(SMOKE, variants.shared(tables), 8, 4, meta, interaction=interaction)()
    for kind in (DLRM, variants.MlpsAlone):
        variants.step(SMOKE, variants.pool_embedding(SMOKE), 8, 4, meta, kind=kind)()


def test_what_exchanging_embeddings_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 8 cards of 16,384 rows each, 26 vectors of 128 float32, over links of 50 GB/s."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.gpu import limits
    from benchmarks.gpu.sizes import Sizes

    mlps = 4 * (
        (13 + 1) * 512
        + (512 + 1) * 256
        + (256 + 1) * 128
        + (479 + 1) * 1024
        + (1024 + 1) * 1024
        + (1024 + 1) * 512
        + (512 + 1) * 256
        + (256 + 1)
    )
    assert limits.mlp_bytes(Sizes()) == mlps
    tables, pool = limits.exchange(Sizes(), 16_384, 8, 50e9)
    share = 2 * 7 / 8 / 50e9 * 1e3
    assert tables == pytest.approx(share * (16_384 * 26 * 128 * 4 + mlps))
    assert pool == pytest.approx(share * (10_000_000 + mlps))
