"""What data-parallel workers send in a step, and on paper how training scales beyond this machine.

    wire_bytes(gradient_bytes=10_400_000, workers=8)      # bytes that each worker sends in one step
    efficiency(0.010, exchange_seconds(10_400_000, 64, Links()))

Workers keep a model each and add up all its gradients in one ring all-reduce. Tables too large for one card are cut up
instead, and vectors and their gradients travel: the exchange that a small model saves. `python -m benchmarks.scaling`
prints both with the assumptions below.
"""

import math
from dataclasses import dataclass


def wire_bytes(gradient_bytes: int, workers: int) -> int:
    """Bytes that each of the workers sends to add up gradients of so many bytes by a ring all-reduce; 0 for one."""
    return math.ceil(2 * (workers - 1) * gradient_bytes / workers)


@dataclass(frozen=True)
class Links:
    """What cards are joined by; the defaults are those of a node of eight H100 with a 400 Gbit/s adapter a card."""

    cards_per_node: int = 8
    within: float = 450e9
    """Bytes per second that a card sends within its node (NVLink 4, one direction)."""
    between: float = 50e9
    """Bytes per second that a card sends to other nodes."""
    reached: float = 0.7
    """Share of those speeds that large messages reach."""
    latency: float = 10e-6
    """Seconds from one card to another; an exchange takes it twice for each halving of the cards."""


def exchange_seconds(gradient_bytes: float, cards: int, links: Links) -> float:
    """Time to add up gradients over all cards: first within nodes, then each card its share between nodes, and back."""
    local = min(cards, links.cards_per_node)
    nodes = math.ceil(cards / links.cards_per_node)
    within = 2 * (local - 1) / local * gradient_bytes / (links.within * links.reached)
    between = 2 * (nodes - 1) / nodes * gradient_bytes / local / (links.between * links.reached)
    return within + between + _waiting(cards, links)


def all_to_all_seconds(vector_bytes: float, cards: int, links: Links) -> float:
    """Time to fetch a card's vectors from tables cut up over all cards, and to send their gradients back.

    `vector_bytes` is what one card's share of a batch looks up. Each card sends as much as it receives; what stays
    within the node goes at the same time over the faster links.
    """
    local = min(cards, links.cards_per_node)
    within = vector_bytes * (local - 1) / cards / (links.within * links.reached)
    between = vector_bytes * (cards - local) / cards / (links.between * links.reached)
    return 2 * (max(within, between) + _waiting(cards, links) / 2)


def efficiency(step_seconds: float, exchange: float, hidden: float = 0.0) -> float:
    """Throughput of a card among many over that of one alone; `hidden` seconds of the exchange overlap with work."""
    return step_seconds / (step_seconds + max(0.0, exchange - hidden))


def _waiting(cards: int, links: Links) -> float:
    return 2 * math.log2(cards) * links.latency if cards > 1 else 0.0
