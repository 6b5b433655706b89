"""A study on a cluster of several nodes loses nodes, its head, and shares the cluster with another study."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from real_study import MARK, STUDY, Command, assert_equal, calm_study, marked, wait_until
from s3_server import S3Server
from sizewise.store.trials.ledger import Ledger
from sizewise_core.stores.storage import place, write

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

LEFT = """
import json, ray, time
from ray.util import placement_group_table
ray.init(log_to_driver=False)
end = time.monotonic() + 60
while True:
    held = [t for t in placement_group_table().values() if t["state"] != "REMOVED"]
    free, all_ = ray.available_resources().get("CPU", 0), ray.cluster_resources().get("CPU", 0)
    if (not held and free == all_) or time.monotonic() > end:
        break
    time.sleep(0.5)
print(json.dumps({"held": held, "free": free, "all": all_}))
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without a CPU, and whatever nodes a test adds."""
    mark = os.environ[MARK] = f"cluster-{random.SystemRandom().randrange(10**9)}"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()
    del os.environ[MARK]
    end = time.monotonic() + 60
    while left := marked(mark):
        if time.monotonic() > end:
            for process in left:
                process.kill()
            pytest.fail(f"the cluster left {left}")
        time.sleep(0.2)


def nothing_is_left_on(cluster: Cluster) -> None:
    """No placement group and no taken CPU."""
    found = subprocess.run(
        [sys.executable, "-c", LEFT], env=on(cluster), stdout=subprocess.PIPE, text=True, check=True
    )
    left: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    assert left["held"] == []
    assert left["free"] == left["all"]


def on(cluster: Cluster) -> dict[str, str]:
    return {**os.environ, "RAY_ADDRESS": cluster.address}


def test_two_studies_on_one_cluster_survive_the_loss_of_a_node(
    study: Path, tmp_path: Path, cluster: Cluster
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    runs = tmp_path / "runs"
    first, second = runs / "killed", runs / "other"
    with (
        Command("run", study, "--runs", runs, "--set=trials=2", environment=on(cluster)) as run,
        Command(
            "run", study, "--runs", runs, "--set=name=other", "--set=trials=2", environment=on(cluster)
        ) as other,
    ):
        for command, folder in ((run, first), (other, second)):
            wait_until(lambda folder=folder: list(folder.glob("checkpoints/0000-*/*.ckpt")), command, 400)
        busy = [node for node in nodes if trains(node)]
        cluster.remove_node(busy[0], allow_graceful=False)  # SIGKILL, as a spot machine that is taken away
        print(f"lost one of {len(busy)} nodes that train")
        for command in (run, other):
            code, _, err = command.end(600)
            assert code == 0, err
    attempts = [r.attempts for folder in (first, second) for r in Ledger(folder).records().values()]
    print("attempts:", attempts)
    assert max(attempts) > 1
    nothing_is_left_on(cluster)
    calm_study(study, tmp_path / "calm", trials=2)
    for folder in (first, second):
        assert_equal(folder, tmp_path / "calm")


def test_a_study_in_an_object_store_moves_to_another_node(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server, cluster: Cluster
) -> None:
    """Nodes that share nothing but the store: each has a cache of its own, and its trial's checkpoints are copied."""
    for path in data.iterdir():
        write(place("s3://studies/nodes/shards") / path.name, path.read_bytes())
    study = tmp_path / "killed.yaml"
    study.write_text(STUDY.format(data="s3://studies/nodes/shards").replace("trials: 3", "trials: 2"))
    nodes = []
    for number in range(2):
        monkeypatch.setenv("SIZEWISE_CACHE", str(tmp_path / f"cache-{number}"))
        nodes.append(cluster.add_node(num_cpus=1))
    runs = "s3://studies/nodes/runs"
    with Command("run", study, "--runs", runs, environment=on(cluster)) as run:
        wait_until(
            lambda: place(runs).fs.glob("studies/nodes/runs/killed/checkpoints/0000-*/*/*.ckpt"), run, 400
        )
        (busy,) = [node for node in nodes if trains(node)]
        cluster.remove_node(busy, allow_graceful=False)
        code, _, err = run.end(600)
        assert code == 0, err
    assert f"Ray: joined the cluster at {cluster.address}, 3 nodes, 2 CPU" in err
    assert "trial 0: lost its worker (" in err
    folder = tmp_path / "runs" / "killed"
    place(runs).fs.get("studies/nodes/runs/killed", str(folder), recursive=True)
    assert len([path for path in tmp_path.glob("cache-*/shards/*") if path.is_dir()]) == 2
    calm_study(study, tmp_path / "calm")
    assert_equal(folder, tmp_path / "calm")


def test_a_killed_driver_leaves_nothing_on_the_cluster(study: Path, tmp_path: Path, cluster: Cluster) -> None:
    cluster.add_node(num_cpus=2)
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    with Command("run", study, "--runs", runs, "--set=trials=2", environment=on(cluster)) as run:
        wait_until(lambda: list(folder.glob("checkpoints/0000-*/*.ckpt")), run, 400)
        run.kill()
    nothing_is_left_on(cluster)


def test_the_head_is_lost_and_the_study_goes_on_after_a_cold_restart(study: Path, tmp_path: Path) -> None:
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "killed"
    old = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    with Command("run", study, "--runs", runs, "--set=trials=2", environment=on(old)) as run:
        wait_until(lambda: list(folder.glob("checkpoints/0000-*/*.ckpt")), run, 400)
        old.head_node.kill_gcs_server()
        for kind in list(old.head_node.all_processes):
            old.head_node._kill_process_type(kind, allow_graceful=False, check_alive=False)
        lost = time.monotonic()
        code, _, err = run.end(240)
        print(
            f"the driver ended {time.monotonic() - lost:.0f} s after the head, exit code {code}:\n{err[-800:]}"
        )
        assert code == 1
        assert f"sizewise resume killed --runs {runs}" in err
        run.leaves_nothing()
    old.shutdown()
    new = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        with Command("resume", "killed", "--runs", runs, environment=on(new)) as run:
            code, _, err = run.end(600)
            assert code == 0, err
    finally:
        new.shutdown()
    calm_study(study, tmp_path / "calm", trials=2)
    assert_equal(folder, tmp_path / "calm")


def trains(node: Any) -> bool:
    """Whether a Train worker runs on a node."""
    import psutil

    raylet = node.all_processes["raylet"][0].process.pid
    children = psutil.Process(raylet).children(recursive=True)
    return any("RayTrainWorker" in " ".join(p.cmdline()) for p in children if p.is_running())
