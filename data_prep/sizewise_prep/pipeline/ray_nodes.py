"""The nodes of a Ray cluster: how much memory they offer, and which of them share a folder.

on = sharing(cache_folder() / "prep")       # this node, and those that see what it writes there
task.options(scheduling_strategy=only(on))
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import (
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
)

from sizewise_core.errors import InputError

_PROBE_SECONDS = 60.0
_LABEL = "ray.io/node-id"  # which Ray gives each node


@dataclass(frozen=True)
class Unshared:
    """Only some nodes work, because the others do not see the folder in which shards are made.

    Attributes:
        working, nodes: how many work, and how many there are.
        folder: the cache folder, on the nodes that work.
    """

    working: int
    nodes: int
    folder: str

    def __str__(self) -> str:
        some = "1 node works" if self.working == 1 else f"{self.working} nodes work"
        return (
            f"{some} of {self.nodes}, for the others do not share its cache folder {self.folder:.80}: for all of them, "
            "set SIZEWISE_CACHE to a folder on a file system that they share"
        )


def memories(nodes: Collection[str] | None = None) -> list[int]:
    """Bytes that each node with cores offers to tasks, of all or of some nodes."""
    return [
        int(node["Resources"].get("memory", 0))
        for node in _working()
        if nodes is None or node["NodeID"] in nodes
    ]


def first() -> NodeAffinitySchedulingStrategy:
    """A node that is the same one for as long as it is there, so that what lies on its disk is found again.

    Raises RuntimeError where no node has cores.
    """
    names = sorted(node["NodeID"] for node in _working())
    if not names:
        raise RuntimeError("no node of the Ray cluster has a CPU")
    return NodeAffinitySchedulingStrategy(names[0], soft=True)


def only(nodes: Collection[str]) -> NodeLabelSchedulingStrategy:
    """A strategy that keeps tasks to these nodes."""
    return NodeLabelSchedulingStrategy(hard={_LABEL: In(*sorted(nodes))})


def sharing(folder: Path) -> frozenset[str]:
    """This node, and all others on which a file that it writes into a folder can be seen.

    Args:
        folder: is made if it is absent.

    Raises:
        InputError: the folder cannot be written.
    """
    here = ray.get_runtime_context().get_node_id()
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}) on the Ray cluster: set SIZEWISE_CACHE to a folder that "
            "its nodes share"
        ) from None
    try:
        others = [node["NodeID"] for node in _working() if node["NodeID"] != here]
        asked = {_asked(node, str(probe)): node for node in others}
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_SECONDS) if asked else ([], [])
        return frozenset({here, *(asked[one] for one in done if _answer(one))})
    finally:
        probe.unlink(missing_ok=True)


def _asked(node: str, path: str) -> Any:
    """A node's answer to whether it sees a file."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(_sees).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(path)


def _sees(path: str) -> bool:
    """Whether a file is there: in a task on another node."""
    return Path(path).exists()


def _answer(reference: Any) -> bool:
    with contextlib.suppress(ray.exceptions.RayError):  # such as a node that was lost
        return bool(ray.get(reference))
    return False


def _working() -> list[dict[str, Any]]:
    """The nodes that have cores."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
