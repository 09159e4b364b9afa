"""Addresses of pools on a LAN of network namespaces: exactly one node answers, and another when that one dies."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Node, Service
from knarr.client.client import MERGE_PATCH
from knarr.clock import SystemClock
from knarr.edge.announcer import LEASE_RENEWALS, RENEW_S, Announcer
from knarr.edge.election import owner_of
from knarr.edge.lan import advertised, announcements, claim, interface_for, remove_all
from knarr.edge.loadbalancer import EXCLUDED
from knarr.edge.providers.local import parse_pools
from knarr.network import netlink as kernel
from tests.controllers.loops import Loops
from tests.edge.lan_lab import LanLab, lan_lab
from tests.edge.test_loadbalancer import service
from tests.edge.test_local import node, slice_of
from tests.network.lab import IS_ROOT

POOLS = "192.168.80.200-192.168.80.220,fd00:80::c8-fd00:80::dc"
FAILOVER_MAX_S = 8.0
WITHIN_S = 40.0
"""For what has no bound of its own, on a machine that may have other work."""
HANDOVER_MAX_S = RENEW_S * (LEASE_RENEWALS - 2)
"""Well before the Lease of who has left would have run out."""
NODES = ("n1", "n2")


class Site:
    """Two nodes with an announcer each, and a client."""

    def __init__(self, loops: Loops, lab: LanLab, folder: Path) -> None:
        self.loops, self.lab, self.client, self.clock = loops, lab, loops.client, loops.clock
        self._folder = folder
        self.announcers: dict[str, Announcer] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def add_node(self, name: str) -> None:
        made = node(name, f"192.168.80.{name[1:]}")
        await self.client.create(made)
        there = await self.client.get(Node, name)
        await self.client.update_status(msgspec.structs.replace(there, status=made.status))
        await self.lab.serve(name)
        self.begin(name)

    def begin(self, name: str) -> None:
        announcer = Announcer(
            self.loops.client_as(f"system:node:{name}", "system:nodes", "system:authenticated"),
            self.loops.informers,
            self.clock,
            node_name=name,
            pools=parse_pools(POOLS),
            record=self.record(name),
            network_namespace=self.lab.path(name),
        )
        self.announcers[name] = announcer
        self.tasks[name] = asyncio.create_task(announcer.run())

    async def all_hear_of_each_other(self) -> None:
        """Who knows of nobody else has its addresses for ever."""

        async def look() -> bool:
            return all(each._alive() == set(NODES) for each in self.announcers.values())

        await self.loops.until(look, within_s=WITHIN_S)

    def record(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    async def kill(self, name: str) -> None:
        """Its process is gone at once: nothing is given up in order."""
        await self.stop(name)
        await self.announcers[name].close(remove=False)

    async def stop(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks[name], return_exceptions=True)

    async def balance(self, name: str, *addresses: str, **spec: Any) -> None:
        await self.client.create(service(name, ports=[{"port": 8080}], **spec))
        await self.readdress(name, *addresses)

    async def readdress(self, name: str, *addresses: str) -> None:
        balancer = {"loadBalancer": {"ingress": [{"ip": each} for each in addresses]}}
        patch = {"status": balancer}
        await self.client.patch(Service, name, patch, "default", subresource="status", content_type=MERGE_PATCH)

    async def answers(self, address: str, *names: str) -> float:
        """Wait until one of these answers at an address; how long it took (s)."""
        began_s = self.clock.monotonic_s()

        async def look() -> Any:
            return await self.lab.ask(address) in names

        await self.loops.until(look, within_s=WITHIN_S)
        return self.clock.monotonic_s() - began_s

    async def held(self, address: str) -> str:
        """Make a Service with an address; the node that answers for it."""
        first = owner_of(address, NODES) or ""
        await self.balance("web", address)
        await self.answers(address, first)
        return first

    async def one_answers(self, address: str) -> None:
        """While an address moves, both may answer for as long as it takes them to read the same news."""

        async def look() -> Any:
            return len(await self.lab.who_has(address)) == 1

        await self.loops.until(look, within_s=WITHIN_S)

    async def silent(self, address: str) -> None:
        async def look() -> Any:
            return await self.lab.who_has(address) == []

        await self.loops.until(look, within_s=WITHIN_S)


def elsewhere(name: str) -> str:
    return NODES[1 - NODES.index(name)]


def at_site(scenario: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The test in which a scenario is played at a site of its own; what else it asks for, it is given by pytest."""

    async def test(tmp_path: Path, **given: Any) -> None:
        if not IS_ROOT:
            pytest.skip("needs root: makes network namespaces")
        async with lan_lab({"n1": 1, "n2": 2, "client": 9}) as lab:

            async def main(loops: Loops) -> None:
                site = Site(loops, lab, tmp_path)
                try:
                    for name in NODES:
                        await site.add_node(name)
                    await site.all_hear_of_each_other()
                    await scenario(site, **given)
                finally:
                    for name in site.announcers:
                        await site.kill(name)

            await Loops(SystemClock(), lambda loops: []).run(main)

    asked = [each for name, each in inspect.signature(scenario).parameters.items() if name != "site"]
    folder = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    test.__signature__ = inspect.Signature([folder, *asked])  # type: ignore[attr-defined]
    return test


