"""Pruning under Ray Tune: one study that is killed and resumed, against the same study without Ray, run calmly."""

import json
import math
import sqlite3
import sys
from pathlib import Path

import pytest

from real_study import STUDY, Command, assert_equal, calm_study, curves, prepare_data, wait_until
from sizewise import results
from sizewise.store.trials.ledger import Ledger

pytestmark = pytest.mark.slow

# The second trial learns next to nothing, at the size and the cost of the first.
PRUNED = """\
first_trials:
  - {memory_budget: 100x, learning_rate: 0.02, epochs: 3}
  - {memory_budget: 100x, learning_rate: 0.00001, epochs: 3}
pruning: {grace: 0.5, risk: 0.2}
"""

# The command, which also keeps what its sampler is told.
TOLD = """\
import json, pathlib, sys
from sizewise.cli import main
from sizewise.search.with_optuna.samplers import Suggester

def kept(say):
    def call(self, number, *what):
        worth = what[-1]
        with pathlib.Path(__file__).with_name("told.jsonl").open("a") as file:
            print(json.dumps([number, worth.state.name, worth.values]), file=file)
        return say(self, number, *what)
    return call

Suggester.tell, Suggester.add_known_trial = kept(Suggester.tell), kept(Suggester.add_known_trial)
sys.argv = sys.argv[3:]  # without `python -m`
main()
"""


def test_a_stopped_trial_counts_for_what_it_was_and_the_study_resumes_exactly(tmp_path: Path) -> None:
    study, runs, folder = tmp_path / "pruned.yaml", tmp_path / "runs", tmp_path / "runs" / "killed"
    rates = "learning_rate: {low: 0.00001, high: 0.1, log: true}, epochs: {low: 2, high: 3}"
    text = STUDY.format(data=prepare_data(tmp_path)).replace("epochs: {low: 5, high: 6}", rates)
    study.write_text(text.replace("trials: 3", "trials: 4") + PRUNED)
    mirror = f"--optuna-storage=sqlite:///{tmp_path}/optuna.db"
    with Command("run", study, "--runs", runs, mirror) as run:
        wait_until((folder / "evaluations" / "0001.jsonl").exists, run)
        run.kill()  # about when the second trial is judged
        run.leaves_nothing()
    (tmp_path / "told.py").write_text(TOLD)
    listening = (sys.executable, str(tmp_path / "told.py"))
    with Command("resume", "killed", "--runs", runs, mirror, before=listening) as run:
        code, _, err = run.end()
        assert code == 0, err
        run.leaves_nothing()

    calm_study(study, tmp_path / "calm")
    assert_equal(folder, tmp_path / "calm")

    records = Ledger(folder).records()
    stopped, ran = records[1], curves(folder)[1]
    assert (records[0].state, stopped.state) == ("finished", "pruned")
    assert "was reached with no more embedding bytes" in (stopped.reason or "")
    # It counts at what it ran, and as what it was: no row is beyond its last, none is better than the first trial's.
    assert 0.5 <= ran[-1]["epoch"] < 3
    assert stopped.values is not None
    assert stopped.values["iterations"] in [row["iteration"] for row in ran]
    assert stopped.values["auc"] == max(row["auc"] for row in ran)
    assert stopped.trained_epochs == ran[-1]["epoch"]
    # The sampler is told just that, and not that it is any good: the first trial beats it in everything.
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    ((state, (auc, size, iterations)),) = [what for number, *what in told if number == 1]
    assert state == "COMPLETE"
    assert (auc, size) == (stopped.values["auc"], math.log10(stopped.values["embedding_bytes"]))
    assert iterations == math.log10(stopped.values["iterations"]) <= math.log10(ran[-1]["iteration"])
    better = [row for row in curves(folder)[0] if row["auc"] > auc]
    assert min(math.log10(row["iteration"]) for row in better) <= iterations
    assert better[0]["embedding_bytes"] == stopped.values["embedding_bytes"]
    assert results.status(runs, "killed")["trials"]["pruned"] == sum(
        r.state == "pruned" for r in records.values()
    )
    with sqlite3.connect(tmp_path / "optuna.db") as optuna:  # as Optuna's own tools see it
        states = dict(optuna.execute("select number, state from trials"))
    assert (states[0], states[1]) == ("COMPLETE", "PRUNED")
