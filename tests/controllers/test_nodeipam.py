"""Ranges of pod addresses for nodes: each its own, none twice, what is gone is free again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from knarr.api.core.v1 import Event, Node, NodeSpec
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.controller import Controller
from knarr.controllers.nodeipam import ASK_AGAIN_S, NodeRanges, Ranges
from tests.controllers.loops import Loops, play


def test_shares_are_given_in_turn_and_none_twice() -> None:
    ranges = Ranges("10.0.0.0/22", 24, reserved=["10.0.0.0/24"])
    assert [ranges.take(name) for name in ("a", "b", "a", "c", "d")] == [
        "10.0.1.0/24",
        "10.0.2.0/24",
        "10.0.1.0/24",
        "10.0.3.0/24",
        None,
    ]


def test_what_a_node_had_comes_last_in_turn() -> None:
    ranges = Ranges("10.0.0.0/22", 24)
    assert ranges.take("a") == "10.0.0.0/24"
    ranges.free("a")
    assert [ranges.take(name) for name in "bcde"] == ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24", "10.0.0.0/24"]
    assert ranges.take("f") is None
    ranges.free("c")
    assert ranges.take("f") == "10.0.2.0/24"


def test_ranges_that_nodes_bring_are_theirs() -> None:
    ranges = Ranges("10.0.0.0/22", 24)
    ranges.hold("brings", ["fd00::/64", "10.0.0.0/24"])
    ranges.hold("large", ["10.0.2.0/23"])
    ranges.hold("elsewhere", ["192.168.0.0/24"])
    ranges.hold("broken", ["no range"])
    assert ranges.take("a") == "10.0.1.0/24"
    assert ranges.take("b") is None
    ranges.free("large")
    assert ranges.take("b") == "10.0.2.0/24"


def test_a_range_that_two_nodes_claim_is_free_when_both_are_gone() -> None:
    ranges = Ranges("10.0.0.0/24", 24)
    ranges.hold("a", ["10.0.0.0/24"])
    ranges.hold("b", ["10.0.0.0/24"])
    ranges.free("a")
    assert ranges.take("c") is None
    ranges.free("b")
    assert ranges.take("c") == "10.0.0.0/24"


def test_version_6_has_the_same_rules() -> None:
    ranges = Ranges("fd00:1::/48", 64, reserved=["fd00:1::/64"])
    assert [ranges.take(name) for name in "ab"] == ["fd00:1:0:1::/64", "fd00:1:0:2::/64"]


def loops(parts: Loops) -> list[Controller]:
    families = [Ranges("10.0.0.0/23", 24, reserved=["10.0.0.0/24"]), Ranges("fd00::/48", 64)]
    return [NodeRanges(parts.account("node-controller"), parts.informers, parts.clock, families)]


def nodes(scenario: Callable[[Loops], Awaitable[None]]) -> None:
    play(loops, scenario)


def test_a_node_that_joins_gets_a_range_of_each_family() -> None:
    async def scenario(parts: Loops) -> None:
        own = NodeSpec(pod_cidr="10.0.0.0/24", pod_cidrs=["10.0.0.0/24", "fd00::/64"])
        await parts.client.create(Node(metadata=ObjectMeta(name="own"), spec=own))
        await parts.client.create(Node(metadata=ObjectMeta(name="joined")))

        async def given() -> list[str]:
            spec = (await parts.client.get(Node, "joined")).spec
            return spec.pod_cidrs if spec else []

        assert await parts.until(given) == ["10.0.1.0/24", "fd00:0:0:1::/64"]
        kept = (await parts.client.get(Node, "own")).spec
        assert kept
        assert kept.pod_cidrs == ["10.0.0.0/24", "fd00::/64"]

    nodes(scenario)


def test_a_node_for_which_there_is_none_waits_and_says_so() -> None:
    async def scenario(parts: Loops) -> None:
        for name in ("first", "second"):
            await parts.client.create(Node(metadata=ObjectMeta(name=name)))
            await parts.clock.sleep(1)

        async def told() -> list[str]:
            events = (await parts.client.list(Event)).items
            return [each.message or "" for each in events if each.reason == "CIDRNotAvailable"]

        assert await parts.until(told) == ["Node second status is now: CIDRNotAvailable"]
        await parts.client.delete(Node, "first")

        async def given() -> list[str]:
            spec = (await parts.client.get(Node, "second")).spec
            return spec.pod_cidrs if spec else []

        assert (await parts.until(given, ASK_AGAIN_S + 1))[0] == "10.0.1.0/24"

    nodes(scenario)
