"""A node of a cluster that runs elsewhere: one node's parts, over HTTPS.

    membership        whom to trust, and the node's own certificate (joining)
    cluster           what all nodes have in common; this node's object and its ranges of pod addresses
    parts             the same as in `knarr up` (node_parts)

Nothing here is needed to keep containers and rules running: when this process dies they stay, and the next one finds
them again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
import uvloop

from knarr.api.core.cluster_info import SETTINGS, ClusterSettings, settings_of
from knarr.api.core.v1 import ConfigMap, Node, NodeSpec
from knarr.api.errors import APIError, Forbidden, NotFound, ServiceUnavailable, Unauthorized
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import with_metrics
from knarr.cli import machine, teardown
from knarr.cli.ingress import joined_ingress
from knarr.cli.joining import Invitation, JoinRefused, Membership
from knarr.cli.life import Life, Loop, node_is_ready, seen, write_logs
from knarr.cli.lock import DataFolderLock
from knarr.cli.machine import NodeSettings
from knarr.cli.node_parts import NodeParts
from knarr.cli.progress import Progress
from knarr.client.client import Client
from knarr.client.https import HTTPSTransport
from knarr.client.informer import Informers
from knarr.node.certificates import CLIENT, NodeCertificates, RequestDenied, serving
from knarr.node.kubelet_access import KubeletAccess
from knarr.node.kubelet_server import KubeletServer
from knarr.node.local_volumes import HostFolders

T = TypeVar("T")

log = logging.getLogger(__name__)

RETRY_S = 1.0
SERVING_RETRY_S = 30.0
SERVING_S_MAX = 10.0
"""How long the start waits for the node's serving certificate: somebody else may have to approve it."""
POLL_S = 0.2


class NodeFlags(msgspec.Struct, frozen=True, kw_only=True):
    """What `knarr node` was told, or was told when this machine joined."""

    name: str
    data_dir: str
    server: str
    node_ip: str = ""
    provider_id: str = ""
    proxy_mode: Literal["auto", "nftables", "iptables"] = "auto"
    bridge_name: str = "knarr0"
    port: int = 10250
    verbosity: int = 0

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir)


def main(flags: NodeFlags, invitation: Invitation, lock: DataFolderLock, progress: Progress, start_s: float) -> int:
    """Run until told to stop; answers the exit code."""
    write_logs(flags.verbosity)
    return uvloop.run(NodeProcess(flags, invitation, lock, progress, start_s).run())


