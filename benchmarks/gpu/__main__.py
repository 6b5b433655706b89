"""Runs the parts one after another, each in a process of its own: see the package's docstring."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

os.environ["TRITON_INTERPRET"] = "0" if torch.cuda.is_available() else "1"  # before Triton is imported

import benchmarks.gpu
from benchmarks.gpu import limits, sizes
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.parts import PARTS
from benchmarks.results import with_section

from sizewise.embedding import fused

SECTION = "GPU"
LEAST = 15.0  # seconds: with less left no part is begun
LONGEST = 90.0  # seconds of a part
LEFT_OUT = {"tuning"}  # of the results: it is for tuning the kernels


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    if not torch.cuda.is_available() and not asked.smoke:
        print("no CUDA device here: nothing measured (--smoke runs all of it without one)", file=sys.stderr)
        return 2
    if asked.part:
        return _measure(asked.part, asked)
    wanted = asked.parts.split(",") if asked.parts else list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"no part is called {unknown[0]}: choose among {', '.join(PARTS)}", file=sys.stderr)
        return 2
    folder: Path = asked.out
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + asked.seconds
    for name in wanted:
        if asked.again or not _good(folder, name):
            _run(name, asked, ends)
        _join(folder, asked)
    return int(not all(_good(folder, name) for name in wanted))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table-gb", type=float, help="full tables (default: what fits, at most 96)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that all of it runs")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder for what parts write")
    parser.add_argument("--parts", help=f"comma-separated (default: {','.join(PARTS)})")
    parser.add_argument("--again", action="store_true", help="measure parts again that are done")
    parser.add_argument("--seconds", type=float, default=400.0, help="parts not begun by then are left out")
    parser.add_argument(
        "--results", type=Path, help="file to write (default: benchmarks/RESULTS.md; none for --smoke)"
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    return parser


def _run(name: str, asked: argparse.Namespace, ends: float) -> None:
    """One part in a process of its own, whose failure, a fault on the device included, leaves the others."""
    left = ends - time.monotonic()
    file = _text(asked.out, name)
    file.with_suffix(".json").unlink(missing_ok=True)
    if left < LEAST:
        _failed(file, f"{name}: left out, {asked.seconds:.0f} s had passed.")
        return
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--out", str(asked.out)]
    command += ["--smoke"] if asked.smoke else []
    command += ["--table-gb", str(asked.table_gb)] if asked.table_gb else []
    begun = time.monotonic()
    try:
        code = subprocess.run(command, check=False, timeout=min(left, LONGEST)).returncode
        reason = f"ended with exit code {code}"
    except subprocess.TimeoutExpired:
        code, reason = 1, f"stopped after {time.monotonic() - begun:.0f} s"
    print(f"[{name}: {time.monotonic() - begun:.0f} s]\n", flush=True)
    if code and not file.with_suffix(".json").exists():
        _failed(file, f"{name}: {reason}; what it had measured by then is above.")


def _failed(file: Path, line: str) -> None:
    print(line, flush=True)
    with file.open("a") as text:
        text.write(f"\n{line}\n")


def _measure(name: str, asked: argparse.Namespace) -> int:
    """One part, in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        fused.TRITON_ON.add("cpu")
    of = sizes.SMOKE if asked.smoke else sizes.Sizes()
    bench = Bench(of, device, asked.table_gb, _text(asked.out, name))
    with bench.leaving_out(name):
        PARTS[name](bench)
    bench.finish()
    return int(bench.failed)


def _text(folder: Path, name: str) -> Path:
    return folder / f"{name}.md"


def _found(folder: Path, name: str) -> dict[str, object]:
    """What a part has found beside its text; empty if it has not ended."""
    file = folder / f"{name}.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _good(folder: Path, name: str) -> bool:
    return _found(folder, name).get("failed") is False


def _join(folder: Path, asked: argparse.Namespace) -> None:
    """What all parts have written so far, as one section of the results."""
    kept = [name for name in PARTS if name not in LEFT_OUT and _text(folder, name).exists()]
    texts = [_text(folder, name).read_text().strip() for name in kept]
    of = sizes.SMOKE if asked.smoke else sizes.Sizes()
    steps = {
        int(batch): (pair[0], pair[1])
        for name in kept
        for batch, pair in _found(folder, name).get("steps", {}).items()  # type: ignore[attr-defined]
    }
    body = "\n\n".join([*texts, "\n".join(limits.exchange_table(of, steps))])
    (folder / "results.md").write_text(body + "\n")
    file = asked.results or (None if asked.smoke else Path("benchmarks/RESULTS.md"))
    if file is not None:
        file.write_text(with_section(file.read_text() if file.exists() else "", SECTION, body))


if __name__ == "__main__":
    sys.exit(main())
