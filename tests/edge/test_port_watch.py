"""A node tells which ports that Services ask for something of its machine has: real sockets, a real API server."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Node, Pod, Service, ServiceAccount
from knarr.api.meta.v1 import ObjectMeta
from knarr.clock import SystemClock
from knarr.edge import port_watch
from knarr.edge.loadbalancer import LoadBalancers
from knarr.edge.port_watch import PortWatch, host_ports
from knarr.edge.providers.local import Local
from knarr.edge.taken_ports import ANNOTATION, Report, holder, report_of
from knarr.network import netlink as kernel
from knarr.network.listeners import programs
from tests.controllers.loops import Loops
from tests.edge.test_loadbalancer import service
from tests.edge.test_local import Space, node
from tests.network.lab import IS_ROOT, run

ADDRESS = "192.168.90.1"
"""The node's."""
WITHIN_S = 40.0
"""Real time, on a machine that may have other work."""


class Machine(Space):
    """One node, and its machine: a network namespace."""

    def __init__(self, loops: Loops, where: str) -> None:
        super().__init__(loops)
        self.where = where

    def listening(self, stack: ExitStack, address: str, port: int = 0) -> int:
        """Some program of the machine listens; answers at which port."""
        with kernel.entered(self.where):
            made = stack.enter_context(socket.socket())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
        found: int = made.getsockname()[1]
        return found

    async def report(self) -> Report | None:
        return report_of(await self.client.get(Node, "n1"))

    async def says(self, wanted: Callable[[Report], bool]) -> Report:
        async def look() -> tuple[Report, ...]:
            report = await self.report()
            return (report,) if report is not None and wanted(report) else ()

        (found,) = await self.loops.until(look, within_s=WITHIN_S)
        return found  # type: ignore[no-any-return]

    async def complains(self, name: str) -> str:
        """The only warning about a Service."""

        async def look() -> list[str]:
            return await self.messages(name)

        (message,) = await self.loops.until(look, within_s=WITHIN_S)
        return message  # type: ignore[no-any-return]


Scenario = Callable[[Machine], Awaitable[None]]


@pytest.fixture
def on_a_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    if not IS_ROOT:
        pytest.skip("needs root: makes a network namespace")
    monkeypatch.setattr(port_watch, "CHECK_S", 0.2)
    name = f"kt{uuid.uuid4().hex[:8]}"
    for command in (f"netns add {name}", f"-n {name} link set lo up", f"-n {name} addr add {ADDRESS}/32 dev lo"):
        run(f"ip {command}")

    def go(scenario: Scenario, *, balancers: bool = False) -> None:
        async def main(loops: Loops) -> None:
            machine = Machine(loops, f"/run/netns/{name}")
            await machine.create_node(node("n1", ADDRESS))
            await machine.says(lambda report: report == {})
            await scenario(machine)

        def make(loops: Loops) -> list[Any]:
            client = loops.client_as("system:node:n1", "system:nodes", "system:authenticated")
            watch = PortWatch(
                client, loops.informers, loops.clock, node_name="n1", network_namespace=f"/run/netns/{name}"
            )
            if not balancers:
                return [watch]
            account = loops.account("service-controller")
            return [watch, LoadBalancers(account, loops.informers, loops.clock, Local(loops.informers, loops.clock))]

        asyncio.run(Loops(SystemClock(), make).run(main))

    try:
        yield go
    finally:
        run(f"ip netns del {name}")


def test_a_port_is_told_about_from_when_it_is_asked_for(on_a_machine: Callable[..., None]) -> None:
    async def scenario(machine: Machine) -> None:
        with ExitStack() as stack:
            port = machine.listening(stack, "0.0.0.0")
            lonely = machine.listening(stack, "127.0.0.1")
            await machine.client.create(service(ports=[{"name": "a", "port": port}, {"name": "b", "port": lonely}]))
            report = await machine.says(lambda report: len(report) == 2)
            assert f"(process {os.getpid()})" in report[f"{port}/TCP"]["0.0.0.0"]
            assert report[f"{lonely}/TCP"] == {}, "at another address than the node's"
        await machine.says(lambda report: report == {f"{port}/TCP": {}, f"{lonely}/TCP": {}})
        await machine.client.delete(Service, "web", "default")
        await machine.says(lambda report: report == {})

    on_a_machine(scenario)


def test_processes_are_looked_through_once_for_each_socket(
    on_a_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Collection[int]] = []

    def counted(inodes: Collection[int]) -> dict[int, str]:
        asked.append(inodes)
        return programs(inodes)

    monkeypatch.setattr(port_watch, "programs", counted)

    async def scenario(machine: Machine) -> None:
        with ExitStack() as stack:
            port = machine.listening(stack, ADDRESS)
            await machine.client.create(service(ports=[{"port": port}]))
            await machine.says(lambda report: bool(report.get(f"{port}/TCP")))
            looks = len(asked)
            await machine.loops.until(lambda: enough(looks + 2), within_s=WITHIN_S)
            assert [len(each) for each in asked if each] == [1]

    async def enough(looks: int) -> bool:
        return len(asked) >= looks

    on_a_machine(scenario)


