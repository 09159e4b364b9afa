"""The truth tables of upstream's NetworkPolicy tests, with packets: nine pods in three namespaces, each asking each.

The cases are those of upstream's published tests (sig-network, Feature:NetworkPolicy): namespaces x, y and z with
pods a, b and c, which serve TCP and UDP on port 80, and TCP on port 81.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from knarr.api.networking.v1 import NetworkPolicy
from knarr.client.informer import Informers
from knarr.clock import SystemClock
from knarr.network import netlink as kernel
from knarr.network.policy.enforcer import PolicyEnforcer
from tests.network.feed import Feed
from tests.network.lab import DROPPED_TIMEOUT_S, IS_ROOT, REPLY_TIMEOUT_S, Lab, started_lab
from tests.network.policy.objects import namespace, pod, policy

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="needs root: makes network namespaces and kernel rules")

PODS = [f"{within}/{name}" for within in "xyz" for name in "abc"]
PROBES = [("tcp", 80), ("tcp", 81), ("udp", 80)]
Allowed = Callable[[str, str, str, int], bool]
"""Whether a pod (namespace/name) reaches another one by a protocol and port."""


class Town:
    """The pods, who answers where, and the policies in force."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.feed = Feed()
        self.addresses: dict[str, str] = {}
        self.enforcer = PolicyEnforcer(
            Informers(self.feed.client, SystemClock()),
            SystemClock(),
            node_name="node-1",
            network_namespace=lab.path("node"),
        )

    async def settle(self) -> None:
        for name in "xyz":
            self.feed.put(namespace(name, ns=name))
        for key in PODS:
            within, _, name = key.partition("/")
            self.addresses[key] = await self.lab.add_pod(f"{within}-{name}")
            for port in (80, 81):
                await self.lab.serve(f"{within}-{name}", port)
            self.lab.serve_udp(f"{within}-{name}", 80)
            self.feed.put(pod(name, self.addresses[key], within=within))

    async def put(self, *objects: Any) -> None:
        for each in objects:
            await self.enforcer.synced(self.feed.put(each), type(each))

    async def delete(self, obj: NetworkPolicy) -> None:
        await self.enforcer.synced(self.feed.delete(obj))

    async def wrong(self, allowed: Allowed) -> list[str]:
        """Probes that did not end as they should."""
        # A datagram from a port that an earlier probe had by chance would be of that one's flow, and pass.
        with kernel.entered(self.lab.path("node")), kernel.Netlink(kernel.NETLINK_NETFILTER) as netlink:
            flows = list(kernel.tracked_connections(netlink, socket.IPPROTO_UDP))
            kernel.delete_tracked(netlink, flows)

        async def probe(source: str, target: str, protocol: str, port: int) -> str | None:
            wanted = source == target or allowed(source, target, protocol, port)
            got = await self.reaches(source, target, protocol, port, REPLY_TIMEOUT_S if wanted else DROPPED_TIMEOUT_S)
            return None if got == wanted else f"{source} → {target} {protocol}/{port}: {'passed' if got else 'dropped'}"

        probes = [probe(one, other, *what) for one in PODS for other in PODS for what in PROBES]
        return [each for each in await asyncio.gather(*probes) if each]

    async def reaches(self, source: str, target: str, protocol: str, port: int, within_s: float) -> bool:
        made = self.lab.socket(source.replace("/", "-"), socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                await loop.sock_connect(made, (self.addresses[target], port))
                await loop.sock_sendall(made, b"who\n")
                return bool(await loop.sock_recv(made, 100))
        except TimeoutError:
            return False
        finally:
            made.close()


@asynccontextmanager
async def living(tmp_path: Path) -> AsyncIterator[Town]:
    async with started_lab(tmp_path / "network") as lab:
        town = Town(lab)
        await town.settle()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run()) for run in (town.enforcer.informers.run, town.enforcer.run)]
            try:
                yield town
            finally:
                for task in tasks:
                    task.cancel()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with living(tmp_path) as town:
        yield town


