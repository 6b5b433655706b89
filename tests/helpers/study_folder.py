"""Writes study folders in the on-disk format, for tests of everything that reads them.

    writer = StudyWriter(runs, "demo", trials=12)
    writer.trial(0, memory_budget=20_000_000, evaluations=8)
    writer.driver("finished")

Curves follow a simple shape (bigger pools start higher and over-fit, small ones keep learning), so that
figures made from them look like a study's.
"""

import json
import math
import os
import socket
import time
from pathlib import Path
from typing import Any

from sizewise_core.files.sealed import sealed

FULL_BYTES = 22_000_000


class StudyWriter:
    """One study folder under `runs`."""

    def __init__(self, runs: Path, name: str, trials: int = 12, **study: Any) -> None:
        self.folder = runs / name
        for part in ("trials", "evaluations", "test"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        record = {
            "schema_version": 1,
            "name": name,
            "created": time.time() - 600,
            "trials": trials,
            "objectives": {"auc": "maximize", "embedding_bytes": "minimize", "iterations": "minimize"},
            "data": {
                "path": "data/demo",
                "rows": {"train": 80_000, "validation": 10_000, "test": 10_000},
                "full_bytes": FULL_BYTES,
                "features": 26,
                "click_rate": 0.2565,
            },
        }
        self.json("study.json", record | study)
        self.full_bytes = study.get("data", {}).get("full_bytes", FULL_BYTES)
        (self.folder / "study.yaml").write_text(f"name: {name}\ntrials: {trials}\nseed: 1\n")

    def json(self, path: str, content: Any) -> None:
        target = self.folder / path
        scratch = target.with_suffix(".part")
        text = json.dumps(content)
        scratch.write_text(sealed(text) if path[:5] in ("trial", "test/") else text)
        scratch.rename(target)

    def driver(self, state: str = "running", *, age: float = 0.0, **fields: Any) -> None:
        """The driver's heartbeat, `age` seconds old."""
        now = time.time()
        record = {"host": socket.gethostname(), "pid": os.getpid(), "started": now - 600, "beat": now - age}
        self.json("driver.json", record | {"state": state, "message": ""} | fields)

    def evaluation(self, trial_id: int, iteration: int, auc: float | None, **fields: Any) -> None:
        row = {
            "trial_id": trial_id,
            "replicate": 0,
            "iteration": iteration,
            "epoch": iteration / 156,
            "samples": iteration * 512,
            "auc": auc,
            "logloss": 0.5,
            "normalized_entropy": 0.88,
            "embedding_bytes": 20_000,
            "model_bytes": 400_000,
            "compression_ratio": 1_100.0,
            "train_seconds": iteration * 0.05,
            "samples_per_second": 10_000.0,
            "peak_memory_bytes": 500_000_000,
        } | fields
        with (self.folder / f"evaluations/{trial_id:04d}.jsonl").open("a") as file:
            file.write(sealed(json.dumps(row)) + "\n")

    def ledger(self, trial_id: int, state: str = "finished", **fields: Any) -> None:
        now = time.time()
        record = {
            "trial_id": trial_id,
            "replicate": 0,
            "state": state,
            "key": f"{trial_id:04d}-1a2b3c4d",
            "params": {},
            "config": {"memory_budget": 20_000, "learning_rate": 0.02, "epochs": 3, "method": "robe"},
            "values": None,
            "error": None,
            "started": now - 60,
            "finished": None if state == "running" else now - 20,
            "attempts": 1,
        }
        self.json(f"trials/{trial_id:04d}.json", record | fields)

    def trial(
        self,
        trial_id: int,
        memory_budget: int = 20_000,
        evaluations: int = 8,
        state: str = "finished",
        every: int = 39,
        test: bool = True,
        **fields: Any,
    ) -> None:
        """A whole trial: ledger record, curve and test score."""
        best: dict[str, float] = {}
        with (self.folder / f"evaluations/{trial_id:04d}.jsonl").open("w"):
            pass  # start the curve anew
        for step in range(1, evaluations + 1):
            auc = curve(memory_budget, step / 4)
            size = {"embedding_bytes": memory_budget, "model_bytes": memory_budget + 380_000}
            self.evaluation(
                trial_id, step * every, auc, **size, compression_ratio=self.full_bytes / memory_budget
            )
            if auc > best.get("auc", 0.0):
                best = {"auc": auc, "embedding_bytes": memory_budget, "iterations": step * every}
        config = {"memory_budget": memory_budget, "learning_rate": 0.02, "epochs": evaluations / 4}
        config |= {"method": "robe", "block_len": 16, "seed": 17}
        counted = {"evaluations": None if state == "running" else evaluations, "tested": test and bool(best)}
        self.ledger(trial_id, state, config=config, values=best or None, **(counted | fields))
        if test and best:
            self.json(
                f"test/{trial_id:04d}.json",
                {"trial_id": trial_id, "iteration": best["iterations"], "auc": best["auc"] - 0.003}
                | {"logloss": 0.51, "normalized_entropy": 0.89},
            )


def curve(memory_budget: float, epoch: float) -> float:
    """Validation AUC after `epoch` epochs: large pools learn fast and over-fit, small ones do neither."""
    room = math.log10(memory_budget / 1_000) / 4.4  # 0 at 1 kB, 1 at 25 MB
    start = 0.715 + 0.042 * max(room, 0.0)
    auc = start + 0.012 * (1 - math.exp(-1.6 * epoch)) - 0.035 * room**3 * max(0.0, epoch - 0.9)
    return max(auc, 0.5)  # after dozens of epochs


def finished_study(runs: Path, name: str = "finished", trials: int = 12) -> StudyWriter:
    """A finished study with budgets from 2 kB to 20 MB."""
    writer = StudyWriter(runs, name, trials)
    for trial_id in range(trials):
        budget = round(2_000 * 10 ** (4 * trial_id / max(trials - 1, 1)))
        writer.trial(trial_id, budget, evaluations=4 + 3 * (trial_id % 4))
    writer.driver("finished")
    return writer