@at_site
async def test_an_address_is_answered_by_one_node_and_by_the_other_when_that_one_dies(site: Site) -> None:
    address = "192.168.80.200"
    first = await site.held(address)
    await site.one_answers(address)
    await site.kill(first)
    took_s = await site.answers(address, elsewhere(first))
    assert took_s < FAILOVER_MAX_S
    # The kernel of the node whose process is dead no longer answers either.
    await site.one_answers(address)
    site.begin(first)
    await site.answers(address, first)
    await site.one_answers(address)


@at_site
async def test_an_address_moves_when_the_cable_is_pulled_out(site: Site) -> None:
    """The process lives, but the API server and the LAN hear no more of it. (It is stopped writing: the test's API
    server is reached without the LAN.)"""

    address = "192.168.80.201"
    first = await site.held(address)
    site.lab.unplug(first)
    await site.kill(first)
    await site.answers(address, elsewhere(first))


@at_site
async def test_version_6_addresses_are_answered_too(site: Site) -> None:
    address = "fd00:80::c8"
    first = await site.held(address)
    await site.kill(first)
    await site.answers(address, elsewhere(first))


@at_site
async def test_a_node_that_is_not_ready_gives_its_addresses_up(site: Site) -> None:
    address = "192.168.80.202"
    first = await site.held(address)
    for status, name in (("False", elsewhere(first)), ("True", first)):
        patch = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
        await site.client.patch(Node, first, patch, subresource="status")
        await site.answers(address, name)
        await site.one_answers(address)


@at_site
async def test_local_traffic_is_answered_for_where_its_endpoints_are(site: Site) -> None:
    address = "192.168.80.203"
    other = elsewhere(owner_of(address, NODES) or "")
    await site.client.create(slice_of("web", other))
    await site.balance("web", address, externalTrafficPolicy="Local")
    await site.answers(address, other)


@at_site
async def test_an_address_that_is_no_longer_a_services_is_answered_by_nobody(site: Site) -> None:
    await site.balance("web", "192.168.80.204")
    await site.answers("192.168.80.204", *NODES)
    await site.readdress("web", "192.168.80.205")
    await site.answers("192.168.80.205", *NODES)
    await site.silent("192.168.80.204")
    await site.client.delete(Service, "web", "default")
    await site.silent("192.168.80.205")


@at_site
async def test_addresses_outside_of_the_pools_are_left_alone(site: Site) -> None:
    await site.balance("other", "192.168.80.100", "192.168.80.206")
    await site.answers("192.168.80.206", *NODES)
    assert await site.lab.who_has("192.168.80.100") == []
    await site.balance("theirs", "192.168.80.207", loadBalancerClass="example.com/theirs")
    await site.balance("ours", "192.168.80.208", loadBalancerClass="knarr.dev/local")
    await site.answers("192.168.80.208", *NODES)
    assert await site.lab.who_has("192.168.80.207") == []


@at_site
async def test_an_orderly_end_hands_over_and_leaves_nothing(site: Site) -> None:
    address = "192.168.80.209"
    first = await site.held(address)
    await site.stop(first)
    before = site.lab.ip(first, "addr show eth0")
    assert address in before
    assert "valid_lft forever" not in next(after for after in before.split(f"{address}/32")[1].splitlines()[1:])
    await site.announcers[first].close(remove=True)
    assert address not in site.lab.ip(first, "addr show eth0")
    assert not site.record(first).exists()
    assert await site.answers(address, elsewhere(first)) < HANDOVER_MAX_S