def into(*targets: str, unless: Callable[[str, str, int], bool] = lambda source, protocol, port: False) -> Allowed:
    """Closed to all, but for what `unless` says, are these."""
    return lambda source, target, protocol, port: target not in targets or unless(source, protocol, port)


def out_of(*sources: str, unless: Callable[[str, str, int], bool] = lambda target, protocol, port: False) -> Allowed:
    return lambda source, target, protocol, port: source not in sources or unless(target, protocol, port)


def tcp(port: int | str | None, **more: Any) -> dict[str, Any]:
    return {"protocol": "TCP", **({} if port is None else {"port": port}), **more}


def udp(port: int | str | None) -> dict[str, Any]:
    return tcp(port) | {"protocol": "UDP"}


def labels(**wanted: str) -> dict[str, Any]:
    return {"matchLabels": wanted}


def either(key: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": list(values)}]}


def pods(**wanted: str) -> dict[str, Any]:
    return {"podSelector": labels(**wanted)}


def namespaces(**wanted: str) -> dict[str, Any]:
    return {"namespaceSelector": labels(**wanted)}


A, X = pods(pod="a"), ("x/a", "x/b", "x/c")
OPEN: list[dict[str, Any]] = [{}]
CLOSED: dict[str, Any] = {"policyTypes": ["Ingress"]}


def entering(*peers: dict[str, Any], ports: Iterable[dict[str, Any]] = (), **spec: Any) -> NetworkPolicy:
    """Who may enter the pods that `spec` selects, all of x if nothing is said."""
    rule: dict[str, Any] = {"from": list(peers)} if peers else {}
    return policy(**{"ingress": [rule | ({"ports": list(ports)} if ports else {})], **spec})


def leaving(*peers: dict[str, Any], ports: Iterable[dict[str, Any]] = (), **spec: Any) -> NetworkPolicy:
    rule: dict[str, Any] = {"to": list(peers)} if peers else {}
    return policy(**{"policyTypes": ["Egress"], "egress": [rule | ({"ports": list(ports)} if ports else {})], **spec})


def source_in(*sources: str) -> Callable[[str, str, int], bool]:
    return lambda source, protocol, port: source in sources


def within(*names: str) -> Callable[[str, str, int], bool]:
    return lambda pod, protocol, port: pod[0] in names


CASES: dict[str, tuple[list[NetworkPolicy], Allowed]] = {
    "default-deny-ingress": ([policy(**CLOSED)], into(*X)),
    "default-deny-all": (
        [policy(policyTypes=["Ingress", "Egress"])],
        lambda source, target, protocol, port: source not in X and target not in X,
    ),
    "from pods of its own namespace by label": (
        [entering(pods(pod="b"), **A)],
        into("x/a", unless=source_in("x/b")),
    ),
    "allow-all on top of a deny": ([policy("deny", **CLOSED), policy("allow", ingress=OPEN)], lambda *_: True),
    "from pods in all namespaces": ([entering({"namespaceSelector": {}}, **A)], lambda *_: True),
    "from another namespace by label": (
        [entering(namespaces(ns="y"), **A)],
        into("x/a", unless=within("y")),
    ),
    "by expressions on pods": (
        [entering({"podSelector": either("pod", "b")}, **A)],
        into("x/a", unless=source_in("x/b")),
    ),
    "by expressions on namespaces": (
        [entering({"namespaceSelector": either("ns", "y", "z")}, **A)],
        into("x/a", unless=within("y", "z")),
    ),
    "by the label that every namespace has": (
        [entering({"namespaceSelector": labels(**{"kubernetes.io/metadata.name": "z"})}, **A)],
        into("x/a", unless=within("z")),
    ),
    "pods or namespaces": (
        [entering(pods(pod="b"), namespaces(ns="y"), **A)],
        into("x/a", unless=lambda source, *_: source == "x/b" or source[0] == "y"),
    ),
    "pods and namespaces": (
        [entering(pods(pod="b") | namespaces(ns="y"), **A)],
        into("x/a", unless=source_in("y/b")),
    ),
    "several pods and namespaces": (
        [
            entering(
                {"podSelector": either("pod", "b", "c")}
                | {"namespaceSelector": {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]}},
                **A,
            )
        ],
        into("x/a", unless=source_in("y/b", "y/c", "z/b", "z/c")),
    ),
    "any pod of its own namespace": ([entering({"podSelector": {}}, **A)], into("x/a", unless=within("x"))),
    "by port": (
        [entering(ports=[tcp(81)], **A)],
        into("x/a", unless=lambda source, protocol, port: (protocol, port) == ("tcp", 81)),
    ),
    "by port from a namespace": (
        [entering(namespaces(ns="y"), ports=[tcp(81)], **A)],
        into("x/a", unless=lambda source, protocol, port: source[0] == "y" and (protocol, port) == ("tcp", 81)),
    ),
    "by a range of ports": (
        [entering(ports=[tcp(81, endPort=90), tcp(85)], **A)],
        into("x/a", unless=lambda source, protocol, port: (protocol, port) == ("tcp", 81)),
    ),
    "by protocol alone": (
        [entering(ports=[udp(None)], **A)],
        into("x/a", unless=lambda source, protocol, port: protocol == "udp"),
    ),
    "SCTP is not TCP": ([entering(ports=[{"protocol": "SCTP", "port": 80}], **A)], into("x/a")),
    "stacked policies on the same pods": (
        [
            entering(namespaces(ns="y"), ports=[tcp(80)], name="one", **A),
            entering(namespaces(ns="z"), ports=[tcp(81)], name="two", podSelector=either("pod", "a", "b")),
        ],
        lambda source, target, protocol, port: (
            target not in ("x/a", "x/b")
            or (target == "x/a" and source[0] == "y" and (protocol, port) == ("tcp", 80))
            or (source[0] == "z" and (protocol, port) == ("tcp", 81))
        ),
    ),
    "an allow-all policy": ([entering()], lambda *_: True),
    "by a port's name": (
        [entering(ports=[tcp("serve-81-tcp")], **A)],
        into("x/a", unless=lambda source, protocol, port: (protocol, port) == ("tcp", 81)),
    ),
    "by a port's name from a namespace": (
        [entering(namespaces(ns="y"), ports=[tcp("serve-80-tcp")], **A)],
        into("x/a", unless=lambda source, protocol, port: source[0] == "y" and (protocol, port) == ("tcp", 80)),
    ),
    "a name of another protocol": ([entering(ports=[tcp("serve-80-udp")], **A)], into("x/a")),
    "out by a port's name": (
        [leaving(ports=[tcp("serve-80-tcp")], **A)],
        out_of("x/a", unless=lambda target, protocol, port: (protocol, port) == ("tcp", 80)),
    ),
    "out by a port's name to some pods": (
        [leaving(namespaces(ns="y"), ports=[tcp("serve-80-tcp")], **A)],
        out_of("x/a", unless=lambda target, protocol, port: target[0] == "y" and (protocol, port) == ("tcp", 80)),
    ),
    "out of some pods, nowhere": ([policy(policyTypes=["Egress"], **A)], out_of("x/a")),
    "out of a namespace, nowhere": ([policy(policyTypes=["Egress"])], out_of(*X)),
    "in and out in one policy": (
        [
            policy(
                podSelector=labels(pod="a"),
                policyTypes=["Ingress", "Egress"],
                ingress=[{"from": [namespaces(ns="y")]}],
                egress=[{"to": [namespaces(ns="z")], "ports": [tcp(81)]}],
            )
        ],
        lambda source, target, protocol, port: (
            (target != "x/a" or source[0] == "y")
            and (source != "x/a" or (target[0] == "z" and (protocol, port) == ("tcp", 81)))
        ),
    ),
    "the server allows, the client's policy does not": (
        [entering(namespaces(ns="y"), **A), policy("client", within="y", policyTypes=["Egress"], **A)],
        lambda source, target, *_: source != "y/a" and (target != "x/a" or source[0] == "y"),
    ),
    "out to a pod of another namespace": (
        [leaving(namespaces(ns="y") | pods(pod="a"), **A)],
        out_of("x/a", unless=lambda target, *_: target == "y/a"),
    ),
    "several ways in, one of them open": (
        [entering(namespaces(ns="y"), ports=[tcp(80)], name="one"), entering(name="two")],
        lambda *_: True,
    ),
    "several ways out, one of them open": (
        [leaving(ports=[tcp(80)], name="one"), leaving(name="two")],
        lambda *_: True,
    ),
    "ways in and out, each for itself": (
        [
            entering(namespaces(ns="y"), name="in", **A),
            leaving(namespaces(ns="z"), name="out", podSelector=labels(pod="b")),
        ],
        lambda source, target, *_: (target != "x/a" or source[0] == "y") and (source != "x/b" or target[0] == "z"),
    ),
}


