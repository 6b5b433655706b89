"""Concurrent trials on Ray: one that has a part of its curve in common with a running one waits for it, and uses it."""

import json
from pathlib import Path

import pytest

from real_study import Command
from sizewise.store.trials.ledger import Ledger

STUDY = """
name: shared
data: {data}
model: {{dim: 8, bottom_mlp: [16], top_mlp: [16]}}
embedding: {{method: robe, block_len: 8}}
search: {{memory_budget: {{choices: [20kB, 40kB]}}, learning_rate: 0.02, epochs: {{choices: [3, 12]}}}}
train: {{batch_size: 32, evaluate_every: 0.5, schedule: {{decay: cosine, decay_share: 0.4}}}}
first_trials:
  - {{memory_budget: 20kB, epochs: 12}}
  - {{memory_budget: 20kB, epochs: 3}}
  - {{memory_budget: 40kB, epochs: 3}}
sampler: grid
trials: 3
resources: {{concurrent_trials: 2, cpus_per_worker: 1}}
"""


@pytest.mark.slow
def test_two_trials_at_a_time_train_no_stable_part_twice(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.format(data=shards))
    with Command("run", tmp_path / "study.yaml", "--runs", tmp_path / "runs", "--json") as run:
        code, out, err = run.end()
    assert (code, json.loads(out)["state"]) == (0, "finished"), err
    ledger = Ledger(tmp_path / "runs" / "shared")
    long, short, other = (ledger.records()[number] for number in range(3))
    assert long.finished is not None
    assert other.started < short.started < long.finished  # it came last, while the long one was running
    # The rate falls from 1.8 epochs on, where the other one has kept its state; the evaluation before is of 1.5.
    assert [trial.inherited_epochs for trial in (long, short, other)] == [None, 1.5, None]
    seconds = [[row["train_seconds"] for row in ledger.evaluations(number)] for number in range(3)]
    assert [len(rows) for rows in seconds] == [24, 6, 6]
    assert seconds[1][:3] == seconds[0][:3]
    assert not set(seconds[2]) & set(seconds[0])
