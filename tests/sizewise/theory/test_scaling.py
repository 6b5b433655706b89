"""What an exchange costs on paper: limits that hold whatever the links."""

import pytest

from sizewise.theory.communication import Links, all_to_all_seconds, efficiency, exchange_seconds, wire_bytes


def test_alone_nothing_is_sent() -> None:
    assert wire_bytes(10_000_000, 1) == 0
    assert exchange_seconds(1e9, 1, Links()) == 0
    assert all_to_all_seconds(1e9, 1, Links()) == 0
    assert efficiency(0.01, 0.0) == 1


def test_around_the_ring_nearly_all_gradients_go_twice() -> None:
    assert wire_bytes(1_000, 2) == 1_000
    assert wire_bytes(1_000, 1_000) == 1_998


def test_one_node_is_as_fast_as_its_own_links() -> None:
    links = Links(within=100.0, between=1.0, reached=0.5, latency=0.0)
    assert exchange_seconds(400.0, 8, links) == pytest.approx(2 * 7 / 8 * 400 / 50)
    assert all_to_all_seconds(400.0, 8, links) == pytest.approx(2 * 7 / 8 * 400 / 50)
    # Two nodes: each card takes an eighth of the sum to its partner in the other, by the slow link.
    assert exchange_seconds(400.0, 16, links) == pytest.approx(2 * 7 / 8 * 400 / 50 + 400 / 8 / 0.5)


def test_an_exchange_that_hides_behind_work_costs_nothing() -> None:
    assert efficiency(0.01, 0.01) == 0.5
    assert efficiency(0.01, 0.01, hidden=0.02) == 1
