"""A small study on one card whose trials share it, and what they take beside what the study reckons with.

    python -m benchmarks.gpu.study --out build/gpu_study     # a GPU, Ray, Polars: all that Sizewise needs; two minutes
    python -m benchmarks.gpu.study --out DIR --cpu           # without a GPU, to see that all of it runs

Planted rows are generated and prepared, then a study with `gpus_per_worker: auto` trains four trials, two at a time.
Meanwhile nvidia-smi is asked for the memory of each process on the card.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.memory import trial_config

from sizewise.training.footprint import CONTEXT_BYTES, SPARE, gpu_share, training_bytes

STUDY = """\
name: shared
data: {data}
model: {{dim: 16, bottom_mlp: [128, 64], top_mlp: [256, 128]}}
embedding: {{method: robe, block_len: 16, align: 16}}
search:
  memory_budget: {{low: 1MB, high: 1GB, log: true}}
  learning_rate: 0.02
  epochs: 2
first_trials:
  - {{memory_budget: 1MB}}
  - {{memory_budget: 1GB}}
  - {{memory_budget: 100MB}}
train: {{batch_size: 8192, optimizer: adagrad, evaluate_every: 1.0}}
trials: 3
seed: 1
resources: {{workers: 1, gpus_per_worker: {gpus}, concurrent_trials: 2}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.study", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/gpu_study"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cpu", action="store_true", help="without a GPU")
    asked = parser.parse_args()
    folder: Path = asked.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # Ray's processes start in folders of their own.
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(part).resolve()) for part in sys.path if part)
    data, study = folder / "data", folder / "study.yaml"
    if not data.exists():
        _sizewise("generate", str(folder / "raw"), "--rows", str(asked.rows), "--files", "4")
        raw = sorted(str(file) for file in (folder / "raw").glob("*.tsv"))
        _sizewise("prep", *raw, "--out", str(data))
    study.write_text(STUDY.format(data=data, gpus=0 if asked.cpu else "auto"))
    peaks: dict[int, int] = {}
    most = [0]  # processes on the card at the same time
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(peaks, most, ended), daemon=True)
    watcher.start()
    begun = time.monotonic()
    try:
        _sizewise("run", str(study), "--runs", str(folder / "runs"))
    finally:
        ended.set()
        watcher.join()
    print(f"\nStudy of three trials, two at a time: {time.monotonic() - begun:.0f} s.\n")
    _table(json.loads(_sizewise("results", "shared", "--runs", str(folder / "runs"), "--json")))
    taken = ", ".join(f"{bytes_ / 1e6:.0f}" for bytes_ in sorted(peaks.values()))
    print(
        f"\nMost processes on the card at a time: {most[0]}; memory of each at most, MB, by nvidia-smi: {taken or '-'}."
    )
    return 0


def _sizewise(*arguments: str) -> str:
    """What a command of Sizewise prints; it is shown too."""
    command = [sys.executable, "-c", "import sys; from sizewise.command import main; sys.exit(main())"]
    run = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if "--json" not in arguments:
        print(run.stdout, flush=True)
    if run.returncode:
        sys.exit(f"sizewise {arguments[0]} ended with exit code {run.returncode}")
    return run.stdout


def _watch(peaks: dict[int, int], most: list[int], ended: threading.Event) -> None:
    """Each process's greatest memory on the card, until the end."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    while not ended.wait(0.3):
        try:
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
            found = {int(pid): int(used) * 2**20 for pid, used in (line.split(",") for line in lines)}
        except (OSError, ValueError, subprocess.CalledProcessError):
            continue  # no card, or one that does not say
        most[0] = max(most[0], len(found))
        peaks |= {pid: max(used, peaks.get(pid, 0)) for pid, used in found.items()}


def _table(results: dict[str, Any]) -> None:
    """Of each trial: its budget, share of a card, computed and greatest memory."""
    card = _card_bytes()
    print(
        "| memory_budget, MB | share of the card | reckoned with, MB | computed, MB | tensors at most, MB | test AUC |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for row in results["rows"]:
        computed = training_bytes(
            trial_config({"memory_budget": row["memory_budget"], "batch_size": row["batch_size"]}), 26, 13
        )
        share = gpu_share(computed, card) if card else None
        print(
            f"| {row['memory_budget'] / 1e6:g} | {share or '-'} | {(computed * SPARE + CONTEXT_BYTES) / 1e6:.0f} | "
            f"{computed / 1e6:.0f} | {row.get('peak_memory_bytes', 0) / 1e6:.0f} | {row['test_auc'] or 0:.4f} |"
        )


def _card_bytes() -> int:
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        return (
            int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) * 2**20
        )
    except (OSError, subprocess.CalledProcessError):
        return 0


if __name__ == "__main__":
    sys.exit(main())
