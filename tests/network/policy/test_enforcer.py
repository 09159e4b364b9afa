"""The policies' table in the kernel: what always passes, what heals, and that changes add up to the whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from knarr.api.core.v1 import Pod
from knarr.client.informer import Informers
from knarr.clock import Clock, SystemClock
from knarr.network.commands import run_command
from knarr.network.policy import enforcer
from knarr.network.policy.enforcer import PolicyEnforcer
from knarr.network.policy.membership import Membership
from knarr.network.policy.model import EGRESS, INGRESS, pod_view, policies_of
from knarr.network.policy.table import Renderer, Table, changes, selectors_of, whole
from tests.network.feed import Feed
from tests.network.lab import NODE_ADDRESS, POD_CIDR, Lab, run, until
from tests.network.policy.objects import NODE, namespace, pod, policy

DNS_ADDRESS = "10.96.0.10"
DENY = policy("deny", policyTypes=["Ingress", "Egress"])


class Rig:
    def __init__(self, lab: Lab, **options: Any) -> None:
        self.lab = lab
        self.feed = Feed()
        informers = Informers(self.feed.client, SystemClock())
        self.informers = informers
        self.enforcer = PolicyEnforcer(
            informers, SystemClock(), node_name=NODE, network_namespace=lab.path("node"), **options
        )

    async def put(self, *objects: Any) -> None:
        for each in objects:
            await self.enforcer.synced(self.feed.put(each), type(each))

    async def add_pod(self, name: str) -> str:
        address = await self.lab.add_pod(name)
        await self.lab.serve(name)
        await self.put(pod(name, address))
        return address

    def listing(self) -> str:
        return self.lab.inside("node", "nft --stateless list table inet knarr-policies")


@asynccontextmanager
async def enforcing(lab: Lab, **options: Any) -> AsyncIterator[Rig]:
    rig = Rig(lab, **options)
    rig.feed.put(namespace("x"))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each()) for each in (rig.informers.run, rig.enforcer.run)]
        try:
            yield rig
        finally:
            for task in tasks:
                task.cancel()


async def test_its_own_node_and_itself_always_reach_a_pod_and_it_reaches_its_node(lab: Lab) -> None:
    async with enforcing(lab) as rig:
        await lab.serve("node", 9000)
        lab.inside("client", f"ip route add {POD_CIDR} via {NODE_ADDRESS}")
        a, b = await rig.add_pod("a"), await rig.add_pod("b")
        await rig.put(DENY)
        assert await lab.is_dropped("a", b, 8080)
        assert await lab.is_dropped("client", a, 8080)
        assert (await lab.ask("node", a, 8080))[0] == "a"
        assert (await lab.ask("a", a, 8080))[0] == "a"
        assert (await lab.ask("a", NODE_ADDRESS, 9000))[0] == "node"


async def test_the_clusters_dns_is_reached_by_who_may_ask_the_pods_that_others_have_for_it(lab: Lab) -> None:
    await lab.network.add_node_address(DNS_ADDRESS)
    async with enforcing(lab, dns_addresses=[DNS_ADDRESS]) as rig:
        await lab.serve("node", 53)
        await rig.add_pod("a")
        await rig.put(namespace("kube-system"), DENY)
        assert await lab.is_dropped("a", DNS_ADDRESS, 53)
        to = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
        ports = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": "dns-tcp"}]
        await rig.put(policy("names", policyTypes=["Egress"], egress=[{"to": [to], "ports": ports}]))
        assert (await lab.ask("a", DNS_ADDRESS, 53))[0] == "node"


async def test_a_connection_that_was_allowed_goes_on_and_the_next_is_not(lab: Lab) -> None:
    async with enforcing(lab) as rig:
        await rig.add_pod("a")
        b = await rig.add_pod("b")
        connection = await lab.connect("a", b, 8080)
        assert (await connection.ask())[0] == "b"
        await rig.put(DENY)
        assert (await connection.ask())[0] == "b"
        assert await lab.is_dropped("a", b, 8080)
        connection.close()


async def test_a_pod_is_closed_before_it_starts(lab: Lab) -> None:
    async with enforcing(lab) as rig:
        await rig.put(DENY, namespace("open"))
        b = await rig.add_pod("b")
        address = await lab.add_pod("a")
        await lab.serve("a")
        starting = pod("a", address)
        starting.metadata.uid, starting.status = "1", None
        rig.feed.put(starting)
        await rig.enforcer.isolate(starting, [address])
        assert await lab.is_dropped("a", b, 8080)
        starting.metadata.labels["pod"] = "other"  # something else of it changes before its status tells the address
        await rig.put(starting)
        assert await lab.is_dropped("a", b, 8080)
        await rig.enforcer.synced(rig.feed.delete(starting), Pod)
        assert (await lab.ask("node", address, 8080))[0] == "a"
        transactions = rig.enforcer.transactions
        free = pod("free", "10.244.0.99", within="open")
        await rig.enforcer.isolate(free, ["10.244.0.99"])  # no policy selects it: nothing to wait for
        assert rig.enforcer.transactions == transactions


@pytest.mark.parametrize(
    "harm",
    [
        "delete table inet knarr-policies",
        "flush chain inet knarr-policies ingress",
        "flush map inet knarr-policies ingress-4",
    ],
)
async def test_rules_that_somebody_removed_come_back(lab: Lab, harm: str) -> None:
    async with enforcing(lab, resync_period_s=0.1) as rig:
        await rig.add_pod("a")
        b = await rig.add_pod("b")
        await rig.put(DENY)
        right = rig.listing()
        lab.inside("node", f"nft {harm}")

        async def healed() -> bool:
            try:
                return rig.listing() == right
            except Exception:
                return False

        await until(healed)
        assert await lab.is_dropped("a", b, 8080)


async def test_a_change_starts_one_program_and_heals_what_somebody_did(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    async def counted(clock: Clock, *command: str, **options: Any) -> str:
        started.append(" ".join(command))
        return await run_command(clock, *command, **options)

    async with enforcing(lab) as rig:
        await rig.add_pod("a")
        b = await rig.add_pod("b")
        await rig.put(DENY)
        right = rig.listing()
        monkeypatch.setattr(enforcer, "run_command", counted)
        lab.inside("node", "nft add table ip theirs")
        await rig.put(pod("c", "10.244.0.77"))
        assert started == ["nft -f -"]
        lab.inside("node", "nft flush chain inet knarr-policies ingress")
        await rig.enforcer.synced(rig.feed.delete(pod("c", "10.244.0.77")), Pod)
        assert rig.listing() == right
        assert await lab.is_dropped("a", b, 8080)


async def test_rules_stay_when_the_process_ends_until_they_are_removed(lab: Lab) -> None:
    async with enforcing(lab) as rig:
        await rig.add_pod("a")
        b = await rig.add_pod("b")
        await rig.put(DENY)
    assert await lab.is_dropped("a", b, 8080)
    await rig.enforcer.remove()
    await rig.enforcer.remove()
    assert (await lab.ask("a", b, 8080))[0] == "b"


@pytest.mark.parametrize("seed", range(6))
async def test_changes_add_up_to_what_a_whole_table_would_be(lab: Lab, seed: int) -> None:
    """Random policies and pods come, change and go; the kernel must not tell which way it got there."""
    chance = random.Random(seed)
    membership, renderer, shown = Membership(), Renderer([DNS_ADDRESS, "fd00:96::a"]), Table()
    compiled: dict[str, Any] = {}
    file = run("mktemp").strip()

    def nft(text: str) -> None:
        with open(file, "w") as handle:
            handle.write(text)
        lab.inside("node", f"nft -f {file}")

    def peer() -> dict[str, Any]:
        selector = {"matchLabels": {"pod": chance.choice("abc")}}
        return chance.choice(
            [
                {"podSelector": selector},
                {"namespaceSelector": chance.choice([{}, {"matchLabels": {"ns": chance.choice("xyz")}}])},
                {"namespaceSelector": {}, "podSelector": selector},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                {"ipBlock": {"cidr": "fd00::/16"}},
            ]
        )

    def rule(peers: str) -> dict[str, Any]:
        ports = [{"port": 80}, {"port": 70, "endPort": 90}, {"port": "serve-80-tcp"}, {"protocol": "UDP"}, {"port": 8}]
        return {
            **({peers: [peer() for _ in range(chance.randrange(1, 3))]} if chance.random() < 0.8 else {}),
            **({"ports": chance.sample(ports, chance.randrange(1, 4))} if chance.random() < 0.6 else {}),
        }

    nft(whole("t", shown))
    for _ in range(30):
        for _ in range(chance.randrange(1, 4)):
            within, name = chance.choice("xyz"), chance.choice("abc")
            match chance.randrange(4):
                case 0:
                    membership.put_namespace(
                        within, chance.choice([None, {"ns": within}, {"ns": chance.choice("xyz")}])
                    )
                case 1:
                    address = f"10.244.{ord(within) - 96}.{ord(name) - 96}"
                    labels = {"pod": chance.choice("abc")}
                    made = pod(name, address, within=within, node=chance.choice([NODE, "other"]), labels=labels)
                    if made.status and chance.random() < 0.5:
                        made.status.pod_ips = [*made.status.pod_ips, type(made.status.pod_ips[0])(ip=f"fd00::{name}")]
                    membership.put_pod(f"{within}/{name}", chance.choice([None, pod_view(made, NODE)]))
                case 2:
                    compiled.pop(f"{within}/{name}", None)
                case _:
                    spec = {
                        "podSelector": chance.choice([{}, {"matchLabels": {"pod": chance.choice("abc")}}]),
                        "policyTypes": chance.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
                        "ingress": [rule("from") for _ in range(chance.randrange(3))],
                        "egress": [rule("to") for _ in range(chance.randrange(3))],
                    }
                    compiled[f"{within}/{name}"] = policies_of(policy(name, within=within, **spec))
        policies = {way: [each[way] for each in compiled.values() if way in each] for way in (INGRESS, EGRESS)}
        membership.use(selectors_of(policies))
        wanted = renderer.table(policies, membership)
        if text := changes("t", shown, wanted):
            nft(text)
        shown = wanted
    assert changes("t", shown, wanted) == ""
    step_by_step = lab.inside("node", "nft list table inet t")
    nft(whole("t", Renderer([DNS_ADDRESS, "fd00:96::a"]).table(policies, membership)))
    at_once = lab.inside("node", "nft list table inet t")
    assert blocks(step_by_step) == blocks(at_once)


def blocks(listing: str) -> list[str]:
    """The parts of a table, in any order."""
    return sorted(each.strip() for each in listing.partition("{")[2].split("\n\t}"))
