"""One node's look at its own ports: which of those that Services of type LoadBalancer ask for does something here have?

A program that listens there (at any address, or at one of the node's), or a pod by its hostPort. Only ports that are
asked for are looked at, as soon as they are and every CHECK_S from then on: the kernel is asked for its open ends,
which takes it a fraction of a millisecond. What is found is told in an annotation of the Node
(`knarr.edge.taken_ports`).

A Service that has a port keeps it: a program that begins to listen there later gets nothing from outside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from knarr.api.core.v1 import Node, Pod, Service
from knarr.api.errors import APIError
from knarr.client.client import Client
from knarr.client.informer import Informer, Informers, key_of
from knarr.clock import Clock
from knarr.edge.providers.local import is_ours
from knarr.edge.taken_ports import ANNOTATION, PORTS_MAX, PortKey, Report, name_of, ports_of
from knarr.network import netlink as kernel
from knarr.network.listeners import ANYWHERE, NETLINK_SOCK_DIAG, PROTOCOLS, listeners, programs

log = logging.getLogger(__name__)

CHECK_S = 5.0
MINIMUM_INTERVAL_S = 0.1
RETRY_S = 2.0


class PortWatch:
    """One node's report. `run` until cancelled."""

    name = "port watch"

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        *,
        node_name: str,
        network_namespace: str | None = None,
    ) -> None:
        """`client` is the node's."""
        self._client = client
        self._clock = clock
        self._node_name = node_name
        self._namespace = network_namespace
        self._services: Informer[Service] = informers.of(Service)
        self._nodes: Informer[Node] = informers.of(Node)
        self._pods: Informer[Pod] = informers.of(Pod)
        self._host_ports: dict[str, tuple[tuple[PortKey, str], ...]] = {}
        """By pod of this node; each with its address."""
        self._asking: dict[PortKey, set[str]] = {}
        """Which Services ask for a port."""
        self._who: dict[int, str] = {}
        """By socket; only for a new one all processes are looked through."""
        self._news = asyncio.Event()
        self._services.add_handler(self._service_changed)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    async def run(self) -> None:
        for informer in (self._services, self._nodes, self._pods):
            await informer.synced.wait()
        while True:
            self._news.clear()
            try:
                await self._tell(await self._look())
            except (APIError, OSError) as error:
                log.warning("ports of this machine: %s; trying again", error)
                self._news.set()
                await self._clock.sleep(RETRY_S)
            await self._clock.sleep(MINIMUM_INTERVAL_S)
            try:
                async with self._clock.timeout(CHECK_S if self._asking else None):
                    await self._news.wait()
            except TimeoutError:
                pass

    # What changed

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        before, after = (ports_of(each) if each and is_ours(each) else frozenset() for each in (old, new))
        key = key_of(new or old)
        for port in before - after:
            self._asking[port].discard(key)
            if not self._asking[port]:
                del self._asking[port]
        for port in after:
            self._asking.setdefault(port, set()).add(key)
        if before != after:
            self._news.set()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Its object may have been made anew, without what we say."""
        if new is not None and new.metadata.name == self._node_name and ANNOTATION not in new.metadata.annotations:
            self._news.set()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        key = key_of(new or old)
        ports = host_ports(new, self._node_name) if new else ()
        if ports != self._host_ports.get(key, ()):
            self._host_ports.pop(key, None)
            if ports:
                self._host_ports[key] = ports
            self._news.set()

    # What is there

    async def _look(self) -> dict[str, dict[str, str]]:
        wanted = sorted(self._asking)[:PORTS_MAX]
        node = self._nodes.get(self._node_name)
        addresses = node.status.addresses if node and node.status else []
        here = {each.address for each in addresses} | set(ANYWHERE.values())
        found: dict[PortKey, dict[str, str]] = {port: {} for port in wanted}
        for key, ports in self._host_ports.items():
            for port, address in ports:
                if port in found and address in here:
                    found[port][address] = f"the pod {key}"
        if wanted:
            for port, by_address in (await asyncio.to_thread(self._programs, wanted)).items():
                found[port] |= {address: who for address, who in by_address.items() if address in here}
        return {name_of(port): dict(sorted(by_address.items())) for port, by_address in found.items()}

    def _programs(self, wanted: Sequence[PortKey]) -> dict[PortKey, dict[str, str]]:
        protocols = {protocol for _, protocol in wanted} & PROTOCOLS.keys()
        with kernel.entered(self._namespace):
            netlink = kernel.Netlink(NETLINK_SOCK_DIAG)
        with netlink:
            ports = set(wanted)
            these = [each for each in listeners(netlink, protocols) if (each.port, each.protocol) in ports]
        inodes = {each.inode for each in these}
        known = {inode: who for inode, who in self._who.items() if inode in inodes}
        who = self._who = known | programs(inodes - known.keys())
        found: dict[PortKey, dict[str, str]] = {}
        for each in these:
            by_address = found.setdefault((each.port, each.protocol), {})
            by_address[each.address] = who.get(each.inode, "a program of the machine")
        return found

    async def _tell(self, report: Report) -> None:
        node = self._nodes.get(self._node_name)
        text = msgspec.json.encode(report).decode()
        if node is not None and node.metadata.annotations.get(ANNOTATION) != text:
            await self._client.patch(Node, self._node_name, {"metadata": {"annotations": {ANNOTATION: text}}})


def host_ports(pod: Pod, node_name: str) -> tuple[tuple[PortKey, str], ...]:
    """Ports of its node that lead to a pod. One in the machine's own network listens itself."""
    spec, status = pod.spec, pod.status
    if spec is None or spec.node_name != node_name or spec.host_network:
        return ()
    if status is not None and status.phase in ("Succeeded", "Failed"):
        return ()
    found = []
    for container in (*spec.init_containers, *spec.containers):
        for port in container.ports:
            addresses = [port.host_ip] if port.host_ip else ANYWHERE.values()
            found += [((port.host_port, port.protocol or "TCP"), each) for each in addresses if port.host_port]
    return tuple(found)
