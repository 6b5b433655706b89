"""On a real Ray cluster: the same bytes, whoever is lost on the way, by a driver that touches no data."""

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import psutil
import pytest

from s3_server import S3Server
from sizewise_prep.pipeline import on_ray
from sizewise_prep.pipeline.jobs import assembly, parts
from sizewise_prep.pipeline.options import Options
from sizewise_prep.pipeline.prep import prepare

pytestmark = pytest.mark.slow

# Prepares argv[2:] into argv[1] on the cluster at ADDRESS, and lists every file that this process touches.
DRIVER = """
import os, sys
touched = []
def note(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir", "os.link", "glob.glob"):
        touched.append(str(arguments[0]))
from sizewise_core.errors import InputError
from sizewise_prep.pipeline.on_ray import prepare_on_ray
from s3_server import S3Server
from sizewise_prep.pipeline.prep import Options
sys.addaudithook(note)
try:
    manifest = prepare_on_ray(sys.argv[2:], sys.argv[1], Options(shard_rows=7_000, tokens=os.environ["TOKENS"],
        max_bad_fraction=float(os.environ.get("BAD", "0.1"))), address=os.environ["ADDRESS"])
    print(manifest.rows_out, manifest.rows_quarantined)
except InputError as error:
    print("InputError:", error)
data = os.path.dirname(os.path.abspath(sys.argv[1]))
print([path for path in touched if path.startswith(data)])
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, _s3_server: S3Server) -> Iterator[str]:
    """A cluster of two nodes of one core and 1.5 GB each, besides a head without; their cache folders differ."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(entry for entry in sys.path if entry))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for node in range(2):
            own = {"SIZEWISE_CACHE": str(tmp_path_factory.mktemp(f"node{node}"))}
            cluster.add_node(num_cpus=1, memory=1_500_000_000, env_vars=own | _s3_server.environment)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def logs(tmp_path: Path, line: Callable[..., bytes], log: Callable[..., Path]) -> list[str]:
    """A compressed file and a plain one of two pieces (more than 64 MiB)."""
    some = b"".join(line(j % 2, I1=str(j), C1=f"{j % 997:x}") + b"\n" for j in range(5_000))
    first, second = tmp_path / "data" / "a.tsv.gz", tmp_path / "data" / "b.tsv"
    first.parent.mkdir()
    first.write_bytes(gzip.compress(some[:-1] + b"\ntorn\n" + some))
    second.write_bytes(some * (70_000_000 // len(some) + 1))
    return [str(first), str(second)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def drive(
    tmp_path: Path, address: str, logs: list[str], out: str | None = None, **more: str
) -> subprocess.Popen[str]:
    (tmp_path / "driver.py").write_text(DRIVER)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = os.environ | {"PYTHONPATH": path, "ADDRESS": address, "TOKENS": "raw"} | more
    command = [sys.executable, str(tmp_path / "driver.py"), out or str(tmp_path / "data" / "out"), *logs]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


@pytest.mark.parametrize("tokens", ["raw", "contiguous"])
def test_a_cluster_leaves_the_same_bytes_though_a_worker_is_lost(
    tmp_path: Path, address: str, logs: list[str], tokens: str
) -> None:
    driver = drive(tmp_path, address, logs, TOKENS=tokens)
    records = tmp_path / "data" / ".out.partial" / "work" / "parts"
    killed = False
    while driver.poll() is None and not killed:
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or [])
            mine = title.startswith("ray::all_results") and _uses(process, tmp_path)
            if mine and records.exists() and not killed:
                process.send_signal(signal.SIGKILL)
                killed = True
        time.sleep(0.02)
    out, _ = driver.communicate(timeout=600)
    *_, reported, touched = out.splitlines()  # Ray may have said something of its own
    assert killed
    assert touched == "[]"  # the driver needs no access to the data
    prepare(logs, tmp_path / "local", shard_rows=7_000, tokens=tokens, max_bad_fraction=0.1)
    assert contents(tmp_path / "data" / "out") == contents(tmp_path / "local")
    assert reported.split()[1] == "1"


def test_a_killed_driver_and_a_killed_coordinator_leave_the_same_bytes(
    tmp_path: Path, address: str, logs: list[str]
) -> None:
    """A coordinator that hangs outlives its driver by some seconds; the same command does not wait for that."""
    first = drive(tmp_path, address, logs)
    coordinator = _coordinator(tmp_path, first)
    time.sleep(random.uniform(0, 0.5))  # less than a worker takes to start
    coordinator.suspend()
    first.kill()
    first.communicate()
    second = drive(tmp_path, address, logs)
    coordinator.wait(300)
    coordinator = _coordinator(tmp_path, second)
    time.sleep(random.uniform(0, 0.5))  # less than a worker takes to start
    coordinator.kill()
    out, _ = second.communicate(timeout=600)
    assert out.splitlines()[-2].split()[1] == "1", out
    prepare(logs, tmp_path / "local", shard_rows=7_000, max_bad_fraction=0.1)
    assert contents(tmp_path / "data" / "out") == contents(tmp_path / "local")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["a.tsv.gz", "b.tsv", "out"]


@pytest.mark.parametrize("shared", [False, True])
def test_shards_for_an_object_store(
    tmp_path: Path, address: str, logs: list[str], s3: S3Server, shared: bool
) -> None:
    """Made by the nodes that share a cache folder, and by a coordinator that is lost on the way."""
    out, cache = f"s3://studies/{tmp_path.name}/out", tmp_path / "data"
    more = {"TOKENS": "contiguous"} | ({"SIZEWISE_CACHE": str(cache)} if shared else {})
    driver = drive(tmp_path, address, logs, out, **more)
    _coordinator(tmp_path.parent, driver).kill()  # which holds a folder within its cache
    printed, said = driver.communicate(timeout=600)
    reported, touched = printed.splitlines()[-2:]
    assert "SIZEWISE_CACHE" not in said  # both nodes see the folder
    assert reported.split()[1:] == ["1"]
    assert touched == "[]"
    prepare(logs, tmp_path / "local", shard_rows=7_000, tokens="contiguous", max_bad_fraction=0.1)
    store, root = fsspec.core.url_to_fs(out, use_listings_cache=False)
    found = {name.removeprefix(f"{root}/"): store.cat_file(name) for name in store.find(root)}
    assert found == contents(tmp_path / "local")
    assert not any(cache.rglob("*.arrow"))
    again = drive(tmp_path, address, logs, out, **more)  # nothing to do
    assert again.communicate(timeout=600)[0].splitlines()[-2:] == [reported, touched]


def test_nodes_that_take_no_part_are_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One machine cannot have nodes that do not see its disk, so they are invented."""
    monkeypatch.setattr(on_ray.ray_nodes, "sharing", lambda _: frozenset({"one"}))
    monkeypatch.setattr(on_ray.ray_nodes, "memories", lambda nodes=None: [10**10] * (1 if nodes else 3))
    said = str(next(on_ray._coordinate(["absent.tsv"], "memory://bucket/out", Options(), None)))
    assert said.startswith("1 node works of 3, for the others do not share its cache folder ")
    assert said.endswith("set SIZEWISE_CACHE to a folder on a file system that they share")


def _coordinator(tmp_path: Path, driver: subprocess.Popen[str]) -> psutil.Process:
    """The one that has begun to work in the folder, once something of the work is done."""
    while True:
        assert driver.poll() is None, driver.communicate()
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or [])
            if title.startswith("ray::_coordinate") and _uses(process, tmp_path):
                return process
        time.sleep(0.02)


def _uses(process: psutil.Process, folder: Path) -> bool:
    """Whether a process has something in the folder open, so that no other cluster's worker is meant."""
    try:
        opened = [os.readlink(descriptor) for descriptor in Path(f"/proc/{process.pid}/fd").iterdir()]
    except OSError:
        return False
    return any(path.startswith(str(folder)) for path in opened)


def test_bad_input_is_told_by_the_cluster(tmp_path: Path, address: str, logs: list[str]) -> None:
    out, _ = drive(tmp_path, address, logs, BAD="0").communicate(timeout=600)
    assert "a.tsv.gz, line 5001: has 1 tab-separated fields" in out
    out, _ = drive(tmp_path, address, [str(tmp_path / "none.tsv")]).communicate(timeout=600)
    assert "none.tsv: not found" in out


def test_tasks_ask_for_the_memory_that_they_take(tmp_path: Path, line: Callable[..., bytes]) -> None:
    raw = tmp_path / "raw.tsv"
    raw.write_bytes((line(1) + b"\n") * 400_000)
    program = (
        "import re, sys\n"
        "from sizewise_prep.pipeline.prep import prepare\n"
        "prepare([sys.argv[1]], sys.argv[2])\n"
        # Not getrusage: its peak is inherited from whoever starts a process.
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1] + '000')\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ran = subprocess.run(
        [sys.executable, "-c", program, raw, tmp_path / "out"],
        env=os.environ | {"PYTHONPATH": path, "POLARS_MAX_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    assert int(ran.stdout) < max(parts.MEMORY, assembly.memory(400_000, 157))
