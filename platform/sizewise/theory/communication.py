"""How many bytes data-parallel workers send in a step, and a model of how training scales over many cards.

    wire_bytes(gradient_bytes=10_400_000, workers=8)      # bytes that each worker sends in one step
    efficiency(0.010, exchange_seconds(10_400_000, 64, Links()))

Each worker has a copy of the model, and one ring all-reduce adds up all gradients. Tables that are too large for one
card are split over cards, and vectors and their gradients are sent instead: the exchange that a small model saves.
`python -m benchmarks.scaling` prints both with the assumptions below.
"""

import math
from dataclasses import dataclass


def wire_bytes(gradient_bytes: int, workers: int) -> int:
    """Bytes that each of the workers sends to add up gradients of so many bytes by a ring all-reduce; 0 for one."""
    return math.ceil(2 * (workers - 1) * gradient_bytes / workers)


@dataclass(frozen=True)
class Links:
    """The connections between cards; the defaults are those of nodes of eight H100 with a 400 Gbit/s adapter a card."""

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
    """Seconds to add up gradients over all cards: within nodes, then each card's share between nodes, and back.

    Args:
        gradient_bytes: of one card.
        cards: how many.
        links: between them.
    """
    local = min(cards, links.cards_per_node)
    nodes = math.ceil(cards / links.cards_per_node)
    within = 2 * (local - 1) / local * gradient_bytes / (links.within * links.reached)
    between = 2 * (nodes - 1) / nodes * gradient_bytes / local / (links.between * links.reached)
    return within + between + _waiting(cards, links)


def all_to_all_seconds(vector_bytes: float, cards: int, links: Links) -> float:
    """Seconds to fetch a card's vectors from tables that are split over all cards, and to send their gradients back.

    Each card sends as much as it receives; the share within the node is sent at the same time over the faster links.

    Args:
        vector_bytes: of all vectors that one card looks up in a batch.
        cards: how many.
        links: between them.
    """
    local = min(cards, links.cards_per_node)
    within = vector_bytes * (local - 1) / cards / (links.within * links.reached)
    between = vector_bytes * (cards - local) / cards / (links.between * links.reached)
    return 2 * (max(within, between) + _waiting(cards, links) / 2)


def efficiency(step_seconds: float, exchange: float, hidden: float = 0.0) -> float:
    """Throughput of a card among many, relative to that of a single card.

    Args:
        step_seconds: of a step of a single card.
        exchange: seconds that cards exchange gradients or vectors in a step.
        hidden: seconds of the exchange that overlap with computation.
    """
    return step_seconds / (step_seconds + max(0.0, exchange - hidden))


def _waiting(cards: int, links: Links) -> float:
    return 2 * math.log2(cards) * links.latency if cards > 1 else 0.0