async def test_every_published_case_lets_pass_what_it_should_and_nothing_else(town: Town) -> None:
    """One after the other in one town, each alone: so what a case leaves behind would show in the next."""
    assert await town.wrong(lambda *_: True) == []
    for name, (policies, allowed) in CASES.items():
        await town.put(*policies)
        assert (name, await town.wrong(allowed)) == (name, [])
        for each in policies:
            await town.delete(each)
    assert await town.wrong(lambda *_: True) == []


async def test_ranges_of_addresses_hold_less_what_they_except(town: Town) -> None:
    b, c = (town.addresses[f"y/{name}"] for name in "bc")
    block = {"ipBlock": {"cidr": "10.244.0.0/16", "except": [f"{b}/32", f"{c}/32"]}}
    await town.put(leaving({"ipBlock": {"cidr": f"{b}/32"}}, **A))
    assert await town.wrong(out_of("x/a", unless=lambda target, *_: target == "y/b")) == []
    await town.put(leaving(block, **A))
    assert await town.wrong(out_of("x/a", unless=lambda target, *_: target not in ("y/b", "y/c"))) == []
    await town.put(leaving(block, name="more", **A))
    await town.put(leaving({"ipBlock": {"cidr": f"{b}/32"}}, name="again", **A))
    assert await town.wrong(out_of("x/a", unless=lambda target, *_: target != "y/c")) == []


