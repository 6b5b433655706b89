"""The memory that training takes on a card, beside what `sizewise.training.footprint` computes for it.

Studies with `gpus_per_worker: auto` give each trial the share of a card that follows from that computation.
"""

import subprocess
from types import SimpleNamespace
from typing import Any

import torch
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.variants import draw_batch

ROWS = 200_000  # a feature
TRIALS: dict[str, dict[str, Any]] = {
    "robe, 10 MB, dim 128, batch 2,048, sgd": {
        "dim": 128,
        "bottom_mlp": [512, 256],
        "top_mlp": [1024, 1024, 512, 256],
        "options": {"block_len": 32, "align": 32},
        "memory_budget": 10_000_000,
        "optimizer": "sgd",
    },
    "robe, 10 MB, dim 128, batch 65,536, adagrad, bfloat16": {
        "dim": 128,
        "bottom_mlp": [512, 256],
        "top_mlp": [1024, 1024, 512, 256],
        "options": {"block_len": 32, "align": 32},
        "memory_budget": 10_000_000,
        "batch_size": 65_536,
        "precision": "bfloat16",
    },
    "robe, 1 GB, dim 16, batch 8,192, adagrad": {"memory_budget": 1_000_000_000, "batch_size": 8_192},
    "robe, 1 MB, dim 16, batch 512, adam": {
        "memory_budget": 1_000_000,
        "batch_size": 512,
        "optimizer": "adam",
    },
    "full, 333 MB, dim 16, batch 2,048, adagrad": {
        "method": "full",
        "options": {},
        "memory_budget": 26 * ROWS * 16 * 4,
    },
    "full, 333 MB, dim 16, batch 2,048, adam": {
        "method": "full",
        "options": {},
        "memory_budget": 26 * ROWS * 16 * 4,
        "optimizer": "adam",
    },
}


def memory(bench: Bench) -> None:
    """Steps and scoring of several trials, and what they take at most."""
    from sizewise.training.footprint import CONTEXT_BYTES, SPARE, training_bytes

    before = _used() if bench.on_gpu else 0  # of all processes, before CUDA starts in this one
    bench.write(
        "",
        f"Memory of a trial, MB. A study reckons with {SPARE:g} times the computed bytes and {CONTEXT_BYTES / 1e6:.0f} "
        "MB for CUDA itself.",
        "",
        "| trial | computed | tensors at most | kept by PyTorch at most | of what a study reckons with |",
        "| --- | --- | --- | --- | --- |",
    )
    own = 0
    for name, changes in TRIALS.items():
        config = trial_config(changes)
        with bench.leaving_out(name):
            _train(config, bench.device)
            computed = training_bytes(config, 26, 13)
            cells = ["-"] * 3
            if bench.on_gpu:
                tensors, kept = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
                own = _used() - before - torch.cuda.memory_reserved()
                share = (kept + own) / (computed * SPARE + CONTEXT_BYTES)
                cells = [f"{tensors / 1e6:.0f}", f"{kept / 1e6:.0f}", f"{share:.0%}"]
            bench.write(f"| {name} | {computed / 1e6:.0f} | {' | '.join(cells)} |")
        bench.free()
        if bench.on_gpu:
            torch.cuda.reset_peak_memory_stats()
    if bench.on_gpu:
        bench.write("", f"CUDA itself, with its libraries, took {own / 1e6:.0f} MB in this process.")


def trial_config(changes: dict[str, Any]) -> Any:
    from sizewise.config.trial import TrialConfig

    fields: dict[str, Any] = {
        "data": "none",
        "dim": 16,
        "bottom_mlp": [128, 64],
        "top_mlp": [256, 128],
        "method": "robe",
        "options": {},
        "learning_rate": 0.01,
        "epochs": 1,
        "batch_size": 2_048,
        "optimizer": "adagrad",
        "evaluate_every": 1.0,
        "checkpoint_seconds": 60.0,
        "seed": 1,
    }
    fields |= changes
    options = fields.pop("options")
    return TrialConfig.from_flat({**fields, **options})


def _train(config: Any, device: torch.device) -> None:
    """As a trial does it: a few steps, the last ones from a CUDA graph, and scores of a few batches."""
    from benchmarks.gpu.sizes import Sizes

    from sizewise.training.building import build_model
    from sizewise.training.scoring.predicting import EVALUATION_BATCH, predict
    from sizewise.training.steps.optimizers import build_optimizer
    from sizewise.training.steps.step import Step

    manifest: Any = SimpleNamespace(
        cardinalities=[ROWS] * 26, dense_missing=[0.0] * 13, settings=SimpleNamespace(tokens="contiguous")
    )
    model = build_model(config, manifest).to(device)
    optimizer = build_optimizer(config.train.optimizer, model, 0.01, in_backward=True)
    batch = config.train.batch_size if device.type == "cuda" else 4
    step = Step(model, optimizer, batch, device)
    for _ in range(6 if device.type == "cuda" else 1):
        step(draw_batch(Sizes(), ROWS, batch, device), batch)
    host = torch.device("cpu")
    rows = EVALUATION_BATCH if device.type == "cuda" else 4
    predict(model, [draw_batch(Sizes(), ROWS, rows, host)] * 2, device)


def _used() -> int:
    """Bytes of the card that are taken, by whichever process."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(found.splitlines()[0]) * 2**20