@at_site
async def test_what_a_killed_run_left_is_found_by_its_record(site: Site) -> None:
    address = "192.168.80.210"
    first = await site.held(address)
    await site.kill(first)

    def clean_up() -> list[str]:
        with kernel.entered(site.lab.path(first)):
            return remove_all(site.record(first))

    assert await asyncio.to_thread(clean_up) == []
    assert address not in site.lab.ip(first, "addr show eth0")


@pytest.mark.parametrize("address", ["192.168.80.211", "fd00:80::d3"])
@at_site
async def test_a_node_that_sees_nobody_gives_way_to_who_says_that_it_has_the_address(site: Site, address: str) -> None:
    first = await site.held(address)
    cut_off = site.announcers[first]
    cut_off._alive = lambda: frozenset()  # type: ignore[method-assign]
    await asyncio.sleep(1.5)
    holders = [name for name in NODES if address in site.lab.ip(name, "addr show eth0")]
    assert holders == [first], "it keeps what it has while nobody says otherwise"
    await site.client.patch(Node, first, {"metadata": {"labels": {EXCLUDED: ""}}})
    await site.answers(address, elsewhere(first))

    async def given_up() -> bool:
        return address not in site.lab.ip(first, "addr show eth0")

    await site.loops.until(given_up, within_s=WITHIN_S)


@at_site
async def test_a_node_that_sees_the_others_again_tells_the_lan_what_is_its(site: Site) -> None:
    """Another may have answered meanwhile, and whoever talks to that one would go on for as long as it is answered."""

    address = "fd00:80::d4"
    announcer = site.announcers[owner_of(address, NODES) or ""]
    await site.balance("web", address)
    await site.answers(address, *NODES)
    told: list[str] = []
    announce = announcer.lan.announce

    async def note(addresses: Iterable[str]) -> None:
        told.extend(addresses)
        await announce(told)

    announcer.lan.announce = note  # type: ignore[method-assign]
    announcer._alive = lambda: frozenset()  # type: ignore[method-assign]
    await asyncio.sleep(1.5)
    announcer._tells.clear()
    told.clear()
    await asyncio.sleep(1.5)
    assert told == []
    del announcer._alive

    async def heard() -> bool:
        return told.count(address) > 1

    await site.loops.until(heard, within_s=WITHIN_S)


def test_each_node_has_about_its_share_and_only_what_a_lost_node_had_moves() -> None:
    addresses = [f"10.0.{block}.{number}" for block in range(4) for number in range(250)]
    before = {address: owner_of(address, ["a", "b", "c", "d"]) for address in addresses}
    after = {address: owner_of(address, ["a", "b", "d"]) for address in addresses}
    for name in "abcd":
        assert 180 < list(before.values()).count(name) < 320
    assert all(after[address] == owner for address, owner in before.items() if owner != "c")
    assert owner_of("10.0.0.1", []) is None


def test_the_interface_is_the_one_with_the_narrowest_network() -> None:
    there = [(1, "127.0.0.1/8"), (2, "10.0.0.1/8"), (3, "10.1.0.1/16"), (4, "10.1.2.3/32"), (5, "fd00::1/64")]
    assert interface_for("10.1.2.3", there) == 3
    assert interface_for("10.2.2.3", there) == 2
    assert interface_for("fd00::9", there) == 5
    assert interface_for("192.168.0.1", there) is None


def test_an_announcement_is_a_claim() -> None:
    frames = list(announcements("10.0.0.7", b"\x02\0\0\0\0\1"))
    assert [claim(frame) for frame in frames] == ["10.0.0.7", "10.0.0.7"]
    assert claim(b"") == claim(frames[0][:30]) == claim(next(announcements("fd00::1", b"\x02\0\0\0\0\1"))) == ""
    (frame,) = announcements("fd00::7", b"\x02\0\0\0\0\1")
    assert advertised(frame[54:]) == "fd00::7"
    assert advertised(b"") == advertised(frame[54:70]) == advertised(b"\x80" + frame[55:]) == ""