async def test_changes_of_policies_pods_and_namespaces_are_followed(town: Town) -> None:
    await town.put(policy(**CLOSED))
    assert await town.wrong(into(*X)) == []
    await town.put(entering(pods(pod="b")))
    assert await town.wrong(into(*X, unless=source_in("x/b"))) == []
    await town.put(entering(namespaces(ns2="new")))
    assert await town.wrong(into(*X)) == []
    await town.put(namespace("y", ns="y", ns2="new"))
    assert await town.wrong(into(*X, unless=within("y"))) == []
    await town.put(namespace("y", ns="y"))
    assert await town.wrong(into(*X)) == []
    await town.put(entering(pods(pod="b") | {"namespaceSelector": {}}))
    await town.put(pod("c", town.addresses["z/c"], within="z", labels={"pod": "b"}))
    assert await town.wrong(into(*X, unless=source_in("x/b", "y/b", "z/b", "z/c"))) == []
    await town.put(pod("c", town.addresses["z/c"], within="z"))
    await town.put(pod("a", town.addresses["x/a"], labels={"pod": "z"}), entering(**pods(pod="z"), ports=[tcp(81)]))
    assert await town.wrong(into("x/a", unless=lambda source, protocol, port: (protocol, port) == ("tcp", 81))) == []
    await town.delete(policy())
    assert await town.wrong(lambda *_: True) == []
