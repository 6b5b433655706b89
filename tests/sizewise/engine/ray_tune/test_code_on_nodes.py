"""A model of one's own on a cluster of which a node lacks the model's modules, and has others of their names."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from real_study import Command
from sizewise.store.trials.ledger import Ledger

NAMESPACE = ("unshare", "--mount", "--propagation", "private")
NET = """
import os
import torch
from torch import nn
from node_layers.hidden import layers


class Net(nn.Module):
    def __init__(self, embedding, dense_features, beside):
        super().__init__()
        self.embedding = embedding
        self.layers = layers(dense_features + embedding.features * embedding.dim)
        with open(os.environ.get("NODE_NETS_SAID", os.devnull), "a") as said:
            print(__file__, os.getcwd(), os.path.exists(beside), file=said)

    def forward(self, dense, ids):
        return self.layers(torch.cat([dense, self.embedding(ids).flatten(1)], dim=1)).squeeze(1)
"""
LAYERS = "from torch import nn\n\n\ndef layers(width):\n    return nn.Linear(width, 1)\n"
STUDY = """\
name: nodes
data: {data}
model: {{kind: "node_nets:Net", dim: 4, beside: {beside}}}
embedding: {{method: robe}}
search: {{memory_budget: 20kB, epochs: 1}}
train: {{evaluate_every: 1.0}}
trials: 1
"""


def _may_unshare() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*NAMESPACE, "true"]).returncode


@pytest.fixture
def folder(tmp_path: Path, shards: Path) -> Path:
    """A study file and its model's modules, one of which lies in a folder without `__init__.py`."""
    folder = tmp_path / "mine"
    (folder / "node_layers").mkdir(parents=True)
    (folder / "node_nets.py").write_text(NET)
    (folder / "node_layers" / "hidden.py").write_text(LAYERS)
    (folder / "study.yaml").write_text(STUDY.format(data=shards, beside=folder / "node_nets.py"))
    return folder


@pytest.fixture
def cluster(tmp_path: Path, folder: Path) -> Iterator[Cluster]:
    """A head without a CPU, and a node whose file system, working folder, temporary folder and paths are others.

    There the modules' folder is empty, and PYTHONPATH has a module of the same name.
    """
    if not _may_unshare():
        pytest.skip("needs a mount namespace, for a node with a file system of its own")
    other, work = tmp_path / "other", tmp_path / "work"
    for path in (other, work):
        path.mkdir()
    (other / "node_nets.py").write_text("class Net:\n    pass\n")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    mount = f"mount -t tmpfs none {shlex.quote(str(folder))}"
    start = f"{mount} && exec ray start --address={made.address} --num-cpus=1 --block"
    search = [str(other), *(entry for entry in sys.path if entry)]
    with (tmp_path / "node.log").open("wb") as log:
        node = subprocess.Popen(
            [*NAMESPACE, "sh", "-c", f"{start} --temp-dir=$RAY_TMPDIR/other --disable-usage-stats"],
            cwd=work,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join(search),
                "NODE_NETS_SAID": str(tmp_path / "said"),
            },
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + 300
        while len(made.global_state.node_table()) < 2:
            assert node.poll() is None, (tmp_path / "node.log").read_text()
            assert time.monotonic() < end, (tmp_path / "node.log").read_text()
            time.sleep(0.2)
        yield made
    finally:
        node.terminate()
        node.wait(300)
        made.shutdown()


@pytest.mark.slow
def test_workers_find_the_code_that_the_study_keeps(folder: Path, cluster: Cluster, tmp_path: Path) -> None:
    """The study is in a folder that all see; of one in an object store see `test_own_models.py`."""
    environment, runs = {**os.environ, "RAY_ADDRESS": cluster.address}, tmp_path / "runs"
    with Command("run", folder / "study.yaml", "--runs", runs, environment=environment) as run:
        code, _, err = run.end()
    assert code == 0, err
    said = (tmp_path / "said").read_text().splitlines()
    assert said
    for line in said:
        file, work, beside = line.split()
        assert "code.zip" in file
        assert str(folder) not in work
        assert beside == "False"  # the node has not the files that the driver has
    (record,) = Ledger(runs / "nodes").records().values()
    assert record.state == "finished"