class NodeProcess(Life):
    """One node."""

    def __init__(
        self, flags: NodeFlags, invitation: Invitation, lock: DataFolderLock, progress: Progress, start_s: float
    ) -> None:
        super().__init__(flags.data_path, lock, progress, start_s)
        self.flags = flags
        self._invitation = invitation
        self.certificates = NodeCertificates(flags.data_path / "pki", flags.name, self.clock)
        self.membership = Membership(flags.data_path, self.certificates)
        self._serving = asyncio.Event()

    async def start(self) -> list[tuple[str, Loop]]:
        flags = self.flags
        if not self.membership.is_member:
            with self._waiting(f"to join {flags.server}"):
                await self._join()
        self.context = self.membership.context()
        transport = HTTPSTransport(flags.server, self.context)
        self._closing.append(("connections", transport.close))
        self.client = Client(transport, with_metrics())
        self._found(flags.server)
        with self._waiting("the cluster's settings"):
            cluster = await self._cluster()
        with self._waiting("a range of pod addresses"):
            pod_cidrs = await self._ranges()
        settings = self._settings(cluster, pod_cidrs)
        record = teardown.Running(flags.data_dir, settings, kubeconfig="", server=flags.server)
        teardown.write_record(record)
        self.parts = parts = NodeParts(settings, self.clock)
        self._closing.append((f"node {flags.name}", lambda: self._close_node(record)))
        with self._waiting("pod network, container runtime"):
            await parts.open()
        self.runtime = parts.runtime
        self.informers = Informers(self.client, self.clock)
        loops = parts.assemble(self.client, self.informers)
        self._closing.append((f"node {flags.name} leaves", lambda: parts.leave(keep=self._keep)))
        edge = joined_ingress(settings, self.client, self.informers, self.clock)
        loops.append((edge.name, edge.run))
        parts.backend.sources.append(edge.figures)
        self._closing.append((edge.name, edge.close))
        with self._waiting("DNS"):
            await parts.serve()
        loops.append(("certificate", lambda: self.certificates.keep(CLIENT, self.client, self._renewed)))
        loops.append(("kubelet server", self._serve_kubelet))
        loops.append(("informers", self.informers.run))
        return loops

    async def usable(self) -> None:
        with self._waiting("node Ready"):
            own = self.informers.of(Node)
            await seen(own, lambda node: node.metadata.name == self.flags.name and node_is_ready(node))
        with self._waiting("serving certificate"), suppress(TimeoutError):
            async with self.clock.timeout(SERVING_S_MAX):
                await self._serving.wait()

    async def status(self) -> dict[str, Any]:
        """For `knarr status`."""
        parts: NodeParts | None = getattr(self, "parts", None)
        mode = parts.settings.proxy_mode if parts else self.flags.proxy_mode
        return {**await super().status(), "node": self.flags.name, "proxyMode": mode}

    async def _join(self) -> None:
        """The server may be away for a while; that it refuses is final."""
        try:
            await self._patiently(lambda: self.membership.join(self._invitation))
        except (Unauthorized, Forbidden) as error:
            raise JoinRefused(f"{self.flags.server} refuses: {error}") from error

    async def _cluster(self) -> ClusterSettings:
        namespace, name = SETTINGS
        return settings_of((await self._patiently(lambda: self.client.get(ConfigMap, name, namespace))).data)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The server may be away for a while."""
        told = ""
        while True:
            try:
                return await ask()
            except ServiceUnavailable as error:
                if told != str(error):
                    told = str(error)
                    self._progress.say(f"knarr: {error}; trying again")
            await self.clock.sleep(RETRY_S)

    async def _ranges(self) -> tuple[str, ...]:
        """This node's ranges, from its object, which is made where there is none yet."""
        while True:
            node = await self._patiently(self._own_node)
            if node.spec and node.spec.pod_cidrs:
                return tuple(node.spec.pod_cidrs)
            await self.clock.sleep(POLL_S)

    async def _own_node(self) -> Node:
        name = self.flags.name
        try:
            return await self.client.get(Node, name)
        except NotFound:
            return await self.client.create(Node(metadata=ObjectMeta(name=name), spec=NodeSpec()))

    def _settings(self, cluster: ClusterSettings, pod_cidrs: tuple[str, ...]) -> NodeSettings:
        flags = self.flags
        said = tuple(str(ip_address(each)) for each in flags.node_ip.split(",")) if flags.node_ip else ()
        first = said[0] if said else machine.address_towards(urlsplit(flags.server).hostname or "")
        addresses = said if len(said) == 2 else machine.internal_ips(first, cluster.cluster_cidrs)
        return NodeSettings(
            name=flags.name,
            data_dir=flags.data_dir,
            internal_ips=addresses,
            pod_cidrs=pod_cidrs,
            provider_id=flags.provider_id,
            port=flags.port,
            proxy_mode=machine.usable_proxy_mode(flags.proxy_mode),
            bridge_name=flags.bridge_name,
            **msgspec.structs.asdict(cluster),
        )

    async def _serve_kubelet(self) -> None:
        """For the API server, once the node has a certificate for its addresses."""
        settings = self.parts.settings
        wanted = serving((settings.name, *settings.internal_ips))
        access = KubeletAccess(self.client, self.clock, settings.name)
        folders = HostFolders(settings.volume_folder)
        server = KubeletServer(
            self.parts.backend, lambda: self.parts.agent.pods, access, self.clock, settings.name, folders
        )
        certificate, key = self.certificates.paths(wanted)
        while True:
            try:
                await self.certificates.ensure(wanted, self.client)
                break
            except (APIError, RequestDenied) as failure:
                log.warning("no serving certificate yet: %s", failure)
                await self.clock.sleep(SERVING_RETRY_S)
        await server.start(None, settings.port, self.membership.ca_path, certificate, key)
        self._serving.set()
        try:
            await self.certificates.keep(wanted, self.client, lambda: server.renewed(certificate, key))
        finally:
            await server.close()

    def _renewed(self) -> None:
        """New connections show the new certificate."""
        certificate, key = self.certificates.paths(CLIENT)
        self.context.load_cert_chain(certificate, key)

    async def _close_node(self, record: teardown.Running) -> list[str]:
        left = await self.parts.close(keep=self._keep)
        if not self._keep and not left:
            teardown.write_record(msgspec.structs.replace(record, clean=True))
        return left
