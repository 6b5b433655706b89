"""Whether a trial's workers fit on a cluster's nodes. No Ray here."""

import logging
import math

from sizewise.config.sections.running import ResourcesSpec
from sizewise_core.errors import InputError

log = logging.getLogger(__name__)


class PlacementError(InputError):
    """A trial that can never run on this cluster; the message names the field and the figures."""


def check_placement(
    wanted: ResourcesSpec, nodes: list[dict[str, float]], startable: list[dict[str, float]]
) -> None:
    """Refuse at once what could never be placed, and log what a placement waits for, instead of waiting silently.

    Args:
        wanted: what a trial asks for; a share of a GPU that is still to be computed counts as a whole GPU.
        nodes: the resources of the nodes that there are.
        startable: those of the nodes that the autoscaler could also start, one entry a node.
    """
    gpus = 1.0 if wanted.gpus_per_worker == "auto" else wanted.gpus_per_worker
    each = {kind: count for kind, count in (("CPU", wanted.cpus_per_worker), ("GPU", gpus)) if count}
    if sum(_workers_on(node, each) for node in nodes) >= wanted.workers:
        return
    if sum(_workers_on(node, each) for node in nodes + startable) >= wanted.workers:
        kinds = " and ".join(f"{count * wanted.workers:g} {kind}" for kind, count in each.items())
        log.warning("a trial needs %s, which no node has free yet: waiting for the autoscaler's nodes", kinds)
        return
    everything, share = nodes + startable, "gpus" if gpus else "cpus"
    for kind, count in each.items():
        need, have = count * wanted.workers, sum(node.get(kind, 0) for node in everything)
        if need > have:
            raise PlacementError(
                f"resources: one trial needs {need:g} {kind} ({wanted.workers} workers x {count:g}), and this "
                f"cluster has {have:g}{_with(startable)}: lower resources.workers or "
                f"resources.{kind.lower()}s_per_worker"
            )
    largest = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in everything[:4])
    raise PlacementError(
        f"resources: {wanted.workers} workers of {' and '.join(f'{n:g} {kind}' for kind, n in each.items())} each do "
        f"not fit on this cluster's nodes ({largest}{_with(startable)}): a worker runs on one node; lower "
        f"resources.{share}_per_worker or resources.workers"
    )


def _workers_on(node: dict[str, float], each: dict[str, float]) -> int:
    """How many workers fit on an empty node; shares of GPUs do not span two GPUs."""
    room = []
    for kind, count in each.items():
        have = node.get(kind, 0)
        shared = kind == "GPU" and count < 1
        room.append(
            math.floor(have) * math.floor(1 / count + 1e-6) if shared else math.floor(have / count + 1e-6)
        )
    return min(room)


def _with(startable: list[dict[str, float]]) -> str:
    return " with all that the autoscaler may start" if startable else ""
