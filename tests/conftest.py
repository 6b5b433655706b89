"""What all tests share: modules in `helpers` can be imported, and torch uses one thread.

Small tensors gain nothing from more threads, and on a busy machine threads that wait for each other cost
several times as much. It is also what a worker with one CPU has. Triton's kernels run in its interpreter, which has
to be said before Triton is imported. Ray's files lie in a folder of the tests' own, so that no test joins a cluster
that happens to run on the machine or that tests in another process have started.
"""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRITON_INTERPRET", "1")
# On a busy machine a worker of Ray may take longer than a minute to start; Ray would start another in its place.
os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")
if len(tempfile.gettempdir()) > 20:  # paths of sockets must be short
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"
if "RAY_TMPDIR" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-")
    atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from s3_server import S3Server  # found by the line before

# Nor do tests depend on what the machine's user has set: a cluster, a terminal's width and colours, a proxy.
_PROXIES = (name for name in list(os.environ) if name.lower().endswith("_proxy"))
for name in ("RAY_ADDRESS", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", *_PROXIES):
    os.environ.pop(name, None)

TESTS = Path(__file__).parent
# `chaos` is a marker already, with a meaning of its own: see pyproject.toml.
FEW = 2  # combinations of a test's parameters that say whether it works at all
# Files that take longest start first, so that no process is left alone with one in the end; those that mostly wait,
# for Ray and for processes that end, and those that mostly compute take turns, so that some of each run at a time.
LONGEST = (
    "sizewise/engine/complete/test_study_s3.py",
    "sizewise/engine/complete/test_study.py",
    "dashboard/test_dashboard_defects.py",
    "chaos/test_trials_that_fail.py",
    "sizewise/engine/ray_tune/test_workers.py",
    "contracts/gradients/test_gradient_contract.py",
    "sizewise/engine/complete/test_cluster_up.py",
    "chaos/test_kills.py",
    "dashboard/in_browser/test_browser_figures.py",
    "sizewise/models/own/test_own_models.py",
    "sizewise/cli/test_commands_in_terminal.py",
    "contracts/embedding/test_embedding_contract.py",
    "chaos/test_killed_students.py",
    "sizewise/models/own/test_other_distributions.py",
    "dashboard/in_browser/test_browser_pages.py",
    "sizewise/engine/complete/test_small_studies.py",
    "sizewise/export/test_export.py",
    "sizewise/engine/ray_tune/test_pruning_on_ray.py",
    "sizewise/embedding/kernels/test_fused.py",
    "contracts/embedding/test_bags_contract.py",
)
FOLDERS = {part for file in TESTS.rglob("test_*.py") for part in file.relative_to(TESTS).parts[:-1]} - {
    "chaos"
}


@pytest.fixture(autouse=True)
def _own_main() -> Iterator[None]:
    """Streamlit's AppTest puts the app in the place of the main module, which processes started later would import."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        server.bucket("studies")
        yield server


@pytest.fixture
def s3(_s3_server: S3Server) -> Iterator[S3Server]:
    """One S3 server for all tests, with the bucket `studies`; the environment leads there. Clients are cached."""
    with _s3_server.in_environment():
        yield _s3_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos", action="store_true", help="run the long form of the chaos suite too: half an hour"
    )
    parser.addoption(
        "--combinations",
        choices=["all", "few", "rest"],
        default="all",
        help=f"of a test with many combinations of parameters, run {FEW} of them, the rest, or (by default) all; "
        "of slow tests, whose combinations are few, `few` runs none and `rest` all",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Every folder of tests is a marker: `pytest -m prep`, `pytest -m "embedding and not slow"`."""
    for folder in FOLDERS:
        config.addinivalue_line("markers", f"{folder}: tests in a folder `{folder}`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folders, longest files first. Without --chaos, tests marked `chaos` are not even counted."""
    order = {TESTS / name: place for place, name in enumerate(LONGEST)}
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (order.get(item.path, len(LONGEST)), item.path not in slow))
    for item in items:
        for folder in FOLDERS.intersection(item.path.relative_to(TESTS).parts):
            item.add_marker(folder)
        if item.get_closest_marker("chaos"):
            item.add_marker(pytest.mark.timeout(3600))
    left_out: set[pytest.Item] = set()
    if not config.getoption("--chaos"):
        left_out |= {item for item in items if item.get_closest_marker("chaos")}
    wanted = config.getoption("--combinations")
    if wanted != "all":
        few = _few(items)
        left_out |= {item for item in items if (item in few) != (wanted == "few")}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def _few(items: list[pytest.Item]) -> set[pytest.Item]:
    """Of every test that is not slow at most FEW of its combinations: first, last, and between at equal distances."""
    by_test: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not item.get_closest_marker("slow"):
            by_test.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return {every[round(i * (len(every) - 1) / (FEW - 1))] for every in by_test.values() for i in range(FEW)}
