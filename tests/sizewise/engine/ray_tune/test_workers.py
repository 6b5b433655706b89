"""Worker groups on a real Ray cluster: one serves many trials, and nothing of a trial outlives it."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.util import placement_group_table

from sizewise.config.trial import TrialConfig
from sizewise.engine.messages import Evaluated, Failed, Finished, Message, Resumed, Started
from sizewise.engine.ray_tune.cluster import ENVIRONMENT
from sizewise.engine.ray_tune.worker_group import Workers
from sizewise.training.loop import train

pytestmark = pytest.mark.slow
TIMED = ("train_seconds", "samples_per_second", "peak_memory_bytes")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    yield
    ray.shutdown()


@pytest.fixture
def group(cluster: None, tmp_path: Path) -> Iterator[Callable[[int], Workers]]:
    groups = []

    def start(workers: int) -> Workers:
        resources = {"workers": workers, "cpus_per_worker": 1, "gpus_per_worker": 0}
        groups.append(Workers(resources, f"group-{len(groups)}", str(tmp_path / "logs")))
        return groups[-1]

    yield start
    for started in groups:
        started.close()


def next_message(workers: Workers) -> Message:
    """The next message of the trial under way, besides that it has begun and where it goes on from."""
    while isinstance(message := workers.next(), Started | Resumed):
        pass
    return message


def to_the_end(workers: Workers) -> tuple[list[dict[str, Any]], Message]:
    """All evaluations of the trial under way, and its end."""
    rows = []
    while isinstance(message := next_message(workers), Evaluated):
        rows.append(message.evaluation)
    return rows, message


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMED} for row in rows]


def test_a_group_serves_stopped_finished_and_diverged_trials_and_leaves_nothing(
    group: Callable[[int], Workers], trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    def payload(name: str, **changes: Any) -> dict[str, Any]:
        return {"config": trial_config(**changes).model_dump(), "folder": str(tmp_path / name), "how": {}}

    workers = group(1)
    workers.begin(payload("stopped", seed=1))
    message = next_message(workers)
    assert isinstance(message, Evaluated), message
    assert message.evaluation["iteration"] == 12
    workers.stop()  # in the middle, where a pruner would
    assert workers.usable

    calm = train(trial_config(), tmp_path / "calm", lambda row: None)
    workers.begin(payload("finished"))
    rows, end = to_the_end(workers)
    assert isinstance(end, Finished), end
    assert untimed(rows) == untimed(end.evaluations) == untimed(calm.evaluations)
    assert end.test == calm.test

    workers.begin(payload("stopped", seed=1))  # and the stopped one could go on from where it was
    assert [row["iteration"] for row in to_the_end(workers)[0]] == [25, 38, 50]

    workers.begin(payload("diverged", learning_rate=1e30, optimizer="sgd"))
    _, end = to_the_end(workers)
    assert isinstance(end, Failed), end
    assert "search lower learning rates" in end.ending.reason
    assert workers.usable

    workers.begin(payload("raises", data=str(tmp_path / "nowhere")))
    _, end = to_the_end(workers)
    assert isinstance(end, Failed), end
    assert "nowhere" in end.ending.reason
    assert "Traceback" in end.traceback
    assert not workers.usable  # what else a stranger's error has broken is unknown

    # Killed as soon as it is there: a loss, and not one that Ray Train makes good for ever.
    workers = group(1)
    workers.begin(payload("killed"))
    late = time.monotonic() + 240
    while not (young := trainers()):
        assert time.monotonic() < late
    young[0].kill()
    end = next_message(workers)
    assert isinstance(end, Failed), end
    assert end.ending.kind == "lost", end
    assert not workers.usable
    nothing_left()


def test_two_workers_stop_together_and_go_on_together(
    group: Callable[[int], Workers], trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    workers = group(2)
    workers.begin(
        {"config": trial_config(seed=1).model_dump(), "folder": str(tmp_path / "stopped"), "how": {}}
    )
    next_message(workers)
    workers.stop()
    workers.begin({"config": trial_config().model_dump(), "folder": str(tmp_path / "together"), "how": {}})
    _, end = to_the_end(workers)
    alone = train(trial_config(), tmp_path / "alone", lambda row: None)
    assert isinstance(end, Finished), end
    assert [row["auc"] for row in end.evaluations] == pytest.approx(
        [row["auc"] for row in alone.evaluations], abs=1e-4
    )

    workers.begin(
        {"config": trial_config(seed=2, epochs=500).model_dump(), "folder": str(tmp_path / "long"), "how": {}}
    )
    time.sleep(1.0)  # neither at a report nor waiting: it cannot hear that it is to stop
    workers.stop()
    assert not workers.usable
    nothing_left()


def trainers() -> list[psutil.Process]:
    """The processes that train."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "RayTrainWorker" in process.name():
                found.append(process)
    return found


def nothing_left() -> None:
    """No placement group, and with it no worker, outlives its group, whatever ended it."""
    end = time.monotonic() + 120
    while True:
        held = [table for table in placement_group_table().values() if table["state"] != "REMOVED"]
        free = ray.available_resources().get("CPU")
        if not held and free == 2:
            return
        assert time.monotonic() < end, (held, free)
        time.sleep(0.2)