def test_services_of_other_makes_are_not_looked_at(on_a_machine: Callable[..., None]) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.client.create(service("theirs", loadBalancerClass="example.com/x", ports=[{"port": 22}]))
        await machine.client.create(service("inner", type="ClusterIP", ports=[{"port": 23}]))
        await machine.client.create(service("ours", loadBalancerClass="knarr.dev/local", ports=[{"port": 1}]))
        await machine.client.create(service("too", ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}]))
        await machine.says(lambda report: list(report) == ["1/TCP", "2/TCP"])
        await machine.client.delete(Service, "too", "default")
        await machine.says(lambda report: list(report) == ["1/TCP"])

    on_a_machine(scenario)


def test_what_is_said_is_said_again_when_the_node_is_made_anew(on_a_machine: Callable[..., None]) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.client.patch(Node, "n1", {"metadata": {"annotations": {ANNOTATION: None}}})
        await machine.says(lambda report: report == {})

    on_a_machine(scenario)


def test_a_service_gets_the_port_when_the_program_ends_and_keeps_it(on_a_machine: Callable[..., None]) -> None:
    async def scenario(machine: Machine) -> None:
        with ExitStack() as stack:
            port = machine.listening(stack, ADDRESS)
            await machine.client.create(service(ports=[{"port": port}]))
            message = await machine.complains("web")
            assert f"port {port}/TCP of {ADDRESS} is taken by " in message
            assert f"(process {os.getpid()}) on the node n1" in message
            assert await machine.addresses("web") == []
        await machine.gets("web", ADDRESS, within_s=WITHIN_S)
        with ExitStack() as stack:
            machine.listening(stack, "0.0.0.0", port)
            await machine.says(lambda report: bool(report[f"{port}/TCP"]))
            assert len(await machine.messages("web")) == 1
            await machine.gets("web", ADDRESS, within_s=WITHIN_S)

    on_a_machine(scenario, balancers=True)


def test_host_ports_of_pods_are_taken_too(on_a_machine: Callable[..., None]) -> None:
    async def scenario(machine: Machine) -> None:
        await machine.client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
        await machine.client.create(pod(hostPort=8099))
        await machine.client.create(service(ports=[{"port": 8099}]))
        report = await machine.says(lambda report: bool(report.get("8099/TCP")))
        assert report["8099/TCP"] == dict.fromkeys(("0.0.0.0", "::"), "the pod default/p")
        await machine.client.delete(Pod, "p", "default", grace_period_s=0)
        await machine.says(lambda report: report == {"8099/TCP": {}})

    on_a_machine(scenario)


def pod(node_name: str = "n1", phase: str = "Running", host_network: bool = False, **port: Any) -> Pod:
    container = {"name": "c", "image": "i", "ports": [{"containerPort": 80, **port}]}
    spec = {"nodeName": node_name, "hostNetwork": host_network, "containers": [container]}
    metadata = {"name": "p", "namespace": "default"}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": {"phase": phase}}, Pod)


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (pod(), ()),
        (pod(hostPort=80, hostIP="192.168.0.1"), (((80, "TCP"), "192.168.0.1"),)),
        (pod(hostPort=53, protocol="UDP"), (((53, "UDP"), "0.0.0.0"), ((53, "UDP"), "::"))),
        (pod("elsewhere", hostPort=80), ()),
        (pod(phase="Succeeded", hostPort=80), ()),
        (pod(host_network=True, hostPort=80), ()),
    ],
)
def test_host_ports(made: Pod, found: tuple[Any, ...]) -> None:
    assert host_ports(made, "n1") == found


def test_who_listens_everywhere_has_a_port_at_each_address_of_its_family() -> None:
    report = {"22/TCP": {"0.0.0.0": "sshd"}, "80/TCP": {"192.168.0.1": "nginx"}, "53/UDP": {"::": "named"}}
    assert holder(report, (22, "TCP"), "192.168.0.1") == "sshd"
    assert holder(report, (22, "TCP"), "fd00::1") == ""
    assert holder(report, (80, "TCP"), "192.168.0.1") == "nginx"
    assert holder(report, (80, "TCP"), "192.168.0.2") == holder(report, (80, "UDP"), "192.168.0.1") == ""
    assert holder(report, (53, "UDP"), "fd00::1") == "named"
    assert holder(None, (22, "TCP"), "192.168.0.1") == ""
