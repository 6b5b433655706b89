"""Where a trial's workers can run: on nodes that there are, that may be started, or nowhere."""

import logging
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from ray.util import placement_group, placement_group_table

from sizewise.config.sections.running import ResourcesSpec
from sizewise.engine.messages import Failed, Waiting
from sizewise.engine.ray_tune import cluster
from sizewise.engine.ray_tune.cluster import ENVIRONMENT
from sizewise.engine.ray_tune.placement import PlacementError, check_placement
from sizewise.engine.ray_tune.worker_group import Workers
from sizewise_core.clusters.ray_internals import running_address

ROOT = Path(__file__).parents[4]


def wanted(**fields: Any) -> ResourcesSpec:
    return ResourcesSpec.model_validate(fields)


@pytest.mark.parametrize(
    ("asked", "nodes", "why"),
    [
        ({"workers": 5}, [{"CPU": 4}], "needs 5 CPU (5 workers x 1), and this cluster has 4"),
        ({"gpus_per_worker": 1}, [{"CPU": 4}], "needs 1 GPU (1 workers x 1), and this cluster has 0"),
        ({"gpus_per_worker": "auto"}, [{"CPU": 4}], "needs 1 GPU"),
        # enough in all, but no node has it
        ({"cpus_per_worker": 3}, [{"CPU": 2}, {"CPU": 2}], "do not fit on this cluster's nodes (2 CPU"),
        ({"gpus_per_worker": 1}, [{"CPU": 8}, {"CPU": 0, "GPU": 1}], "do not fit on this cluster's nodes"),
        ({"workers": 3, "gpus_per_worker": 0.6}, [{"CPU": 8, "GPU": 2}], "do not fit"),  # two on two cards
    ],
)
def test_what_can_never_be_placed_is_refused(asked: dict[str, Any], nodes: list[Any], why: str) -> None:
    with pytest.raises(PlacementError) as error:
        check_placement(wanted(**asked), nodes, [])
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("asked", "nodes"),
    [
        ({"workers": 4}, [{"CPU": 2}, {"CPU": 2}]),
        ({"workers": 16, "cpus_per_worker": 0.1, "gpus_per_worker": 0.0625}, [{"CPU": 2, "GPU": 1}]),
        ({"gpus_per_worker": "auto"}, [{"CPU": 0}, {"CPU": 4, "GPU": 1}]),
    ],
)
def test_what_can_be_placed_is_not(asked: dict[str, Any], nodes: list[Any]) -> None:
    check_placement(wanted(**asked), nodes, [])


def test_a_cluster_at_zero_nodes_waits_for_what_its_file_may_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ray_bootstrap_config.yaml"  # where Ray's launcher leaves it on the head
    file.write_text((ROOT / "ray_cluster.yaml").read_text())
    monkeypatch.setattr(cluster, "AUTOSCALER_FILE", file)
    startable = cluster._startable()
    assert sorted(node.get("GPU", 0) for node in startable) == [0] * 8 + [1] * 8
    with caplog.at_level(logging.WARNING):
        check_placement(wanted(gpus_per_worker=1), [{"CPU": 0}], startable)
    assert "waiting for the autoscaler's nodes" in caplog.text
    with pytest.raises(PlacementError, match="with all that the autoscaler may start"):
        check_placement(wanted(gpus_per_worker=4), [{"CPU": 0}], startable)
    file.unlink()
    assert cluster._startable() == []  # no head of a cluster that scales


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:9", "there is no such Ray cluster"),
        ("nonsense", "there is no such Ray cluster"),
        ("auto", "there is no such Ray cluster"),
        ("ray://127.0.0.1:10001", "submit it with `ray job submit`"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_at_once(
    address: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    began = time.monotonic()
    with pytest.raises(PlacementError, match=why):
        cluster._answering(address)
    assert time.monotonic() - began < 120  # where Ray would try for minutes


def test_the_note_of_a_cluster_that_has_died_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    assert running_address() == "127.0.0.1:9"
    assert cluster._answering(None) is None
    with pytest.raises(PlacementError, match="--ray auto: there is no such"):
        cluster._answering("auto")


def test_another_program_on_the_port_of_a_cluster_is_not_taken_for_one() -> None:
    """Ray would try for minutes to speak to it."""
    with socket.create_server(("", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            connection.close()

        other = threading.Thread(target=answer)
        other.start()
        with pytest.raises(PlacementError, match=r"what answers there is no Ray|reset by peer"):
            cluster._answering(f"127.0.0.1:{server.getsockname()[1]}")
        other.join()


def test_more_than_one_card_comes_whole() -> None:
    with pytest.raises(ValueError, match="whole cards"):
        wanted(gpus_per_worker=1.5)
    assert wanted(gpus_per_worker="auto", gpu_memory="24GB").gpu_memory == 24_000_000_000


@pytest.fixture
def half_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Workers]]:
    """Starts workers of half a GPU each, on one node that says to have one and has none: placed as on a card."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        # Ray's own, or other drivers of this machine would take this cluster for the current one.
        monkeypatch.setenv("RAY_TMPDIR", folder)
        environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 1})
        ray.init(address=started.address, log_to_driver=False, runtime_env={"env_vars": environment})
        groups = []

        def start(name: str) -> Workers:
            asked = {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0.5}
            groups.append(Workers(asked, name, str(tmp_path / "logs")))
            return groups[-1]

        yield start
        for group in groups:
            group.close()
        ray.shutdown()
        started.shutdown()


def wait_for_shares(placed: list[float], waiting: list[float]) -> None:
    """Until groups of just these shares of a GPU have a place, and have none."""
    end = time.monotonic() + 300
    while True:
        shares: dict[str, list[float]] = {"CREATED": [], "PENDING": [], "REMOVED": []}
        for table in placement_group_table().values():
            shares.setdefault(table["state"], []).append(table["bundles"][0]["GPU"])
        if (shares["CREATED"], shares["PENDING"]) == (placed, waiting):
            return
        assert time.monotonic() < end, shares
        time.sleep(0.2)


@pytest.mark.slow
def test_two_trials_share_a_card_and_a_third_says_what_it_waits_for(
    half_a_card: Callable[[str], Workers], trial_config: Any, tmp_path: Path
) -> None:
    first = half_a_card("first")
    placement_group([{"CPU": 1, "GPU": 0.5}])  # the other half, in which no worker starts
    wait_for_shares([0.5, 0.5], [])
    assert ray.available_resources().get("GPU", 0) == 0

    third, config = half_a_card("third"), trial_config()
    third.begin({"config": config.model_dump(), "folder": str(tmp_path / "third")})
    assert third.next() == Waiting("1 CPU and 0.5 GPU")
    wait_for_shares([0.5, 0.5], [0.5])
    first.close()  # makes room
    if not torch.cuda.is_available():  # it has its place, and does not train on a CPU what was to have a GPU
        message = third.next()
        assert isinstance(message, Failed)
        assert "a GPU that PyTorch cannot use" in message.ending.reason


@pytest.mark.parametrize(
    ("said", "free", "told"),
    [
        ("AF_UNIX path length cannot exceed 107 bytes: /long", 10**12, "/long: set RAY_TMPDIR to a short"),
        (
            "Timed out waiting for file /tmp/ray/port",
            1000,
            "port: .* has 1 kB left: make room, or set",
        ),
        ("The GCS has become overloaded.", 10**12, "Ray did not start: The GCS has become overloaded.$"),
    ],
)
def test_a_folder_that_keeps_ray_from_starting_is_said_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, free: int, told: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(said)

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(cluster.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(cluster.StartError, match=told), cluster._joined("local"):
        pass
