"""Studies that run undisturbed, by their commands in this process and on one Ray, which takes longer to start.

Trials of `hot`, on data that an older version prepared; trials with a part of their curve in common; and one that
needs more CPUs than there are.
"""

import contextlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from tests.sizewise.engine.complete.test_hot_study import STUDY, prepare_old_data
from typer.testing import CliRunner

from sizewise import cli, results
from sizewise.engine.ray_tune.cluster import ENVIRONMENT
from sizewise.store.trials.ledger import Ledger
from sizewise_prep.shards.manifest import COUNTS
from sizewise_prep.shards.verifying import verify

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[4]

SHARED = """
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


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Of two CPUs, whatever the machine has; started in the repository, in whose folder its workers are then, too."""
    with contextlib.chdir(ROOT):
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": ENVIRONMENT},
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_old_data(tmp_path_factory.mktemp("hot"))


def sizewise(*arguments: object) -> str:
    """What a command prints that ends well."""
    done = CliRunner().invoke(cli.app, [str(part) for part in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_workers_in_the_repository_get_the_standard_platform_module() -> None:
    """And not the folder `platform/`."""

    @ray.remote
    def worker() -> tuple[str, str]:
        import platform

        return os.getcwd(), platform.__file__

    assert ray.get(worker.remote()) == (str(ROOT), platform.__file__)


def test_two_trials_of_hot_then_export_and_score(data: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.format(data=data / "shards"))
    assert json.loads(sizewise("run", tmp_path / "study.yaml", "--runs", tmp_path / "runs", "--json"))[
        "trials"
    ]
    assert (data / "shards" / COUNTS).is_dir()
    assert verify(data / "shards") == []
    study = results.load(tmp_path / "runs", "hot")
    trials, evaluations = study.trials, study.evaluations
    assert all(0 < share < 0.1 for share in evaluations["mistaken_lookups"])
    assert all(0.3 < share < 1 for share in evaluations["hot_lookups"])
    assert all(0 < found < 5_000 for found in evaluations["hot_values"])
    assert set(trials["state"]) == {"finished"}
    assert all(width in (1, 2, 4) for width in trials["width"])
    assert all(4_900 < size <= 5_000 for size in trials["embedding_bytes"])
    sizewise("export", "hot", "--runs", tmp_path / "runs", "--trial", 0, "--out", tmp_path / "model")
    lines = (data / "raw" / "day_0.tsv").read_bytes().splitlines(keepends=True)
    (tmp_path / "test.tsv").write_bytes(b"".join(lines[-400:]))
    judged = json.loads(sizewise("evaluate", tmp_path / "model", tmp_path / "test.tsv", "--json"))
    assert judged["auc"] == pytest.approx(trials["test_auc"][0], abs=1e-4)


def test_a_study_that_says_nothing_of_its_embedding_trains_its_ladder(data: Path, tmp_path: Path) -> None:
    lines = [line for line in STUDY.format(data=data / "shards").splitlines() if "embedding:" not in line]
    text = "\n".join(lines).replace("memory_budget: 5kB", "memory_budget: {low: 1000x, high: 100x}")
    (tmp_path / "study.yaml").write_text(text.replace("name: hot", "name: default"))
    sizewise("run", tmp_path / "study.yaml", "--runs", tmp_path / "runs")
    trials = results.load(tmp_path / "runs", "default").trials
    assert set(trials["state"]) == {"finished"}
    assert list(zip(trials["method"], trials["storage"], trials["width"], strict=True)) == [
        ("hot", "int4", 2),
        ("hot", "int8", 8),
    ]


def test_two_trials_at_a_time_train_no_stable_part_twice(shards: Path, tmp_path: Path) -> None:
    """One that has a part of its curve in common with a running one waits for it, and uses it."""
    (tmp_path / "study.yaml").write_text(SHARED.format(data=shards))
    out = sizewise("run", tmp_path / "study.yaml", "--runs", tmp_path / "runs", "--json")
    assert json.loads(out)["state"] == "finished"
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


def test_a_study_that_the_cluster_cannot_place_is_refused_and_leaves_nothing(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(SHARED.format(data=shards))
    arguments = ["run", str(tmp_path / "study.yaml"), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["sizewise", *arguments, "--set=resources.workers=4000"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    said = " ".join(err.split())
    assert re.search(
        r"resources: one trial needs 4000 CPU \(4000 workers x 1\), and this cluster has 2", said
    )
    assert list((tmp_path / "runs").iterdir()) == []
