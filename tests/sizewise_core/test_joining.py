"""Which cluster may be joined: with a token or without, one's own or another user's. On a real head that wants one."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOKEN = "0123456789abcdef" * 4
# Another user, who may read this checkout and its interpreter, wherever they lie.
RIGHT = "dac_read_search"
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups", f"--inh-caps=+{RIGHT}", f"--ambient-caps=+{RIGHT}")
ASK = """
import json, os, sys
from sizewise_core.clusters.ray_address import RefusedError, joinable
said = []
try:
    found = joinable(sys.argv[1], said.append)
except RefusedError as error:
    found = f"refused: {error}"
print(json.dumps([found, said, os.environ.get("RAY_AUTH_MODE")]))
"""
HEAD = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

pytestmark = pytest.mark.slow
Ask = Callable[..., tuple[str | None, list[str], str | None]]


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a head that asks for TOKEN, and the environment in which it is the machine's current cluster."""
    folder = tempfile.mkdtemp(prefix="jn")
    Path(folder).chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH") and k != "RAY_ADDRESS"}
    environment |= {"RAY_TMPDIR": folder, "HOME": "/dev/null/home"}
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        env=environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    assert process.stdin
    lines = iter(process.stdout.readline, "")
    yield next(line.strip() for line in lines if line.count(":") == 1 and line[:1].isdigit()), environment
    process.stdin.close()
    process.wait(300)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ask(head: tuple[str, dict[str, str]]) -> Ask:
    def asked(named: str, *before: str, **more: str) -> tuple[str | None, list[str], str | None]:
        done = subprocess.run(
            [*before, sys.executable, "-c", ASK, named],
            env=head[1] | more,
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        assert done.stderr == ""
        found, said, mode = json.loads(done.stdout)
        return found, said, mode

    return asked


def test_a_token_is_found_or_asked_for(head: tuple[str, dict[str, str]], ask: Ask, tmp_path: Path) -> None:
    address = head[0]
    for more in ({"RAY_AUTH_TOKEN": TOKEN}, {"RAY_AUTH_TOKEN": TOKEN, "RAY_AUTH_MODE": "token"}):
        assert ask(address, **more) == (address, [], "token")
    file = tmp_path / "token"
    file.write_text(TOKEN)
    assert ask("", RAY_AUTH_TOKEN_PATH=str(file)) == (address, [], "token")

    for more in ({}, {"RAY_AUTH_TOKEN": TOKEN[::-1]}, {"RAY_AUTH_TOKEN_PATH": "/nowhere"}):
        found, said, _ = ask("auto", **more)
        assert found.startswith("refused: ")
        assert "RAY_AUTH_TOKEN" in found
        assert TOKEN[::-1] not in found
        found, (said,), _ = ask("", **more)
        assert found is None  # nobody asked for it
        assert said.startswith("Ray: the cluster on this machine is left alone: ")


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="takes two users")
def test_a_cluster_of_another_user_is_not_touched(head: tuple[str, dict[str, str]], ask: Ask) -> None:
    """Joining it would abort the process in Ray's C++ code."""
    assert os.path.exists(f"{head[1]['RAY_TMPDIR']}/ray/ray_current_cluster")
    found, (said,), _ = ask("", *NOBODY, RAY_AUTH_TOKEN=TOKEN)
    assert found is None
    assert "is another user's" in said
    for named in ("auto", head[0]):
        found, _, _ = ask(named, *NOBODY, RAY_AUTH_TOKEN=TOKEN)
        assert "was started by another user (id 0)" in found
        assert "--ray local" in found
